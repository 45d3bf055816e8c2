"""What is behind a name in a registry, piece by piece: its manifest or index, its documents, its blobs as they are asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from engine.base.cancel import CancelToken
from engine.errors import Corrupt, NotFound
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.media import OCI_INDEX
from engine.oci.reference import Reference
from engine.registry.blob import BlobProgress, BlobSink
from engine.registry.config import RegistryConfig
from engine.registry.net import Network
from engine.registry.pull import MANIFEST_LIMIT, Puller
from engine.registry.transport import Session

_MAX_PAGES = 100
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')


class Artifact:
    """Usable from several threads until `close`. Methods raise NotFound, Unauthorized, Unavailable, Corrupt, Cancelled."""

    def __init__(
        self,
        reference: Reference,
        sink: BlobSink,
        config: RegistryConfig,
        *,
        progress: Callable[[BlobProgress], None],
        cancel: CancelToken,
    ) -> None:
        self._stop = CancelToken()
        cancel.on_cancel(self._stop.cancel)
        self._network = Network(config, self._stop)
        self._pull = Puller(reference.with_default_tag(), sink, config, self._network, progress)

    def close(self) -> None:
        self._stop.cancel()

    def top(self) -> Manifest | Index:
        reference = self._pull.reference
        wanted = reference.digest
        name = str(wanted) if wanted is not None else reference.tag
        return self._pull.anywhere(lambda session: self._pull.manifest(session, name, wanted, None))

    def child(self, descriptor: Descriptor) -> Manifest | Index:
        """What an index names."""
        digest, size = descriptor.digest, descriptor.size
        return self._pull.anywhere(lambda session: self._pull.manifest(session, str(digest), digest, size))

    def document(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, verified."""
        what = f"blob {descriptor.digest.short} of {self._pull.what}"
        if descriptor.size > limit:
            raise Corrupt(f"{what} claims {descriptor.size} bytes, more than {limit}")
        path = self._pull.blob_path(descriptor)

        def fetch(session: Session) -> bytes:
            raw, _ = session.fetch(path, self._pull.scope, accept="*/*", limit=descriptor.size, kind="the document")
            if len(raw) != descriptor.size or not descriptor.digest.matches(raw):
                raise Corrupt(f"{what}: its bytes are not those that the manifest names")
            return raw

        return self._pull.anywhere(fetch)

    def blob(self, descriptor: Descriptor) -> None:
        """Into the sink, unless it is there."""
        self._pull.layer(descriptor)

    def tags(self) -> list[str]:
        """Every tag of the repository (distribution-spec, "Listing Tags"), page by page."""
        path = f"/v2/{self._pull.reference.path}/tags/list"
        what = f"the list of tags of {self._pull.reference.familiar_name}"

        def page(query: str) -> tuple[list[str], str]:
            def fetch(session: Session) -> tuple[list[str], str]:
                where, kind = path + query, "the list of tags"
                raw, headers = session.fetch(
                    where, self._pull.scope, accept="application/json", limit=MANIFEST_LIMIT, kind=kind
                )
                try:
                    document = json.loads(raw)
                    names = document["tags"] or []
                    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
                except (ValueError, LookupError, TypeError, RecursionError):
                    good = False
                if not good:
                    raise Corrupt(f"{what} from registry {session.endpoint.label} cannot be read")
                return names, headers.get("link", "")

            return self._pull.anywhere(fetch)

        found, link = page("")
        for _ in range(_MAX_PAGES):
            match = _NEXT.search(link)
            if match is None:
                return found
            # Only the query of the address is used: another place is not asked.
            more, link = page(f"?{urlsplit(match[1]).query}")
            found += more
        raise Corrupt(f"{what} has no end")

    def referrers(self, subject: Digest, artifact_type: str = "") -> list[dict[str, Any]]:
        """Descriptors of what refers to `subject` (distribution-spec 1.1, "Listing Referrers"): all pages of the API, or the
        index under the tag that stands in for it where a registry has no such API."""
        try:
            found = self._pages(f"/v2/{self._pull.reference.path}/referrers/{subject}", artifact_type)
        except NotFound:
            tag = f"{subject.algorithm}-{subject.hex}"
            try:
                found = self._page(f"/v2/{self._pull.reference.path}/manifests/{tag}")[0]
            except NotFound:
                return []
        return [one for one in found if not artifact_type or one.get("artifactType") == artifact_type]

    def _pages(self, path: str, artifact_type: str) -> list[dict[str, Any]]:
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        found: list[dict[str, Any]] = []
        following = path + query
        for _ in range(_MAX_PAGES):
            page, link = self._page(following)
            found += page
            match = _NEXT.search(link)
            # The rest of the list is another query of the same address; anything else is not followed.
            if match is None or urlsplit(match[1]).path not in (path, ""):
                return found
            following = f"{path}?{urlsplit(match[1]).query}"
        raise Corrupt(f"the list of what refers to {subject_of(path)} has no end")

    def _page(self, path: str) -> tuple[list[dict[str, Any]], str]:
        def fetch(session: Session) -> tuple[bytes, str]:
            kind = "the list of referrers"
            raw, headers = session.fetch(path, self._pull.scope, accept=OCI_INDEX, limit=MANIFEST_LIMIT, kind=kind)
            return raw, headers.get("link", "")

        raw, link = self._pull.anywhere(fetch)
        document = parse_manifest(raw)
        if not isinstance(document, Index):
            raise Corrupt(f"the list of what refers to {subject_of(path)} is no index")
        entries = document.document.get("manifests")
        return [dict(one) for one in entries if isinstance(one, dict)] if isinstance(entries, list) else [], link


def subject_of(path: str) -> str:
    return path.partition("?")[0].rpartition("/")[2]
