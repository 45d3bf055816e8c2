"""An image (or an index of several) from a store to a registry: blobs in parallel, then manifests, children first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from engine.base.cancel import CancelToken
from engine.errors import Cancelled, Corrupt, EngineError, InvalidInput, Unsupported, from_os_error
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.media import INDEXES, MANIFESTS, is_foreign
from engine.oci.reference import Reference
from engine.registry.blob import BlobProgress, Phase
from engine.registry.burst import put_small
from engine.registry.config import RegistryConfig
from engine.registry.errors import Again, corrupt, registry_message, unavailable
from engine.registry.net import Network
from engine.registry.transport import Session, repeating
from engine.registry.upload import BlobSource, NoJournal, Upload, UploadJournal

__all__ = ["BlobSource", "PushPlan", "UploadJournal", "plan_push", "push"]

_ERROR_LIMIT = 64_000
_MAX_DOCUMENTS = 10_000
_HELD_TRIES, _WORTH_HELD = 2, 2  # manifests that are asked for; blobs that are asked for themselves instead
_SMALL = 1 << 18  # bytes that are as quickly sent as asked for


@dataclass(frozen=True, slots=True)
class PushPlan:
    """`blobs` each once, in the order of the image; `documents` children first, so that nothing names what is not there."""

    blobs: tuple[Descriptor, ...]
    documents: tuple[Manifest | Index, ...]


def plan_push(top: Manifest | Index, read: Callable[[Digest], bytes]) -> PushPlan:
    """What must be on the registry before `top` is. Raises `Unsupported` for foreign layers, `NotFound`, `Corrupt`."""
    blobs: dict[Digest, Descriptor] = {}
    documents: dict[Digest, Manifest | Index] = {}

    def visit(document: Manifest | Index, above: tuple[Digest, ...]) -> None:
        if document.digest in documents:
            return
        if document.digest in above or len(documents) >= _MAX_DOCUMENTS:
            raise Corrupt(f"index {top.digest.short} has no end")
        if isinstance(document, Manifest):
            for layer in (*document.layers, document.config):
                if is_foreign(layer.media_type):
                    raise Unsupported(
                        f"layer {layer.digest.short} is not distributable ({layer.media_type})",
                        hint="its publisher forbids registries to hold it; build on an image without such layers",
                    )
                blobs.setdefault(layer.digest, layer)
        else:
            for child in document.manifests:
                if child.media_type in MANIFESTS + INDEXES:
                    visit(parse_manifest(read(child.digest), child.media_type), (*above, document.digest))
                else:
                    blobs.setdefault(child.digest, child)
        documents[document.digest] = document

    visit(top, ())
    return PushPlan(tuple(blobs.values()), tuple(documents.values()))


def push(
    reference: Reference,
    top: Manifest | Index,
    source: BlobSource,
    config: RegistryConfig,
    *,
    progress: Callable[[BlobProgress], None],
    mounts: Callable[[], Mapping[Digest, Sequence[str]]] = dict,
    held: Callable[[], Sequence[Manifest]] = tuple,
    journal: UploadJournal | None = None,
    cancel: CancelToken | None = None,
    concurrency: int = 5,
) -> Digest:
    """Pushes `top` under `reference` (its tag, or its digest when it has no tag). Returns the digest, which is `top`'s own.

    `mounts` names, for a blob, other repositories of the same registry that hold it. `held` are manifests that this repository is
    thought to have: where it has one, by its digest, it has all blobs of it, and they are not asked for one by one. Both are
    called when they are needed. `progress` is called from worker
    threads, one call at a time. Raises NotFound, Unauthorized, Unavailable, Corrupt, Unsupported, Cancelled.
    """
    reference = reference.with_default_tag()
    if reference.digest is not None and reference.digest != top.digest:
        raise InvalidInput(
            f"{reference.familiar} cannot be pushed: the image's digest is {top.digest}",
            hint="push it by a tag: NAME:TAG",
        )
    plan = plan_push(top, source.read)
    stop = CancelToken()
    if cancel is not None:
        cancel.on_cancel(stop.cancel)
    network = Network(config, stop)
    endpoint = config.registry(reference.domain)
    session = Session(endpoint, lambda: config.credentials_for(endpoint), network, reference.familiar, "write")
    try:
        _Push(reference, session, source, progress, mounts, journal or NoJournal()).run(plan, concurrency, held)
    except Again as error:
        raise error.final from error
    except OSError as error:
        raise from_os_error(error, f"pushing {reference.familiar}") from error
    finally:
        stop.cancel()
    return top.digest


class _BlobUnknown(Exception):
    """The registry lacks a blob of the manifest. `final` is what to raise when it was not thought to have it."""

    def __init__(self, final: EngineError) -> None:
        super().__init__(final.message)
        self.final = final


class _Push:
    def __init__(
        self,
        reference: Reference,
        session: Session,
        source: BlobSource,
        progress: Callable[[BlobProgress], None],
        mounts: Callable[[], Mapping[Digest, Sequence[str]]],
        journal: UploadJournal,
    ) -> None:
        self.reference, self.session, self.source = reference, session, source
        self.mounts, self.journal = mounts, journal
        self.scope = f"repository:{reference.path}:pull,push"
        self._progress, self._lock = progress, threading.Lock()

    def run(self, plan: PushPlan, concurrency: int, held: Callable[[], Sequence[Manifest]]) -> None:
        place = (self.session.endpoint.host, self.reference.path)
        memory = self.session.network.connections
        known = memory.holds(*place)
        try:
            try:
                there = self._there(plan, held, known)
                self._put(plan, concurrency, there, spare=bool(there))
            except _BlobUnknown:
                memory.lost(*place)
                if not there:
                    raise
                self._put(plan, concurrency, set(), spare=False)
        except _BlobUnknown as error:
            raise error.final from error
        memory.held(*place, (blob.digest for blob in plan.blobs))

    def _put(self, plan: PushPlan, concurrency: int, there: set[Digest], *, spare: bool) -> None:
        """`spare`: a small blob that is not among those that the repository is known to have is not asked for."""

        def announce() -> None:
            for blob in plan.blobs:
                self._report(blob, "exists" if blob.digest in there else "waiting", blob.size * (blob.digest in there))

        missing = [blob for blob in plan.blobs if blob.digest not in there]
        mounts = self.mounts() if missing else {}
        small = [blob for blob in missing if blob.size <= _SMALL and not mounts.get(blob.digest)] if spare else []
        if small and len(small) == len(missing):
            taken = put_small(self.session, self.reference.path, self.scope, small, self.source, announce)
            for blob in (blob for blob in missing if blob.digest in taken):
                self._report(blob, "done", blob.size)
            missing = [blob for blob in missing if blob.digest not in taken]
        else:
            announce()
        if missing:
            self._blobs(missing, mounts, concurrency, spare=spare)
        for document in plan.documents[:-1]:
            self._put_manifest(document, str(document.digest))
        self._put_manifest(plan.documents[-1], self.reference.tag or str(plan.documents[-1].digest))

    def _blobs(
        self, missing: Sequence[Descriptor], mounts: Mapping[Digest, Sequence[str]], concurrency: int, *, spare: bool
    ) -> None:
        with ThreadPoolExecutor(max(1, concurrency), thread_name_prefix="push") as pool:
            # The largest first: the end is then not one thread with one large blob.
            ordered = sorted(missing, key=lambda blob: -blob.size)
            running = {
                pool.submit(self._blob, blob, mounts.get(blob.digest, ()), ask=not spare or blob.size > _SMALL)
                for blob in ordered
            }
            try:
                self._collect(running)
            except BaseException:
                self.session.network.cancel.cancel()
                raise

    def _there(self, plan: PushPlan, held: Callable[[], Sequence[Manifest]], known: set[Digest]) -> set[Digest]:
        """Blobs that the repository had a moment ago, and those that come with manifests that it has: the one that saves most
        questions first."""
        wanted = {blob.digest for blob in plan.blobs}
        found = known & wanted
        if len(wanted) - len(found) <= _WORTH_HELD and found:
            return found
        parts = {one.digest: {one.config.digest, *(layer.digest for layer in one.layers)} for one in held()}
        for digest in sorted(parts, key=lambda one: -len(parts[one] & wanted))[:_HELD_TRIES]:
            if len((parts[digest] & wanted) - found) > 1 and self._has_manifest(digest):
                found |= parts[digest]
        return found

    def _has_manifest(self, digest: Digest) -> bool:
        path = f"/v2/{self.reference.path}/manifests/{digest}"
        headers = {"accept": ", ".join(MANIFESTS)}
        try:
            with self.session.request("HEAD", path, self.scope, headers, ok=(200, 404)) as response:
                return response.status_code == 200 and response.headers.get("docker-content-digest", digest) == digest
        except (Again, EngineError):
            return False  # the blobs are asked for instead, and say what is wrong

    def _collect(self, running: set[Future[None]]) -> None:
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            self.session.network.cancel.check()
            for future in sorted(finished, key=lambda one: isinstance(one.exception(), Cancelled | None)):
                future.result()

    def _blob(self, descriptor: Descriptor, mounts: Sequence[str], *, ask: bool) -> None:
        self.session.network.cancel.check()
        upload = Upload(
            self.session,
            self.reference.path,
            self.scope,
            descriptor,
            self.source,
            lambda phase, current: self._report(descriptor, phase, current),
            journal=self.journal,
            ask=ask,
            mounts=[one for one in mounts if one != self.reference.path],
        )
        outcome = upload.run()
        self._report(descriptor, outcome, descriptor.size, upload.mounted_from)

    def _put_manifest(self, document: Manifest | Index, name: str) -> None:
        path = f"/v2/{self.reference.path}/manifests/{name}"
        label = self.session.endpoint.label

        def attempt() -> None:
            with self.session.request(
                "PUT",
                path,
                self.scope,
                {"content-type": document.media_type},
                ok=(200, 201, 202, 400, 404, 413),
                content=lambda: document.raw,
            ) as response:
                if response.status_code >= 400:
                    raw = self.session.read(response, _ERROR_LIMIT, "the answer")
                    detail = f"it refuses the manifest: {registry_message(raw) or response.status_code}"
                    refused = unavailable(label, detail, what=self.session.what)
                    raise _BlobUnknown(refused) if b"BLOB_UNKNOWN" in raw else refused
                taken = response.headers.get("docker-content-digest", "")
                if taken and taken != document.digest:
                    raise corrupt(f"manifest of {self.session.what}", label, f"it was taken as {taken[:100]}")

        repeating(self.session.network.retry, self.session.network.cancel, attempt)

    def _report(self, descriptor: Descriptor, phase: Phase, current: int, detail: str = "") -> None:
        with self._lock:
            self._progress(BlobProgress(descriptor.digest, phase, current, descriptor.size, detail))
