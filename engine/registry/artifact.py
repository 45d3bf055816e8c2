"""What is behind a name in a registry, piece by piece: its manifest or index, its documents, its blobs as they are asked for."""

from __future__ import annotations

from collections.abc import Callable

from engine.base.cancel import CancelToken
from engine.errors import Corrupt
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import Index, Manifest
from engine.oci.reference import Reference
from engine.registry.blob import BlobProgress, BlobSink
from engine.registry.config import RegistryConfig
from engine.registry.net import Network
from engine.registry.pull import Puller
from engine.registry.transport import Session


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
        self._network = Network(config.retry, self._stop, config.certs)
        self._pull = Puller(reference.with_default_tag(), sink, config, self._network, progress)

    def close(self) -> None:
        self._stop.cancel()
        self._network.close()

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
