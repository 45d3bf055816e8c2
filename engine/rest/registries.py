"""Registries over the API: logins tried, searches, what a registry has; and the credentials that other requests bring along.

`X-Registry-Auth` is one AuthConfig as JSON in base64url, `X-Registry-Config` an object of them by registry (Engine API,
"Authentication"). They serve the one request and are kept nowhere.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from engine.api import Engine, RegistryAuth, RegistryMatch
from engine.errors import InvalidInput, Unsupported
from engine.oci.reference import Reference
from engine.rest.http import Answer, Request, json_response
from engine.rest.router import Router
from engine.service.wire import Fields

_HUB = "https://index.docker.io/v1/"
_FOUND, _MOST_FOUND = 25, 100


class RegistryRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("POST", "/auth", self.login)
        router.add("GET", "/images/search", self.search)
        router.add("GET", "/distribution/{name*}/json", self.distribution)

    async def login(self, request: Request) -> Answer:
        auth = _auth(Fields(await request.json()), _HUB)
        if auth is None:
            raise InvalidInput("a name and a password (or an identity token) are needed")
        if any(c.isspace() for c in auth.server):
            raise InvalidInput(f"unable to parse server address: {auth.server!r}")
        await self._engine.login(auth)
        return json_response({"Status": "Login Succeeded", "IdentityToken": ""})

    async def search(self, request: Request) -> Answer:
        query = request.query
        term, limit = query.text("term"), query.number("limit", _FOUND) or _FOUND
        if not 0 < limit <= _MOST_FOUND:
            raise InvalidInput(f"Limit {limit} is outside the range of [1, {_MOST_FOUND}]")
        wanted = _SearchFilter(query.filters())
        domain = Reference.parse(term.lower()).domain if "/" in term else "docker.io"
        found = await self._engine.search_images(term, limit=limit, auth=auth_of(request, domain))
        return json_response([_row(one) for one in found if wanted.keeps(one)])

    async def distribution(self, request: Request) -> Answer:
        name = request.params["name"]
        auth = auth_of(request, Reference.parse(name).domain)
        found = await self._engine.distribution(name, auth=auth)
        descriptor = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
        return json_response({"Descriptor": descriptor, "Platforms": [_platform(text) for text in found.platforms]})


def _platform(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


def _row(one: RegistryMatch) -> dict[str, Any]:
    return {
        "star_count": one.stars,
        "is_official": one.official,
        "name": one.name,
        "is_automated": one.automated,
        "description": one.description,
    }


class _SearchFilter:
    """`is-official`, `is-automated`, `stars`. Raises `InvalidInput` for others."""

    def __init__(self, filters: dict[str, list[str]]) -> None:
        if unknown := set(filters) - {"is-official", "is-automated", "stars"}:
            raise InvalidInput(f"invalid filter '{sorted(unknown)[0]}'")
        self._official, self._automated = (_truth(filters, name) for name in ("is-official", "is-automated"))
        stars = filters.get("stars", [])
        if not all(text.isascii() and text.isdigit() for text in stars):
            raise InvalidInput("invalid filter 'stars': a number is needed")
        self._stars = max(map(int, stars), default=0)

    def keeps(self, one: RegistryMatch) -> bool:
        return (
            one.stars >= self._stars
            and self._official in (None, one.official)
            and self._automated in (None, one.automated)
        )


def _truth(filters: dict[str, list[str]], name: str) -> bool | None:
    values = {text.lower() for text in filters.get(name, [])}
    if not values <= {"true", "false", "1", "0"}:
        raise InvalidInput(f"invalid filter '{name}={sorted(values)[0]}'")
    return None if len(values) != 1 else values <= {"true", "1"}


def auth_of(request: Request, domain: str) -> RegistryAuth | None:
    """`X-Registry-Auth`: who this request goes to `domain`'s registry as; None leaves it to the engine. Raises `InvalidInput`."""
    try:
        document = _header(request, "x-registry-auth")
    except InvalidInput:
        return None  # as Docker, which takes it for none
    return _auth(Fields(document, "X-Registry-Auth"), domain)


def auths_of(request: Request) -> tuple[RegistryAuth, ...]:
    """`X-Registry-Config`: for each registry that a build may pull from. Raises `InvalidInput`."""
    document = Fields(_header(request, "x-registry-config"), "X-Registry-Config")
    found = (_auth(document.object(name), name) for name in document.names())
    return tuple(auth for auth in found if auth is not None)


def _header(request: Request, name: str) -> object:
    text = request.headers.get(name, "").strip()
    if not text:
        return None
    try:
        # Go's clients and others differ in padding and alphabet.
        raw = base64.b64decode(text.translate({45: 43, 95: 47}).rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
        return json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidInput(f"invalid {name.title()} header: it is not base64 of JSON") from None


def _auth(fields: Fields, server: str) -> RegistryAuth | None:
    if fields.text("registrytoken"):
        raise Unsupported("registry tokens are not taken", hint="send a name and a password, or an identity token")
    name, password = fields.text("username"), fields.text("password")
    packed, token = fields.text("auth"), fields.text("identitytoken")
    if packed and not name:
        try:
            name, _, password = base64.b64decode(packed).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            raise InvalidInput("auth is not base64 of NAME:PASSWORD") from None
    if not (name or token):
        return None
    # The registry that is asked decides, as in Docker: what the client calls it is for the login alone.
    address = fields.text("serveraddress") or server if server == _HUB else server
    return RegistryAuth(address, name, password, token)
