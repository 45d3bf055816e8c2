"""Spare monitors with parked first processes: used, equal to others, and gone when they are not wanted."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StartFailed
from engine.linux import cgroup
from engine.runtime import bridges, spares
from engine.runtime.client import Runtime
from engine.runtime.exec_client import ExecParams
from engine.runtime.netconfig import NetworkConfig, PortBinding
from tests.patience import PATIENCE

from .conftest import Box, MakeBox, supervisor_pid
from .test_runtime_network import endpoint, network, section, until

__all__ = ["network"]  # a fixture
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(cgroup.here().version not in ("v1", "hybrid"), reason="only there can groups be renamed"),
]
GROUPS = next(iter(cgroup.here().roots.values()), Path("/nonexistent")) / "workbench"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """One of its own: the test counts, and kills, what belongs to it."""
    runtime = Runtime(tmp_path / "run")
    yield runtime
    with contextlib.suppress(OSError):
        os.kill(supervisor_pid(runtime), signal.SIGTERM)
    bridges.reap(str(runtime.run_dir), 0)


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def parked(supervisor: int) -> dict[int, int]:
    """Spare monitors whose first process is in its group."""
    found = {}
    for spare in children(supervisor):
        members = [group / "cgroup.procs" for group in GROUPS.glob(f"spare-{spare}-*")]
        for first in children(spare):
            with contextlib.suppress(OSError):
                if any(str(first) in file.read_text().split() for file in members):
                    found[spare] = first
    return found


def some_parked(supervisor: int, least: int = 1) -> dict[int, int]:
    found: dict[int, int] = until(lambda: len(now := parked(supervisor)) >= least and now, "spares are ready")
    return found


def warm(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> int:
    """The supervisor, which has its spares."""
    assert box("true", **section(endpoint(network, 250))).run() == 0
    pid = supervisor_pid(runtime)
    some_parked(pid, spares.WANTED)
    return pid


def ended(pid: int) -> None:
    fd = os.pidfd_open(pid)
    assert select.select([fd], [], [], 20)[0], f"process {pid} is still there"
    os.close(fd)


def gone(found: Iterable[int]) -> None:
    until(lambda: not any([*GROUPS.glob(f"spare-{pid}-*")] for pid in found), "the spares' groups are removed")


def test_a_start_takes_what_was_prepared(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    before = parked(warm(box, runtime, network))
    one = box("sleep", "60", **section(endpoint(network, 2)))
    pid = one.start().pid
    assert pid in before.values()
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    assert f"workbench/{one.id}" in groups
    assert "spare-" not in groups


def idle(supervisor: int, monitor: int) -> bool:
    return monitor in parked(supervisor)


def test_a_monitor_is_used_again_and_keeps_nothing(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    supervisor = warm(box, runtime, network)
    known: dict[int, set[str]] = {}
    again = 0
    for number in range(2, 2 + 3 * spares.WANTED):
        one = box("sh", "-c", "read x; echo $x; exit 5", open_stdin=True, **section(endpoint(network, number)))
        one.start()
        monitor = runtime.state(one.bundle).monitor_pid
        again += monitor in known
        process = runtime.exec(one.id, ExecParams(["true"]))
        assert process.wait() == 0
        process.close()
        attached = runtime.attach(one.id)
        attached.write(b"word\n")
        assert one.wait() == 5
        attached.close()
        until(lambda monitor=monitor: idle(supervisor, monitor), "it waits again")
        assert one.output() == "word\n"
        paths = {os.readlink(file) for file in Path(f"/proc/{monitor}/fd").iterdir()}
        assert not [path for path in paths if path.startswith(str(one.bundle))]
        kinds = {path.partition(":")[0] for path in paths}
        assert known.setdefault(monitor, kinds) == kinds
        assert not children(monitor)[1:], "its parked process alone"
    assert again >= spares.WANTED


def test_a_monitor_ends_when_there_is_no_supervisor(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    supervisor = warm(box, runtime, network)
    one = box("sleep", "60", **section(endpoint(network, 2)))
    assert one.start().pid not in parked(supervisor).values()
    monitor = runtime.state(one.bundle).monitor_pid
    os.kill(supervisor, signal.SIGKILL)
    runtime.signal(one.id, signal.SIGKILL)
    assert one.wait() == 137
    with contextlib.suppress(ProcessLookupError):
        ended(monitor)


SEEN = (
    "cat /proc/self/status | grep -E 'Cap|Seccomp|NoNewPrivs|Groups|NSpid'; cat /proc/self/oom_score_adj; ulimit -a; \
cat /proc/self/cgroup | sed 's/:.*:/ /'; cut -d' ' -f 5- /proc/self/mountinfo | sed 's/,[a-z]*dir=[^, ]*//g'; \
ls -l /proc/self/fd | sed 's/.*->/->/;s/[0-9]//g'; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv6/conf/*/disable_ipv6; \
ls /dev /sys/fs/cgroup; hostname; umask; ip addr | sed 's/[0-9]//g'"
)


def test_what_was_prepared_is_like_what_was_not(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    supervisor = warm(box, runtime, network)

    def seen(last: int, **more: Any) -> tuple[str, bool]:
        before = some_parked(supervisor)
        one = box("sh", "-c", SEEN, **section(endpoint(network, last)), **more)
        pid = one.start().pid
        one.wait()
        return one.output().replace(one.id, "ID"), pid in before.values()

    (first, prepared), (second, unprepared) = seen(2), seen(3, memory=32 << 20)
    assert (prepared, unprepared) == (True, False), "one with so little memory has a process of its own"
    assert first.splitlines() == second.splitlines()


def test_a_start_that_fails_leaves_nothing(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    warm(box, runtime, network)
    holder = box("sleep", "60", **section(endpoint(network, 2), ports=(PortBinding(80, "tcp", "127.0.0.1", 0),)))
    holder.start()
    report: Any = runtime.state(holder.bundle).network
    taken = report["published"][0]["host_port"]
    some_parked(supervisor_pid(runtime))
    bindings = (PortBinding(80, "tcp", "127.0.0.1", taken),)
    one: Box = box("true", clean_stubs=True, **section(endpoint(network, 3), ports=bindings))
    with pytest.raises(StartFailed, match=r"already allocated|in use"):
        one.start()
    assert not (GROUPS / one.id).exists()
    assert not any((one.bundle / "upper").rglob("*"))


def test_they_end_with_their_supervisor(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    supervisor = warm(box, runtime, network)
    found = parked(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    for pid in (*found, *found.values()):
        with contextlib.suppress(ProcessLookupError):
            ended(pid)
    gone(found)


def test_what_a_killed_one_leaves_is_removed(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    supervisor = warm(box, runtime, network)
    found = parked(supervisor)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    gone(found)
    assert box("true", **section(endpoint(network, 3))).run() == 0
    os.kill(supervisor, signal.SIGKILL)
    both = {**found, **parked(supervisor)}
    for pid in both:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert box("true", **section(endpoint(network, 4))).run() == 0
    gone(both)


def test_views_use_none_up(box: MakeBox, runtime: Runtime, network: NetworkConfig) -> None:
    supervisor = warm(box, runtime, network)
    before = set(parked(supervisor))
    for _ in range(2 * spares.WANTED):
        assert supervisor_pid(runtime) == supervisor
    assert set(some_parked(supervisor)) == before


def test_idle_ones_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: nobody waits ten minutes."""
    made: list[int] = []

    class Counted(spares.Spares):
        def _add(self) -> None:
            made.append(len(made))

    pool = Counted(cgroup.here(), lambda: None, lambda *_: None)
    pool._graves.clear()
    assert pool.due() is None, "nothing to wake up for"
    monkeypatch.setattr(spares, "PAUSE", 0.0)
    with socket.socket() as connection:
        assert pool.hand(connection) is False
    assert pool.due() is not None
    pool.turn()
    assert len(made) == spares.WANTED
    assert pool.due() is None
    assert time.monotonic() + spares.IDLE - pool._until < PATIENCE
