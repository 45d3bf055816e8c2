"""Rows of a list as JSON, each made once: what describes an object is frozen, and the same one while nothing about the object changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from engine.rest.http import Response

T = TypeVar("T")
R = TypeVar("R")


class Rows(Generic[T, R]):
    """Keeps what `make` made of each description."""

    def __init__(self, make: Callable[[T], R]) -> None:
        self._make = make
        self._made: dict[str, tuple[T, R]] = {}

    def of(self, identity: str, described: T) -> R:
        found = self._made.get(identity)
        if found is None or found[0] is not described:
            found = self._made[identity] = (described, self._make(described))
        return found[1]

    def keep(self, identities: Iterable[str]) -> None:
        """There are no others any more."""
        known = set(identities)
        if len(self._made) > len(known):
            self._made = {key: value for key, value in self._made.items() if key in known}


def list_response(rows: Iterable[bytes]) -> Response:
    return Response(200, b"[" + b",".join(rows) + b"]\n")
