"""An image from a registry into a sink: name to manifest, index to platform, config and layers in parallel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from engine.base.cancel import CancelToken
from engine.errors import (
    Cancelled,
    Corrupt,
    EngineError,
    InvalidInput,
    NotFound,
    Unauthorized,
    Unavailable,
    Unsupported,
    from_os_error,
)
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, artifact_type, parse_manifest
from engine.oci.media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    is_foreign,
)
from engine.oci.platform import Platform, choose
from engine.oci.reference import Reference
from engine.registry.blob import BlobProgress, BlobSink, BlobWriter, Phase, download
from engine.registry.config import RegistryConfig
from engine.registry.errors import corrupt
from engine.registry.net import Network
from engine.registry.transport import Session, repeating
from engine.registry.wire import Response

__all__ = ["BlobProgress", "BlobSink", "BlobWriter", "Pulled", "Puller", "pull"]

T = TypeVar("T")
MANIFEST_LIMIT = 4 << 20
_ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))
_INDEX_DEPTH = 3
# Types that say nothing about the content; the document's own mediaType decides then.
_VAGUE = {"", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream"}


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pulled image. `repo_digest` is what the name resolved to (an index, if it was one): `python@sha256:…`."""

    manifest: Manifest
    config: ImageConfig
    repo_digest: str


def pull(
    reference: Reference,
    sink: BlobSink,
    config: RegistryConfig,
    *,
    platform: Platform,
    progress: Callable[[BlobProgress], None],
    on_image: Callable[[Manifest, ImageConfig], None] | None = None,
    on_layer: Callable[[int, Descriptor], None] | None = None,
    here: Callable[[], Collection[Digest]] | None = None,
    cancel: CancelToken | None = None,
    concurrency: int = 4,
) -> Pulled | Digest:
    """Pulls `reference` for `platform`; blobs that `sink` has are not fetched. The manifest is committed last.

    With `here` the registry is first asked for the digest alone that the name stands for (a question that Docker Hub does not
    count); where that is one of those that `here`, called meanwhile, names as being here whole, nothing more is done, and it is
    returned.

    `progress` is called from worker threads, one call at a time. In the calling thread, `on_image` is called before the
    first layer, and `on_layer(index, descriptor)` once per layer, in the order in which blobs arrive, while the others are
    still downloading.
    Raises NotFound, Unauthorized, Unavailable, Corrupt, Cancelled, or what the sink and the callbacks raise.
    """
    # A token of our own: the first failure stops the other threads without cancelling the caller's other work.
    stop = CancelToken()
    if cancel is not None:
        cancel.on_cancel(stop.cancel)
    network = Network(config, stop)
    try:
        return Puller(reference.with_default_tag(), sink, config, network, progress).run(
            platform, on_image, on_layer, concurrency, here
        )
    except OSError as error:
        raise from_os_error(error, f"pulling {reference.familiar}") from error
    finally:
        stop.cancel()


