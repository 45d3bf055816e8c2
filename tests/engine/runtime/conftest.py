"""Real containers on a root made of a static busybox, through a real supervisor in a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.runtime import bridges, protocol, supervisor
from engine.runtime.client import Runtime, Started
from engine.runtime.spec import SpecParams, make_spec

BUSYBOX = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)), "")


def make_root(root: Path) -> Path:
    """A minimal root: busybox, its applets, two users."""
    for name in ("bin", "etc", "tmp", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    # The last line is CVE-2026-46680's: a number as a name.
    users = ("root:x:0:0:root:/root:/bin/sh", "bob:x:1000:1001::/home/bob:/bin/sh", "1002:x:0:0::/:/bin/sh")
    (root / "etc/passwd").write_text("".join(f"{user}\n" for user in users))
    (root / "etc/group").write_text("root:x:0:\nstaff:x:50:bob\nbob:x:1001:\n")
    return root


@dataclass
class Box:
    """A container that was made: its bundle, and what one wants to know of it."""

    runtime: Runtime
    id: str
    bundle: Path

    def start(self, **options: Any) -> Started:
        return self.runtime.start(self.id, self.bundle, **options)

    def wait(self, timeout: float = 30) -> int:
        return self.runtime.wait(self.id, self.bundle, timeout)

    def run(self) -> int:
        self.start()
        return self.wait()

    @property
    def records(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.bundle / "log.json").read_text().splitlines()]

    def output(self, stream: str = "stdout") -> str:
        return "".join(record["log"] for record in self.records if record["stream"] == stream)


def supervisor_pid(runtime: Runtime) -> int:
    with protocol.connect(str(runtime.run_dir), supervisor.SOCKET) as sock:
        protocol.send_line(sock, {"op": "ping"})
        answer = protocol.LineReader(sock).read()
    assert answer is not None
    return int(answer["pid"])


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    # ldd fails on what is not dynamic.
    if not BUSYBOX or subprocess.run(["ldd", BUSYBOX], capture_output=True, check=False).returncode == 0:
        if os.environ.get("CI") == "true":
            pytest.fail("no static busybox: install busybox-static")
        pytest.skip("no static busybox here (Debian: busybox-static)")
    return make_root(tmp_path_factory.mktemp("busybox") / "root")


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path_factory.mktemp("run") / "run")
    yield runtime
    try:
        os.kill(supervisor_pid(runtime), signal.SIGTERM)
    except OSError:  # no test started one
        pass
    bridges.reap(str(runtime.run_dir), 0)  # what it would have removed a second later


MakeBox = Callable[..., Box]


@pytest.fixture
def box(busybox_root: Path, runtime: Runtime, tmp_path: Path) -> Iterator[MakeBox]:
    """`box("sh", "-c", "…", memory=…)` makes (does not start) a container; what still runs at the end is killed."""
    made: list[Box] = []

    def make(*args: str, **params: Any) -> Box:
        identity = os.urandom(32).hex()
        bundle = tmp_path / identity
        for name in ("upper", "work"):
            (bundle / name).mkdir(parents=True)
        values: dict[str, Any] = {
            "hostname": "box",
            "lowers": [str(busybox_root)],
            "upper": str(bundle / "upper"),
            "work": str(bundle / "work"),
            "log_path": str(bundle / "log.json"),
            **params,
        }
        spec = make_spec(SpecParams(container_id=identity, args=args, **values))
        (bundle / "config.json").write_text(json.dumps(spec))
        made.append(Box(runtime, identity, bundle))
        return made[-1]

    yield make
    for one in made:
        try:
            runtime.signal(one.id, signal.SIGKILL)
            one.wait()
        except EngineError:
            pass
