"""Requests to one endpoint of a registry: which scheme, which Authorization, what a status means, when to repeat."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from engine.base.cancel import CancelToken
from engine.errors import EngineError
from engine.registry.auth import Authorizer, FindCredentials
from engine.registry.config import Endpoint, Retry
from engine.registry.errors import (
    Again,
    Unreachable,
    bad_certificate,
    corrupt,
    not_found,
    registry_message,
    unauthorized,
    unavailable,
)
from engine.registry.net import Asked, Network, Origin, read_limited
from engine.registry.url import Url, parse_url
from engine.registry.wire import Response

T = TypeVar("T")
_ERROR_LIMIT = 64_000
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


def repeating(retry: Retry, cancel: CancelToken, attempt: Callable[[], T]) -> T:
    """Calls `attempt` until it gives no `Again`, at most `retry.tries` times, with a growing, cancellable pause."""
    for number in range(1, retry.tries + 1):
        try:
            return attempt()
        except Again as again:
            if number == retry.tries:
                raise again.final from again
            pause(retry, cancel, number, again.after)
    raise AssertionError("unreachable: tries is at least 1")


def pause(retry: Retry, cancel: CancelToken, number: int, after: float | None) -> None:
    """Waits before try `number` + 1: as long as the server asked, else doubling with jitter."""
    # Jitter, so that many clients thrown off together do not come back together.
    wanted = after if after is not None else retry.base * 2 ** (number - 1) * random.uniform(0.75, 1.25)
    cancel.wait(min(wanted, retry.cap))
    cancel.check()


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, in either of its two forms (RFC 9110 10.2.3)."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


class Session:
    """Speaks to one endpoint about one image (`what`), for all threads of a transfer."""

    def __init__(
        self, endpoint: Endpoint, find: FindCredentials, network: Network, what: str, verb: str = "read"
    ) -> None:
        self.endpoint, self.network, self.what, self.verb = endpoint, network, what, verb
        self._authorizer = Authorizer(endpoint, find, network)
        self._scheme: str | None = None

    def fetch(self, path: str, scope: str, *, accept: str, limit: int, kind: str) -> tuple[bytes, Mapping[str, str]]:
        """A small body and its headers, with retries. `kind` says what it is, for messages."""

        def attempt() -> tuple[bytes, Mapping[str, str]]:
            with self.open(path, scope, {"accept": accept}) as response:
                return self.read(response, limit, kind), response.headers

        return repeating(self.network.retry, self.network.cancel, attempt)

    def read(self, response: Response, limit: int, kind: str) -> bytes:
        """A body of at most `limit` bytes. Raises `Again` when it breaks off, `Corrupt` when it is longer."""
        label = self.endpoint.label
        try:
            return read_limited(
                self.network,
                response,
                limit,
                lambda: corrupt(f"{kind} of {self.what}", label, f"it is longer than {limit} bytes"),
            )
        except Unreachable as error:
            raise Again(unavailable(label, f"the connection broke off: {error}", what=self.what)) from error

    @contextmanager
    def open(self, path: str, scope: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """One attempt. Yields an answer of status 200 or 206 (416 when a range was asked for); raises `Again` or for good."""
        ok = (200, 206, 416) if "range" in headers else (200, 206)
        with self.request("GET", path, scope, headers, ok=ok) as response:
            yield response

    @contextmanager
    def request(
        self,
        method: str,
        target: str | Url,
        scope: str,
        headers: Mapping[str, str],
        *,
        ok: Collection[int],
        content: Callable[[], Iterator[bytes] | bytes] | None = None,
    ) -> Iterator[Response]:
        """One attempt at `target` (a path of this endpoint, or an address that it gave us); statuses in `ok` are yielded.

        `content` makes the body, anew for each time that it is sent. Raises `Again` or for good.
        """
        response = self._answer(method, target, scope, headers, content)
        try:
            if response.status_code not in ok:
                self._raise_for(response)
            yield response
        finally:
            response.close()

    def ask(
        self, method: str, target: str | Url, scope: str, headers: Mapping[str, str], content: bytes
    ) -> Asked | None:
        """One attempt at what `request` does, whose answer (`answer`) is read later. None where that cannot be done."""
        schemes = self.endpoint.schemes
        scheme = self._scheme or (
            schemes[0] if len(schemes) == 1 else self.network.connections.scheme(self.endpoint.host)
        )
        if scheme is None:
            return None  # it has never answered: who knows over which
        url, home = self._url(target, scheme) if isinstance(target, str) else target, self._url("/v2/", scheme).origin
        authorization = self._authorizer.header(scope) if url.origin == home else None
        sent = {**headers, "authorization": authorization} if authorization is not None else headers
        verify = self.endpoint.verify or url.origin != home
        try:
            return self.network.ask(url, sent, verify=verify, method=method, content=content)
        except Unreachable:
            return None

    def answer(self, asked: Asked, scope: str) -> Response | None:
        """Of any status; the caller closes it. None where there is none, or where `request` has to be used: which says what is
        wrong, tries again, and has the credentials now that were asked for."""
        try:
            response = asked.answer()
            if response.status_code != 401 or response.url.origin != self._url("/v2/", response.url.scheme).origin:
                return response
            try:
                self._authorizer.renew(response, scope, asked.authorization, self.what, self.verb)
            finally:
                self._drain(response)
        except (EngineError, Again, Unreachable):
            self.network.cancel.check()
        return None

    def location(self, response: Response) -> Url:
        """Where an upload goes on: the `Location` of an answer, checked as every address that a registry gives."""
        value = response.headers.get("location", "")
        if not value:
            raise unavailable(self.endpoint.label, "it gives no address for an upload", what=self.what)
        return self.network.next_url(response.url, value, self.endpoint)

    def _answer(
        self,
        method: str,
        target: str | Url,
        scope: str,
        headers: Mapping[str, str],
        content: Callable[[], Iterator[bytes] | bytes] | None,
    ) -> Response:
        authorization = self._authorizer.header(scope)
        # Twice: a token kept from before may have expired just now.
        for _ in range(2):
            response = self._first(method, target, headers, authorization, content)
            if response.status_code != 401 or response.url.origin != self._home():
                return response
            try:
                authorization = self._authorizer.renew(response, scope, authorization, self.what, self.verb)
            finally:
                self._drain(response)
        return self._first(method, target, headers, authorization, content)

    def _home(self) -> Origin:
        return self._url("/v2/", self._scheme or self.endpoint.schemes[0]).origin

    def _url(self, path: str, scheme: str) -> Url:
        url = parse_url(f"{scheme}://{self.endpoint.host}{self.endpoint.prefix}{path}")
        if url is None:
            raise unavailable(self.endpoint.label, "its name is not a host", what=self.what)
        return url

    def _first(
        self,
        method: str,
        target: str | Url,
        headers: Mapping[str, str],
        authorization: str | None,
        content: Callable[[], Iterator[bytes] | bytes] | None,
    ) -> Response:
        """The answer over the first scheme that connects. Only what may be spoken to in the clear has a second one."""
        host, both = self.endpoint.host, self.endpoint.schemes
        remembered = self.network.connections.scheme(host) if len(both) > 1 and not self._scheme else None
        schemes = (self._scheme,) if self._scheme else tuple(sorted(both, key=lambda one: one != remembered))
        for scheme in schemes:
            try:
                response = self.network.follow(
                    self._url(target, scheme) if isinstance(target, str) else target,
                    headers,
                    endpoint=self.endpoint,
                    authorization=authorization,
                    method=method,
                    content=content() if content is not None else None,
                    home=self._url("/v2/", scheme).origin,
                )
            except Unreachable as error:
                # A certificate that is refused is an answer; only where there is no TLS at all is plain HTTP tried.
                if error.connecting and not error.certificate and scheme != schemes[-1]:
                    continue
                raise self._failure(error) from error
            if response.status_code == 400 and scheme == remembered == "http":
                # What an https server says to plain http: it was another one the last time.
                response.close()
                self.network.connections.answered(host, None)
                return self._first(method, target, headers, authorization, content)
            self._scheme = scheme
            if len(both) > 1:
                self.network.connections.answered(host, scheme)
            return response
        raise AssertionError("unreachable: an endpoint has a scheme")

    def _failure(self, error: Unreachable) -> Exception:
        if error.certificate:
            return bad_certificate(self.endpoint.label, str(error))
        verb = "cannot connect" if error.connecting else "the connection broke off"
        label = self.endpoint.label
        host = f" to {self.endpoint.host}" if self.endpoint.host not in label else ""
        final = unavailable(label, f"{verb}{host}: {error}", what=self.what)
        # A mirror that is down costs no waiting: there is somebody else to ask.
        return final if error.connecting and self.endpoint.mirror else Again(final)

    def _drain(self, response: Response) -> bytes:
        try:
            return read_limited(
                self.network, response, _ERROR_LIMIT, lambda: Unreachable(ValueError("long"), connecting=False)
            )
        except Unreachable:
            return b""
        finally:
            response.close()

    def _raise_for(self, response: Response) -> None:
        status = response.status_code
        detail = registry_message(self._drain(response))
        label = self.endpoint.label
        away = response.url.origin != self._home()
        if status in (401, 403):
            why = f"{response.url.host} answered {status}" if away else detail
            raise unauthorized(self.what, label, why, verb=self.verb)
        if status == 404:
            raise not_found(self.what, label)
        said = f"{response.url.host} answered {status}" + (f" ({detail})" if detail else "")
        failure: EngineError = unavailable(label, said, what=self.what)
        if status in _TRANSIENT:
            raise Again(failure, after=retry_after(response.headers.get("retry-after")))
        raise failure
