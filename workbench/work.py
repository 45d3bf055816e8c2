"""Work beside the app: a worker that cannot end it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from textual.dom import DOMNode


def beside(
    node: DOMNode,
    group: str,
    function: Callable[..., Coroutine[Any, Any, object]],
    *arguments: object,
    exclusive: bool = False,
) -> None:
    """Awaits `function(*arguments)`; `exclusive` cancels what the same node's group does already. The coroutine is made when the
    worker starts: one that is cancelled before leaves none behind that was never awaited."""
    work: Any = partial(function, *arguments)
    node.run_worker(work, group=group, exclusive=exclusive, exit_on_error=False)
