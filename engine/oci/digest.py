"""Content digests: `algorithm:hex` (image-spec, descriptor.md#digests)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.base.lazy import lazy
from engine.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    import hashlib
else:
    hashlib = lazy("hashlib")

_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


class Digest(str):
    """A checked digest. Build one with `parse` (from outside) or `of` (from bytes)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object, *, known: bool = True) -> Digest:
        """Raises `InvalidInput` for what is not of the grammar, or not of the length of its algorithm.

        With `known` False an algorithm that this engine does not know is accepted, as descriptor.md asks of a reader of
        documents; its content cannot be verified, so `hasher` refuses it.
        """
        if isinstance(text, str) and _GRAMMAR.fullmatch(text):
            algorithm, _, digits = text.partition(":")
            length = _LENGTH.get(algorithm)
            if (length == len(digits) and _HEX.fullmatch(digits)) or (length is None and not known):
                return cls(text)
        hint = "a digest is sha256: and 64 lower-case hex digits"
        raise InvalidInput(f"{str(text)[:100]!r} is not a digest", hint=hint)

    def hasher(self) -> hashlib._Hash:
        """A fresh hash of this digest's algorithm. Raises `Unsupported` for one that cannot be verified."""
        if self.algorithm not in _LENGTH:
            raise Unsupported(f"digests of {self.algorithm} cannot be verified", hint="sha256 and sha512 can")
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Whether `data` has this digest. Raises `Unsupported` as `hasher` does."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.hex

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        return self.hex[:12]
