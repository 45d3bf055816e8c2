"""The small program that performs a list of system calls (`tiny_exec`), and an exec as such a list."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from engine.runtime import tiny_exec
from engine.runtime.tiny_exec import KEEP, KEPT, MAY_FAIL, REPORT, Steps

SOURCE = Path(tiny_exec.__file__).with_suffix(".c")


def built(folder: Path) -> bytes:
    """The program from its source, with the flags that the source names."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    text = SOURCE.read_text()
    flags = text[text.index("gcc ") + 4 : text.index(" -o tiny_exec")].replace("*", " ").replace("(x86_64 only)", "")
    words = [flag for flag in flags.split() if flag != "-mno-red-zone" or os.uname().machine == "x86_64"]
    subprocess.run(["gcc", *words, "-o", str(folder / "built"), str(SOURCE)], check=True)
    return (folder / "built").read_bytes()


@pytest.fixture(params=["kept", "built"])
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes in the package, and what the source makes today: they do the same."""
    monkeypatch.setattr(tiny_exec, "_opened", [])
    if request.param == "built":
        data = built(tmp_path)
        monkeypatch.setattr(tiny_exec, "program", lambda: data)


def perform(steps: Steps, *others: int) -> tuple[list[tuple[int, ...]], int, str]:
    """(reports, exit code, output)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    with ours, open(os.devnull, "rb") as null:
        with theirs:
            pid = tiny_exec.spawn(steps, (null.fileno(), write, write), theirs.fileno(), others, ())
        os.close(write)
        for fd in tiny_exec._opened:
            os.close(fd)
        tiny_exec._opened.clear()
        with open(read, encoding="utf-8") as file:
            output = file.read()
        reports = []
        while raw := ours.recv(REPORT.size):
            reports.append(REPORT.unpack(raw))
    return reports, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


def shell(steps: Steps, script: str, **env: str) -> Steps:
    words = [f"{key}={value}".encode() for key, value in env.items()]
    steps.call("fcntl", tiny_exec.CHANNEL, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    steps.call("close_range", tiny_exec.LIST, 0xFFFFFFFF, 0)
    steps.execute([b"/nowhere/sh", b"/etc", b"/bin/sh"], [b"sh", b"-c", script.encode()], words, direct=False)
    return steps


@pytest.mark.usefixtures("program")
def test_steps_are_performed_in_order_and_the_last_is_a_program(tmp_path: Path) -> None:
    steps = Steps()
    steps.call("umask", 0o077)
    path = steps.point(os.fsencode(tmp_path / "made") + b"\0")
    steps.call("openat", -100, path, os.O_WRONLY | os.O_CREAT, 0o666, flags=KEEP)
    steps.call("write", 0, steps.point(b"said"), 4, flags=KEPT)
    steps.call("close", 0, flags=KEPT)
    steps.call("close", 77, flags=MAY_FAIL)
    steps.enter(os.fsencode(tmp_path))
    reports, code, output = perform(shell(steps, 'pwd; echo "$A $#"; ls /proc/self/fd | wc -l; exit 7', A="b c"))
    assert (reports, code) == ([], 7)
    # ls(1) has its own descriptor of the folder
    assert output.split("\n")[:3] == [str(tmp_path), "b c 0", "4"]
    assert ((tmp_path / "made").read_bytes(), (tmp_path / "made").stat().st_mode & 0o777) == (b"said", 0o600)


@pytest.mark.usefixtures("program")
def test_a_step_that_fails_is_reported_by_its_number() -> None:
    steps = Steps()
    steps.call("umask", 0o022)
    steps.stage = "there"
    steps.enter(b"/nowhere")
    reports, code, _ = perform(shell(steps, "true"))
    assert (reports, code, steps.why(1)) == ([(1, errno.ENOENT, 0)], 125, ("there", "chdir"))


@pytest.mark.usefixtures("program")
def test_a_fork_reports_the_child_which_leaves_out_what_is_for_others() -> None:
    steps = Steps()
    steps.fork("clone3", steps.point(b"\0" * 8), 8, flags=MAY_FAIL, skip=2)  # too short: EINVAL
    steps.fork("clone", 17, 0, 0, 0, 0, skip=1)
    steps.enter(b"/nowhere")
    reports, code, output = perform(shell(steps, "echo $$"))
    assert code == 0
    assert [report[0] for report in reports] == [tiny_exec.REMOTE]
    assert int(output) == reports[0][1]


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("candidates", "direct", "number", "at", "which"),
    [
        (["/nowhere/a", "/nowhere/b"], False, errno.ENOENT, tiny_exec.AT_SEARCH, 0),
        (["/nowhere/a", "plain"], False, errno.EACCES, tiny_exec.AT_SEARCH, 0),
        (["/etc"], False, errno.ENOENT, tiny_exec.AT_SEARCH, 0),
        (["/nowhere/a"], True, errno.ENOENT, tiny_exec.AT_STAT, 0),
        (["/etc"], True, errno.EISDIR, tiny_exec.AT_SEARCH, 0),
        (["plain"], True, errno.EACCES, tiny_exec.AT_SEARCH, 0),
        (["/nowhere/a", "broken"], False, errno.ENOENT, tiny_exec.AT_EXEC, 1),
        (["empty"], True, errno.ENOEXEC, tiny_exec.AT_EXEC, 0),
    ],
)
def test_what_cannot_be_executed_is_told_apart(
    tmp_path: Path, candidates: list[str], direct: bool, number: int, at: int, which: int
) -> None:
    for name, text, mode in (("plain", "x", 0o644), ("broken", "#!/nowhere/sh\n", 0o755), ("empty", "", 0o755)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    steps = Steps()
    steps.execute([os.fsencode(tmp_path / one) for one in candidates], [b"x"], [], direct=direct)
    reports, code, _ = perform(steps)
    assert (reports, code) == ([(0, number, which << 8 | at)], 125)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_program_is_small_for_each_machine(machine: str) -> None:
    assert tiny_exec.program(machine)[:4] == b"\x7fELF"
    assert len(tiny_exec.program(machine)) < 4096


def test_what_is_too_long_to_pass_is_refused() -> None:
    steps = Steps()
    steps.point(bytes(tiny_exec.MOST))
    with pytest.raises(OverflowError):
        steps.file()
