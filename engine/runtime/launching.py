"""How an engine starts a supervisor, and which version of the program it is."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import engine
from engine.errors import Unavailable
from engine.runtime import places
from engine.runtime.bootstrap import bootstrap

_log = logging.getLogger("workbench.runtime")


@functools.cache
def program() -> str:
    """Which version of the program this process runs: a digest of the files that supervisor and monitors are made of."""
    folder = Path(engine.__file__).parent
    lines = []
    for path in sorted([*folder.glob("runtime/*.py"), *folder.glob("linux/*.py"), *folder.glob("network/*.py")]):
        status = path.stat()
        lines.append(f"{path.parent.name}/{path.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def scope_command(running: str = "/run/systemd/system") -> list[str]:
    """Where systemd runs: the command that puts the supervisor, and so its monitors, into a scope of their own. A login
    session's processes may all be killed at its end (KillUserProcesses=, logind.conf(5)), also detached ones."""
    runner = shutil.which("systemd-run", path="/usr/bin:/bin") if os.path.isdir(running) else None
    if runner is None:
        return []
    user = [] if places.user() is None else ["--user"]
    return [runner, *user, "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"]


def launch(run_dir: Path) -> None:
    """Starts a supervisor and waits until it listens. Raises Unavailable."""
    scope = scope_command()
    trouble = _launched(run_dir, scope)
    if trouble and scope:  # no bus to be reached, or not allowed
        reason, trouble = trouble.splitlines()[-1], _launched(run_dir, [])
        if not trouble:
            _log.warning(
                "systemd-run made no scope for the containers (%s): they belong to this login session, and end with it where logind "
                "ends its processes (KillUserProcesses=, or `loginctl enable-linger`)",
                reason,
            )
    if trouble:
        raise Unavailable(f"the supervisor did not start: {trouble.splitlines()[-1]}")


def _launched(run_dir: Path, scope: list[str]) -> str:
    """Starts the supervisor by the command `scope`; returns what it complained of when it did not come up."""
    root = str(Path(engine.__file__).resolve().parent.parent)
    interpreter = os.path.realpath(sys.executable)
    read, write = os.pipe()
    try:
        text = bootstrap(root)
        command = [interpreter, "-I", "-S", "-c", text, str(run_dir), str(write), "plain", program()]
        environment = {"PATH": "/usr/bin:/bin", "LC_CTYPE": "C.UTF-8"}
        if scope and (base := places.user_base()):  # the user manager's bus
            environment["XDG_RUNTIME_DIR"] = base
        process = subprocess.Popen(
            [*scope, *command],
            pass_fds=(write,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
        )
        os.close(write)
        write = -1
        with process, os.fdopen(read, "rb") as ready:
            read = -1
            answer = ready.read()
            trouble = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
        return trouble if not answer else ""
    finally:
        for fd in (read, write):
            if fd >= 0:
                os.close(fd)
