"""What a container leaves outside its own namespaces, taken away at each end, also when it did not start."""

from __future__ import annotations

import contextlib
from typing import Any

from engine.linux import overlay
from engine.linux.cgroup import Cgroup
from engine.runtime import stubs


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
