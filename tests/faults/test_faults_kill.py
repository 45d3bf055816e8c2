"""kill -9 of the engine and of the supervisor at a random moment of create, start, exec, stop and rm: afterwards what the
records say is so, what was asked for works when asked for again, and nothing is left.

WORKBENCH_FAULT_ROUNDS sets how many (200 for a release; few by default, each takes a third of a second).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.local import LocalEngine, runtime_dir
from engine.model import ContainerSpec
from engine.runtime import protocol, supervisor
from engine.runtime import state as states
from engine.service.images import BASE
from tests.faults.leaks import everything, marked

pytestmark = pytest.mark.root
ROUNDS = int(os.environ.get("WORKBENCH_FAULT_ROUNDS", "10"))
STEPS = ("create", "start", "exec", "stop", "rm")

# One engine process that does one thing to one container, as the command line would, and says when it begins.
WORKER = """
import asyncio, sys
from pathlib import Path
from engine.local import open_engine
from engine.model import ContainerSpec, ExecSpec

async def main(root, step, name, image):
    engine = await open_engine(Path(root))
    print("ready", flush=True)
    if step == "create":
        await engine.create(ContainerSpec(image, name=name, command=("sleep", "1000"), stop_signal="SIGKILL"))
    elif step == "start":
        await engine.start(name)
    elif step == "exec":
        stream = await engine.exec(name, ExecSpec(("true",)))
        await stream.wait()
    elif step == "stop":
        await engine.stop(name)
    else:
        await engine.remove(name, force=True)
    print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def engine(data_root: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(data_root)
    engine._images.ensure_base()
    yield engine
    for summary in engine._containers.list(all=True):
        with contextlib.suppress(EngineError):
            engine._containers.remove(summary.id, force=True)
    engine._store.close()


def supervisor_pid(run_dir: Path) -> int:
    try:
        with protocol.connect(str(run_dir), supervisor.SOCKET) as sock:
            protocol.send_line(sock, {"op": "ping"})
            answer: dict[str, Any] | None = protocol.LineReader(sock).read()
    except OSError:
        return 0
    return int(answer["pid"]) if answer else 0


def interrupted(root: Path, step: str, name: str, delay: float, victim: str) -> None:
    """Does `step` in an engine of its own; kills `victim` after `delay` seconds."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(root), step, name, BASE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    end = time.monotonic() + delay
    while time.monotonic() < end:  # a busy wait: a sleep is coarser than what is to be hit
        pass
    if victim == "supervisor":
        pid = supervisor_pid(runtime_dir(root))
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.communicate(timeout=60)
        return
    worker.kill()
    worker.communicate()


def true_state(engine: LocalEngine, name: str) -> str:
    """The recorded status, checked against the process. "absent" when there is no such container."""
    engine._containers.life.reconcile()
    found = [one for one in engine._containers.list(all=True) if one.name == name]
    if not found:
        return "absent"
    (one,) = found
    end = time.monotonic() + 5
    while True:  # between a process's death and its record lie some milliseconds
        state = engine._runtime.state(engine._containers.bundle(one.id))
        if state.status != "running":
            assert not state.pid, "recorded as ended, but with a process"
            return state.status
        if states.is_alive(state.pid, state.pid_start):
            return "running"
        assert time.monotonic() < end, "recorded as running, but its process is not there"
        time.sleep(0.005)


def settle(engine: LocalEngine, name: str) -> str:
    """The state once a monitor that the killed engine had asked for something has had the time to do it."""
    before, end = true_state(engine, name), time.monotonic() + 5
    while time.monotonic() < end:
        time.sleep(0.02)
        now = true_state(engine, name)
        if now == before:
            break
        before = now
    return before


EXPECTED = {
    "create": {"absent", "created"},
    "start": {"created", "running"},
    "exec": {"running"},
    "stop": {"running", "exited"},
    "rm": {"absent", "created", "running", "exited"},
}


def test_whatever_is_killed_when_the_records_are_true(engine: LocalEngine, data_root: Path) -> None:
    seed = int(os.environ.get("WORKBENCH_FAULT_SEED", "0")) or random.randrange(1 << 30)
    print(f"WORKBENCH_FAULT_SEED={seed}")
    choose = random.Random(seed)
    service, ids = engine._containers, set()
    for number in range(ROUNDS):
        step, name = STEPS[number % len(STEPS)], f"fault-{number}"
        victim = choose.choice(("engine", "engine", "supervisor"))
        if step != "create":
            ids.add(service.create(ContainerSpec(BASE, name=name, command=("sleep", "1000"), stop_signal="SIGKILL")))
        if step in ("exec", "stop", "rm"):
            service.start(name)
        interrupted(data_root, step, name, choose.uniform(0, 0.03), victim)
        status = settle(engine, name)
        assert status in EXPECTED[step], f"round {number}: {victim} killed in {step}: {status}"
        # Asked for again it works, by whichever engine comes next.
        if status == "absent":
            ids.add(service.create(ContainerSpec(BASE, name=name, command=("sleep", "1000"), stop_signal="SIGKILL")))
        ids.add(service.resolve(name)[0])
        service.start(name)
        assert true_state(engine, name) == "running"
        service.life.stop(name)
        assert true_state(engine, name) == "exited"
        service.remove(name, force=False)
        assert true_state(engine, name) == "absent"
    engine._containers.life.reconcile()
    assert os.listdir(engine._store.containers) == []
    assert [one for one in os.listdir(engine._store.tmp) if one.startswith("stale-")] == []
    end = time.monotonic() + 10
    while (left := marked(everything(), {one[:12] for one in ids})) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left
