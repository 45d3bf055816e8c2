"""The errors in a monitor's answers, as exceptions."""

from __future__ import annotations

import errno
from typing import Any

from engine.errors import Conflict, EngineError, Unsupported


def raise_reason(container_id: str, answer: dict[str, Any]) -> None:
    """The state that the container is in, and would have to be out of."""
    if "reason" in answer or "is not running" in str(answer["error"]):
        raise Conflict(f"container {container_id[:12]} {answer.get('reason', 'is not running')}")


def raise_error(container_id: str, answer: dict[str, Any]) -> None:
    """The error in a monitor's answer, if there is one."""
    if "error" not in answer:
        return
    raise_reason(container_id, answer)
    short, text = container_id[:12], str(answer["error"])
    if answer.get("errno") == errno.ESRCH:
        raise Conflict(f"container {short} is not running")
    if answer.get("conflict"):
        raise Conflict(f"container {short}: {text}")
    if answer.get("errno") == errno.EOPNOTSUPP:
        raise Unsupported(f"container {short}: {text}")
    raise EngineError(f"container {short}: {text}")
