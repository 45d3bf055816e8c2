"""`develop.watch` and lifecycle hooks (compose-spec, develop.md and 05-services)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.project.compose.positions import Map, problem
from engine.project.compose.values import entries, flag, pairs, text, texts, words
from engine.project.model import Hook, WatchRule


def read_hook(value: Map, env: Mapping[str, str]) -> Hook:
    return Hook(
        words(value["command"]),
        text(value.get("user")),
        flag(value.get("privileged") or False),
        text(value.get("working_dir")),
        pairs(value.get("environment"), env),
    )


def read_hooks(value: Any, env: Mapping[str, str]) -> tuple[Hook, ...]:
    return tuple(read_hook(entry, env) for entry in value or ())


def read_watch(value: Map, env: Mapping[str, str]) -> tuple[WatchRule, ...]:
    """Raises `DockerfileError` at a rule that cannot work."""
    return tuple(_rule(entry, env, place) for entry, place in entries(value.get("watch")))


def _rule(entry: Map, env: Mapping[str, str], place: Any) -> WatchRule:
    action, target = entry["action"], text(entry.get("target"))
    if action.startswith("sync") and not target:
        raise problem(place, f"develop.watch: {action} needs a target", "target: /app, where the files go")
    if target and not target.startswith("/"):
        raise problem(place, f"develop.watch: the target {target!r} is not an absolute path of the container")
    if action == "sync+exec" and not entry.get("exec"):
        raise problem(place, "develop.watch: sync+exec needs exec", "exec: {command: …}")
    if entry.get("exec") and action != "sync+exec":
        raise problem(place, f"develop.watch: exec goes with sync+exec, not with {action}")
    path = Path(os.path.abspath(text(entry["path"])))  # which need not be there yet
    if entry.get("initial_sync") and not action.startswith("sync"):
        raise problem(place, f"develop.watch: initial_sync goes with the sync actions, not with {action}")
    return WatchRule(
        path,
        action,
        target,
        texts(entry.get("ignore") or []),
        texts(entry.get("include") or []),
        flag(entry.get("initial_sync") or False),
        read_hook(entry["exec"], env) if entry.get("exec") else None,
    )
