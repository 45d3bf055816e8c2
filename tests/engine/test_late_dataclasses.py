"""Classes that `late_dataclasses` makes do what those of `dataclasses` do, asked in any order."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.base import late_dataclasses

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar
T = TypeVar("T")

@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    tags: tuple[str, ...] = ()
    more: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

@dataclass(frozen=True, slots=True)
class Named(Point, Generic[T]):
    name: str = "n"
    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", (*self.tags, self.name))

@dataclass(frozen=True, slots=True, kw_only=True)
class Keywords:
    must: int
    may: list[int] = field(default_factory=list)
    own: int = field(default=7, init=False)

@dataclass(slots=True)
class Loose:
    a: int
    b: list[int] = field(default_factory=list)
    def __repr__(self) -> str:
        return "loose"
    def __hash__(self) -> int:
        return 1

@dataclass(slots=True)
class Plain:
    known: ClassVar[int] = 3
    a: int = 0
"""
FIRST: list[Callable[[Any], object]] = [
    lambda m: m.Point(1),
    lambda m: dataclasses.fields(m.Named),
    lambda m: m.Point.__match_args__,
    lambda m: inspect.signature(m.Keywords),
    lambda m: m.Point.__eq__ is m.Point.__eq__,
]


def module(name: str) -> Any:
    made = types.ModuleType(name)
    sys.modules[name] = made
    exec(compile(SOURCE, name, "exec", dont_inherit=True), made.__dict__)
    return made


@pytest.fixture(params=FIRST)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """The same classes as `dataclasses` makes them and as they are made late."""
    monkeypatch.setattr(dataclasses, "dataclass", late_dataclasses._real)
    real = module("engine.sample_real")
    late_dataclasses.install()
    late = module("engine.sample_late")
    assert isinstance(late.Point.__dict__["__init__"], late_dataclasses._Late)
    assert not isinstance(late.Plain.__dict__["__init__"], late_dataclasses._Late)
    request.param(late)
    yield real, late
    for one in (real, late):
        del sys.modules[one.__name__]


def told(m: Any) -> list[object]:
    """What the classes of a module do, as values that can be compared with another's."""
    p, n, k = m.Point(1, tags=("t",)), m.Named(1, 2, name="z"), m.Keywords(must=1)

    def refused(act: Callable[[], object]) -> tuple[str, str]:
        try:
            act()
        except Exception as error:
            return type(error).__name__, str(error).replace("sample_late", "sample_real")
        return "", ""

    match n:
        case m.Named(x, y, tags):
            seen = (x, y, tags)
    loose = m.Loose(1)
    loose.a = 5
    return [
        *(repr(one) for one in (p, n, k, loose, m.Plain(4))),
        (p == m.Point(1, 2, ("t",), {"z": 1}), p == n, p != m.Point(2), hash(p) == hash(m.Point(1, tags=("t",))), seen),
        (dataclasses.asdict(n), dataclasses.astuple(k), repr(dataclasses.replace(p, y=9)), dataclasses.is_dataclass(m.Named)),
        [(one.name, str(one.type), one.kw_only, one.init) for kind in (m.Point, m.Named, m.Keywords) for one in dataclasses.fields(kind)],
        (pickle.loads(pickle.dumps(p)) == p, copy.copy(n) == n, copy.deepcopy(k) == k, m.Loose(1).b is not m.Loose(1).b),
        [str(inspect.signature(kind)) for kind in (m.Point, m.Named, m.Keywords, m.Loose)],
        refused(lambda: setattr(p, "x", 3)),
        refused(lambda: delattr(p, "x")),
        refused(lambda: m.Point()),
        refused(lambda: m.Keywords(1)),
        refused(lambda: m.Point(1, nothing=2)),
        (hash(loose), refused(lambda: setattr(loose, "c", 1))[0], refused(lambda: hash(m.Plain()))[0]),
        [kind.__match_args__ for kind in (m.Point, m.Named, m.Keywords)],
        [kind.__slots__ for kind in (m.Point, m.Named, m.Keywords)],
    ]  # fmt: skip


def test_late_classes_do_what_real_ones_do(pair: tuple[Any, Any]) -> None:
    real, late = pair
    for one, other in zip(told(real), told(late), strict=True):
        assert one == other
