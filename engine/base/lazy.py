"""What is made when it is first used: modules, and parts of an object.

For modules that take longer to load than most commands to run, and which a command may well do without, a file says:

    if TYPE_CHECKING:
        import asyncio
    else:
        asyncio = lazy("asyncio")
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def lazy(name: str) -> ModuleType:
    return _Lazy(name)


class _Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(sys.modules.get(self.__name__) or import_module(self.__name__), name)


class part(Generic[T]):  # used as `property` is
    """`functools.cached_property` for any thread: that of Python 3.12 has no lock, and may make two."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make, self._lock = make, threading.RLock()
        self.__doc__ = make.__doc__

    def __set_name__(self, _: object, name: str) -> None:
        self._name = name

    def __get__(self, owner: object, _: object = None) -> T:
        with self._lock:
            made: dict[str, T] = owner.__dict__
            if self._name not in made:
                made[self._name] = self._make(owner)
            return made[self._name]
