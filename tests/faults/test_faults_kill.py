"""kill -9 of the engine, the supervisor, the container's monitor and `serve` at a random moment of create, start, exec, stop
and rm: afterwards what the records say is so, what was asked for works when asked for again, and nothing is left.

WORKBENCH_FAULT_ROUNDS sets how many (200 for a release; few by default and in CI, each takes half a second).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import EngineError
from engine.local import LocalEngine, runtime_dir
from engine.model import ContainerSpec
from engine.runtime import protocol, supervisor
from engine.runtime import state as states
from engine.service.images import BASE
from tests.faults.leaks import everything, marked
from tests.patience import PATIENCE

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


def kill_monitor(root: Path, identity: str) -> None:
    """Whichever is the container's own now; none is fine."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        state = states.read(str(root / "containers" / identity))
        if states.is_alive(state.monitor_pid, state.monitor_start):
            os.kill(state.monitor_pid, signal.SIGKILL)


def interrupted(root: Path, step: str, name: str, delay: float, victim: str, identity: str) -> None:
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
        worker.communicate(timeout=PATIENCE)
        return
    if victim == "monitor":
        kill_monitor(root, identity)
        worker.communicate(timeout=PATIENCE)
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
    end = time.monotonic() + PATIENCE
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
    before, end = true_state(engine, name), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(0.02)
        now = true_state(engine, name)
        if now == before:
            break
        before = now
    return before


# With the monitor goes its container: whatever was asked for, it is ended and says so.
ENDED = {"create": set(), "start": {"exited"}, "exec": {"exited"}, "stop": set(), "rm": set()}
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
        victim = choose.choice(("engine", "engine", "supervisor", "monitor"))
        identity = ""
        if step != "create":
            identity = service.create(ContainerSpec(BASE, name=name, command=("sleep", "1000"), stop_signal="SIGKILL"))
            ids.add(identity)
        if step in ("exec", "stop", "rm"):
            service.start(name)
        interrupted(data_root, step, name, choose.uniform(0, 0.03), victim, identity)
        status = settle(engine, name)
        allowed = EXPECTED[step] | (ENDED[step] if victim == "monitor" else set())
        assert status in allowed, f"round {number}: {victim} killed in {step}: {status}"
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
    end = time.monotonic() + PATIENCE
    while (left := marked(everything(), {one[:12] for one in ids})) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


# --- the API server ---------------------------------------------------------------------------------------


class Served:
    """`workbench serve` on a socket of its own; killed and started again on the same one."""

    def __init__(self, root: Path, socket: Path) -> None:
        self._command = [sys.executable, "-m", "engine.cli.main", "--root", str(root), "serve", "--socket", str(socket)]
        self._socket = socket
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(b"serving")

    def kill(self) -> None:
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self._socket)), base_url="http://d", timeout=PATIENCE
        ) as one:
            return one.request(method, f"/v1.43{path}", json=body)

    def step(self, step: str, name: str) -> None:
        """One request of a client; what it makes of a server that dies meanwhile is its own affair."""
        with contextlib.suppress(httpx.HTTPError):
            if step == "create":
                self.call("POST", f"/containers/create?name={name}", {"Image": BASE, "Cmd": ["sleep", "1000"]})
            elif step == "exec":
                made = self.call("POST", f"/containers/{name}/exec", {"Cmd": ["true"]}).json()
                self.call("POST", f"/exec/{made['Id']}/start", {"Detach": True})
            elif step == "rm":
                self.call("DELETE", f"/containers/{name}?force=1")
            else:
                self.call("POST", f"/containers/{name}/{step}?t=0" if step == "stop" else f"/containers/{name}/start")


def test_whatever_the_server_did_when_it_was_killed(engine: LocalEngine, data_root: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("WORKBENCH_FAULT_SEED", "0")) or random.randrange(1 << 30)
    print(f"WORKBENCH_FAULT_SEED={seed}")
    choose, service, ids = random.Random(seed), engine._containers, set()
    served = Served(data_root, tmp_path / "api.sock")
    try:
        bystander = served.call("POST", "/containers/create?name=by", {"Image": BASE, "Cmd": ["sleep", "1000"]}).json()
        served.call("POST", "/containers/by/start")
        pid = served.call("GET", "/containers/by/json").json()["State"]["Pid"]
        for number in range(max(ROUNDS // 2, len(STEPS))):
            step, name = STEPS[number % len(STEPS)], f"served-{number}"
            if step != "create":
                ids.add(service.create(ContainerSpec(BASE, name=name, command=("sleep", "1000"))))
            if step in ("exec", "stop", "rm"):
                service.start(name)
            client = threading.Thread(target=served.step, args=(step, name))
            client.start()
            end = time.monotonic() + choose.uniform(0, 0.05)
            while time.monotonic() < end:
                pass
            served.kill()
            client.join()
            assert settle(engine, name) in EXPECTED[step], f"round {number}: killed in {step}"
            served.start()
            assert (
                served.call("GET", "/containers/by/json").json()["State"] | {"Pid": pid, "Running": True}
                == (served.call("GET", "/containers/by/json").json()["State"])
            )
            served.step("create", name)
            ids.add(service.resolve(name)[0])
            assert served.call("POST", f"/containers/{name}/start").status_code in (204, 304)
            assert true_state(engine, name) == "running"
            assert served.call("DELETE", f"/containers/{name}?force=1").status_code == 204
        served.call("DELETE", "/containers/by?force=1")
        ids.add(bystander["Id"])
    finally:
        served.kill()
    assert os.listdir(engine._store.containers) == []
    end = time.monotonic() + PATIENCE
    while (left := marked(everything(), {one[:12] for one in ids})) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left
