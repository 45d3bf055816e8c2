"""How a supervisor is started and reached: for its starters, which need not load all that it is."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator

SOCKET = "supervisor.sock"


def bootstrap(root: str) -> str:
    """The program text for `python -I -S -c`: arguments are run directory, ready descriptor, "plain" or "sealed", and which
    version of the program it is (`launching.program`).

    The root goes last on the path: it may be a site-packages full of backports of standard modules.
    """
    lean = "from engine.runtime.bootstrap import without_inspect as lean"
    run = "from engine.runtime.supervisor import main"
    return f"import sys; sys.path.append({root!r}); {lean}\nwith lean(): {run}\nmain(sys.argv[1:])"


@contextlib.contextmanager
def without_inspect() -> Iterator[None]:
    """Modules that are imported inside get along without `inspect`, a megabyte with the compiler's tables that it loads: `dataclasses`
    wants it to write doc strings. What else they ask of it they get from the real one."""

    class Inspect(types.ModuleType):
        @staticmethod
        def signature(_of: object) -> str:
            return "(...)"

        @staticmethod
        def get_annotations(of: type) -> dict[str, object]:  # what `dataclasses` asks of it from Python 3.12 on
            return dict(of.__dict__.get("__annotations__", {}))  # noqa: RUF063  # inspect is what is not loaded

        def __getattr__(self, name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            if sys.modules.get("inspect") is self:
                del sys.modules["inspect"]
            return getattr(importlib.import_module("inspect"), name)

    if "inspect" in sys.modules:
        yield
        return
    placeholder = sys.modules["inspect"] = Inspect("inspect")
    try:
        yield
    finally:
        if sys.modules.get("inspect") is placeholder:
            del sys.modules["inspect"]
