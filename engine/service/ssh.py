"""Images to and from another host over one SSH connection, with no registry at either end.

The local store is served on a loopback port that the connection forwards to the other side's loopback; there the other engine
(workbench, Docker or Podman) pulls or pushes with its own command, and so moves only the blobs that are missing, resumes as
it always does, and keeps every digest. A password made for this one transfer guards the port.

Where the other side's sshd forwards no ports, the image goes as an archive through the engine's `save` and `load` instead (see
`ssh_archive`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from engine.base.cancel import CancelToken
from engine.errors import Unavailable
from engine.model import Comparison, PullProgress
from engine.oci.media import OCI_LAYER
from engine.oci.reference import Reference
from engine.registry.config import is_loopback
from engine.registry.server import RegistryServer, Serving
from engine.service import tree_list
from engine.service.archives import ArchiveService
from engine.service.ssh_archive import receive, send
from engine.service.ssh_host import Host, NoForwarding, capture, forwarding, reading
from engine.store.images import Image
from engine.store.store import Store

Emit = Callable[[PullProgress], None]
_REPORT_SECONDS = 0.2

# On the other host. Words in capitals are filled in.
ACCESS = """
umask 077; set -e
read -r port; read -r auth
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$port" "$auth" > "$d/config.json"
there="127.0.0.1:$port/"NAME
DOCKER_CONFIG="$d"; REGISTRY_AUTH_FILE="$d/config.json"; export DOCKER_CONFIG REGISTRY_AUTH_FILE
plain=; [ "$engine" = podman ] && plain=--tls-verify=false
"""
_GIVE = """
"$engine" pull -q $plain "$there" >&2
"$engine" tag "$there" TARGET >&2
"$engine" rmi "$there" >/dev/null
echo "$engine"
"""
_TAKE = """
"$engine" tag SOURCE "$there" >&2
"$engine" push -q $plain "$there" >&2 || { "$engine" rmi "$there" >/dev/null; exit 1; }
"$engine" rmi "$there" >/dev/null
echo "$engine"
"""
_INSPECT = """
echo "$engine"
exec "$engine" image inspect SOURCE
"""


_PYTHON = """
command -v python3 || true
"""
# A container that never starts: what `export` gives of it are the image's files.
_CONTAINER = """
box=$("$engine" create --network none SOURCE /none) || exit 1
trap '"$engine" rm -f "$box" >/dev/null' EXIT
"""
_LIST = (
    _CONTAINER
    + """
"$engine" export "$box" | python3 -I -c LISTING
"""
)
_EXPORT = (
    _CONTAINER
    + """
