"""Protocol buffers as dataclasses."""

from __future__ import annotations

import random

import pytest

from engine.rest.buildkit import messages, wire
from engine.rest.buildkit.messages import Packet, SolveRequest, Stat, StatusResponse, Timestamp, Vertex


def test_known_bytes() -> None:
    """The example of the encoding's own description: field 1 with 150 is 08 96 01; text "testing" in field 2 is 12 07 …"""
    assert wire.encode(messages.CacheEntry("testing")) == b"\x0a\x07testing"
    assert wire.encode(Packet(type=150)) == b"\x08\x96\x01"
    assert wire.decode(b"\x08\x96\x01", Packet).type == 150


def test_what_is_written_comes_back() -> None:
    request = SolveRequest(
        ref="r",
        frontend_attrs={"a": "ä", "": "empty"},
        entitlements=["x", ""],
        exporters=[messages.Exporter("moby", {"name": "n"})],
        cache=messages.CacheOptions([messages.CacheEntry("inline")]),
    )
    assert wire.decode(wire.encode(request), SolveRequest) == request
    status = StatusResponse([Vertex("d", ["i"], cached=True, started=Timestamp(1, 2))])
    assert wire.decode(wire.encode(status), StatusResponse) == status


def test_numbers_keep_their_sign() -> None:
    assert wire.decode(wire.encode(Stat(mod_time=-1, size=1 << 40)), Stat) == Stat(mod_time=-1, size=1 << 40)


def test_names_that_are_no_unicode_come_through() -> None:
    stat = Stat("\udcff\udcfe")
    assert b"\xff\xfe" in wire.encode(stat)
    assert wire.decode(wire.encode(stat), Stat) == stat


def test_fields_that_are_not_known_are_skipped() -> None:
    unknown = b"\xf8\x07\x01" + b"\xfa\x07\x02hi" + b"\xf9\x07" + b"8" * 8 + b"\xfd\x07" + b"4" * 4
    assert wire.decode(unknown + b"\x08\x02", Packet) == Packet(2)


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x0a\x05ab", b"\x0b", b"\x12\x02\x08", b"\xff" * 11, b"\x0a\x01", b"\x10\x01", b"\x09abc"]
)
def test_what_breaks_off_or_is_of_another_kind_is_malformed(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.decode(data, Packet)


def test_random_bytes_are_a_message_or_malformed() -> None:
    chance = random.Random(7)
    outcomes = {True: 0, False: 0}
    for _ in range(3000):
        try:
            wire.decode(chance.randbytes(chance.randrange(40)), StatusResponse)
            outcomes[True] += 1
        except wire.Malformed:
            outcomes[False] += 1
    assert min(outcomes.values()) > 20
