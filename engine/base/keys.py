"""The keys that detach a terminal from a container: how they are written, and how they are found in what is typed."""

from __future__ import annotations

from engine.errors import InvalidInput

DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q`, `ctrl-@,x`: the bytes that a terminal sends. Raises InvalidInput."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        name = key.removeprefix("ctrl-")
        if name != key and len(name) == 1 and (name in _CONTROL or ("a" <= name <= "z")):
            keys.append(_CONTROL[name] if name in _CONTROL else ord(name) - 96)
        elif len(key) == 1 and key.isascii():
            keys.append(ord(key))
        else:
            raise InvalidInput(
                f"invalid detach keys ({text}): unknown key {key!r}", hint="letters and ctrl-a to ctrl-z, comma between"
            )
    return bytes(keys)


class KeyFilter:
    """Holds back what may be the beginning of the detach keys. `feed` gives what goes on to the program; `found` says
    that the keys were pressed."""

    def __init__(self, keys: bytes) -> None:
        self._keys, self._held = keys, b""
        self.found = False

    def feed(self, data: bytes) -> bytes:
        if not self._keys:
            return data
        data, self._held = self._held + data, b""
        at = data.find(self._keys)
        if at >= 0:
            self.found = True
            return data[:at]
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if self._keys.startswith(data[-size:]):
                self._held = data[-size:]
                return data[:-size]
        return data
