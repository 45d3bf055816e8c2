"""`userns-remap`: which users of the host the ids of containers are, from the settings and subuid(5), subgid(5)."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

from engine.base.settings import userns_remap
from engine.errors import InvalidInput
from engine.runtime.spec_namespaces import IdMaps, IdRange

DEFAULT_USER = "workbench"  # whose ranges "default" means


def id_maps(root: Path, etc: Path = Path("/etc")) -> IdMaps | None:
    """None where the setting is off. "default", "user", "user:group", or "100000:65536" (first id and how many). Raises
    InvalidInput: no such user, or no subordinate ids for it."""
    setting = userns_remap(root)
    if not setting:
        return None
    first, colon, second = setting.partition(":")
    if first.isdigit() and colon and second.isdigit():
        ranges = (IdRange(0, int(first), int(second)),)
        if not int(second) or int(first) == 0 or int(first) + int(second) > 1 << 32:
            raise InvalidInput(f"runtime.userns-remap: {setting!r} is not a range of ids", hint="100000:65536")
        return IdMaps(ranges, ranges)
    user = DEFAULT_USER if setting == "default" else first
    group = second if colon else user
    return IdMaps(_subordinate(etc / "subuid", user, _uid(user)), _subordinate(etc / "subgid", group, _gid(group)))


def _uid(name: str) -> str:
    try:
        return str(pwd.getpwnam(name).pw_uid)
    except KeyError:
        return name


def _gid(name: str) -> str:
    try:
        return str(grp.getgrnam(name).gr_gid)
    except KeyError:
        return name


def _subordinate(path: Path, name: str, number: str) -> tuple[IdRange, ...]:
    """The ranges of `name` one behind the other, as Docker maps them."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found, inside = [], 0
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) == 3 and parts[0] in (name, number) and parts[1].isdigit() and parts[2].isdigit():
            found.append(IdRange(inside, int(parts[1]), int(parts[2])))
            inside += int(parts[2])
    if not found:
        raise InvalidInput(
            f"runtime.userns-remap: {path} has no subordinate ids for {name!r}", hint=f"add a line {name}:100000:65536"
        )
    return tuple(found)
