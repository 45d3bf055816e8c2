"""The distribution protocol over the store: other machines pull from it and push to it.

One thread a connection, at most `MAX_CONNECTIONS`; an upload is a file, so it survives the server. What the requests do stands in
`server_requests`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from engine.errors import InvalidInput, from_os_error
from engine.oci.digest import Digest
from engine.registry.server_http import IDLE_SECONDS, Refused
from engine.registry.server_requests import Handler, Serving
from engine.store.images import Image
from engine.store.store import Store

__all__ = ["RegistryServer", "Serving"]

MAX_CONNECTIONS = 64
_UPLOAD = re.compile(r"[0-9a-f]{32}")


class RegistryServer:
    """Binds at once; `serve` runs until `close` is called from another thread."""

    def __init__(
        self,
        store: Store,
        serving: Serving,
        *,
        on_image: Callable[[Image], None] | None = None,
        on_bytes: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """`on_image` gets a pushed image that this machine can run, `on_bytes` a blob's short name, how much of it has moved,
        and its size (0: not known); both are called on threads of the server."""
        self.store, self.serving, self.served = store, serving, store.served
        self._on_image, self._on_bytes = on_image, on_bytes
        handler = type("Handler", (Handler,), {"app": self})
        try:
            self._server = _Server((serving.host, serving.port), handler)
        except OSError as error:
            raise from_os_error(error, f"listening on {serving.host}:{serving.port}") from error
        if serving.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                context.load_cert_chain(serving.certificate, serving.key or None)
            except (OSError, ssl.SSLError) as error:
                self._server.server_close()
                raise InvalidInput(f"the certificate {serving.certificate} cannot be used: {error}") from error
            self._server.context = context

    @property
    def address(self) -> str:
        return f"{self.serving.host}:{self._server.server_port}"

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def arrived(self, image: Image) -> None:
        """A pushed image that this machine can run: unpacked behind the client's back."""
        if self._on_image is not None:
            threading.Thread(target=self._on_image, args=(image,), name="unpack-pushed", daemon=True).start()

    def moved(self, name: str, current: int, total: int) -> None:
        if self._on_bytes is not None:
            self._on_bytes(name, current, total)

    # --- uploads ----------------------------------------------------------------------------------------

    def upload_path(self, upload: str) -> Path:
        if not _UPLOAD.fullmatch(upload):
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        return self.store.tmp / f"served-{upload}"

    def new_upload(self) -> str:
        upload = secrets.token_hex(16)
        self.upload_path(upload).touch(mode=0o600)
        return upload

    def commit(self, name: str, upload: str, digest: Digest) -> None:
        """The upload becomes the blob, if that is what its bytes are."""
        path = self.upload_path(upload)
        with open(path, "rb") as file:
            actual = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            if actual != digest:
                path.unlink(missing_ok=True)
                raise Refused(400, "DIGEST_INVALID", f"the bytes hash to {actual}")
            os.fsync(file.fileno())
        self.served.link(name, digest)
        self.store.blobs.adopt(path, digest)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
    context: ssl.SSLContext | None = None

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._slots.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if self.context is not None:
                request.settimeout(IDLE_SECONDS)
                with contextlib.suppress(OSError, ssl.SSLError):
                    # The handshake is made here, on the connection's own thread: a silent client holds up nobody.
                    tls = self.context.wrap_socket(request, server_side=True)
                    super().process_request_thread(tls, client_address)
                    return
                request.close()
                return
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is no event
