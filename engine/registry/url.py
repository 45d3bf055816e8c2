"""Addresses that registries give us, taken apart strictly: what is checked is what is connected to (RFC 3986)."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?|[0-9A-Fa-f:.]+")
_SAFE = string.punctuation  # a path or a query is sent as it came; % is of what is encoded already


@dataclass(frozen=True, slots=True)
class Url:
    """An http address. `host` is in lower case and without brackets; `target` is what a request line holds: path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what must all be equal before an Authorization header may be sent."""
        return (self.scheme, self.host, self.port)

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"

    def with_query(self, pairs: Iterable[tuple[str, str]]) -> Url:
        """The same with these parameters, which replace those of the same names."""
        pairs = list(pairs)
        path, _, query = self.target.partition("?")
        names = {quote(name, safe="") for name, _ in pairs}
        kept = [part for part in query.split("&") if part and part.partition("=")[0] not in names]
        added = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs]
        return replace(self, target=f"{path}?{'&'.join((*kept, *added))}")


def parse_url(text: str, base: Url | None = None) -> Url | None:
    """An address out of a header, relative to `base`; None when it is none that can be spoken to. A name and a password
    in it ("user@host") are left out."""
    text = text.strip()
    if not text or any(char <= " " or char in "\\\x7f" for char in text):
        return None
    try:
        parts = urlsplit(urljoin(str(base), text) if base is not None else text)
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError:
        return None
    netloc = parts.netloc.rpartition("@")[2]
    host = netloc[1:].partition("]")[0] if netloc.startswith("[") else netloc.partition(":")[0]
    if scheme not in _PORTS or not _HOST.fullmatch(host) or (":" in host) != netloc.startswith("["):
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(scheme, host.lower(), _PORTS[scheme] if port is None else port, quote(target, safe=_SAFE))
