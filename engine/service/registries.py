"""Asking registries on behalf of one request: as whom, whether a login holds, what is there, what is found."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from engine.base.cancel import CancelToken
from engine.errors import Corrupt, InvalidInput, NotFound, Unauthorized, Unsupported
from engine.model import Distribution, RegistryAuth, RegistryMatch
from engine.oci.manifest import Index
from engine.oci.reference import Reference
from engine.registry.config import Credentials, RegistryConfig
from engine.registry.connections import Connections
from engine.registry.credentials import HUB, canonical

if TYPE_CHECKING:
    from engine.oci.manifest import Manifest
    from engine.registry.artifact import Artifact
    from engine.registry.transport import Session
    from engine.store.store import Store

_HUB_INDEX = "index.docker.io"  # the Hub's search is not where its images are
_SEARCH_LIMIT = 4 << 20  # bytes of an answer
_CONFIG_LIMIT = 4 << 20
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,254}")


_open: WeakKeyDictionary[Store, Connections] = WeakKeyDictionary()


def _connections(store: Store) -> Connections:
    """Those that everything on this store shares; they close with it."""
    found = _open.get(store)
    if found is None:
        found = _open[store] = Connections()
        store.closing.append(found.close)
    return found


def registry_config(store: Store, auths: Sequence[RegistryAuth] = ()) -> RegistryConfig:
    """The host's configuration, with these credentials in the place of stored ones."""
    config = replace(RegistryConfig.load(store.root), connections=_connections(store))
    given = {
        _host(auth.server): Credentials(auth.username, auth.password, auth.identity_token)
        for auth in auths
        if auth.username or auth.identity_token
    }
    return replace(config, credentials={**config.credentials, **given}) if given else config


def _host(server: str) -> str:
    """`https://index.docker.io/v1/`, `HOST:PORT`, "" (the Hub): how the configuration calls that registry."""
    return canonical(server.split("://")[-1].split("/")[0]) or HUB


def login(store: Store, auth: RegistryAuth) -> None:
    """Returns when the registry accepts `auth`. Raises `Unauthorized`, `Unavailable`."""
    from engine.registry.login import try_login

    credentials = Credentials(auth.username, auth.password, auth.identity_token)
    try_login(_host(auth.server), credentials, registry_config(store))


def distribution(store: Store, name: str, auth: RegistryAuth | None, cancel: CancelToken) -> Distribution:
    """Raises `NotFound`, `Unauthorized`, `Unavailable`, `Corrupt`."""
    from engine.registry.artifact import Artifact

    reference = Reference.parse(name).with_default_tag()
    config = registry_config(store, [auth] if auth else [])
    artifact = Artifact(reference, store.blobs, config, progress=lambda event: None, cancel=cancel)
    try:
        top = artifact.top()
        return Distribution(top.media_type, str(top.digest), len(top.raw), _platforms(artifact, top))
    finally:
        artifact.close()


def _platforms(artifact: Artifact, top: Manifest | Index) -> tuple[str, ...]:
    if isinstance(top, Index):
        return tuple(str(one.platform) for one in top.manifests if one.platform is not None)
    try:
        document = json.loads(artifact.document(top.config, _CONFIG_LIMIT))
    except ValueError:
        raise Corrupt("the image's config is not JSON") from None
    parts = (document.get(key) for key in ("os", "architecture", "variant")) if isinstance(document, dict) else ()
    named = "/".join(str(part) for part in parts if part)
    return (named,) if named else ()


def search(
    store: Store, term: str, limit: int, auth: RegistryAuth | None, cancel: CancelToken
) -> Sequence[RegistryMatch]:
    """`term` is what to look for on Docker Hub, or `HOST/what`. Asks `/v1/search` (the Hub's, Quay's, Harbor's); where a
    registry has none, the names of its catalog that hold the words (distribution-spec lists no other way)."""
    from engine.registry.net import Network
    from engine.registry.transport import Session

    domain, words = _split(term)
    config = registry_config(store, [auth] if auth else [])
    endpoint = config.registry(domain)
    if domain == HUB:
        endpoint = replace(endpoint, host=_HUB_INDEX)
    stop = CancelToken()
    cancel.on_cancel(stop.cancel)
    network = Network(config, stop, replace(config.retry, tries=2))
    session = Session(
        endpoint, lambda: config.credentials_for(config.registry(domain)), network, f"a search for {words!r}"
    )
    try:
        try:
            return _search_v1(session, words, limit)
        except NotFound:
            return _catalog(session, domain, words, limit)
    finally:
        stop.cancel()


def _split(term: str) -> tuple[str, str]:
    """The registry and the words. Raises `InvalidInput`."""
    first, slash, rest = term.partition("/")
    here = slash and ("." in first or ":" in first or first == "localhost")
    domain, words = (_host(first), rest) if here else (HUB, term)
    if not _TERM.fullmatch(words):
        raise InvalidInput(f"invalid search term {term[:80]!r}", hint="letters, digits and . _ - / after the registry")
    return domain, words.removeprefix("library/") if domain == HUB else words


def _search_v1(session: Session, words: str, limit: int) -> list[RegistryMatch]:
    document = _asked(session, f"/v1/search?q={quote(words, safe='')}&n={limit}", "")
    rows = document.get("results")
    if not isinstance(rows, list):
        raise Corrupt(f"registry {session.endpoint.label}: its search gave no results that can be read")
    return [
        RegistryMatch(
            str(row["name"]),
            str(row.get("description") or ""),
            row["star_count"] if isinstance(row.get("star_count"), int) else 0,
            row.get("is_official") is True,
            row.get("is_automated") is True,
        )
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("name"), str)
    ][:limit]


def _catalog(session: Session, domain: str, words: str, limit: int) -> list[RegistryMatch]:
    try:
        document = _asked(session, "/v2/_catalog?n=1000", "registry:catalog:*")
    except (NotFound, Unauthorized) as error:
        raise Unsupported(f"registry {domain} has no search", hint="name the image in full to pull it") from error
    names = document.get("repositories")
    found = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [RegistryMatch(f"{domain}/{name}") for name in found if words in name][:limit]


def _asked(session: Session, path: str, scope: str) -> dict[str, Any]:
    raw, _ = session.fetch(path, scope, accept="application/json", limit=_SEARCH_LIMIT, kind="the answer")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise NotFound(f"registry {session.endpoint.label}: it answers a search with something else than JSON")
    return document