"$engine" export "$box"
"""
)


class SshService:
    def __init__(self, store: Store, archives: ArchiveService) -> None:
        self._store, self._archives = store, archives

    def push(self, url: str, name: str, cancel: CancelToken, emit: Emit = lambda event: None) -> str:
        """The image `name` becomes an image of the other host, under the same name. Returns which engine took it."""
        host = Host.parse(url)
        with self._store.using():
            image = self._store.images.get(name)
            target = Reference.parse(
                name if image.tags and not _is_id(image, name) else f"workbench/{image.digest.short}"
            ).with_default_tag()
            temporary = f"transfer/{secrets.token_hex(8)}:1"
            self._store.images.tag(image, Reference.parse(temporary))
            if index := self._store.indexes.find(name):  # the other host takes what fits it
                self._store.indexes.put(str(Reference.parse(temporary)), index, image.digest)
            try:
                script = host.script(ACCESS + _GIVE, NAME=temporary, TARGET=target.familiar)
                plain = [layer for layer in self._store.images.manifest(image).layers if layer.media_type == OCI_LAYER]
                # Plain layers are packed on the way by ssh itself, where there is a network between.
                far = bool(plain) and not is_loopback(host.host)
                return self.transfer(host, script, cancel, emit, read_only=True, packed=far)
            except NoForwarding as error:
                emit(_fallback(error))
                return send(self._store, self._archives, host, image, target.familiar, cancel, emit)
            finally:
                self._store.images.untag(str(Reference.parse(temporary)))

    def pull(self, url: str, name: str, cancel: CancelToken, emit: Emit = lambda event: None) -> Image:
        """The other host's image `name` becomes an image here, under the same name."""
        host = Host.parse(url)
        reference = Reference.parse(name).with_default_tag()
        engine, there = self.inspect(host, name)
        if not there.get("RepoTags"):
            # To be pushed it would need a name, and taking that away again would remove the image there.
            emit(PullProgress("", "", "resolving", text=f"{name} has no name on {host}: it comes whole, as an archive"))
            return receive(self._archives, self._store, host, engine, name, cancel, emit)
        try:
            image = self._pushed(host, _TAKE, cancel, emit, SOURCE=name)
        except NoForwarding as error:
            emit(_fallback(error))
            return receive(self._archives, self._store, host, engine, name, cancel, emit)
        if not reference.digest and not _is_id(image, name):
            self._store.images.tag(image, reference)
        return self._store.images.get(image.digest)

    def _pushed(self, host: Host, body: str, cancel: CancelToken, emit: Emit, **words: str) -> Image:
        with self.pushing(host, body, cancel, emit, **words) as name:
            image = self._store.images.find(f"{name}:1")
            if image is None:
                raise Unavailable(
                    f"{host} pushed no image that this machine can run", hint="it is for another kind of machine"
                )
            self._archives.unpack(image)
            return image

    @contextlib.contextmanager
    def pushing(self, host: Host, body: str, cancel: CancelToken, emit: Emit, **words: str) -> Iterator[str]:
        """Runs a script there that pushes to `$there` (tag 1) or `$there` with other tags; what came is in the store, in a
        repository whose name is the block's, and goes with the block unless something else names it."""
        name = f"transfer/{secrets.token_hex(8)}"
        script = host.script(ACCESS + body, NAME=f"{name}:1", **words)
        with self._store.using():
            try:
                self.transfer(host, script, cancel, emit, read_only=False)
                yield name
            finally:
                full = Reference.parse(name).name
                self._store.served.forget(full)
                for image in self._store.images.list():
                    for tag in image.tags:
                        if tag.startswith(f"{full}:"):
                            self._store.images.untag(tag)

    def inspect(self, host: Host, name: str) -> tuple[str, dict[str, Any]]:
        """Which engine answered, and its `image inspect` of `name`. Raises `NotFound`, `Unavailable`."""
        engine, _, text = capture(host, host.script(_INSPECT, SOURCE=name)).partition("\n")
        return engine, document(host, engine, name, text)

    def verify(self, url: str, name: str) -> list[Comparison]:
        """The image's config, layers, and (where both sides know one for the same repository) manifest, side by side."""
        image = self._store.images.get(name)
        host = Host.parse(url)
        _, there = self.inspect(host, name)
        config = self._store.images.config(image)
        other = str(there.get("Id", ""))
        other = other if other.startswith("sha256:") else f"sha256:{other}"
        layers = [str(one) for one in (there.get("RootFS") or {}).get("Layers") or ()]
        mine = list(map(str, config.diff_ids))
        rows = [Comparison("config", image.config_digest, other)]
        for index in range(max(len(mine), len(layers))):
            here, other = (side[index] if index < len(side) else "none" for side in (mine, layers))
            rows.append(Comparison(f"layer {index + 1}", here, other))
        theirs = [text.rpartition("@")[2] for text in there.get("RepoDigests") or () if isinstance(text, str)]
        if theirs:
            known = {image.digest, *(text.rpartition("@")[2] for text in self._store.images.repo_digests(image))}
            shared = [digest for digest in theirs if digest in known]
            rows.append(_manifests(image, theirs[0], shared, alike=all(row.same for row in rows)))
        return rows

    def verify_files(
        self, url: str, name: str, export: Callable[[str, BinaryIO], None], cancel: CancelToken
    ) -> list[Comparison]:
        """What differs between the files of the image here and there: a row for each path. `export` writes an image's files as a
        tar. Each side hashes its own; where the other host has no Python, its files come here to be hashed."""
        host = Host.parse(url)
        _, there = self.inspect(host, name)
        found = capture(host, host.script(_PYTHON)).strip()
        words = {"SOURCE": str(there.get("Id") or name)}
        if found:
            words["LISTING"] = Path(tree_list.__file__).read_text()
        with reading(host, host.script(_LIST if found else _EXPORT, **words), cancel) as out:
            theirs = {row[0]: row[1:] for row in (map(json.loads, out) if found else tree_list.entries(out))}
        mine = {str(row[0]): row[1:] for row in _listed(lambda out: export(name, out))}
        return _differences(mine, {str(path): facts for path, facts in theirs.items()})

    def transfer(
        self, host: Host, script: str, cancel: CancelToken, emit: Emit, *, read_only: bool, packed: bool = False
    ) -> str:
        """Runs `script` there with access to this store as a registry; returns what it prints."""
        password = secrets.token_urlsafe(24)
        serving = Serving("127.0.0.1", 0, read_only=read_only, user="transfer", password=password, every_blob=True)
        counted = _Moved("uploading" if read_only else "downloading", emit)
        server = RegistryServer(self._store, serving, on_bytes=counted.note)
        thread = threading.Thread(target=server.serve, name="ssh-registry", daemon=True)
        thread.start()
        try:
            auth = base64.b64encode(f"transfer:{password}".encode()).decode()
            return forwarding(host, script, server.address, auth, cancel, packed=packed)
        finally:
            server.close()
            thread.join()


