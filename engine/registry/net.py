"""Single HTTP exchanges: clients per kind of connection, redirects by hand, cancellation that interrupts reads."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.cancel import CancelToken
from engine.errors import InvalidInput
from engine.registry.config import Endpoint, Retry, hostname, is_loopback, literal_address
from engine.registry.errors import Unreachable, refused_address, unavailable

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
Origin = tuple[str, str, int]


def origin(url: httpx.URL) -> Origin:
    """Scheme, host and port: what must all be equal before an Authorization header may be sent."""
    return (url.scheme, url.host.lower(), url.port or (443 if url.scheme == "https" else 80))


def refusal(url: httpx.URL, endpoint: Endpoint) -> str:
    """Why a registry at `endpoint` may not send us to `url`; "" when it may.

    An answer of a registry must not make this machine talk to its cloud metadata service, or to services that
    only it can reach (CVE-2026-33540 and its class).
    """
    if url.scheme not in ("http", "https") or not url.host:
        return "not an http address"
    if url.scheme == "http" and not endpoint.relaxed:
        return "plain http, and the registry is not configured as insecure"
    address = literal_address(url.host)
    if address is not None and (address.is_link_local or address.is_multicast or address.is_unspecified):
        return "a link-local address"
    inside = is_loopback(url.host) or (address is not None and address.is_private)
    same = url.host.lower() == hostname(endpoint.host)
    if inside and not (same or endpoint.relaxed):
        return "a private address"
    return ""


class Network:
    """The HTTP clients of one pull. Closing or cancelling it breaks every connection, also from another thread."""

    def __init__(self, retry: Retry, cancel: CancelToken, certs: Sequence[Path] = ()) -> None:
        self.retry, self.cancel, self._certs = retry, cancel, certs
        self._lock = threading.Lock()
        self._clients: dict[tuple[bool, bool, bool, Path | None], httpx.Client] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        cancel.on_cancel(self._break)

    def close(self) -> None:
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def send(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        *,
        verify: bool,
        method: str = "GET",
        form: Mapping[str, str] | None = None,
        content: Iterator[bytes] | bytes | None = None,
    ) -> httpx.Response:
        """One request, without following redirects; the body is still to be read, and the caller closes it."""
        import httpx

        self.cancel.check()
        client = self._client(url, verify)
        every = {"accept-encoding": "identity", "user-agent": "container-workbench", **headers}
        request = client.build_request(
            method if form is None else "POST",
            url,
            headers=every,
            data=form,
            content=content,
            extensions={"trace": self._trace},
        )
        try:
            return client.send(request, stream=True)
        except httpx.HTTPError as error:
            self.cancel.check()
            connecting = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
            raise Unreachable(error, connecting=connecting) from error

    def follow(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        *,
        endpoint: Endpoint,
        authorization: str | None = None,
        method: str = "GET",
        form: Mapping[str, str] | None = None,
        content: Iterator[bytes] | bytes | None = None,
        home: Origin | None = None,
    ) -> httpx.Response:
        """Follows redirects of what only reads; `authorization` goes to `home` (the origin of `url`) alone.

        Close the response after use.
        """
        home = home or origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            if authorization is not None and origin(url) == home:
                sent["authorization"] = authorization
            response = self.send(
                url, sent, verify=endpoint.verify or origin(url) != home, method=method, form=form, content=content
            )
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None:
                return response
            response.close()
            if form is not None:
                # A body that holds a secret goes to the address that was checked, and nowhere else.
                raise unavailable(endpoint.label, "its token server redirects a login, which is not followed")
            if method not in ("GET", "HEAD"):
                raise unavailable(endpoint.label, "it redirects an upload, which is not followed")
            url = self.next_url(url, location, endpoint)
        raise unavailable(endpoint.label, f"more than {MAX_REDIRECTS} redirects")

    @staticmethod
    def next_url(url: httpx.URL, location: str, endpoint: Endpoint) -> httpx.URL:
        """The address that a `Location` names, after the checks that every address of a registry must pass."""
        target = parse_url(location, url)
        why = "not an address" if target is None else refusal(target, endpoint)
        if target is None or why:
            raise refused_address(endpoint.label, location, why)
        # "user@host" would make httpx send what stands there as a password.
        return target.copy_with(username=None, password=None, fragment=None)

    def _client(self, url: httpx.URL, verify: bool) -> httpx.Client:
        import httpx

        tls = url.scheme == "https"
        # Go's net/http never asks a proxy for loopback, nor for networks in NO_PROXY; httpx would.
        direct = is_loopback(url.host) or in_no_proxy(url.host)
        # A host's certificates are for that host and port alone.
        folder = certificates(self._certs, url) if tls else None
        key = (tls, verify and tls, direct, folder)
        with self._lock:
            self.cancel.check()
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = httpx.Client(
                    verify=_own_trust(folder, verify) if folder else _trust() if tls and verify else _no_trust(),
                    trust_env=not direct,
                    follow_redirects=False,
                    timeout=httpx.Timeout(self.retry.read_timeout, connect=self.retry.connect_timeout, pool=None),
                )
            return client

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            sock = info["return_value"].get_extra_info("socket")
            if isinstance(sock, socket.socket):
                self._sockets.add(sock)
                if self.cancel.cancelled:
                    self._break()

    def _break(self) -> None:
        # shutdown(2) wakes a recv blocked in another thread; close would not, and would free the number for reuse.
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def parse_url(text: str, base: httpx.URL | None = None) -> httpx.URL | None:
    """An address out of a header, relative to `base`; None when it is none."""
    import httpx

    try:
        return base.join(text) if base is not None else httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        return None


def chunks(network: Network, response: httpx.Response) -> Iterator[bytes]:
    """The body as it arrives, undecoded (a decoder could be fed a bomb). `Unreachable` when it breaks off."""
    import httpx

    try:
        for chunk in response.iter_raw():
            network.cancel.check()
            yield chunk
    except httpx.HTTPError as error:
        network.cancel.check()
        raise Unreachable(error, connecting=False) from error
    network.cancel.check()


def read_limited(network: Network, response: httpx.Response, limit: int, too_long: Callable[[], Exception]) -> bytes:
    """The whole body, at most `limit` bytes."""
    body = bytearray()
    for chunk in chunks(network, response):
        body += chunk
        if len(body) > limit:
            raise too_long()
    return bytes(body)


def in_no_proxy(host: str) -> bool:
    """`NO_PROXY` names a network (`10.0.0.0/8`) that the literal address `host` is in."""
    address = literal_address(host)
    if address is None:
        return False
    for part in (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(","):
        with contextlib.suppress(ValueError):
            if "/" in part and address in ipaddress.ip_network(part.strip(), strict=False):
                return True
    return False


def certificates(folders: Sequence[Path], url: httpx.URL) -> Path | None:
    """The `certs.d` folder of a host; None where nobody made one."""
    names = [f"{url.host}:{url.port or 443}"] + ([url.host] if url.port in (None, 443) else [])
    return next((folder / name for folder in folders for name in names if (folder / name).is_dir()), None)


def _own_trust(folder: Path, verify: bool) -> ssl.SSLContext:
    """TLS with the authorities (`*.crt`) and the client's certificate (`*.cert`, `*.key`) of a `certs.d` folder."""
    authorities = sorted(folder.glob("*.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not (verify or authorities):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        context.load_default_certs()
        for path in authorities:
            context.load_verify_locations(path)
        for path in sorted(folder.glob("*.cert")):
            context.load_cert_chain(path, path.with_suffix(".key"))
    except (ssl.SSLError, OSError) as error:
        raise InvalidInput(
            f"the certificates in {folder} cannot be used: {error}", hint="each NAME.cert needs a NAME.key beside it"
        ) from error
    return context


@functools.cache
def _trust() -> ssl.SSLContext:
    """The host's certificate authorities (where companies install theirs); certifi's where the host has none."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and (paths.capath is None or not any(Path(paths.capath).iterdir())):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


@functools.cache
def _no_trust() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
