"""Starting, ending, recording: exit codes, logs, leaks, and what survives a killed supervisor or monitor."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, EngineError, StartFailed, Unavailable
from engine.linux import cgroup, libc, mount
from engine.runtime import protocol, supervisor
from engine.runtime.client import Runtime
from engine.runtime.spec import BindMount
from engine.runtime.state import LOST

pytestmark = pytest.mark.root
MakeBox = Callable[..., Any]


def ping(runtime: Runtime) -> int:
    with protocol.connect(str(runtime.run_dir), supervisor.SOCKET) as sock:
        protocol.send_line(sock, {"op": "ping"})
        answer = protocol.LineReader(sock).read()
    assert answer is not None
    return int(answer["pid"])


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nosuch",), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (("/nosuch",), 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        (("/etc/passwd",), 126, 'exec: "/etc/passwd": permission denied'),
        (("/etc",), 126, 'exec: "/etc": is a directory'),
    ],
)
def test_a_command_that_cannot_run(box: MakeBox, args: tuple[str, ...], code: int, message: str) -> None:
    one = box(*args)
    with pytest.raises(StartFailed, match="exec") as caught:
        one.start()
    assert (caught.value.exit_code, caught.value.message) == (code, message)
    state = one.runtime.state(one.bundle)
    assert (state.status, state.exit_code, state.error) == ("created", code, message)


def test_not_an_executable_format(box: MakeBox) -> None:
    one = box("/junk")
    (one.bundle / "upper/junk").write_bytes(b"\x01\x02")
    (one.bundle / "upper/junk").chmod(0o755)
    with pytest.raises(StartFailed, match="exec format error") as caught:
        one.start()
    assert caught.value.exit_code == 126


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_codes(box: MakeBox, code: int) -> None:
    one = box("sh", "-c", f"exit {code}")
    assert one.run() == code
    state = one.runtime.state(one.bundle)
    assert (state.status, state.exit_code, state.oom_killed) == ("exited", code, False)
    assert state.started <= state.finished


def test_a_signal_ends_it_with_128_plus(box: MakeBox) -> None:
    one = box("sh", "-c", "trap 'exit 41' TERM; echo up; while :; do sleep 0.01; done")
    attached = one.start(attach=True).attach
    assert attached.read() == ("stdout", b"up\n")
    one.runtime.signal(one.id, signal.SIGTERM)
    assert attached.wait() == 41
    two = box("sleep", "100")
    two.start()
    two.runtime.signal(two.id, signal.SIGKILL)
    assert two.wait() == 137
    with pytest.raises(Conflict, match="not running"):
        two.runtime.signal(two.id, signal.SIGKILL)


def test_log_holds_the_exact_bytes_in_json_file_form(box: MakeBox) -> None:
    one = box("sh", "-c", r"printf 'one\n'; printf 'err\n' >&2; printf '\377\0 \303\244\n'; printf end")
    assert one.run() == 0
    text = one.output().encode("utf-8", "surrogateescape")
    assert text == b"one\n\xff\0 \xc3\xa4\nend"
    assert one.output("stderr") == "err\n"
    assert all(set(record) == {"log", "stream", "time"} and record["time"].endswith("Z") for record in one.records)
    assert (one.bundle / "log.json").stat().st_mode & 0o777 == 0o640


def test_long_lines_are_cut_at_16k_and_lose_nothing(box: MakeBox) -> None:
    one = box("sh", "-c", "yes x | tr -d '\\n' | head -c 100000; echo; seq 20000")
    assert one.run() == 0
    assert one.output() == "x" * 100000 + "\n" + "".join(f"{n}\n" for n in range(1, 20001))
    assert max(len(record["log"]) for record in one.records) == 16384


def test_starting_twice_is_refused_and_harmless(box: MakeBox) -> None:
    one = box("sleep", "100")
    one.start()
    with pytest.raises(Conflict, match="running already"):
        one.start()
    assert one.runtime.state(one.bundle).status == "running"
    one.runtime.signal(one.id, signal.SIGKILL)
    assert one.wait() == 137


def test_it_can_start_again_after_its_end(box: MakeBox) -> None:
    one = box("sh", "-c", "echo seen >> /tmp/seen; cat /tmp/seen")
    assert [one.run(), one.run()] == [0, 0]
    assert one.output() == "seen\n" * 3


def test_the_supervisor_may_be_killed(box: MakeBox) -> None:
    """Containers, their log and their exit code go on; the next start makes a new supervisor."""
    one = box("sh", "-c", "echo before; read line; echo after $line; exit 9", open_stdin=True)
    attached = one.start(attach=True).attach
    assert attached.read() == ("stdout", b"before\n")
    first = ping(one.runtime)
    os.kill(first, signal.SIGKILL)
    attached.write(b"all\n")
    assert attached.wait() == 9
    assert one.wait() == 9
    assert one.output() == "before\nafter all\n"
    assert box("true").run() == 0
    assert ping(one.runtime) != first


def test_a_lost_monitor_takes_its_container_along_and_is_told(box: MakeBox) -> None:
    one = box("sleep", "100")
    pid = one.start().pid
    state = one.runtime.state(one.bundle)
    watch = os.pidfd_open(pid)
    os.kill(state.monitor_pid, signal.SIGKILL)
    assert select.select([watch], [], [], 10)[0], "the container outlived its monitor"
    os.close(watch)
    with pytest.raises(EngineError, match="monitor was lost"):
        one.wait()
    after = one.runtime.state(one.bundle)
    assert (after.status, after.exit_code, after.error) == ("exited", None, LOST)
    assert no_cgroups(one.id)


def no_cgroups(container_id: str) -> bool:
    layout = cgroup.discover(Path("/proc/self/mountinfo").read_text())
    return not any((root / "workbench" / container_id).exists() for root in layout.roots.values())


def test_nothing_is_left_behind(box: MakeBox) -> None:
    one = box("sh", "-c", "mkdir /new; exit 0")
    one.start()
    assert one.wait() == 0
    failed = box("nosuch")
    with pytest.raises(StartFailed):
        failed.start()
    mounts = Path("/proc/self/mountinfo").read_text()  # of the whole host: others mount meanwhile
    assert not [place for place in (one.bundle, failed.bundle, one.runtime.run_dir) if str(place) in mounts]
    assert no_cgroups(one.id)
    assert no_cgroups(failed.id)
    names = os.listdir(one.runtime.run_dir / "c")
    assert not [name for name in names if name.startswith((one.id[:12], failed.id[:12]))]
    assert os.listdir(one.bundle / "rootfs") == []


def test_many_engines_may_start_the_supervisor_at_once(tmp_path: Path, busybox_root: Path) -> None:
    """All pings of a fresh run directory are answered by one supervisor."""
    start = threading.Barrier(16)
    runtimes = [Runtime(tmp_path / "run") for _ in range(16)]

    def connect(runtime: Runtime) -> int:
        start.wait()
        with runtime._supervisor() as sock:
            protocol.send_line(sock, {"op": "ping"})
            answer = protocol.LineReader(sock).read()
            assert answer is not None
            return int(answer["pid"])

    with ThreadPoolExecutor(16) as pool:
        pids = set(pool.map(connect, runtimes))
    assert len(pids) == 1
    pid = pids.pop()
    try:
        assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:"), "the interpreter is not a sealed copy"
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o711
        assert (tmp_path / "run/supervisor.sock").stat().st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match=r"busy|denied|permitted"):
            os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
    finally:
        os.kill(pid, signal.SIGTERM)


def test_starts_in_parallel(box: MakeBox) -> None:
    boxes = [box("sh", "-c", f"echo {number}; exit {number}") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(lambda one: one.run(), boxes))
    assert codes == list(range(12))
    assert [one.output() for one in boxes] == [f"{number}\n" for number in range(12)]


def test_a_full_disk_delays_log_lines_and_loses_none(box: MakeBox, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount.mount("tmpfs", str(disk), "tmpfs", 0, "size=256k")
    try:
        one = box("seq", "20000", log_path=str(disk / "log.json"))
        one.start()
        with pytest.raises(TimeoutError):
            one.wait(timeout=0.5)  # 1.3 MB of records do not fit: it waits
        assert one.runtime.state(one.bundle).status == "running", one.runtime.state(one.bundle)
        mount.mount("tmpfs", str(disk), "tmpfs", mount.MS_REMOUNT, "size=64m")
        assert one.wait() == 0
        lines = [json.loads(line)["log"] for line in (disk / "log.json").read_text().splitlines()]
        assert lines == [f"{n}\n" for n in range(1, 20001)]
    finally:
        libc.call("umount2", os.fsencode(disk), mount.MNT_DETACH)


def test_a_build_step_gets_the_callers_streams_and_dies_with_it(box: MakeBox) -> None:
    read, write = os.pipe()
    one = box("sh", "-c", "cat; echo built; exit 5", stdio="fds", volatile=True, clean_stubs=True)
    with open(os.devnull) as null:
        one.start(stdio=(null.fileno(), write, write))
    os.close(write)
    with os.fdopen(read, "rb") as output:
        assert output.read() == b"built\n"
    assert one.wait() == 5
    assert os.listdir(one.bundle / "upper") == [], "mount points stayed in the layer"
    assert not (one.bundle / "log.json").exists()

    two = box("sleep", "100", stdio="fds")
    with open(os.devnull, "r+") as null:
        pid = two.start(stdio=(null.fileno(), null.fileno(), null.fileno())).pid
    watch = os.pidfd_open(pid)
    two.runtime.release(two.id)
    assert select.select([watch], [], [], 10)[0], "the step outlived its caller"
    os.close(watch)


def test_a_build_steps_own_files_stay_where_mount_points_were_made(box: MakeBox, tmp_path: Path) -> None:
    (tmp_path / "resolv").write_text("nameserver 127.0.0.1\n")
    one = box(
        "sh",
        "-c",
        "touch /opt/file; mkdir /etc/kept; echo x > /etc/kept/f",
        stdio="fds",
        clean_stubs=True,
        mounts=[BindMount(str(tmp_path / "resolv"), "/etc/resolv.conf"), BindMount(str(tmp_path), "/opt/cache/deep")],
        cwd="/opt",
    )
    with open(os.devnull, "r+") as null:
        one.start(stdio=(null.fileno(), null.fileno(), null.fileno()))
    assert one.wait() == 0
    upper = one.bundle / "upper"
    found = sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))
    assert found == ["etc", "etc/kept", "etc/kept/f", "opt", "opt/file"]


def test_attach_misses_nothing_and_a_stalled_client_does_not_stop_it(box: MakeBox) -> None:
    one = box("sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo done")
    stalled = one.start(attach=True).attach
    assert one.wait() == 0  # nobody reads `stalled`
    assert one.output() == "x" * 20_000_000 + "\ndone\n"
    with pytest.raises(Unavailable, match="broke off"):
        stalled.wait()
    stalled.close()
    two = box("sh", "-c", "seq 1000; echo err >&2; exit 3")
    attached = two.start(attach=True).attach
    got: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    while (item := attached.read()) is not None:
        got[item[0]] += item[1]
    assert got == {"stdout": "".join(f"{n}\n" for n in range(1, 1001)).encode(), "stderr": b"err\n"}
    assert attached.wait() == 3


def test_stdin_reaches_the_program_whole(box: MakeBox) -> None:
    one = box("md5sum", open_stdin=True)
    attached = one.start(attach=True).attach
    attached.write(b"0123456789" * 200_000)
    attached.close_stdin()
    assert one.wait() == 0
    assert one.output() == hashlib.md5(b"0123456789" * 200_000).hexdigest() + "  -\n"


def test_a_terminal(box: MakeBox) -> None:
    one = box("sh", "-c", "read x; tty; stty size; echo $TERM; ls -l /dev/console", tty=True)
    attached = one.start(attach=True).attach
    assert attached.tty
    attached.resize(44, 55)
    attached.write(b"\n")
    assert attached.wait() == 0
    text = one.output()
    assert text.startswith("\r\n/dev/pts/0\r\n")
    assert "44 55\r\nxterm\r\n" in text
    assert "136,   0" in text
