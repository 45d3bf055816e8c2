"""What a workbench can be asked by another one beyond Docker's API: methods of `engine.api.Engine` by name, with JSON.

`POST /workbench/call/METHOD` takes the arguments as an object, and answers with `{"result": …}`; errors are the API's. How arguments and
results look follows from the annotations of the protocol: records are objects by their fields' names, tuples and sequences are
lists, bytes base64. Fields that one side does not know are left out, those that it misses have their defaults: two versions can speak.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, Union

from engine import api, model
from engine.errors import InvalidInput

PATH = "/workbench/call"
# Those that need nothing of the caller's own files, and are no streams.
METHODS = frozenset(
    {
        "build_cache",
        "build_detail",
        "build_diff",
        "builds",
        "check",
        "container_summary",
        "drift",
        "file_content",
        "file_diff",
        "file_history",
        "host_stats",
        "image",
        "image_diff",
        "image_manifests",
        "image_waste",
        "keep_images",
        "listening",
        "manifests",
        "prune_build_cache",
        "prune_containers",
        "prune_images",
        "prune_system",
        "push_index",
        "referrers",
        "remove_build",
        "start",
        "stop",
        "take_over",
    }
)


@functools.cache
def hints(method: str) -> Mapping[str, Any]:
    """The types of a method's parameters and of its `return`. Raises `InvalidInput` for one that cannot be called."""
    if method not in METHODS:
        raise InvalidInput(f"there is no call {method[:100]!r}")
    names = {name: getattr(model, name) for name in model.__all__}
    return typing.get_type_hints(getattr(api.Engine, method), vars(api), names)


def encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: encode(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(each) for key, each in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Sequence | AbstractSet) and not isinstance(value, str):
        return [encode(each) for each in value]
    return value


def decode(kind: Any, value: Any) -> Any:
    """`value` as the type `kind` says. Raises `InvalidInput`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value)
    if origin is Literal:
        return _checked(value in arguments, value, kind)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value)
    if origin is tuple:
        items = _checked(isinstance(value, list), value, kind)
        if arguments[1:] == (...,):
            return tuple(decode(arguments[0], each) for each in items)
        _checked(len(items) == len(arguments), value, kind)
        return tuple(decode(each, item) for each, item in zip(arguments, items, strict=True))
    if origin is frozenset:
        return frozenset(decode(arguments[0], each) for each in _checked(isinstance(value, list), value, kind))
    if origin is Sequence:
        return [decode(arguments[0], each) for each in _checked(isinstance(value, list), value, kind)]
    if origin is Mapping:
        found = _checked(isinstance(value, dict), value, kind)
        return {key: decode(arguments[1], each) for key, each in found.items()}
    return _plain(kind, value)


def _plain(kind: Any, value: Any) -> Any:
    if kind in (Any, object):
        return value
    if kind in (None, type(None)):
        return _checked(value is None, value, kind)
    if kind is float:
        return float(_checked(isinstance(value, int | float) and not isinstance(value, bool), value, kind))
    if kind is Path:
        return Path(_checked(isinstance(value, str), value, kind))
    if kind is bytes:
        try:
            return base64.b64decode(_checked(isinstance(value, str), value, kind), validate=True)
        except ValueError:
            raise _wrong(value, kind) from None
    if kind in (str, int, bool):
        return _checked(isinstance(value, kind) and isinstance(value, bool) == (kind is bool), value, kind)
    raise InvalidInput(f"{kind!r} does not go over the wire")


def _one_of(kinds: Sequence[Any], value: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is not type(None):
            try:
                return decode(kind, value)
            except InvalidInput:
                continue
    raise _wrong(value, kinds)


def _record(kind: Any, value: Any) -> Any:
    found = _checked(isinstance(value, dict), value, kind)
    names = {name: getattr(model, name) for name in model.__all__}
    wanted = typing.get_type_hints(kind, None, names)
    known = [entry.name for entry in dataclasses.fields(kind)]
    try:
        return kind(**{name: decode(wanted[name], found[name]) for name in known if name in found})
    except TypeError as error:
        raise InvalidInput(f"{kind.__name__}: {error}") from None


def _checked(good: bool, value: Any, kind: Any) -> Any:
    if not good:
        raise _wrong(value, kind)
    return value


def _wrong(value: Any, kind: Any) -> InvalidInput:
    return InvalidInput(f"{str(value)[:100]!r} is no {getattr(kind, '__name__', kind)}")


def arguments_of(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `InvalidInput` for what the method does not take."""
    known = hints(method)
    if unknown := [name for name in given if name not in known or name == "return"]:
        raise InvalidInput(f"{method} does not take {unknown[0][:100]!r}")
    return {name: decode(known[name], value) for name, value in given.items()}
