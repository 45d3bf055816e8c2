"""Protocol buffers as dataclasses: fields say their number and kind, and messages become bytes and come back (pure).

The wire format is that of https://protobuf.dev/programming-guides/encoding/: a tag (number and wire type) before each value; fields
that are not known are skipped, and what has its default is not written (proto3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final, TypeVar, cast

M = TypeVar("M")

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32
_64 = (1 << 64) - 1

TEXT: Final = "text"
BYTES: Final = "bytes"
INT: Final = "int"  # int32, int64, uint32, enum
BOOL: Final = "bool"
Kind = str | type  # one of the above, or a message's class


class Malformed(ValueError):
    """The bytes are no message of this kind."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    number: int
    kind: Kind
    many: bool
    key: Kind | None  # of a map


def one(number: int, kind: Kind) -> Any:
    """A field that is there once. A message that was not sent is None."""
    default: Any = {TEXT: "", BYTES: b"", INT: 0, BOOL: False}.get(kind) if isinstance(kind, str) else None
    return dataclasses.field(default=default, metadata={"wire": (number, kind, False, None)})


def many(number: int, kind: Kind) -> Any:
    """A repeated field, a list."""
    return dataclasses.field(default_factory=list, metadata={"wire": (number, kind, True, None)})


def mapping(number: int, kind: Kind, key: Kind = TEXT) -> Any:
    """A map field, a dict."""
    return dataclasses.field(default_factory=dict, metadata={"wire": (number, kind, True, key)})


_known: dict[type, dict[int, _Field]] = {}


def _fields(message: type) -> dict[int, _Field]:
    if message not in _known:
        found = [_Field(field.name, *field.metadata["wire"]) for field in dataclasses.fields(cast(Any, message))]
        _known[message] = {field.number: field for field in found}
    return _known[message]


def encode(message: Any) -> bytes:
    out = bytearray()
    for field in _fields(type(message)).values():
        value = getattr(message, field.name)
        if field.key is not None:
            for key, item in value.items():
                _put(out, field.number, BYTES, _entry(field.key, key, field.kind, item))
        elif field.many:
            for item in value:
                _put(out, field.number, field.kind, item)
        elif value is not None and value != "" and value != b"" and value != 0:
            _put(out, field.number, field.kind, value)
    return bytes(out)


def _entry(key_kind: Kind, key: Any, kind: Kind, value: Any) -> bytes:
    out = bytearray()
    _put(out, 1, key_kind, key)
    _put(out, 2, kind, value)
    return bytes(out)


def _put(out: bytearray, number: int, kind: Kind, value: Any) -> None:
    if kind in (INT, BOOL):
        _varint(out, number << 3 | VARINT)
        _varint(out, int(value) & _64)
        return
    data = value if kind == BYTES else value.encode("utf-8", "surrogateescape") if kind == TEXT else encode(value)
    _varint(out, number << 3 | LENGTH)
    _varint(out, len(data))
    out += data


def _varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def decode(data: bytes, message: type[M], depth: int = 0) -> M:
    """Raises `Malformed`."""
    if depth > _MAX_DEPTH:
        raise Malformed("messages are nested too deeply")
    fields, values = _fields(message), message()
    for number, wire, raw in _parts(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.key is not None:
            key, value = _pair(field, raw, depth)
            getattr(values, field.name)[key] = value
        elif not field.many:
            setattr(values, field.name, _value(field.kind, wire, raw, depth))
        elif wire == LENGTH and field.kind in (INT, BOOL):  # packed
            getattr(values, field.name).extend(_packed(field.kind, raw))
        else:
            getattr(values, field.name).append(_value(field.kind, wire, raw, depth))
    return values


def _pair(field: _Field, raw: int | bytes, depth: int) -> tuple[Any, Any]:
    if isinstance(raw, int) or field.key is None:
        raise Malformed("a map entry is no message")
    key: Any = _nothing(field.key)
    value: Any = _nothing(field.kind)
    for number, wire, part in _parts(raw):
        if number == 1:
            key = _value(field.key, wire, part, depth)
        elif number == 2:
            value = _value(field.kind, wire, part, depth)
    return key, value


def _nothing(kind: Kind) -> Any:
    return {TEXT: "", BYTES: b"", INT: 0, BOOL: False}[kind] if isinstance(kind, str) else kind()


def _value(kind: Kind, wire: int, raw: int | bytes, depth: int) -> Any:
    if kind in (INT, BOOL):
        if not isinstance(raw, int):
            raise Malformed("a number is no varint")
        return bool(raw) if kind == BOOL else _signed(raw)
    if isinstance(raw, int) or wire != LENGTH:
        raise Malformed("a value has the wrong wire type")
    if kind == BYTES:
        return raw
    if kind == TEXT:
        return raw.decode("utf-8", "surrogateescape")
    assert isinstance(kind, type)  # all that is left
    return decode(raw, kind, depth + 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _packed(kind: Kind, raw: int | bytes) -> Iterator[Any]:
    assert isinstance(raw, bytes)  # wire type LENGTH
    at = 0
    while at < len(raw):
        value, at = _read_varint(raw, at)
        yield bool(value) if kind == BOOL else _signed(value)


def _parts(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _read_varint(data, at)
            yield number, wire, value
            continue
        if wire == LENGTH:
            size, at = _read_varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise Malformed(f"wire type {wire} is not known")
        if at + size > len(data):
            raise Malformed("the message breaks off")
        yield number, wire, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a number breaks off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _64, at
        shift += 7
