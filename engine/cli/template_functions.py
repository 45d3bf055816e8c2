"""The functions of `--format` templates: Go's own and those that Docker adds; and how Go prints a value.

Go: text/template, "Functions". Docker: cli/templates (json, split, join, title, lower, upper, pad, truncate).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from engine.errors import InvalidInput


class Missing:
    """A field that is not there: false in a condition, an error when it is printed or used."""

    def __init__(self, path: str, known: Sequence[str]) -> None:
        self.path, self.known = path, known

    def error(self) -> InvalidInput:
        fields = ", ".join(self.known[:40])
        return InvalidInput(f"--format: no field {self.path!r}", hint=f"fields here: {fields or 'none'}")


class NilList(list[Any]):
    """A list that was not given: Docker's types know it as one, so that it prints as `[]`, and as JSON is null."""


class NilMap(dict[str, Any]):
    """The same of a map."""


# Fields of Docker's documents that are lists or maps when they are null.
_LISTS = frozenset(
    "Entrypoint Cmd Env Binds CapAdd CapDrop Dns DnsOptions DnsSearch SecurityOpt GroupAdd Devices Ulimits ExecIDs VolumesFrom ExtraHosts Links"
    " Aliases OnBuild Shell DeviceCgroupRules DeviceRequests MaskedPaths ReadonlyPaths Mounts RepoTags RepoDigests DNSNames".split()
)
_MAPS = frozenset(
    "Volumes Labels ExposedPorts PortBindings Sysctls Tmpfs Annotations Options Ports Networks DriverOpts StorageOpt".split()
)


class Struct(dict[str, Any]):
    """An object that in Docker is a struct: it prints as its values alone, in the order of its fields."""

    def __init__(self, value: Mapping[str, Any], fields: Sequence[str]) -> None:
        super().__init__(value)
        self.fields = fields


# Fields of Docker's documents that hold structs, or lists or maps of them (moby, api/types).
_STRUCTS: Mapping[str, Sequence[str]] = {
    name: fields.split()
    for name, fields in {
        "State": "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt Health",
        "RestartPolicy": "Name MaximumRetryCount",
        "LogConfig": "Type Config",
        "Healthcheck": "Test Interval Timeout StartPeriod StartInterval Retries",
        "Mounts": "Type Name Source Destination Driver Mode RW Propagation",
        "Ports": "HostIp HostPort",
        "PortBindings": "HostIp HostPort",
        "ExposedPorts": "",
        "Volumes": "",
        "Devices": "PathOnHost PathInContainer CgroupPermissions",
        "RootFS": "Type Layers",
        "GraphDriver": "Data Name",
        "IPAM": "Driver Options Config",
    }.items()
}
_POOL = ("Subnet", "IPRange", "Gateway", "AuxiliaryAddresses")
_DURATIONS = frozenset(("Interval", "Timeout", "StartPeriod", "StartInterval"))
_NUMBERS = frozenset(("Retries", "MaximumRetryCount", "Pid", "ExitCode"))
_FLAGS = frozenset(("Running", "Paused", "Restarting", "OOMKilled", "Dead", "RW"))
_POINTERS = frozenset(("Health",))
_MAPS_OF = frozenset(("Ports", "PortBindings", "ExposedPorts", "Volumes"))


def typed(name: str, value: Any) -> Any:
    """A field as what Docker's types make of it: a null one as an empty list or map, an object as a struct where it is one there."""
    if value is None:
        return NilList() if name in _LISTS else NilMap() if name in _MAPS else None
    if name == "Config" and isinstance(value, list):  # a network's pools; a container's is an object
        return _structs(value, _POOL)
    if name not in _STRUCTS:
        return value
    if name in _MAPS_OF and isinstance(value, Mapping):
        return {key: _structs(one, _STRUCTS[name]) for key, one in value.items()}
    return _structs(value, _STRUCTS[name])


def _structs(value: Any, fields: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_structs(one, fields) for one in value]
    return Struct(value, fields) if isinstance(value, Mapping) else value


def _zero(name: str) -> str:
    if name in _LISTS or name in _MAPS:
        return shown(typed(name, None))
    return "0" if name in _NUMBERS else "false" if name in _FLAGS else ""


def _values(struct: Struct) -> Iterator[str]:
    for name in struct.fields:
        value = struct.get(name)
        if name in _DURATIONS:
            from engine.build.dockerfile.durations import format_duration

            yield format_duration(int(value or 0))
        elif value is None and name not in _POINTERS:
            yield _zero(name)
        else:
            yield shown(typed(name, value), top=False)


def truth(value: Any) -> bool:
    """Go's: the zero value of a type and what is empty are false."""
    return not isinstance(value, Missing) and bool(value)


def shown(value: Any, *, top: bool = True) -> str:
    """A value as Go's text/template prints it: `[a b]`, `map[k:v]`, `true`, `<no value>`."""
    if isinstance(value, Missing):
        raise value.error()
    if value is None:
        return "<no value>" if top else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Struct):
        return f"{{{' '.join(_values(value))}}}"
    if isinstance(value, Mapping):
        pairs = " ".join(f"{key}:{shown(one, top=False)}" for key, one in sorted(value.items()))
        return f"map[{pairs}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(shown(one, top=False) for one in value)}]"
    if isinstance(value, float):
        return f"{value:g}" if value != int(value) else str(int(value))
    return str(value)


class Row(dict[str, Any]):
    """A row of a list, as Docker makes one for each object."""


_HTML = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}


