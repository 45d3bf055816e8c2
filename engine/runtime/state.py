"""A container's `state.json`: what its monitor says of it, readable when the monitor is gone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Literal

from engine.linux import pseudo

NAME = "state.json"
# In `error` of a container whose end nobody saw.
LOST = "exit code unknown: the container's monitor was lost"
REBOOTED = "exit code unknown: the host was restarted while it ran"
UNKNOWN_CODE = 255  # what Docker's interfaces, which need a number, show for a code that nobody knows
_RESERVE = "reserve"
_RESERVED = 64 << 10  # bytes: what a pipe holds at most, and a record


@dataclass(slots=True)
class State:
    """`exit_code` None with status "exited": nobody saw the end (`error` says why). Times in ns since the epoch."""

    status: Literal["created", "running", "paused", "restarting", "exited"] = "created"
    pid: int = 0
    pid_start: int = 0  # field 22 of /proc/PID/stat: tells a reused pid
    started: int = 0
    finished: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    boot_id: str = ""
    monitor_pid: int = 0
    monitor_start: int = 0
    notes: tuple[str, ...] = ()
    restart_count: int = 0  # by its restart policy, since it was last started by hand
    stopped_by_hand: bool = False  # `unless-stopped` does not bring it back
    kept: bool = False  # auto-remove does not apply: this end is half of a restart
    health: dict[str, Any] | None = None  # Docker's State.Health
    cgroup: str = ""  # an ordinary user's: the delegated subtree that its group is in
    mounts: int = 0  # the monitor's descriptor of its mount namespace, where that is not its first process's (`viewer`)
    network: dict[str, Any] | None = None  # while it runs: endpoints and published ports, as `netns.report` has them

    @property
    def active(self) -> bool:
        """A monitor is there: it runs, is paused, or waits to be restarted."""
        return self.status in ("running", "paused", "restarting")


def boot_id() -> str:
    try:
        return pseudo.read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return ""


def start_time(pid: int) -> int:
    """When `pid` started, in clock ticks since boot; 0 when there is no such process."""
    try:
        return int(pseudo.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def is_alive(pid: int, start: int) -> bool:
    """Whether it is that process still, and not only waiting to be reaped."""
    if not pid or not start:
        return False
    try:
        fields = pseudo.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return int(fields[19]) == start and fields[0] not in "ZX"
    except (OSError, IndexError, ValueError):
        return False


def reserve(bundle: str) -> None:
    """Sets room aside, so that a container which fills the disk can still end: its last lines and its exit record need some.

    Raises OSError (ENOSPC) when there is none.
    """
    fd = os.open(os.path.join(bundle, _RESERVE), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _RESERVED)
    finally:
        os.close(fd)


def release(bundle: str) -> bool:
    """Gives the room back. False when it was given back before."""
    try:
        os.unlink(os.path.join(bundle, _RESERVE))
    except OSError:
        return False
    return True


def write(bundle: str, state: State, *, durable: bool) -> None:
    """Atomic. `durable` costs two fsyncs: for the exit record, which nobody can make again."""
    temporary = os.path.join(bundle, f".{NAME}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        # Not dataclasses.asdict, which copies all that the fields hold.
        os.write(fd, json.dumps({name: getattr(state, name) for name in State.__dataclass_fields__}).encode())
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, os.path.join(bundle, NAME))
    if durable:
        folder = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(bundle: str) -> State:
    """The recorded state; a container that never started has "created". Raises ValueError on a damaged file."""
    try:
        document: Any = json.loads(pseudo.read(f"{bundle}/{NAME}"))
    except FileNotFoundError:
        return State()
    if not isinstance(document, dict):
        raise ValueError(f"{NAME} is no JSON object")
    names = State.__dataclass_fields__
    known = {key: value for key, value in document.items() if key in names}
    known["notes"] = tuple(known.get("notes", ()))
    return State(**known)


def sound(bundle: str) -> State:
    """The recorded state; that of one which has ended where the record is damaged."""
    try:
        return read(bundle)
    except (ValueError, TypeError) as error:
        return State(status="exited", error=f"state file is damaged: {error}")
