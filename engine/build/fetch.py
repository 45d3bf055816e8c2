"""ADD of a URL, and archives behind URLs as contexts: downloads that are kept for a day and asked for again by ETag.

A server must not make this machine talk to its cloud's metadata service: link-local addresses are refused, and so is a redirect
from elsewhere to an address that only this machine or its network can reach (BD-14).
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import ipaddress
import json
import os
import posixpath
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from engine.base.atomic import write_atomic
from engine.base.cancel import CancelToken
from engine.build.source import ContextSource, Node
from engine.errors import AccessDenied, Corrupt, InvalidInput, NotFound, StorageFull, Unavailable
from engine.model import BuildRequest
from engine.store.store import Store

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 10
RESERVE = 64 << 20  # bytes kept free
TIMEOUT = 30.0  # seconds without a byte
UNNAMED = "__unnamed__"
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Download:
    """`digest` is the content's sha256 in hex, `mtime` what Last-Modified says (seconds, 0 unknown)."""

    path: Path
    digest: str
    mtime: int
    name: str


def is_http(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def parse_checksum(text: str) -> str:
    """The hex digits of `sha256:…`. Raises `InvalidInput`."""
    algorithm, _, digits = text.partition(":")
    if algorithm != "sha256" or len(digits) != 64 or any(c not in "0123456789abcdef" for c in digits):
        raise InvalidInput(f"--checksum={text[:100]}: not a checksum", hint="write sha256: and 64 hexadecimal digits")
    return digits


class Fetcher:
    def __init__(self, store: Store, request: BuildRequest, cancel: CancelToken) -> None:
        self._store, self._request, self._cancel = store, request, cancel

    def get(self, url: str, checksum: str = "") -> Download:
        """The file behind `url`, with the given sha256 (hex) if one is given.

        Raises `NotFound`, `Unavailable`, `AccessDenied`, `Corrupt`, `StorageFull`, `Cancelled`.
        """
        stem = f"http-{hashlib.sha256(url.encode()).hexdigest()[:40]}"
        body, notes = self._store.tmp / stem, self._store.tmp / f"{stem}.json"
        known = self._known(body, notes)
        if not (known and checksum and known["digest"] == checksum):
            known = self._download(url, body, notes, known)
        if checksum and known["digest"] != checksum:
            raise Corrupt(
                f"{_shown(url)}: its content hashes to sha256:{known['digest']}, not to sha256:{checksum}",
                hint="the file behind the URL is another one: check it, then correct --checksum",
            )
        os.utime(body)  # younger than the sweep's horizon
        return Download(body, known["digest"], int(known["mtime"]), _file_name(url))

    def _known(self, body: Path, notes: Path) -> dict[str, Any] | None:
        try:
            known = json.loads(notes.read_bytes())
            same = body.stat().st_size == known["size"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return dict(known) if same else None

    def _download(self, url: str, body: Path, notes: Path, known: dict[str, Any] | None) -> dict[str, Any]:
        headers = {}
        if known and known.get("etag"):
            headers["if-none-match"] = known["etag"]
        elif known and known.get("modified"):
            headers["if-modified-since"] = known["modified"]
        with self._follow(url, headers) as response:
            if response.status_code == 304 and known:
                return known
            if response.status_code == 404:
                raise NotFound(f"{_shown(url)}: the server says that it is not there (404)")
            if response.status_code != 200:
                raise Unavailable(f"{_shown(url)}: the server answers {response.status_code}", hint="try again later")
            digest, size = self._save(url, response, body)
            modified = response.headers.get("last-modified", "")
            found = {
                "digest": digest,
                "size": size,
                "etag": response.headers.get("etag", ""),
                "modified": modified,
                "mtime": _http_time(modified),
            }
        write_atomic(notes, json.dumps(found).encode(), durable=False)
        return found

    def _save(self, url: str, response: httpx.Response, body: Path) -> tuple[str, int]:
        free = os.statvfs(body.parent)
        budget = max(0, free.f_bavail * free.f_frsize - RESERVE)
        part = body.with_name(f"{body.name}.{secrets.token_hex(6)}")
        digest, size = hashlib.sha256(), 0
        try:
            with open(part, "xb") as out:
                for data in response.iter_raw():
                    self._cancel.check()
                    size += len(data)
                    if size > budget:
                        raise StorageFull(f"{_shown(url)}: more than the {budget} bytes that are free")
                    digest.update(data)
                    out.write(data)
            expected = response.headers.get("content-length", "")
            if expected.isdigit() and int(expected) != size:
                raise Unavailable(f"{_shown(url)}: the connection broke off after {size} of {expected} bytes")
            os.rename(part, body)
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest(), size

    # --- one request after the other --------------------------------------------------------------------

    @contextlib.contextmanager
    def _follow(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        import httpx

        at = httpx.URL(url)
        first = (at.scheme, at.host, at.port)
        public = True
        every = {"accept-encoding": "identity", "user-agent": "container-workbench"}
        with httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=True) as client:
            for hop in range(MAX_REDIRECTS + 1):
                self._cancel.check()
                public = _check_address(at, first=hop == 0, public=public)
                sent = {**every, **headers}
                if (at.scheme, at.host, at.port) == first:
                    sent |= self._authorization(at.host)
                try:
                    response = client.send(client.build_request("GET", at, headers=sent), stream=True)
                except httpx.HTTPError as error:
                    raise Unavailable(f"{_shown(url)}: {error or type(error).__name__}") from error
                try:
                    _check_peer(response, at)
                    location = response.headers.get("location")
                    if response.status_code not in _REDIRECTS or location is None:
                        try:
                            yield response
                        except httpx.HTTPError as error:
                            raise Unavailable(f"{_shown(url)}: the connection broke off: {error}") from error
                        return
                finally:
                    response.close()
                at = _next(at, location)
        raise Unavailable(f"{_shown(url)}: more than {MAX_REDIRECTS} redirects")

    def _authorization(self, host: str) -> dict[str, str]:
        """From the secrets HTTP_AUTH_HEADER_<host> and HTTP_AUTH_TOKEN_<host>, as BuildKit has them."""
        from engine.build.secret_values import read_secret

        for name, prefix in (("HTTP_AUTH_HEADER", ""), ("HTTP_AUTH_TOKEN", "Bearer ")):
            value = read_secret(self._request, f"{name}_{host}")
            if value is not None:
                return {"authorization": prefix + value.decode("latin-1").strip()}
        return {}

    def source(self, download: Download) -> tuple[ContextSource, Node]:
        """The download as the one file of a source: 0600, root's, with the server's time."""
        folder = self._store.tmp / f"add-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        path = folder / download.name
        shutil.copyfile(download.path, path)  # the kept one has our own times
        os.chmod(path, 0o600)
        os.utime(path, (download.mtime, download.mtime))
        source = ContextSource(folder, where="the download", cancel=self._cancel)
        node = source.lookup(download.name, follow=False)
        assert node is not None
        return source, node

    def archive(self, url: str) -> Path:
        """The tar behind `url`, unpacked into a new folder of ours."""
        from engine.build.contexts import unpack

        download = self.get(url)
        folder = self._store.tmp / f"context-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        with open(download.path, "rb") as raw:
            unpack(raw, folder, self._cancel)
        return folder


def _shown(url: str) -> str:
    """Without a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.hostname or "").geturl()[:200] if "@" in parts.netloc else url[:200]


def _file_name(url: str) -> str:
    """The last component of the URL's path; never one that names a folder."""
    name = posixpath.basename(posixpath.normpath(unquote(urlsplit(url).path) or "/"))
    usable = name not in ("", ".", "..") and "\0" not in name and len(os.fsencode(name)) <= 255
    return name if usable else UNNAMED


def _http_time(text: str) -> int:
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0


def _next(at: httpx.URL, location: str) -> httpx.URL:
    import httpx

    try:
        target = at.join(location)
    except (httpx.InvalidURL, ValueError):
        raise Unavailable(f"{at.host} redirects to {location[:100]!r}, which is no address") from None
    if target.scheme not in ("http", "https") or not target.host:
        raise AccessDenied(f"{at.host} redirects to {location[:100]!r}, which is no web address")
    if at.scheme == "https" and target.scheme == "http":
        raise AccessDenied(f"{at.host} redirects from https to plain http, which is not followed")
    return target.copy_with(username=None, password=None)


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []  # the request itself will say so, or a proxy knows the name
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _check_address(url: httpx.URL, *, first: bool, public: bool) -> bool:
    """Whether all hosts so far are public ones. Raises `AccessDenied`."""
    inside = False
    for address in _addresses(url.host):
        if _forbidden(address):
            raise AccessDenied(
                f"{url.host} is the link-local address {address}, which a build may not read",
                hint="a machine's metadata service lives there; name another host",
            )
        inside = inside or address.is_private or address.is_loopback
    if inside and public and not first:
        raise AccessDenied(f"a redirect leads to {url.host}, which is an address inside your network")
    return public and not inside


def _forbidden(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    metadata = address.version == 6 and address == ipaddress.ip_address("fd00:ec2::254")
    return bool(mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified or metadata)


def _check_peer(response: httpx.Response, url: httpx.URL) -> None:
    """The name may have got another address since it was checked."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer:
        try:
            address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        except ValueError:
            return
        if _forbidden(address):
            raise AccessDenied(f"{url.host} led to the link-local address {address}")