def to_json(value: Any) -> str:
    """Compact, as Docker's: keys in their order, nothing escaped for HTML."""
    if isinstance(value, Missing):
        raise value.error()
    if isinstance(value, NilList | NilMap):
        return "null"
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # Go's own marshaller, which writes Docker's rows of a list, escapes what HTML could take for its own; for parts of a document
    # Docker turns that off.
    return text.translate(_HTML) if isinstance(value, Row) else text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _split(text: Any, separator: Any) -> list[str]:
    return list(_text(text)) if separator == "" else _text(text).split(str(separator))


def _join(items: Any, separator: Any) -> str:
    if isinstance(items, Missing):
        raise items.error()
    if not isinstance(items, list | tuple | type(None)):
        raise InvalidInput("--format: join takes a list", hint='{{join .List ", "}}')
    return str(separator).join(_text(item) for item in items or ())


def _title(text: Any) -> str:
    return re.sub(r"(?:^|(?<=[^\w']))\w", lambda match: match[0].upper(), _text(text))


def _pad(text: Any, before: Any, after: Any) -> str:
    return " " * int(before) + _text(text) + " " * int(after) if text else _text(text)


def _truncate(text: Any, length: Any) -> str:
    return _text(text)[: int(length)]


def _length(value: Any) -> int:
    if isinstance(value, Missing):
        raise value.error()
    if value is None:
        return 0
    if not isinstance(value, str | list | tuple | Mapping):
        raise InvalidInput(f"--format: len of {shown(value)}: it has none")
    return len(value.encode()) if isinstance(value, str) else len(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Missing):
            raise value.error()
        if isinstance(value, Mapping):
            # Else the zero value of what such a map holds: labels are texts.
            zero = "" if all(isinstance(one, str) for one in value.values()) else None
            value = value.get(key, zero)
        elif isinstance(value, list | tuple | str) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(value):
                raise InvalidInput(f"--format: index {key} is out of range: there are {len(value)}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        else:
            raise InvalidInput(f"--format: index of {shown(value)} by {shown(key)} is not possible")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, list | tuple | str) or len(bounds) > 3:
        raise InvalidInput("--format: slice takes a list or a text, and up to three numbers")
    start, end = (*bounds, *(0, len(value))[len(bounds) :])[:2]
    if not 0 <= int(start) <= int(end) <= len(value):
        raise InvalidInput(f"--format: slice {start}:{end} is out of range: there are {len(value)}")
    return value[int(start) : int(end)]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise InvalidInput("--format: eq takes two values or more")
    return any(_alike(first, other) for other in others)


def _alike(one: Any, other: Any) -> bool:
    for value in (one, other):
        if isinstance(value, Missing):
            raise value.error()
    if isinstance(one, bool) != isinstance(other, bool):
        # A list's rows hold texts where Docker's hold the same texts: "true" is compared as it is written.
        return shown(one) == shown(other)
    return bool(one == other)


def _order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(one: Any, other: Any) -> bool:
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
        if not numbers and not (isinstance(one, str) and isinstance(other, str)):
            raise InvalidInput(f"--format: {_text(one)} and {_text(other)} cannot be compared")
        return compare(one, other)

    return run


def _print(*values: Any) -> str:
    """Go's Sprint: a space between two values when neither is a text."""
    out = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            out += " "
        out += _text(value)
    return out


def _println(*values: Any) -> str:
    return " ".join(map(_text, values)) + "\n"


_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?([a-zA-Z%])")


def _printf(form: Any, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        return _formatted(rest.pop(0), verb, flags, width, precision)

    text = _VERB.sub(one, _text(form))
    return text + (f"%!(EXTRA {', '.join(map(_text, rest))})" if rest else "")


def _formatted(value: Any, verb: str, flags: str, width: str, precision: str | None) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb in "dxXob" and number:
        text = format(int(value), verb)
    elif verb in "feg" and number:
        text = format(float(value), f".{precision or 6}{verb}")
    elif verb == "q":
        text = json.dumps(_text(value), ensure_ascii=False)
    elif verb in "svt" or (verb in "xX" and isinstance(value, str)):
        text = _text(value).encode().hex() if verb in "xX" else _text(value)
        text = text[: int(precision)] if precision and verb == "s" else text
    else:
        text = f"%!{verb}({_text(value)})"
    if "+" in flags and number and not text.startswith("-"):
        text = f"+{text}"
    wide = int(width or 0)
    if "-" in flags:
        return text.ljust(wide)
    return text.zfill(wide) if "0" in flags and number else text.rjust(wide)


def _html(*values: Any) -> str:
    marks = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"}
    return "".join(marks.get(char, char) for char in _print(*values))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "json": to_json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "pad": _pad,
    "truncate": _truncate,
    "println": _println,
    "print": _print,
    "printf": _printf,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda one, other: not _equal(one, other),
    "lt": _order(lambda one, other: bool(one < other)),
    "le": _order(lambda one, other: bool(one <= other)),
    "gt": _order(lambda one, other: bool(one > other)),
    "ge": _order(lambda one, other: bool(one >= other)),
    "html": _html,
    "js": lambda *values: json.dumps(_print(*values))[1:-1].replace("'", "\\'"),
    "urlquery": lambda *values: quote(_print(*values), safe="").replace("%20", "+"),
}
# In the heading of a table a column is called by its field, whatever is done to the value (Docker's HeaderFunctions).
HEADER_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **FUNCTIONS,
    **{name: (lambda value, *_: value) for name in ("json", "join", "split", "title", "lower", "upper", "truncate")},
}