class _Moved:
    """All bytes that have moved, as one bar: the other engine says little about single blobs."""

    def __init__(self, phase: Literal["uploading", "downloading"], emit: Emit) -> None:
        self._phase, self._emit, self._lock = phase, emit, threading.Lock()
        self._each: dict[str, int] = {}
        self._start, self._told = time.monotonic(), 0.0

    def note(self, name: str, current: int, total: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._each[name] = current
            if now - self._told < _REPORT_SECONDS and current != total:
                return
            self._told, moved = now, sum(self._each.values())
            rate = moved / (now - self._start) if now > self._start else 0.0
            self._emit(PullProgress("", "blobs", self._phase, moved, 0, "", rate))


def _manifests(image: Image, theirs: str, shared: list[str], *, alike: bool) -> Comparison:
    if shared:
        return Comparison("manifest", shared[0], shared[0])
    # The same config and the same unpacked layers in another compression: each registry or engine packs as it likes.
    return Comparison("manifest", image.digest, theirs, packing=alike)


def _listed(export: Callable[[BinaryIO], None]) -> list[list[object]]:
    """The list of what `export` writes into a pipe."""
    reading_end, writing_end = os.pipe()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with open(writing_end, "wb", buffering=1 << 18) as out:
                export(out)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write, name="export", daemon=True)
    thread.start()
    with open(reading_end, "rb", buffering=1 << 18) as tar:
        try:
            rows = list(tree_list.entries(tar))
        except tarfile.TarError:
            rows = []
    thread.join()
    if failed:
        raise failed[0]
    return rows


_FACTS = ("kind", "mode", "owner", "group", "size", "time", "content")


def _differences(mine: Mapping[str, list[Any]], theirs: Mapping[str, list[Any]]) -> list[Comparison]:
    rows = []
    for path in sorted({*mine, *theirs}):
        here, there = mine.get(path), theirs.get(path)
        if here == there:
            continue
        if here is None or there is None:
            rows.append(
                Comparison(
                    f"/{path}", "absent" if here is None else "present", "absent" if there is None else "present"
                )
            )
            continue
        for fact, one, other in zip(_FACTS, here, there, strict=True):
            if one != other:
                shown = [f"{value:o}" if fact == "mode" else str(value)[:16] for value in (one, other)]
                rows.append(Comparison(f"/{path}", f"{fact} {shown[0]}", f"{fact} {shown[1]}"))
    return rows


def document(host: Host, engine: str, name: str, text: str) -> dict[str, Any]:
    """The first document of an `inspect`'s output."""
    try:
        found = json.loads(text)[0]
    except (ValueError, LookupError, TypeError) as error:
        raise Unavailable(f"{host}: {engine} gives no description of {name}") from error
    if not isinstance(found, dict):
        raise Unavailable(f"{host}: {engine} gives no description of {name}")
    return found


def _fallback(error: NoForwarding) -> PullProgress:
    return PullProgress("", "", "resolving", text=f"{error.message}; the image goes as an archive instead")


def _is_id(image: Image, name: str) -> bool:
    bare = name.removeprefix("sha256:")
    return image.config_digest.hex.startswith(bare) or image.digest.hex.startswith(bare)
