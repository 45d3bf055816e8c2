"""The parts that need no container: log records, frames, state files."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from engine.runtime import probes, protocol
from engine.runtime import state as states
from engine.runtime.health import Healthcheck
from engine.runtime.jsonlog import Log, Splitter, stamp
from engine.runtime.loop import Loop


def texts(records: bytes) -> list[str]:
    return [json.loads(line)["log"] for line in records.splitlines()]


@pytest.mark.parametrize("size", [1, 7, 16383, 16384, 16385, 65536])
def test_however_it_arrives_the_records_are_the_same(size: int) -> None:
    data = (
        b"a\n\n"
        + b"b" * 16383
        + b"\n"
        + b"c" * 16384
        + b"\n"
        + b"d" * 40000
        + b"\n"
        + "äöü€".encode() * 9000
        + b"\xff\x00end"
    )
    splitter = Splitter("stdout")
    records = b"".join(splitter.feed(data[at : at + size], 0) for at in range(0, len(data), size)) + splitter.finish(0)
    got = texts(records)
    assert (
        "".join(got).encode("utf-8", "surrogateescape")
        == b"".join(t.encode("utf-8", "surrogateescape") for t in got)
        == data
    )
    whole = Splitter("stdout")
    assert records == whole.feed(data, 0) + whole.finish(0)
    assert max(len(text.encode("utf-8", "surrogateescape")) for text in got) <= 16384


def test_record_form() -> None:
    line = Splitter("stderr").feed(b'"q"\t\x1b[0m\n', 1_700_000_000_120_000_000)
    assert line == rb'{"log":"\"q\"\t\u001b[0m\n","stream":"stderr","time":"2023-11-14T22:13:20.12Z"}' + b"\n"
    assert stamp(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"


def test_a_torn_tail_does_not_swallow_the_next_record(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"log":"whole\\n"}\n{"log":"to')
    log = Log(str(path))
    log.write(b'{"log":"next\\n"}\n')
    log.close()
    assert path.read_bytes().splitlines() == [b'{"log":"whole\\n"}', b'{"log":"to', b'{"log":"next\\n"}']


def test_a_log_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Log(str(tmp_path / "log"))


def test_frames() -> None:
    buffer = bytearray(protocol.frame(1, b"abc") + protocol.frame(4) + protocol.frame(2, b"x" * 70000)[:-1])
    assert protocol.take_frame(buffer) == (1, b"abc")
    assert protocol.take_frame(buffer) == (4, b"")
    assert protocol.take_frame(buffer) is None
    buffer += b"x"
    assert protocol.take_frame(buffer) == (2, b"x" * 70000)
    assert not buffer


def test_an_answer_of_a_peer_that_has_closed_already_is_read() -> None:
    theirs: socket.socket

    class Hasty(socket.socket):
        """Its peer answers and closes as soon as the request is there, as a monitor does that refuses."""

        def sendmsg(self, *words: object) -> int:  # type: ignore[override]
            sent = super().sendmsg(*words)  # type: ignore[arg-type]
            request, fds, _flags, _address = socket.recv_fds(theirs, 4096, 4)
            assert json.loads(request) == {"op": "exec"}
            for fd in fds:
                os.close(fd)
            theirs.sendall(protocol.line({"error": "paused"}))
            theirs.close()
            return sent

    ours, theirs = socket.socketpair()
    with Hasty(fileno=ours.detach()) as sock, open(os.devnull) as null:
        protocol.send_line(sock, {"op": "exec"}, [null.fileno()])
        assert protocol.LineReader(sock).read() == {"error": "paused"}


def test_sockets_work_in_a_deep_directory(tmp_path: Path) -> None:
    """sun_path has 108 bytes."""
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    listener = protocol.listen(str(deep), "s.sock")
    assert (deep / "s.sock").stat().st_mode & 0o777 == 0o600
    with protocol.connect(str(deep), "s.sock") as client:
        server, _ = listener.accept()
        read, write = os.pipe()
        protocol.send_line(client, {"hello": "x" * 100_000}, [read])
        reader = protocol.LineReader(server)
        assert reader.read() == {"hello": "x" * 100_000}
        os.write(write, b"through")
        assert os.read(reader.fds[0], 10) == b"through"
        assert protocol.peer_uid(server) == os.geteuid()
        reader.close_fds()
        server.close()
    for fd in (read, write):
        os.close(fd)
    listener.close()


def test_state_files(tmp_path: Path) -> None:
    assert states.read(str(tmp_path)).status == "created"
    written = states.State(status="exited", exit_code=3, pid=7, notes=("n",))
    states.write(str(tmp_path), written, durable=True)
    assert states.read(str(tmp_path)) == written
    assert os.listdir(tmp_path) == ["state.json"]
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(ValueError, match="no JSON object"):
        states.read(str(tmp_path))


def test_a_reused_pid_is_told_by_its_start() -> None:
    mine = states.start_time(os.getpid())
    assert states.is_alive(os.getpid(), mine)
    assert not states.is_alive(os.getpid(), mine + 1)
    assert not states.is_alive(0, 0)


def test_a_probe_that_makes_healthy_ends_the_start_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the start period, too: Docker takes the time to the next probe from what this one has said."""

    class Probe:
        def __init__(self, _loop: object, took: Callable[[object, int, str], None]) -> None:
            self.took, self.started_ns, self.running_for = took, 0, 0.0

        def run(self, _check: object, _start: object) -> None:
            self.took(self, codes.pop(0), "")

    class Waits:
        def later(self, seconds: float, what: Callable[[], None]) -> None:
            delays.append(seconds)
            if codes:
                what()

    monkeypatch.setattr(probes, "_Probe", Probe)
    delays: list[float] = []
    codes = [1, 1, 0, 0]
    check = Healthcheck(("x",), interval=4, start_period=1000, start_interval=1)
    probes.Prober(cast("Loop", Waits()), check, lambda *_: None, lambda _changed: None).begin()
    assert delays == [1, 1, 1, 4, 4]
