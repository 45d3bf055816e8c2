"""Single values of a compose document, as the specification lets them be written."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from engine.base.units import parse_size
from engine.build.dockerfile.durations import parse_duration
from engine.errors import InvalidInput
from engine.model import Ulimit
from engine.project.compose.positions import Map, Place, Seq


def text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "yes", "on", "1"):
        return True
    if str(value).lower() in ("false", "no", "off", "0", ""):
        return False
    raise InvalidInput(f"{value!r} is neither true nor false")


def size(value: Any) -> int:
    return value if isinstance(value, int) else parse_size(str(value))


def nanoseconds(value: Any) -> int:
    return parse_duration(str(value))


def words(value: Any) -> tuple[str, ...]:
    return tuple(shlex.split(value)) if isinstance(value, str) else tuple(map(text, value))


def texts(value: Any) -> tuple[str, ...]:
    return tuple(map(text, value)) if isinstance(value, list | tuple) else (text(value),)


def mapping(value: Any) -> dict[str, str]:
    """Also of the list form `- key=value`."""
    if isinstance(value, list):
        return {key: item for key, _, item in (text(entry).partition("=") for entry in value)}
    return {key: text(item) for key, item in value.items()}


def mode_bits(value: Any) -> int:
    """Permissions in octal: `0440` (YAML reads it as a number), `"0440"`, `0o440`."""
    if isinstance(value, str):
        return int(value.removeprefix("0o"), 8)
    return int(value)


def entries(value: Any) -> Iterable[tuple[Any, Place]]:
    return zip(value, value.at, strict=True) if isinstance(value, Seq) else ()


def ulimit(name: str, value: Any) -> Ulimit:
    if isinstance(value, Map):
        return Ulimit(name, int(value["soft"]), int(value["hard"]))
    return Ulimit(name, int(value), int(value))


def filled(value: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
    """A name without a value is the user's own variable, and is left out when that is not set."""
    return {
        key: env[key] if item is None else text(item) for key, item in value.items() if item is not None or key in env
    }


def pairs(value: Any, env: Mapping[str, str]) -> tuple[str, ...]:
    """`K=V` words of a mapping or a list, names without a value taken from `env`."""
    if isinstance(value, list):
        value = {key: (item if equals else None) for key, equals, item in (text(e).partition("=") for e in value)}
    return tuple(f"{key}={item}" for key, item in filled(value or {}, env).items())
