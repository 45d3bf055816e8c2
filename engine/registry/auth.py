"""Getting past a 401: Basic, and the token flow of the distribution project (anonymous or with credentials)."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.errors import EngineError
from engine.registry.config import Credentials, Endpoint, hostname, is_loopback
from engine.registry.errors import Again, Unreachable, refused_address, registry_message, unauthorized, unavailable
from engine.registry.net import Network, read_limited, refusal
from engine.registry.url import Url, parse_url
from engine.registry.wire import Response

_TOKEN_LIMIT = 1 << 20
_ANY = ""  # the scope of basic credentials, which hold for every request
# RFC 9110 11.6.1: scheme, then name=token or name="quoted" pairs; several challenges may share one header.
_PART = re.compile(r'\s*,?\s*(?:([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([A-Za-z0-9_-]+))')


FindCredentials = Callable[[], Credentials | None]


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way that a server accepts credentials. `scheme` is in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate headers; what cannot be read is skipped."""
    found: list[Challenge] = []
    for header in headers:
        parameters: dict[str, str] = {}
        position = 0
        while match := _PART.match(header, position):
            position = match.end()
            name, quoted, plain, scheme = match.groups()
            if scheme is not None:
                parameters = {}
                found.append(Challenge(scheme.lower(), parameters))
            else:
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                parameters.setdefault(name.lower(), value)
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    expires: float


class Authorizer:
    """The Authorization header of one endpoint, per scope, for all threads of a transfer.

    `find` gives the credentials. It is called when the registry first asks for some: a helper may be slow, or broken.
    """

    def __init__(self, endpoint: Endpoint, find: FindCredentials, network: Network) -> None:
        self._endpoint, self._find, self._network = endpoint, find, network
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}

    def header(self, scope: str) -> str | None:
        """What to send without being asked; None before the first challenge and after expiry."""
        token = self._tokens.get(scope) or self._tokens.get(_ANY)
        return token.header if token is not None and token.expires > time.monotonic() else None

    def renew(self, response: Response, scope: str, stale: str | None, what: str, verb: str = "read") -> str:
        """The header that answers the 401 `response`; `stale` is what had been sent with it."""
        challenges = {
            one.scheme: one for one in reversed(parse_challenges(response.headers.get_list("www-authenticate")))
        }
        with self._lock:
            # Parallel requests meet the 401 together: one fetches the token, the others take it.
            current = self.header(scope)
            if current is not None and current != stale:
                return current
            if "bearer" in challenges:
                token = self._fetch(challenges["bearer"].parameters, scope, what)
            elif "basic" in challenges and (found := self._find()) is not None and found.username:
                token = _Token(_basic(found), float("inf"))
            else:
                why = "it asks for credentials and none are configured for it"
                raise unauthorized(what, self._endpoint.label, why, verb=verb)
            if token.header == stale:
                why = "it does not accept the configured credentials"
                raise unauthorized(what, self._endpoint.label, why, verb=verb)
            self._tokens[_ANY if token.header.startswith("Basic") else scope] = token
            return token.header

    def _fetch(self, parameters: Mapping[str, str], scope: str, what: str) -> _Token:
        realm = parse_url(parameters.get("realm", ""))
        text = parameters.get("realm", "")
        why = "not an http address" if realm is None else refusal(realm, self._endpoint)
        if realm is None or why:
            raise refused_address(self._endpoint.label, text, f"as a token server it is {why}")
        credentials = self._find() if self._may_send_credentials(realm) else None
        scopes = _scopes(scope, parameters.get("scope") or "")
        # One parameter a scope (distribution, token specification).
        query = [("scope", one) for one in scopes]
        if service := parameters.get("service"):
            query.append(("service", service))
        if credentials is not None and credentials.identity_token:
            form = {
                "scope": " ".join(scopes),  # RFC 6749 3.3: one value in a form
                "service": service or "",
                "grant_type": "refresh_token",
                "client_id": "container-workbench",
                "refresh_token": credentials.identity_token,
            }
            return self._ask(realm, None, form, what)
        authorization = _basic(credentials) if credentials is not None else None
        if credentials is not None:
            query.append(("account", credentials.username))
        return self._ask(realm.with_query(query), authorization, None, what)

    def _may_send_credentials(self, realm: Url) -> bool:
        """Over TLS, or in the clear to the registry's own host when that one is spoken to in the clear anyway."""
        if realm.scheme == "https":
            return True
        ours = hostname(self._endpoint.host)
        both_here = is_loopback(self._endpoint.host) and is_loopback(realm.host)
        return self._endpoint.relaxed and (realm.host == ours or both_here)

    def _ask(self, url: Url, authorization: str | None, form: Mapping[str, str] | None, what: str) -> _Token:
        label = self._endpoint.label
        try:
            response = self._network.follow(
                url, {"accept": "application/json"}, endpoint=self._endpoint, authorization=authorization, form=form
            )
        except Unreachable as error:
            raise Again(unavailable(label, f"its token server {url.host}: {error}", what=what)) from error
        try:
            body = read_limited(
                self._network,
                response,
                _TOKEN_LIMIT,
                lambda: unavailable(label, "its token server does not stop talking"),
            )
        except Unreachable as error:
            raise Again(unavailable(label, f"its token server {url.host} broke off: {error}", what=what)) from error
        finally:
            response.close()
        status = response.status_code
        if status in (400, 401, 403):
            raise unauthorized(what, label, registry_message(body) or "its token server refused")
        if status != 200:
            failure: EngineError = unavailable(label, f"its token server {url.host} answered {status}", what=what)
            raise Again(failure) if status == 429 or status >= 500 else failure
        return _parse_token(body, label)


def _scopes(ours: str, theirs: str) -> list[str]:
    """What to ask a token for. A challenge names what one request needed; ours covers the whole transfer."""
    wanted, challenged = ours.split(), theirs.split()
    names = {one.rpartition(":")[0] for one in wanted}
    if challenged and not any(one.rpartition(":")[0] in names for one in challenged):
        return challenged  # the registry calls its repository by another name than its address does
    return wanted + [one for one in challenged if one.rpartition(":")[0] not in names]


def _parse_token(body: bytes, label: str) -> _Token:
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        # The specification's default is 60 s; a part is taken off so that a token does not expire on its way.
        lifetime = float(document.get("expires_in") or 60) * 0.8
    except (ValueError, TypeError, AttributeError, RecursionError):
        token, lifetime = None, 0.0
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
        raise unavailable(label, "its token server's answer holds no token")
    return _Token(f"Bearer {token}", time.monotonic() + lifetime)


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
