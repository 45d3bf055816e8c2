"""How long a test waits for what must come before it gives up: long, for it costs nothing where all is well, and a machine can be
slow. A test that waits says what for, and looks again and again; figures of time are what tests/bench is for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE = 120.0  # seconds
_LOOK = 0.01


def await_that(what: Callable[[], object]) -> None:
    """Looks until it is so."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s"
        time.sleep(_LOOK)


async def until(what: Callable[[], object]) -> None:
    """The same beside other tasks."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s"
        await asyncio.sleep(_LOOK)
