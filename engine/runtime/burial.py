"""Containers whose monitor is gone: ended for certain, and recorded."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from pathlib import Path

from engine.linux import cgroup, freezer
from engine.runtime import state as states
from engine.runtime.journal import Journal
from engine.runtime.state import LOST, REBOOTED, UNKNOWN_CODE, State


def bury(run_dir: Path, bundle: Path) -> State:
    """Ends what a lost monitor left (the kernel kills the container with it; this makes sure), and records it, once,
    whichever engine comes first: `exited`, code unknown, and why."""
    try:
        lock = os.open(bundle / "monitor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # it is being removed
        return states.sound(str(bundle))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = states.sound(str(bundle))
        if not state.active or states.is_alive(state.monitor_pid, state.monitor_start):
            return state
        rebooted = state.boot_id != states.boot_id()
        if not rebooted:
            _end_leftovers(run_dir, bundle, state)
        with contextlib.suppress(OSError):
            os.unlink(run_dir / "c" / f"{bundle.name[:12]}.sock")
        state.status, state.exit_code, state.error = "exited", None, REBOOTED if rebooted else LOST
        state.pid, state.pid_start, state.finished, state.network = 0, 0, time.time_ns(), None
        if state.health is not None:
            state.health["status"] = "unhealthy"
        with contextlib.suppress(OSError):
            states.write(str(bundle), state, durable=True)
        Journal(str(bundle)).note("die", exitCode=str(UNKNOWN_CODE), error=state.error)
        return state
    finally:
        os.close(lock)


def _end_leftovers(run_dir: Path, bundle: Path, state: State) -> None:
    from engine.runtime import net_burial  # only here: the packet filter takes longer to load than all of this

    net_burial.bury(str(run_dir), state.network)
    path, foreign = f"workbench/{bundle.name}", None
    with contextlib.suppress(OSError, ValueError, KeyError):
        config = json.loads((bundle / "config.json").read_bytes())
        path, foreign = str(config["linux"]["cgroupsPath"]), config["workbench"].get("runtime")
    if foreign:  # its monitor's guard has done it, unless it was killed too
        from engine.runtime import oci_command

        oci_command.bury(foreign, str(run_dir), bundle.name)
    group = cgroup.Cgroup(cgroup.recorded(state.cgroup), path)
    with contextlib.suppress(OSError, KeyError):
        freezer.thaw(group, path)  # a frozen process does not die
    if states.is_alive(state.pid, state.pid_start):
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(state.pid)
            if states.is_alive(state.pid, state.pid_start):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], 10)
            os.close(pidfd)
    with contextlib.suppress(OSError):
        group.kill()  # with the host's pid namespace the others outlive the first
    group.remove()
    freezer.remove(group, path)
