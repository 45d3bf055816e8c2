"""Single HTTP exchanges: connections per kind of trust, redirects by hand, cancellation that interrupts reads."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from engine.base.cancel import CancelToken
from engine.errors import InvalidInput
from engine.registry.config import Endpoint, RegistryConfig, Retry, hostname, is_loopback, literal_address
from engine.registry.connections import Connections
from engine.registry.errors import Unreachable, refused_address, unavailable
from engine.registry.proxies import proxy_for
from engine.registry.url import Url, parse_url
from engine.registry.wire import Body, Broken, Connection, NotHttp, Response, Route

MAX_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
Origin = tuple[str, str, int]


def refusal(url: Url, endpoint: Endpoint) -> str:
    """Why a registry at `endpoint` may not send us to `url`; "" when it may.

    An answer of a registry must not make this machine talk to its cloud metadata service, or to services that
    only it can reach (CVE-2026-33540 and its class).
    """
    if url.scheme == "http" and not endpoint.relaxed:
        return "plain http, and the registry is not configured as insecure"
    address = literal_address(url.host)
    if address is not None and (address.is_link_local or address.is_multicast or address.is_unspecified):
        return "a link-local address"
    inside = is_loopback(url.host) or (address is not None and address.is_private)
    same = url.host == hostname(endpoint.host)
    if inside and not (same or endpoint.relaxed):
        return "a private address"
    return ""


class Network:
    """The exchanges of one transfer, until `cancel`: that breaks every connection in use, also from another thread."""

    def __init__(self, config: RegistryConfig, cancel: CancelToken, retry: Retry | None = None) -> None:
        self.retry, self.cancel, self._certs = retry or config.retry, cancel, config.certs
        self._own = config.connections is None
        self.connections = config.connections or Connections()
        self._lock = threading.Lock()
        self._used: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        cancel.on_cancel(self._break)

    def send(
        self, url: Url, headers: Mapping[str, str], *, verify: bool, method: str = "GET", content: Body = None
    ) -> Response:
        """One request, without following redirects; the body is still to be read, and the caller closes it."""
        self.cancel.check()
        route = self._route(url, verify)
        target, every = self._line(route, url, headers, content)
        kept = self.connections.take(route)
        if kept is not None:
            try:
                return self._exchange(route, kept, url, method, target, every, content)
            except Broken as error:
                # Closed in the moment that it was taken: the server has seen nothing of this.
                if not isinstance(content, bytes | None) or isinstance(error.__cause__, TimeoutError):
                    raise self._unreachable(error) from error.__cause__
                self.cancel.check()
        try:
            return self._exchange(route, self._fresh(route), url, method, target, every, content)
        except Broken as error:
            raise self._unreachable(error) from error.__cause__

    def ask(self, url: Url, headers: Mapping[str, str], *, verify: bool, method: str, content: bytes) -> Asked:
        """Sends one request, whose answer is read later: several can be under way from one thread. Once, whatever happens."""
        self.cancel.check()
        route = self._route(url, verify)
        target, every = self._line(route, url, headers, content)
        try:
            connection = self.connections.take(route) or self._fresh(route)
            done = self._using(route, connection)
            try:
                sent = connection.ask(method, target, every, content)
            except (OSError, ValueError) as error:
                done(False)
                raise Broken(connecting=False) from error
        except Broken as error:
            raise self._unreachable(error) from error.__cause__
        return Asked(self, url, method, connection, sent, done, headers.get("authorization"))

    def _fresh(self, route: Route) -> Connection:
        return Connection.open(route, self.retry.connect_timeout, lambda: _trust(route.certificates, route.verify))

    @staticmethod
    def _line(route: Route, url: Url, headers: Mapping[str, str], content: Body) -> tuple[str, dict[str, str]]:
        """What stands in the request's line, and all its headers."""
        every = {"host": url.netloc, "accept-encoding": "identity", "user-agent": "container-workbench", **headers}
        if isinstance(content, bytes):
            every["content-length"] = str(len(content))
        if not (route.proxy and url.scheme == "http"):
            return url.target, every
        if route.proxy.authorization:
            every["proxy-authorization"] = route.proxy.authorization
        return str(url), every

    def _unreachable(self, error: Broken) -> Unreachable:
        self.cancel.check()
        return Unreachable(error.__cause__ or error, connecting=error.connecting)

    def _exchange(
        self,
        route: Route,
        connection: Connection,
        url: Url,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: Body,
    ) -> Response:
        done = self._using(route, connection)
        try:
            self.cancel.check()
            return Response(url, connection, connection.exchange(method, target, headers, content), done)
        except (OSError, NotHttp, ValueError) as error:
            done(False)
            raise Broken(connecting=False) from error
        except BaseException:
            done(False)
            raise

    def _using(self, route: Route, connection: Connection) -> Callable[[bool], None]:
        """Cancelling breaks the connection from now on. What is returned is called at the end: whether it can be used again."""
        sock = connection.sock
        sock.settimeout(self.retry.read_timeout)
        with self._lock:
            self._used.add(sock)

        def done(reusable: bool) -> None:
            with self._lock:  # not in the middle of a `_break`
                self._used.discard(sock)
                if reusable and not self.cancel.cancelled:
                    self.connections.give(route, connection)
                    return
            connection.close()

        return done

    def follow(
        self,
        url: Url,
        headers: Mapping[str, str],
        *,
        endpoint: Endpoint,
        authorization: str | None = None,
        method: str = "GET",
        form: Mapping[str, str] | None = None,
        content: Body = None,
        home: Origin | None = None,
    ) -> Response:
        """Follows redirects of what only reads; `authorization` goes to `home` (the origin of `url`) alone. A `form` is posted.

        Close the response after use.
        """
        home = home or url.origin
        if form is not None:
            method, content = "POST", urlencode(form).encode()
            headers = {**headers, "content-type": "application/x-www-form-urlencoded"}
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            if authorization is not None and url.origin == home:
                sent["authorization"] = authorization
            response = self.send(
                url, sent, verify=endpoint.verify or url.origin != home, method=method, content=content
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
    def next_url(url: Url, location: str, endpoint: Endpoint) -> Url:
        """The address that a `Location` names, after the checks that every address of a registry must pass."""
        target = parse_url(location, url)
        why = "not an http address" if target is None else refusal(target, endpoint)
        if target is None or why:
            raise refused_address(endpoint.label, location, why)
        return target

    def _route(self, url: Url, verify: bool) -> Route:
        tls = url.scheme == "https"
        # A host's certificates are for that host and port alone.
        folder = certificates(self._certs, url) if tls else None
        return Route(url.scheme, url.host, url.port, verify and tls, folder, proxy_for(url))

    def _break(self) -> None:
        # shutdown(2) wakes a recv blocked in another thread; close would not, and would free the number for reuse.
        with self._lock:
            for sock in list(self._used):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        if self._own:
            self.connections.close()


class Asked:
    """A request that is sent, with `authorization` if with one. Its answer is taken once, or it is dropped."""

    def __init__(
        self,
        network: Network,
        url: Url,
        method: str,
        connection: Connection,
        sent: OSError | None,
        done: Callable[[bool], None],
        authorization: str | None,
    ) -> None:
        self.authorization = authorization
        self._network, self._url, self._method = network, url, method
        self._connection, self._sent, self._done = connection, sent, done

    def answer(self) -> Response:
        """The caller closes it. Raises `Unreachable`."""
        try:
            head = self._connection.answer(self._method, self._sent)
        except (OSError, NotHttp, ValueError) as error:
            self.drop()
            self._network.cancel.check()
            raise Unreachable(error, connecting=False) from error
        return Response(self._url, self._connection, head, self._done)

    def drop(self) -> None:
        self._done(False)


def chunks(network: Network, response: Response) -> Iterator[bytes]:
    """The body as it arrives, undecoded (a decoder could be fed a bomb). `Unreachable` when it breaks off."""
    try:
        for chunk in response.chunks():
            network.cancel.check()
            yield chunk
    except Broken as error:
        network.cancel.check()
        raise Unreachable(error.__cause__ or error, connecting=False) from error.__cause__
    network.cancel.check()


def read_limited(network: Network, response: Response, limit: int, too_long: Callable[[], Exception]) -> bytes:
    """The whole body, at most `limit` bytes."""
    body = bytearray()
    for chunk in chunks(network, response):
        body += chunk
        if len(body) > limit:
            raise too_long()
    return bytes(body)


def certificates(folders: Sequence[Path], url: Url) -> Path | None:
    """The `certs.d` folder of a host; None where nobody made one."""
    names = [f"{url.host}:{url.port}"] + ([url.host] if url.port == 443 else [])
    return next((folder / name for folder in folders for name in names if (folder / name).is_dir()), None)


def _trust(folder: Path | None, verify: bool) -> ssl.SSLContext:
    return _own_trust(folder, verify) if folder else _host_trust() if verify else _no_trust()


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
def _host_trust() -> ssl.SSLContext:
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
