"""Which proxy a request goes through: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` as Go's programs, and so Docker, read them.

Loopback is never asked through a proxy, nor are hosts, domains, `host:port` and networks (`10.0.0.0/8`) in `NO_PROXY`.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from engine.errors import InvalidInput
from engine.registry.config import is_loopback, literal_address
from engine.registry.url import Url


@dataclass(frozen=True, slots=True)
class Proxy:
    """`authorization` is the value of Proxy-Authorization, "" for none."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def proxy_for(url: Url) -> Proxy | None:
    """None where the host is asked directly. Raises `InvalidInput` for a proxy that cannot be used."""
    name = f"{url.scheme}_proxy"
    text = ("" if _cgi(name) else os.environ.get(name.upper(), "")) or os.environ.get(name, "")
    if not text or is_loopback(url.host) or exempt(url.host, url.port):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise InvalidInput(f"{name.upper()}: {shown} is no proxy that can be used", hint="write http://HOST:PORT")
    authorization = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return Proxy(parts.hostname, port, authorization)


def _cgi(name: str) -> bool:
    """In a CGI program HTTP_PROXY is what the client sent as `Proxy:` (httpoxy)."""
    return name == "http_proxy" and "REQUEST_METHOD" in os.environ


def exempt(host: str, port: int) -> bool:
    """`NO_PROXY` names the host, its domain, it with its port, or the network of its literal address."""
    host, address = host.lower().rstrip("."), literal_address(host)
    for part in (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").lower().split(","):
        name = part.strip()
        if name == "*":
            return True
        if "/" in name:
            with contextlib.suppress(ValueError):
                if address is not None and address in ipaddress.ip_network(name, strict=False):
                    return True
            continue
        bare, colon, number = name.rpartition(":")
        if colon and number.isdecimal() and (":" not in bare or bare.startswith("[")):
            if int(number) != port:
                continue
            name = bare
        name = name.strip("[]").removeprefix("*")
        # ".example.org" is what is below it; "example.org" itself too.
        if name and (host == name or host.endswith(name if name.startswith(".") else f".{name}")):
            return True
    return False
