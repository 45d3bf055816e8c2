"""What a container leaves outside its own namespaces, taken away at each end, also when it did not start."""

from __future__ import annotations

import contextlib
from typing import Any

from engine.linux import overlay
from engine.linux.cgroup import Cgroup
from engine.runtime import stubs


def clean(spec: dict[str, Any], cgroup: Cgroup | None, made: list[Any], copied: dict[str, Any]) -> bool:
    """Everything the container left outside its (gone) namespaces, before anybody hears of its end. `made` and `copied`
    are init's report on mount points. True: the kernel killed something in it for memory."""
    extra = spec.get("workbench", {})
    oom_killed = False
    if cgroup is not None:
        oom_killed = cgroup.oom_killed()
        cgroup.remove()
    if extra.get("clean_stubs") and (made or copied):
        with contextlib.suppress(OSError):
            stubs.clean(extra["upper"], made, copied)
    if extra.get("volatile"):
        overlay.forget_volatile(extra["work"])
    return oom_killed
