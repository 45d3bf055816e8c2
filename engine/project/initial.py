"""`initial_sync`: the files of a rule, for a container that is new."""

from __future__ import annotations

import os
from pathlib import Path

from engine.model import SyncEntry
from engine.project.plan import ServiceRules, below, initial_syncs, target_of


def initial_entries(rules: ServiceRules) -> list[SyncEntry]:
    """Every path that a rule with `initial_sync` speaks of, parents first."""
    found: dict[str, SyncEntry] = {}
    for rule in initial_syncs(rules):
        for path in everything(rule.path):
            inner = below(rule, path, rules.ignored, rules.context)
            if inner is not None:
                target = target_of(rule, inner)
                found[target] = SyncEntry(path, target)
    return list(found.values())


def everything(top: Path) -> list[Path]:
    """A file, or a folder and all that is in it."""
    found = [top]
    if not top.is_dir():
        return found
    for folder, folders, files in os.walk(top):
        found += [Path(folder, name) for name in sorted((*folders, *files))]
    return found
