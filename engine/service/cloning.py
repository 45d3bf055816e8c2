"""A container of another host, beside those of this one: its image, what it changed, what is mounted in it.

There, the container is committed (not paused) and that image is pushed to this store over the SSH connection, after the image
that it was made from: so only missing blobs move, and exact whiteouts, owners and attributes come. Here the commit's own layer
becomes the new container's changes, as `diff` shows them, and the commit itself goes again at both ends. Settings are not this
module's matter: the caller turns the other engine's description into a `ContainerSpec`.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from engine.archive.reader import apply_layer
from engine.base.cancel import CancelToken
from engine.errors import Corrupt, EngineError, NotFound, Unavailable
from engine.model import ContainerSpec, LoadedImage, PullProgress
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG
from engine.oci.reference import Reference
from engine.service.archives import ArchiveService
from engine.service.ssh import SshService, document
from engine.service.ssh_host import Host, NoForwarding, capture, container_url, reading
from engine.store.images import Image
from engine.store.store import Store

Emit = Callable[[PullProgress], None]

_LOOK = """
echo "$engine"
exec "$engine" inspect --type container NAME
"""
_KINDS = """
for path in PATHS_; do
  if [ -d "$path" ]; then echo d; elif [ -f "$path" ]; then echo f; elif [ -e "$path" ]; then echo o; else echo -; fi
done
"""
# The image by a second name, which is taken away again; then the changes as an image of their own, which is removed again.
_SEND_IMAGE = """
"$engine" tag IMAGE_ "$there" >&2
"$engine" push -q $plain "$there" >&2 || { "$engine" rmi "$there" >/dev/null; exit 1; }
"$engine" rmi "$there" >/dev/null
"""
_SEND_CHANGES = """
there="${there%:1}:2"; keep=--no-prune
[ "$engine" = workbench ] && keep=
"$engine" commit --pause=false CONTAINER_ "$there" >/dev/null
"$engine" push -q $plain "$there" >&2 || { "$engine" rmi $keep "$there" >/dev/null; exit 1; }
"$engine" rmi $keep "$there" >/dev/null
"""
_SAVE = """
"$engine" save IMAGE_ | gzip -1
"""
_SAVE_CHANGES = """
keep=--no-prune; [ "$engine" = workbench ] && keep=
"$engine" commit --pause=false CONTAINER_ COMMITTED_ >/dev/null || exit 1
"$engine" save COMMITTED_ | gzip -1
"$engine" rmi $keep COMMITTED_ >/dev/null
"""
_FILES = """
exec "$engine" cp CONTAINER_:PATH_ -
"""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came: the image to create the clone from, and the layer that holds its changes (None: there are none, or they
    are in the image, and then `merged`)."""

    image: Image
    layer: Descriptor | None = None
    diff_id: Digest | None = None
    merged: bool = False


class Containers(Protocol):
    """What is needed of the container service."""

    def bundle(self, container_id: str) -> Path: ...
    def create(self, spec: ContainerSpec) -> str: ...
    def remove(self, name: str, *, force: bool, volumes: bool = False) -> None: ...


class Files(Protocol):
    def put(self, name: str, path: str, source: BinaryIO, *, cancel: CancelToken | None = None) -> None: ...


