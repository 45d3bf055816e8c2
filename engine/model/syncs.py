"""Files brought from this host into a container: what a sync is asked for, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class SyncEntry:
    """One path to be made in the container what it is here: written, or removed when it is gone here.

    A folder is made, and what is in it needs entries of its own. `owner` ("user[:group]") and `mode` are those of the COPY step
    that puts the path into the image. Without them a file keeps the owner that the one before had, a new one gets that of its
    folder, and the mode is the one that it has here. `maybe_folder`: should `target` be a directory inside, the file goes into
    it (COPY to a name without a slash).
    """

    source: Path
    target: str
    owner: str = ""
    mode: str = ""
    maybe_folder: bool = False


@dataclass(frozen=True, slots=True)
class SyncResult:
    """Paths inside the container. `skipped` are those that a mount of the host's covers: they are there by themselves."""

    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """One path in which a container differs from its image. `kind` as `docker diff` has it. `in_image`: the image that the
    name of its own stands for now has it just so, and the next container will."""

    kind: Literal["A", "C", "D"]
    path: str
    in_image: bool
