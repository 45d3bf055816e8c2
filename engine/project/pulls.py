"""Whether a service's image is pulled: its `pull_policy`, and how long ago that was done last (pure but for a file's time)."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from engine.project.compose.services import pull_seconds
from engine.project.model import Service


def stamp_path(state: Path, image: str) -> Path:
    """The file whose time says when `image` was pulled last for a project."""
    return state / "pulled" / hashlib.sha256(image.encode()).hexdigest()[:32]


def wants_pull(service: Service, present: bool, state: Path) -> bool:
    policy = service.pull_policy
    if policy == "never":
        return False
    if policy == "always" or not present:
        return True
    age = pull_seconds(policy)
    if not age:
        return False
    try:
        last = stamp_path(state, service.image).stat().st_mtime
    except OSError:
        return True
    return time.time() - last >= age


def pulled(state: Path, image: str) -> None:
    path = stamp_path(state, image)
    path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
    path.touch()