class CloneService:
    def __init__(
        self, store: Store, ssh: SshService, archives: ArchiveService, containers: Containers, files: Files
    ) -> None:
        self._store, self._ssh, self._archives = store, ssh, archives
        self._containers, self._files = containers, files

    def look(self, url: str, binds: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
        """The other engine's `inspect` of the container, and what the sources of its binds are ("d", "f", "o", "-").

        Raises `InvalidInput`, `NotFound`, `Unavailable`.
        """
        host, name = container_url(url)
        engine, _, text = capture(host, host.script(_LOOK, NAME=name)).partition("\n")
        found = document(host, engine, name, text)
        mounts = [one for one in found.get("Mounts") or () if isinstance(one, Mapping) and one.get("Type") == "bind"]
        sources = [str(one.get("Source", "")) for one in mounts]
        kinds: dict[str, str] = {}
        if sources and binds:
            script = _KINDS.replace("PATHS_", " ".join(shlex.quote(source) for source in sources))
            kinds = dict(zip(sources, capture(host, script).split(), strict=False))
        return found, kinds

    def clone(
        self,
        url: str,
        found: Mapping[str, Any],
        spec: ContainerSpec,
        copies: Sequence[tuple[str, bool]],
        *,
        changes: bool,
        cancel: CancelToken,
        emit: Emit,
    ) -> str:
        """Creates the container of `spec`, whose image is what `found` (from `look`) says. `copies`: paths in the container
        whose content comes, and whether each is a folder. Returns the new container's id."""
        host, name = container_url(url)
        with host.shared() as shared, self._store.using():
            fetched = self._fetch(shared, name, found, changes=changes, cancel=cancel, emit=emit)
            made = self._containers.create(replace(spec, image=self._called(fetched.image, found)))
            try:
                if fetched.layer is not None:
                    self._fill(made, fetched, cancel)
                for path, folder in copies:
                    emit(PullProgress("", "", "downloading", text=f"copying {path}"))
                    self._copy(shared, name, made, path, folder=folder, cancel=cancel)
            except BaseException:
                self._containers.remove(made, force=True, volumes=True)
                raise
            finally:
                self._store.sweep()
        return made

    # --- the image and the changes ------------------------------------------------------------------------

    def _fetch(
        self, host: Host, name: str, found: Mapping[str, Any], *, changes: bool, cancel: CancelToken, emit: Emit
    ) -> Fetched:
        wanted = str(found.get("Image") or "")
        wanted = wanted if ":" in wanted else f"sha256:{wanted}"
        known = self._store.images.find(wanted)
        named = known is not None or self._is_named(host, wanted)
        if named and known is not None and not changes:
            return Fetched(known)
        if not named and not changes:
            raise Unavailable(
                f"the image of {name} has no name on {host} any more: it comes only with the changes",
                hint="leave out --no-changes",
            )
        body = (_SEND_IMAGE if named and known is None else "") + (_SEND_CHANGES if changes else "")
        try:
            with self._ssh.pushing(host, body, cancel, emit, IMAGE_=wanted, CONTAINER_=name) as repository:
                base = known or (self._arrived(host, f"{repository}:1") if named else None)
                committed = self._arrived(host, f"{repository}:2") if changes else None
                return self._settled(base, committed, found)
        except NoForwarding as error:
            text = f"{error.message}; image and changes come whole, as archives"
            emit(PullProgress("", "", "resolving", text=text))
        base = known or (self._archived(host, _SAVE, cancel, emit, IMAGE_=wanted) if named else None)
        words = {"CONTAINER_": name, "COMMITTED_": f"workbench-clone/{secrets.token_hex(8)}:1"}
        committed = self._archived(host, _SAVE_CHANGES, cancel, emit, **words) if changes else None
        if committed is not None:
            for tag in self._store.images.get(committed.digest).tags:
                self._store.images.untag(tag)
        return self._settled(base, committed, found)

    def _archived(self, host: Host, body: str, cancel: CancelToken, emit: Emit, **words: str) -> Image:
        """The image of an archive that a script prints there."""
        loaded: list[LoadedImage] = []

        def note(event: PullProgress | LoadedImage) -> None:
            loaded.append(event) if isinstance(event, LoadedImage) else emit(event)

        with reading(host, host.script(body, **words), cancel) as archive:
            self._archives.load(archive, note, cancel)
        return self._store.images.get(loaded[0].digest)

    def _settled(self, base: Image | None, committed: Image | None, found: Mapping[str, Any]) -> Fetched:
        if base is not None:
            self._name(base, _name_there(found))
        if committed is None:
            assert base is not None  # one of the two was asked for
            return Fetched(base)
        return self._divided(base, committed)

    def _is_named(self, host: Host, image: str) -> bool:
        try:
            return bool(self._ssh.inspect(host, image)[1].get("RepoTags"))
        except NotFound:
            return False

    def _arrived(self, host: Host, name: str) -> Image:
        image = self._store.images.find(name)
        if image is None:
            raise Unavailable(
                f"{host} sent no image that this machine can run", hint="it is for another kind of machine"
            )
        self._archives.unpack(image)
        return self._store.images.get(image.digest)

    def _called(self, image: Image, found: Mapping[str, Any]) -> str:
        """The image's name there, if it means the same here."""
        try:
            same = self._store.images.find(_name_there(found))
        except EngineError:
            same = None
        return _name_there(found) if same is not None and same.digest == image.digest else str(image.digest)

    def _name(self, image: Image, name: str) -> None:
        """The name that the image has there, where it means nothing else here."""
        try:
            reference = Reference.parse(name).with_default_tag()
        except EngineError:
            return
        if not reference.digest and self._store.images.find(str(reference)) is None:
            self._store.images.tag(image, reference)

    def _divided(self, base: Image | None, committed: Image) -> Fetched:
        """The commit's own layer, and the image below it; the commit as an image when that cannot be told apart."""
        config, manifest = self._store.images.config(committed), self._store.images.manifest(committed)
        below = self._store.images.config(base).diff_ids if base is not None else ()
        extra = len(config.diff_ids) - len(below)
        if base is not None and extra in (0, 1) and config.diff_ids[: len(below)] == below:
            if committed.digest != base.digest:
                self._store.images.forget(self._store.images.get(committed.digest))
            return Fetched(base, manifest.layers[-1], config.diff_ids[-1]) if extra else Fetched(base)
        return Fetched(self._bare(committed, config), merged=True)

    def _bare(self, committed: Image, config: ImageConfig) -> Image:
        """The commit without the settings of the container that it took along: its environment may hold secrets."""
        plain = config.with_config(
            Env=None, Cmd=None, Entrypoint=None, Labels=None, Healthcheck=None, Volumes=None, ExposedPorts=None
        )
        raw = plain.to_bytes()
        layers = self._store.images.manifest(committed).layers
        manifest = build_manifest(Descriptor(OCI_CONFIG, self._store.blobs.put(raw), len(raw)), layers)
        image = self._store.images.put(manifest, plain, committed.size, [])
        self._store.images.forget(self._store.images.get(committed.digest))
        return image

    def _fill(self, container_id: str, fetched: Fetched, cancel: CancelToken) -> None:
        assert fetched.layer is not None
        with self._store.open_layer(fetched.layer) as tar:
            applied = apply_layer(tar, self._containers.bundle(container_id) / "upper", cancel=cancel)
        if applied.diff_id != fetched.diff_id:
            raise Corrupt("the changes arrived damaged: they do not hash to their digest", hint="clone again")

    # --- what is mounted ----------------------------------------------------------------------------------

    def _copy(self, host: Host, name: str, made: str, path: str, *, folder: bool, cancel: CancelToken) -> None:
        there = f"{path.rstrip('/')}/." if folder else path
        script = host.script(_FILES, CONTAINER_=name, PATH_=there)
        into = path if folder else path.rpartition("/")[0] or "/"
        with reading(host, script, cancel) as tar:
            self._files.put(made, into, tar, cancel=cancel)


def _name_there(found: Mapping[str, Any]) -> str:
    return str((found.get("Config") or {}).get("Image") or "")
