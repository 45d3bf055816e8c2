"""The small init: it reaps, hands signals on, ends as its command ended, and is nothing but itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StartFailed
from engine.runtime import tiny_init
from tests.patience import PATIENCE

MakeBox = Callable[..., Any]
SOURCE = Path(tiny_init.__file__).with_suffix(".c")


def built(folder: Path) -> Path:
    """The program from its source, with the flags that the source names."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here")
    text = SOURCE.read_text()
    flags = (
        text[text.index("gcc ") + 4 : text.index(" -o tiny_init")]
        .replace("*", " ")
        .replace("(x86_64 only)", "")
        .split()
    )
    if os.uname().machine != "x86_64":
        flags.remove("-mno-red-zone")
    subprocess.run([compiler, *flags, "-o", str(folder / "built"), str(SOURCE)], check=True)
    return folder / "built"


@pytest.fixture(params=["kept", "built"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The bytes in the package, and what the source makes today: they do the same."""
    if request.param == "built":
        yield built(tmp_path)
        return
    path = tmp_path / "kept"
    path.write_bytes(tiny_init.program())
    path.chmod(0o755)
    yield path


def shell(program: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), "/bin/sh", "sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)]
)
def test_it_ends_as_the_command_ended(program: Path, script: str, code: int) -> None:
    assert shell(program, script).returncode == code


def test_a_command_that_cannot_run(program: Path) -> None:
    assert subprocess.run([str(program), "/no/such", "x"], check=False).returncode == 127
    assert subprocess.run([str(program), "/etc/passwd", "x"], check=False).returncode == 126
    assert subprocess.run([str(program), "/bin/sh"], check=False).returncode == 126


def test_signals_arrive(program: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGRTMIN + 3):
        script = f"trap 'echo got {int(number)}; exit 3' {int(number)}; echo ready; while :; do sleep 0.01; done"
        # A test run in the background ignores some signals, and what a shell finds ignored it cannot trap (POSIX, trap).
        process = subprocess.Popen(
            ["env", "--default-signal", str(program), "/bin/bash", "bash", "-c", script],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == f"got {int(number)}\n"
        assert process.wait(PATIENCE) == 3


def test_it_is_sealed_in_memory_and_for_both_machines() -> None:
    fd = tiny_init.open_program()
    try:
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
    finally:
        os.close(fd)
    for machine in ("x86_64", "aarch64"):
        assert tiny_init.program(machine)[:4] == b"\x7fELF"
        assert len(tiny_init.program(machine)) < 4096


@pytest.mark.root
def test_in_a_container(box: MakeBox) -> None:
    orphan = "(sleep 0.05 &); while pidof sleep > /dev/null; do :; done"  # its parent is gone: only process 1 reaps it
    script = f"cat /proc/1/comm; head -c 20 /proc/1/cmdline; echo; ls /proc/1/fd; {orphan}; exit 9"
    one = box("sh", "-c", script, init=True)
    assert one.run() == 9
    lines = one.output().splitlines()
    assert lines[:2] == ["init", "/sbin/workbench-init"]
    assert lines[2:] == ["0", "1", "2"]
    with pytest.raises(StartFailed) as caught:
        box("no-such-command", init=True).start()
    assert caught.value.exit_code == 127


@pytest.mark.root
def test_signals_and_terminal_in_a_container(box: MakeBox) -> None:
    one = box("sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done", init=True)
    started = one.start(attach=True)
    assert started.attach is not None
    assert started.attach.read() == ("stdout", b"ready\n")
    one.runtime.signal(one.id, signal.SIGTERM)
    assert one.wait() == 5
    two = box("sh", "-c", "tty; read x; echo $x", init=True, tty=True, open_stdin=True, user="bob")
    attached = two.start(attach=True).attach
    attached.write(b"hello\n")
    assert two.wait() == 0
    assert two.output().replace("\r", "").splitlines()[-1] == "hello"
    exe = box("sh", "-c", "readlink /proc/1/exe; echo x > /proc/1/exe", init=True)
    assert exe.run() != 0
    assert "init" in exe.output()
