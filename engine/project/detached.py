"""The watcher that `up --detach` leaves behind: a process of its own that goes on with the inner loop, without a terminal.

One a project. It is found by a file beside the project's logs, which names its process and when that started (a number may be given
again), and it is ended by SIGTERM: its containers go on. What it says is in `watch.log`, one JSON object a line (`up --json`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.atomic import write_atomic

END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Detached:
    """A watcher that runs. `started` is in clock ticks since boot (proc(5), stat field 22)."""

    project: str
    pid: int
    started: int
    path: str
    log: Path


def begin(state: Path, project: str, path: Path, words: Sequence[str]) -> Detached:
    """Starts `workbench WORDS` in a session of its own. `state` is the folder of all projects."""
    folder = state / project
    folder.mkdir(mode=0o710, parents=True, exist_ok=True)
    log = folder / "watch.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=path,
        )
    found = Detached(project, process.pid, _started(process.pid), str(path), log)
    document = {"pid": found.pid, "started": found.started, "path": found.path}
    write_atomic(folder / "watch.json", json.dumps(document).encode())
    return found


def find(state: Path, project: str) -> Detached | None:
    """The project's watcher, if it runs."""
    folder = state / project
    try:
        document = json.loads((folder / "watch.json").read_text())
        pid, started = int(document["pid"]), int(document["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not started or _started(pid) != started:
        return None
    return Detached(project, pid, started, str(document.get("path", "")), folder / "watch.log")


def end(state: Path, project: str) -> bool:
    """Ends the watcher and waits until it has; whether there was one."""
    found = find(state, project)
    if found is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    until = time.monotonic() + END_SECONDS
    while find(state, project) is not None:
        if time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        time.sleep(0.02)
    with contextlib.suppress(FileNotFoundError):
        (state / project / "watch.json").unlink()
    return True


def _started(pid: int) -> int:
    """When the process began; 0 when it is not there, or has ended and is only not waited for."""
    if sys.platform != "linux":  # macOS's ps(1): "Tue Nov 24 10:00:00 2026  S"
        words = ["ps", "-o", "lstart=,state=", "-p", str(pid)]
        text = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
        begun, _, state = text.rpartition(" ")
        return 0 if not begun or state.startswith("Z") else zlib.crc32(begun.strip().encode())
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text[text.rfind(")") + 2 :].split()
    return 0 if fields[0] == "Z" else int(fields[19])
