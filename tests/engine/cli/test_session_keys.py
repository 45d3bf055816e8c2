"""Detach keys: how they are written, and how they are found in what is typed."""

from __future__ import annotations

import pytest

from engine.base.keys import DETACH_KEYS, KeyFilter, parse_keys
from engine.errors import InvalidInput


def test_keys_as_docker_writes_them() -> None:
    assert parse_keys(DETACH_KEYS) == b"\x10\x11"
    assert parse_keys("ctrl-@,x,ctrl-[,ctrl-_") == b"\x00x\x1b\x1f"
    assert parse_keys("") == b""
    for bad in ("ctrl-1", "ab", "ctrl-", "a,,b", "ctrl-P"):
        with pytest.raises(InvalidInput, match="detach keys"):
            parse_keys(bad)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_keys_are_found_however_they_arrive_and_all_else_goes_through(size: int) -> None:
    def fed(data: bytes) -> tuple[bytes, bool]:
        keys = KeyFilter(b"\x10\x11")
        return b"".join(keys.feed(data[at : at + size]) for at in range(0, len(data), size)), keys.found

    assert fed(b"ls\x10\x10x\x11\x10y") == (b"ls\x10\x10x\x11\x10y", False)
    assert fed(b"ls\x10\x10\x11") == (b"ls\x10", True)
