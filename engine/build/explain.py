"""Why a step ran: the difference between what it depends on now and what it depended on last time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

NAMED = 2  # causes named before "and N more"
NEVER = "never built here"
LOST = "its result is no longer in the cache"
PARENT = "parent step ran"
Listing = Callable[[str], "Mapping[str, str] | None"]


def summary(causes: tuple[str, ...]) -> str:
    """The first causes in one phrase: "app.py content changed, b.py added and 3 more"."""
    more = f" and {len(causes) - NAMED} more" if len(causes) > NAMED else ""
    return ", ".join(causes[:NAMED]) + more


def explain(
    before: Mapping[str, str] | None,
    now: Mapping[str, str],
    *,
    same: bool = True,
    listing: Listing = lambda digest: None,
) -> tuple[str, ...]:
    """All causes, the most telling first. `same`: the instruction had these words before; `listing` gives what stood behind
    the digest of a directory, so that a changed tree is explained by its files."""
    if before is None:
        return (NEVER,)
    if not same:
        return ("instruction changed",)
    causes: list[str] = []
    for key in sorted(set(before) | set(now), key=_rank):
        old, new = before.get(key), now.get(key)
        if old != new:
            causes += _phrases(key, old, new, listing)
    causes = list(dict.fromkeys(causes))
    if len(causes) > 1 and PARENT in causes:
        causes.remove(PARENT)
    return tuple(causes) or (LOST,)


def _rank(key: str) -> tuple[int, str]:
    order = ("instruction", "base", "file", "tree", "arg", "env")
    kind = key.partition(":")[0]
    return (len(order) + (key == "parent") if kind not in order else order.index(kind), key)


def _phrases(key: str, old: str | None, new: str | None, listing: Listing) -> list[str]:
    kind, _, name = key.partition(":")
    if key == "parent":
        return [PARENT]
    if kind == "tree":
        return _tree(name, old, new, listing)
    if kind == "file":
        return _file(name, old, new)
    if kind == "base":
        if old is None or new is None:
            return []  # another base altogether: the instruction or an ARG says so
        return [f"base {name} moved {_short(old)}→{_short(new)}"]
    if kind in ("arg", "env"):
        label = f"{kind.upper()} {name}"
        if old is None or new is None:
            return [f"{label} {'set' if old is None else 'unset'}"]
        return [f"{label} {_cut(old)}→{_cut(new)}"]
    if kind == "from":
        return [f"{name or 'the build context'} content changed"]
    words = {"instruction": "instruction changed", "heredoc": "heredoc changed", "kind": "instruction changed"}
    if key in words:
        return [words[key]]
    if kind == "git":
        return [f"{name} moved {_short((old or '-').split(' ')[0])}→{_short((new or '-').split(' ')[0])}"]
    if kind == "mount":
        return ["--mount changed"]
    return [f"{key} {_cut(old or '-')}→{_cut(new or '-')}"]


def _file(name: str, old: str | None, new: str | None) -> list[str]:
    """The values are `where kind mode digest …`, as `copy.digest_plan` writes them."""
    if old is None:
        return [f"{name} added"]
    if new is None:
        return [f"{name} removed"]
    before, after = old.split(" "), new.split(" ")
    if before[1:2] != after[1:2]:
        return [f"{name} changed its type"]
    if before[:2] == after[:2] and before[2:3] != after[2:3] and before[3:4] == after[3:4]:
        return [f"{name} mode {before[2]}→{after[2]}"]
    return [f"{name} content changed"]


def _tree(name: str, old: str | None, new: str | None, listing: Listing) -> list[str]:
    """Two digests of one directory: what is behind them is compared, as deep as they differ."""
    if old is None or new is None:
        return [f"{name or '.'} {'added' if old is None else 'removed'}"]
    found = sorted(_differing(name.rstrip("/"), old.rpartition(" ")[2], new.rpartition(" ")[2], listing))
    return found or [f"{name or '.'} content changed"]


def _differing(folder: str, old: str, new: str, listing: Listing) -> list[str]:
    before, after = listing(old), listing(new)
    if before is None or after is None:
        return [f"{folder or '.'}/ content changed"]
    found: list[str] = []
    prefix = f"{folder}/" if folder not in ("", ".") else ""
    for name in sorted(before.keys() | after.keys()):
        a, b = before.get(name), after.get(name)
        if a == b:
            continue
        path = prefix + name
        if a is None or b is None:
            found.append(f"{path} {'added' if a is None else 'removed'}")
            continue
        first, second = a.split(" "), b.split(" ")
        if first[0] != second[0]:
            found.append(f"{path} changed its type")
            continue
        if first[1] != second[1]:
            found.append(f"{path} mode {first[1]}→{second[1]}")
        if first[2:] != second[2:]:
            found += _differing(path, first[2], second[2], listing) if first[0] == "d" else [f"{path} content changed"]
    return found


def _short(text: str) -> str:
    return text.rpartition(":")[2][:4]


def _cut(text: str) -> str:
    return text if len(text) <= 20 else text[:19] + "…"
