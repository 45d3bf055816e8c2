"""How a supervisor is started and reached: for its starters, which need not load all that it is."""

from __future__ import annotations

SOCKET = "supervisor.sock"


def bootstrap(root: str) -> str:
    """The program text for `python -I -S -c`: arguments are run directory, ready descriptor, "plain" or "sealed", and which
    version of the program it is (`launching.program`).

    The root goes last on the path: it may be a site-packages full of backports of standard modules.
    """
    return f"import sys; sys.path.append({root!r}); from engine.runtime.supervisor import main; main(sys.argv[1:])"
