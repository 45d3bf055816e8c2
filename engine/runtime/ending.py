"""What a container leaves outside its own namespaces, taken away at each end, also when it did not start."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from engine.linux import overlay
from engine.linux.cgroup import Cgroup
from engine.runtime import outside, stubs

_REMOVER = 2.0  # seconds that an engine which waits has to remove an auto-remove container itself


def clean(spec: dict[str, Any], cgroup: Cgroup | None, made: list[Any], copied: dict[str, Any]) -> None:
    """Everything the container left outside its (gone) namespaces, before anybody hears of its end. `made` and `copied`
    are init's report on mount points."""
    extra = spec.get("workbench", {})
    if cgroup is not None:
        cgroup.remove()
    if extra.get("clean_stubs") and (made or copied):
        with contextlib.suppress(OSError):
            stubs.clean(extra["upper"], made, copied)
    if extra.get("volatile"):
        overlay.forget_volatile(extra["work"])


def see_to_removal(bundle: str, remover: list[str], *, engine_waits: bool) -> None:
    """Auto-remove. Records are an engine's affair: one that waits for the end does it; where there is none, or it has gone away
    meanwhile, a short-lived one is started for it, by the command `remover`."""
    end = time.monotonic() + (_REMOVER if engine_waits else 0)
    while os.path.exists(bundle):
        if time.monotonic() >= end:
            with contextlib.suppress(OSError):
                outside.spawn(remover)
            return
        time.sleep(0.01)
