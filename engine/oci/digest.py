"""Content digests: `algorithm:hex` (image-spec, descriptor.md#digests)."""

from __future__ import annotations

import hashlib
import re

from engine.errors import InvalidInput

_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


class Digest(str):
    """A checked digest. Build one with `parse` (from outside) or `of` (from bytes)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Digest:
        """Raises `InvalidInput` for anything but sha256 or sha512 in lower-case hex of the right length."""
        if isinstance(text, str):
            algorithm, _, digits = text.partition(":")
            if _LENGTH.get(algorithm) == len(digits) and _HEX.fullmatch(digits):
                return cls(text)
        hint = "a digest is sha256: and 64 lower-case hex digits"
        raise InvalidInput(f"{str(text)[:100]!r} is not a digest", hint=hint)

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