class Puller:
    """The state of one pull: its endpoints, and which of them answered."""

    def __init__(
        self,
        reference: Reference,
        sink: BlobSink,
        config: RegistryConfig,
        network: Network,
        progress: Callable[[BlobProgress], None],
    ) -> None:
        self.reference, self.sink, self.network = reference, sink, network
        self.what = reference.familiar
        self.scope = f"repository:{reference.path}:pull"
        self.sessions = [
            Session(endpoint, partial(config.credentials_for, endpoint), network, self.what)
            for endpoint in config.endpoints(reference.domain)
        ]
        self._progress, self._lock = progress, threading.Lock()

    def run(
        self,
        platform: Platform,
        on_image: Callable[[Manifest, ImageConfig], None] | None,
        on_layer: Callable[[int, Descriptor], None] | None,
        concurrency: int,
        here: Callable[[], Collection[Digest]] | None = None,
    ) -> Pulled | Digest:
        if here is not None and (now := self._still(here)) is not None:
            return now
        top, manifest = self._resolve(platform)
        if kind := artifact_type(manifest):
            raise Unsupported(
                f"{self.what} is not an image: it is an artifact of type {kind}",
                hint=f"`workbench manifest inspect {self.what}` shows it; a tool for artifacts (oras, helm) fetches its files",
            )
        foreign = [layer for layer in manifest.layers if is_foreign(layer.media_type)]
        if foreign:
            # CVE-2020-15157: the addresses in `urls` are the image author's word, and get no request from us.
            raise Unsupported(
                f"image {self.what} has layers that its registry does not hold ({foreign[0].media_type})",
                hint="it is a Windows image or one with non-distributable layers; choose another tag",
            )
        raw, image = self._config(manifest)
        if on_image is not None:
            on_image(manifest, image)
        self._layers(manifest, on_layer, concurrency)
        self._commit(manifest.config.digest, raw)
        self._commit(manifest.digest, manifest.raw)
        return Pulled(manifest, image, f"{self.reference.familiar_name}@{top}")

    # --- manifest ---

    def _still(self, here: Callable[[], Collection[Digest]]) -> Digest | None:
        """What the name stands for, if that is `here`. What an endpoint says is only compared, never believed."""
        name = str(self.reference.digest or self.reference.tag)
        session, path = self.sessions[0], f"/v2/{self.reference.path}/manifests/{name}"
        asked = session.ask("HEAD", path, self.scope, {"accept": _ACCEPT}, b"")
        try:
            whole = here()
        except BaseException:
            if asked is not None:
                asked.drop()
            raise
        response = session.answer(asked, self.scope) if asked is not None else None
        if response is not None:
            response.close()
        if not whole:
            return None
        if response is not None and response.status_code == 200:
            now = self._claimed(response)
        else:
            now = self.anywhere(partial(self._digest, path))
        return now if now in whole else None

    def _digest(self, path: str, session: Session) -> Digest | None:
        def attempt() -> Digest | None:
            ok = (200, 400, 405, 501)  # it has no HEAD: the answer to a GET says all
            with session.request("HEAD", path, self.scope, {"accept": _ACCEPT}, ok=ok) as response:
                return self._claimed(response) if response.status_code == 200 else None

        return repeating(self.network.retry, self.network.cancel, attempt)

    @staticmethod
    def _claimed(response: Response) -> Digest | None:
        claimed = response.headers.get("docker-content-digest", "")
        try:
            return Digest.parse(claimed) if claimed else None
        except InvalidInput:
            return None

    def _resolve(self, platform: Platform) -> tuple[Digest, Manifest]:
        """The digest that the name stands for, and the manifest behind it."""
        wanted: Digest | None = self.reference.digest
        name = str(wanted) if wanted is not None else self.reference.tag
        document = self.anywhere(lambda session: self.manifest(session, name, wanted, None))
        top = wanted if wanted is not None else document.digest
        for _ in range(_INDEX_DEPTH):
            if isinstance(document, Manifest):
                return top, document
            chosen = self._choose(document, platform)
            document = self._here(chosen) or self.anywhere(
                lambda session, one=chosen: self.manifest(session, str(one.digest), one.digest, one.size)  # type: ignore[misc]
            )
        if isinstance(document, Manifest):
            return top, document
        raise corrupt(f"index of {self.what}", self.sessions[0].endpoint.label, "indexes point to indexes, without end")

    def _here(self, descriptor: Descriptor) -> Manifest | Index | None:
        """A manifest that is here already, verified."""
        raw = self._kept(descriptor)
        try:
            return parse_manifest(raw, descriptor.media_type) if raw is not None else None
        except EngineError:
            return None

    def _choose(self, index: Index, platform: Platform) -> Descriptor:
        try:
            return choose(index.manifests, platform)
        except NotFound as error:
            raise NotFound(f"image {self.what}: {error.message}", hint=error.hint) from error

    def manifest(self, session: Session, name: str, wanted: Digest | None, size: int | None) -> Manifest | Index:
        path = f"/v2/{self.reference.path}/manifests/{name}"
        raw, headers = session.fetch(path, self.scope, accept=_ACCEPT, limit=MANIFEST_LIMIT, kind="the manifest")
        label = session.endpoint.label
        kind = f"manifest of {self.what}"
        if size is not None and size != len(raw):
            raise corrupt(kind, label, f"it has {len(raw)} bytes where {size} were announced")
        if wanted is not None and not wanted.matches(raw):
            raise corrupt(kind, label, f"its bytes are not {wanted}")
        self._check_header(raw, headers, kind, label)
        content_type = headers.get("content-type", "").split(";")[0].strip().lower()
        try:
            return parse_manifest(raw, None if content_type in _VAGUE else content_type)
        except (Corrupt, InvalidInput) as error:
            raise corrupt(kind, label, error.message) from error

    @staticmethod
    def _check_header(raw: bytes, headers: Mapping[str, str], kind: str, label: str) -> None:
        claimed = headers.get("docker-content-digest")
        if claimed is None:
            return
        try:
            digest = Digest.parse(claimed)
        except InvalidInput as error:
            raise corrupt(kind, label, f"its Docker-Content-Digest is no digest: {error.message}") from error
        if not digest.matches(raw):
            raise corrupt(kind, label, f"its bytes are not {digest}, the digest sent along")

    # --- config and layers ---

    def _config(self, manifest: Manifest) -> tuple[bytes, ImageConfig]:
        descriptor = manifest.config
        path = self.blob_path(descriptor)
        name = f"config of {self.what}"
        if descriptor.size > MANIFEST_LIMIT:
            raise corrupt(name, self.reference.domain, f"it claims {descriptor.size} bytes")

        def fetch(session: Session) -> bytes:
            raw, _ = session.fetch(path, self.scope, accept="*/*", limit=descriptor.size, kind="the config")
            if len(raw) != descriptor.size or not descriptor.digest.matches(raw):
                raise corrupt(name, session.endpoint.label, f"its bytes are not {descriptor.digest}")
            return raw

        raw = self._kept(descriptor) or self.anywhere(fetch)
        try:
            image = ImageConfig.parse(raw)
            count = len(image.diff_ids)
        except (Corrupt, InvalidInput) as error:
            raise corrupt(name, self.reference.domain, error.message) from error
        if count != len(manifest.layers):
            raise corrupt(name, self.reference.domain, f"it names {count} layers, the manifest {len(manifest.layers)}")
        return raw, image

    def _kept(self, descriptor: Descriptor) -> bytes | None:
        """A config that is here already, verified."""
        if not self.sink.has(descriptor.digest):
            return None
        try:
            return self.sink.read(descriptor.digest)
        except EngineError:
            return None

    def _commit(self, digest: Digest, raw: bytes) -> None:
        if self.sink.has(digest):
            return
        writer = self.sink.ingest()
        try:
            writer.write(raw)
            writer.commit(digest, len(raw))
        except BaseException:
            writer.abort()
            raise

    def _layers(self, manifest: Manifest, on_layer: Callable[[int, Descriptor], None] | None, concurrency: int) -> None:
        # A manifest may name one blob twice; it is fetched once and reported for each place.
        places: dict[Digest, list[tuple[int, Descriptor]]] = {}
        for index, descriptor in enumerate(manifest.layers):
            places.setdefault(descriptor.digest, []).append((index, descriptor))
        for same in places.values():
            if len({descriptor.size for _, descriptor in same}) > 1:
                raise corrupt(f"manifest of {self.what}", self.reference.domain, "it gives one blob two sizes")
            self._report(same[0][1], "waiting", 0)
        if all(self.sink.has(digest) for digest in places):  # no threads for what is here
            for digest, same in places.items():
                self._report(same[0][1], "exists", same[0][1].size)
                self._tell(places[digest], on_layer)
            return
        with ThreadPoolExecutor(max(1, concurrency), thread_name_prefix="pull") as pool:
            running = {pool.submit(self.layer, same[0][1]): digest for digest, same in places.items()}
            try:
                self._collect(running, places, on_layer)
            except BaseException:
                # The workers' sockets are shut down, so leaving the pool does not wait for a slow server.
                self.network.cancel.cancel()
                raise

    def _collect(
        self,
        running: dict[Future[None], Digest],
        places: Mapping[Digest, Sequence[tuple[int, Descriptor]]],
        on_layer: Callable[[int, Descriptor], None] | None,
    ) -> None:
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            self.network.cancel.check()
            # A failure first: what others report after it is only that they were stopped.
            for future in sorted(finished, key=lambda one: isinstance(one.exception(), Cancelled | None)):
                digest = running.pop(future)
                future.result()
                self._tell(places[digest], on_layer)

    @staticmethod
    def _tell(places: Sequence[tuple[int, Descriptor]], on_layer: Callable[[int, Descriptor], None] | None) -> None:
        for index, descriptor in places if on_layer is not None else ():
            assert on_layer is not None
            on_layer(index, descriptor)

    def layer(self, descriptor: Descriptor) -> None:
        self.network.cancel.check()
        if self.sink.has(descriptor.digest):
            self._report(descriptor, "exists", descriptor.size)
            return
        path = self.blob_path(descriptor)
        self._report(descriptor, "downloading", 0)
        self.anywhere(
            lambda session: download(
                session,
                path,
                self.scope,
                descriptor,
                self.sink,
                lambda phase, current: self._report(descriptor, phase, current),
            )
        )

    def blob_path(self, descriptor: Descriptor) -> str:
        return f"/v2/{self.reference.path}/blobs/{descriptor.digest}"

    def _report(self, descriptor: Descriptor, phase: Phase, current: int) -> None:
        with self._lock:
            self._progress(BlobProgress(descriptor.digest, phase, current, descriptor.size))

    # --- endpoints ---

    def anywhere(self, ask: Callable[[Session], T]) -> T:
        """The first endpoint's answer that is one. What is verified by digest may come from any of them."""
        failures: list[EngineError] = []
        for session in self.sessions:
            try:
                return ask(session)
            except (NotFound, Unauthorized, Unavailable, Corrupt) as error:
                failures.append(error)
        last = failures[-1]
        # A mirror's damaged bytes are worth more to the user than the registry being out of reach behind it.
        if isinstance(last, Unavailable):
            last = next((one for one in failures if isinstance(one, Corrupt)), last)
        others = [one.message for one in failures if one is not last]
        if not others:
            raise last
        raise type(last)(f"{last.message} (before that: {'; '.join(others)})", hint=last.hint) from last
