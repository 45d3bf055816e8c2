"""Dataclasses whose methods are made when they are first needed.

`dataclasses` compiles each method of each class where the class stands: 0.6 ms a class, of the 200 that a build loads and the 60 whose
objects it makes. A command is a process of its own, so that this is a third of its time. `install` is for the entry point of such a
process, before it imports anything else of ours: classes of this project alone are affected, and what they are in the end is what
`dataclasses` itself makes of them.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from typing import Any

_OURS = ("engine.", "workbench.")
_SPECIAL = ("ClassVar", "InitVar", "KW_ONLY")  # fields that are none: the class is made at once
_FIRST = ("__init__", "__match_args__", "__dataclass_fields__")  # what the first object needs
_THEN = ("__repr__", "__eq__", "__dataclass_params__")  # most classes never do
_OWN = ("__dict__", "__weakref__")  # each class has its own
_real: Any = dataclasses.dataclass
_lock = threading.RLock()


def install() -> None:
    """Modules that are imported from now on make their classes so."""
    dataclasses.dataclass = _dataclass


def _dataclass(cls: type[Any] | None = None, /, **options: Any) -> Any:
    def wrap(cls: type[Any]) -> type[Any]:
        return _late(cls, options) if _can_wait(cls, options) else _real(cls, **options)

    return wrap if cls is None else wrap(cls)


def _can_wait(cls: type[Any], options: dict[str, Any]) -> bool:
    if not cls.__module__.startswith(_OURS) or not options.get("slots"):
        return False
    if options.keys() - {"slots", "frozen", "kw_only"} or cls.__dict__.keys() & {"__slots__", "__eq__"}:
        return False
    return not any(word in str(kind) for kind in _annotations(cls).values() for word in _SPECIAL)


def _annotations(cls: type[Any]) -> dict[str, Any]:
    own = cls.__dict__.get("__annotations__")  # noqa: RUF063  # inspect is what is not loaded
    if own is None and sys.version_info >= (3, 14):  # the class's own, also where its dictionary does not hold them yet
        own = cls.__annotations__
    return own or {}


def _late(cls: type[Any], options: dict[str, Any]) -> type[Any]:
    """The class with slots. `cls`, which has the fields' defaults, is what its methods are made from."""
    names, frozen = _annotations(cls), bool(options.get("frozen"))
    inherited = {slot for base in cls.__mro__[1:] for slot in _slots(base)}
    space = {key: value for key, value in cls.__dict__.items() if key not in names and key not in _OWN}
    space["__slots__"] = tuple(name for name in names if name not in inherited)
    first, then = _First(cls, options), _Maker(cls, options)
    makers: dict[str, _Maker] = dict.fromkeys(_FIRST, first) | dict.fromkeys(_THEN, then)
    if frozen:
        makers["__hash__"] = then
        space |= {"__setattr__": _set, "__delattr__": _delete}
        space = {"__getstate__": _state, "__setstate__": _set_state} | space
    space = {name: _Late(name, maker) for name, maker in makers.items()} | space
    first.target = then.target = _class(cls, space)
    return first.target


def _class(like: type[Any], space: dict[str, Any]) -> type[Any]:
    made: type[Any] = type(like)(like.__name__, like.__bases__, space)  # type: ignore[misc]
    made.__qualname__ = like.__qualname__
    return made


def _slots(cls: type[Any]) -> tuple[str, ...]:
    found = cls.__dict__.get("__slots__", ())
    return (found,) if isinstance(found, str) else tuple(found)


class _Maker:
    """Makes some of the methods of a class, once, from a copy of what it is without slots."""

    def __init__(self, source: type[Any], options: dict[str, Any]) -> None:
        self._source, self._options, self._done = source, {**options, "slots": False}, False
        self.target: type[Any] = source

    def __call__(self, name: str) -> Any:
        with _lock:
            if not self._done:
                space = {key: value for key, value in self._source.__dict__.items() if key not in _OWN}
                for one, value in self.make(_class(self._source, space)).items():
                    known = self.target.__dict__.get(one)
                    if known is None or isinstance(known, _Late):
                        setattr(self.target, one, value)
                self._done = True
        return self.target.__dict__[name]

    def make(self, copy: type[Any]) -> dict[str, Any]:
        found = _real(copy, **self._options, init=False).__dict__
        return {name: found[name] for name in (*_THEN, "__hash__", "__replace__") if name in found}


class _First(_Maker):
    """What the first object of a class needs. Its `__init__` is written here: `dataclasses` would compile, for each frozen class, what
    `_set` and `_delete` are for all of them."""

    def make(self, copy: type[Any]) -> dict[str, Any]:
        frozen = bool(self._options.get("frozen"))
        options = {**self._options, "init": False, "repr": False, "eq": False, "frozen": False}
        if any("__setattr__" in base.__dict__ for base in copy.__mro__[1:-1]):
            options["frozen"] = frozen  # below a frozen one only such may stand
        found = _real(copy, **options).__dict__
        fields = found["__dataclass_fields__"]
        init = _init(list(fields.values()), frozen, hasattr(copy, "__post_init__"))
        init.__qualname__ = f"{copy.__qualname__}.__init__"
        return {"__init__": init, "__match_args__": found["__match_args__"], "__dataclass_fields__": fields}


class _Factory:
    def __repr__(self) -> str:
        return "<factory>"  # in a signature


_FACTORY = _Factory()


def _init(fields: list[dataclasses.Field[Any]], frozen: bool, post: bool) -> Any:
    """`__init__` with a parameter for each field; those that are `kw_only` last."""
    space: dict[str, Any] = {"_put": object.__setattr__, "_missing": _FACTORY}
    given: list[str] = []
    named: list[str] = []
    body = []
    for field in fields:
        name, value = field.name, field.name
        if field.default is not dataclasses.MISSING:
            space[f"_default_{name}"] = field.default
            default = f"=_default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            space[f"_make_{name}"] = field.default_factory
            default, value = "=_missing", f"_make_{name}() if {name} is _missing else {name}"
        else:
            default = ""
        if field.init:
            (named if field.kw_only else given).append(name + default)
        elif not default:
            continue
        else:
            value = f"_make_{name}()" if default == "=_missing" else f"_default_{name}"
        body.append(f" _put(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
    parameters = ", ".join(["self", *given, *(["*", *named] if named else [])])
    lines = [f"def __init__({parameters}):", *body, " self.__post_init__()" if post else " pass"]
    exec("\n".join(lines), space)  # as `dataclasses` does
    init = space["__init__"]
    init.__annotations__ = {field.name: field.type for field in fields if field.init} | {"return": None}
    return init


class _Late:
    """Stands for a method or attribute until it is asked for."""

    __slots__ = ("_make", "_name")

    def __init__(self, name: str, make: _Maker) -> None:
        self._name, self._make = name, make

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        found = self._make(self._name)
        bind = getattr(type(found), "__get__", None)
        return found if bind is None else bind(found, instance, owner)


# --- what needs no compiling: the same for all frozen classes ------------------------------------------------


def _set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for one, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, one.name, value)
