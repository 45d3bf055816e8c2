"""What the builder keeps: results of steps and cache mounts. Listing them, and pruning by age, kind, id and a budget."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.build.trees import Trees
from engine.errors import EngineError, InvalidInput
from engine.model import CacheUsage, Pruned
from engine.oci.chain import chain_ids
from engine.oci.digest import Digest
from engine.service.filters import boolean, until
from engine.store.store import Store
from engine.store.volumes import disk_usage

STEP, MOUNT = "regular", "exec.cachemount"  # BuildKit's names of the two kinds
KEYS = ("until", "unused-for", "type", "id", "inuse", "shared", "private", "label", "label!")


@dataclass(frozen=True, slots=True)
class Entry:
    """`key` is a row of the cache or a folder's name; `size` is what removing it frees: nothing of a step that is `in_use`."""

    kind: str
    key: str
    size: int
    used: int
    in_use: bool


class BuildCache:
    def __init__(self, store: Store) -> None:
        self._store, self._mounts = store, store.root / "cache-mounts"

    def usage(self) -> list[CacheUsage]:
        return [CacheUsage(entry.key[:25], entry.size, entry.used, entry.in_use) for entry in self.entries()]

    def entries(self) -> list[Entry]:
        """Newest use first."""
        return sorted([*self._steps(), *self._cache_mounts()], key=lambda entry: -entry.used)

    def _steps(self) -> list[Entry]:
        named: set[Digest] = set()
        for image in self._store.images.list():
            try:
                named |= set(chain_ids(self._store.images.config(image).diff_ids))
            except EngineError:
                continue  # a damaged image: `check` names it
        found = []
        counted: set[Digest] = set()
        for row in self._store.records.read("SELECT key, document, used FROM cache ORDER BY used DESC"):
            document = json.loads(row["document"])
            chain = Digest(document["chain"])
            # A layer that two steps made counts once.
            size = int(document["size"]) if chain not in counted else 0
            counted.add(chain)
            found.append(Entry(STEP, row["key"], size, row["used"], chain in named))
        return found

    def _cache_mounts(self) -> list[Entry]:
        found = []
        for folder in sorted(self._mounts.iterdir()) if self._mounts.is_dir() else ():
            try:
                used = int(json.loads((folder / "cache.json").read_bytes())["used"])
            except (OSError, ValueError, KeyError):
                used = 0
            found.append(Entry(MOUNT, folder.name, disk_usage(folder / "data"), used, _is_held(folder)))
        return found

    def prune(
        self,
        filters: Mapping[str, Sequence[str]],
        *,
        everything: bool = False,
        keep_bytes: int | None = None,
        dry_run: bool = False,
        told: bool = True,
    ) -> Pruned:
        """Removes what no image has (with `everything` the rest, too), least recently used first, until `keep_bytes` are left.
        A cache mount that a step holds stays; `told`: by an event. Raises `InvalidInput` for a filter that is not known."""
        doomed = plan_prune(self.entries(), filters, everything=everything, keep_bytes=keep_bytes)
        if not dry_run:
            doomed = [entry for entry in doomed if entry.kind == STEP or self._remove_mount(entry.key)]
            with self._store.records.write() as db:
                db.executemany("DELETE FROM cache WHERE key = ?", [(e.key,) for e in doomed if e.kind == STEP])
            trees = Trees(self._store.root / "stat" / "trees.sqlite")
            trees.prune()
            trees.close()
            self._store.sweep()
        freed = sum(entry.size for entry in doomed if not (entry.kind == STEP and entry.in_use))
        if not dry_run and told:
            self._store.records.event("builder", "prune", "", {"reclaimed": str(freed)})
        return Pruned(cache=tuple(entry.key[:25] for entry in doomed), reclaimed=freed)

    def _remove_mount(self, name: str) -> bool:
        folder = self._mounts / name
        try:
            fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            grave = self._store.tmp / f"stale-{name[:16]}-{time.time_ns()}"
            os.rename(folder, grave)
        except OSError:
            return False
        finally:
            os.close(fd)
        shutil.rmtree(grave, ignore_errors=True)
        return True


def _is_held(folder: Path) -> bool:
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def plan_prune(
    entries: Sequence[Entry],
    filters: Mapping[str, Sequence[str]],
    *,
    everything: bool,
    keep_bytes: int | None,
    now: int | None = None,
) -> list[Entry]:
    """What to remove (pure), least recently used first."""
    unknown = set(filters) - set(KEYS)
    if unknown:
        raise InvalidInput(f"invalid filter {sorted(unknown)[0]!r}", hint=f"known: {', '.join(KEYS)}")
    now = time.time_ns() if now is None else now
    limit = until({"until": [*filters.get("until", ()), *filters.get("unused-for", ())]}, now)
    candidates = [
        entry
        for entry in sorted(entries, key=lambda entry: entry.used)
        if (everything or not entry.in_use)
        and not (entry.kind == MOUNT and entry.in_use)
        and (limit is None or entry.used < limit)
        and not filters.get("label")  # no entry has any: `system prune` sends its labels here, too
        and entry.kind in (filters.get("type") or (entry.kind,))
        and (not filters.get("id") or any(entry.key.startswith(text) for text in filters["id"]))
        and (not filters.get("inuse") or entry.in_use is boolean("inuse", filters["inuse"]))
        and (not filters.get("shared") or _is_shared(entry) is boolean("shared", filters["shared"]))
        and (not filters.get("private") or _is_shared(entry) is not boolean("private", filters["private"]))
    ]
    if keep_bytes is None:
        return candidates
    # As BuildKit counts: what an image has takes no room of the cache's own.
    left = sum(entry.size for entry in entries if not _is_shared(entry))
    found = []
    for entry in candidates:
        if left <= keep_bytes:
            break
        if not _is_shared(entry):
            found.append(entry)
            left -= entry.size
    return found


def _is_shared(entry: Entry) -> bool:
    return entry.kind == STEP and entry.in_use
