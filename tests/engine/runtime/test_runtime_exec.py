"""Further processes in a running container."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import Conflict, StartFailed
from engine.model import Ulimit
from engine.runtime.connections import ExecConnection
from engine.runtime.exec_client import ExecParams

pytestmark = pytest.mark.root
MakeBox = Callable[..., Any]


@pytest.fixture
def running(box: MakeBox) -> Any:
    one = box("sleep", "1000")
    one.start()
    return one


def gather(process: ExecConnection) -> tuple[int, bytes, bytes]:
    got = {"stdout": b"", "stderr": b""}
    while (item := process.read()) is not None:
        got[item[0]] += item[1]
    code = process.wait()
    process.close()
    return code, got["stdout"], got["stderr"]


def test_streams_exit_code_and_place(running: Any) -> None:
    script = "cat; echo err >&2; pwd; echo $A $HOME; id -u; hostname; exit 7"
    params = ExecParams(["sh", "-c", script], stdin=True, env=["A=b"], user="bob", cwd="/tmp")
    process = running.runtime.exec(running.id, params)
    process.write(b"in\n")
    process.close_stdin()
    assert gather(process) == (7, b"in\n/tmp\nb /home/bob\n1000\nbox\n", b"err\n")


def test_it_is_in_the_containers_pid_namespace_and_cgroup(running: Any) -> None:
    script = "cat /proc/1/comm; cat /proc/1/cgroup; cat /proc/self/cgroup"
    code, out, _err = gather(running.runtime.exec(running.id, ExecParams(["sh", "-c", script])))
    assert code == 0
    lines = out.decode().splitlines()
    assert lines[0] == "sleep"
    half = len(lines) // 2
    assert lines[1 : half + 1] == lines[half + 1 :]


@pytest.mark.parametrize("tty", [False, True])
def test_it_needs_no_process_more_than_its_own(box: MakeBox, tty: bool) -> None:
    """It is forked by one that is that user too: a limit of processes counts the command alone."""
    one = box("sleep", "1000", user="54322", ulimits=(Ulimit("nproc", 2, 2),))
    one.start()
    code, out, _err = gather(one.runtime.exec(one.id, ExecParams(["sh", "-c", "ulimit -u"], user="54322", tty=tty)))
    assert (code, out.strip()) == (0, b"2")


@pytest.mark.parametrize("tty", [False, True])
def test_where_nothing_may_fork(box: MakeBox, tty: bool) -> None:
    """A filter that keeps the one in between from forking once it is confined."""
    deny = {"names": ["clone", "clone3", "fork", "vfork", "prlimit64"], "action": "SCMP_ACT_ERRNO"}
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny]})
    one = box("sleep", "1000", security_opt=(f"seccomp={profile}",), ulimits=(Ulimit("nproc", 9, 9),))
    one.start()
    code, out, _err = gather(one.runtime.exec(one.id, ExecParams(["sh", "-c", "echo $(true) said"], tty=tty)))
    assert code != 0 or b"said" not in out  # the shell cannot
    code, out, _err = gather(one.runtime.exec(one.id, ExecParams(["grep", "Seccomp:", "/proc/self/status"], tty=tty)))
    assert (code, out.split()) == (0, [b"Seccomp:", b"2"])


def test_a_terminal(running: Any) -> None:
    params = ExecParams(["sh", "-c", "tty; stty size; read x; stty size"], tty=True, tty_size=(33, 77))
    process = running.runtime.exec(running.id, params)
    assert process.tty
    seen = b""
    while b"33 77" not in seen:
        item = process.read()
        assert item is not None, seen
        seen += item[1]
    process.resize(10, 11)
    process.write(b"\n")
    code, rest, _err = gather(process)
    assert code == 0
    assert b"10 11" in rest
    assert b"/dev/pts/" in seen


@pytest.mark.parametrize(
    ("args", "code"), [(["nosuch"], 127), (["/nosuch"], 127), (["/etc"], 126), (["/etc/passwd"], 126)]
)
def test_what_cannot_run(running: Any, args: list[str], code: int) -> None:
    with pytest.raises(StartFailed) as caught:
        running.runtime.exec(running.id, ExecParams(args))
    assert caught.value.exit_code == code


def test_an_unknown_user(running: Any) -> None:
    with pytest.raises(StartFailed, match="unable to find user eve"):
        running.runtime.exec(running.id, ExecParams(["true"], user="eve"))


def test_what_it_leaves_behind_does_not_hold_the_reader(running: Any) -> None:
    """A grandchild with the streams open (a daemon) is no reason to wait."""
    process = running.runtime.exec(running.id, ExecParams(["sh", "-c", "sleep 1000 & echo here"]))
    assert gather(process) == (0, b"here\n", b"")


def test_it_ends_with_the_container(running: Any) -> None:
    process = running.runtime.exec(running.id, ExecParams(["sleep", "1000"]))
    running.runtime.signal(running.id, signal.SIGKILL)
    assert process.wait() == 137
    assert running.wait() == 137
    with pytest.raises(Conflict, match="not running"):
        running.runtime.exec(running.id, ExecParams(["true"]))
    process.close()


def test_privileged(running: Any) -> None:
    params = ExecParams(["sh", "-c", "mount -t tmpfs x /tmp && echo ok"], privileged=True)
    process = running.runtime.exec(running.id, params)
    assert gather(process)[:2] == (0, b"ok\n")


def test_many_at_once(running: Any) -> None:
    processes = [running.runtime.exec(running.id, ExecParams(["sh", "-c", f"exit {n}"])) for n in range(10)]
    assert [gather(process)[0] for process in processes] == list(range(10))
