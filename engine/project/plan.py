"""What changed files mean to a service, and the smallest act that is enough (pure).

With `develop.watch` rules they decide, as `docker compose watch` reads them: patterns are Docker's ignore patterns below the
rule's own path (`*.py` means the files right in the folder, `**/*.py` those below it too); a file may meet several rules; a
rebuild covers all else; a file that meets none is left alone. https://github.com/compose-spec/compose-spec/blob/main/develop.md
Without rules every file that the build can read means a rebuild, which is always right; where the user asked for it, a file that
the last stage only copies is synced instead (`engine.project.infer`).
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.build.dockerfile.ignore import Matcher
from engine.model import SyncEntry
from engine.project.model import Hook, WatchRule

SyncMode = Literal["", "files", "restart"]


Kind = Literal["nothing", "sync", "restart", "rebuild"]


@dataclass(frozen=True, slots=True)
class Act:
    """`kind` "sync" may be followed by a restart (`restart`) or by commands (`hooks`). `why` is for people."""

    kind: Kind
    why: str = ""
    syncs: tuple[SyncEntry, ...] = ()
    restart: bool = False
    hooks: tuple[Hook, ...] = ()


NOTHING = Act("nothing")
Infer = Callable[
    [str], "SyncEntry | str | None"
]  # path below the context → how it is synced, why not, or None: nothing reads it


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What a service's changes are judged by.

    `files` always mean a rebuild: the Dockerfile, the ignore file, what the project was read from. `infer` is asked when
    `sync` wants files to be synced without rules."""

    context: Path | None = None  # of the build; None: the image is not built here
    contexts: tuple[Path, ...] = ()  # further folders that the build reads: a change there is a rebuild
    files: frozenset[Path] = frozenset()
    watch: tuple[WatchRule, ...] = ()
    ignored: Matcher | None = None
    sync: SyncMode = ""
    infer: Infer | None = None


def decide(changes: Collection[Path], rules: ServiceRules, *, running: bool) -> Act:
    """The act for `changes` (absolute paths, made, written or removed). What does not run cannot be synced: it is rebuilt."""
    paths = sorted(changes)
    if always := [path for path in paths if path in rules.files]:
        return Act("rebuild", f"{always[0].name} itself changed")
    if others := [path for path in paths if any(path.is_relative_to(each) for each in rules.contexts)]:
        return Act("rebuild", f"{others[0].name} of another context changed")
    act = _by_rules(paths, rules) if rules.watch else _by_build(paths, rules)
    if act.kind in ("sync", "restart") and not running:
        return Act("rebuild", "the container does not run")
    return act


# --- develop.watch ------------------------------------------------------------------------------------


def below(rule: WatchRule, path: Path, ignored: Matcher | None = None, context: Path | None = None) -> str | None:
    """`path` below the rule's own, "" for that itself; None when the rule does not speak of it. What the context's ignore
    file leaves out is left out here too."""
    if path == rule.path:
        return ""
    inner = _inside(rule.path, path)
    if inner is None:
        return None
    include, ignore = _matcher(rule.include), _matcher(rule.ignore)
    if (include is not None and not include.excluded(inner)) or (ignore is not None and ignore.excluded(inner)):
        return None
    if ignored is not None and context is not None:
        of_context = _inside(context, path)
        if of_context is not None and ignored.excluded(of_context):
            return None
    return inner


def _inside(folder: Path, path: Path) -> str | None:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return None


@functools.lru_cache(maxsize=256)
def _matcher(patterns: tuple[str, ...]) -> Matcher | None:
    return Matcher(patterns) if patterns else None


def target_of(rule: WatchRule, inner: str) -> str:
    """Where what lies `inner` the rule's path goes in the container."""
    return posixpath.normpath(posixpath.join(rule.target, inner)) if inner else rule.target


def _by_rules(paths: Iterable[Path], rules: ServiceRules) -> Act:
    met: list[tuple[WatchRule, Path, str]] = []
    for path in paths:
        for rule in rules.watch:
            inner = below(rule, path, rules.ignored, rules.context)
            if inner is not None:
                met.append((rule, path, inner))
    if not met:
        return NOTHING
    for rule, path, _ in met:
        if rule.action == "rebuild":
            return Act("rebuild", f"{path.name}: the rule for {rule.path.name or rule.path} says so")
    syncs = {
        target_of(rule, inner): SyncEntry(path, target_of(rule, inner)) for rule, path, inner in met if rule.target
    }
    restart = any("restart" in rule.action for rule, _, _ in met)
    hooks = tuple(dict.fromkeys(rule.exec for rule, _, _ in met if rule.exec is not None))
    kind: Kind = "sync" if syncs else "restart"
    return Act(kind, met[0][0].action, tuple(syncs.values()), restart, hooks)


def initial_syncs(rules: ServiceRules) -> tuple[WatchRule, ...]:
    """The rules whose files are brought into a new container before it is watched."""
    return tuple(rule for rule in rules.watch if rule.initial_sync and rule.action.startswith("sync"))


# --- no rules -----------------------------------------------------------------------------------------


def _by_build(paths: Iterable[Path], rules: ServiceRules) -> Act:
    if rules.context is None:
        return NOTHING
    syncs: list[SyncEntry] = []
    for path in paths:
        inner = _inside(rules.context, path)
        if inner is None or (rules.ignored is not None and rules.ignored.excluded(inner)):
            continue
        if not rules.sync or rules.infer is None:
            return Act("rebuild", "")
        found = rules.infer(inner)
        if isinstance(found, str):
            return Act("rebuild", f"{inner}: {found}")
        if found is not None:
            syncs.append(found)
    if not syncs:
        return NOTHING
    return Act("sync", "copied as it is", tuple(syncs), restart=rules.sync == "restart")
