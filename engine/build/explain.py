"""Why a step ran: the difference between what it depends on now and what it depended on last time."""

from __future__ import annotations

from collections.abc import Mapping

NAMED = 2  # paths named before "and N more"


def explain(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """One phrase: "app.py content changed", "ARG VERSION 1→2", "parent step ran", "never built here"."""
    if before is None:
        return "never built here"
    reasons = []
    for key in sorted(set(before) | set(now), key=lambda key: (key == "parent", key)):
        old, new = before.get(key), now.get(key)
        if old != new:
            reasons.append(_phrase(key, old, new))
    if len(reasons) > 1:
        reasons = [reason for reason in reasons if reason != "parent step ran"]
    if not reasons:
        return "its result is no longer in the cache"
    more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return ", ".join(reasons[:NAMED]) + more


def _phrase(key: str, old: str | None, new: str | None) -> str:
    kind, _, name = key.partition(":")
    if key == "parent":
        return "parent step ran"
    if kind == "file":
        if old is None:
            return f"{name} added"
        if new is None:
            return f"{name} removed"
        before, after = old.split(" "), new.split(" ")
        if before[:2] == after[:2] and before[3:] == after[3:] and before[2:3] != after[2:3]:
            return f"{name} mode {before[2]}→{after[2]}"
        return f"{name} content changed" if before[1:2] == after[1:2] else f"{name} changed its type"
    if kind in ("arg", "env"):
        if old is None or new is None:
            return f"{kind.upper()} {name} {'set' if old is None else 'unset'}"
        return f"{kind.upper()} {name} {old[:20]}→{new[:20]}"
    if key == "instruction":
        return "instruction changed"
    return f"{key} changed"
