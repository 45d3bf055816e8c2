"""Which user and group ids exist in the user namespace of this process (user_namespaces(7)). Standard library only."""

from __future__ import annotations

from engine.linux import pseudo

ALL = [(0, 0, 0xFFFFFFFF)]


def read_map(path: str = "/proc/self/uid_map") -> list[tuple[int, int, int]]:
    """(first id here, first id outside, how many)."""
    try:
        rows = [tuple(map(int, line.split())) for line in pseudo.read(path).splitlines()]
    except OSError:
        return []
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]


def inside() -> bool:
    """Whether this process is in a user namespace other than the first: not every id is mapped to itself."""
    return read_map() not in (ALL, [])


def exists(number: int, path: str = "/proc/self/uid_map") -> bool:
    """Whether an id is mapped here."""
    rows = read_map(path)
    return not rows or any(first <= number < first + count for first, _, count in rows)


def single() -> bool:
    """Whether only one id exists here."""
    return sum(count for _, _, count in read_map()) == 1


def groups_denied() -> bool:
    """Whether setgroups(2) is refused here for good: the rule where an ordinary user maps its one id itself."""
    try:
        return pseudo.read("/proc/self/setgroups").strip() == "deny"
    except OSError:
        return False
