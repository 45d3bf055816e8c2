"""`serve --install`: the units, what systemd thinks of them, and a server that is started as they start it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.base import systemd
from engine.cli import serve, units
from engine.errors import Conflict, InvalidInput
from tests.patience import PATIENCE


def plan(folder: Path, *, user: bool = False, command: tuple[str, ...] = ("/bin/true", "--root", "/a b")) -> units.Plan:
    return units.Plan(folder, user, command, Path("/run/x/api.sock"), "" if user else "root")


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("plain", "plain"), ("a b", '"a b"'), ("100%", "100%%"), ("$HOME", "$$HOME"), ('q"', '"q\\""'), ("", '""')],
)
def test_words_of_a_command_line(word: str, quoted: str) -> None:
    assert units.quote(word) == quoted


@pytest.mark.parametrize("user", [False, True])
def test_install_and_uninstall(tmp_path: Path, user: bool) -> None:
    folder = tmp_path / "units"
    said = units.install(plan(folder, user=user))
    assert sorted(path.name for path in folder.iterdir()) == ["workbench.service", "workbench.socket"]
    assert (folder / "workbench.service").stat().st_mode & 0o777 == 0o644
    assert f"  {'systemctl --user' if user else 'systemctl'} daemon-reload" in said
    assert any("enable-linger" in line for line in said) == user
    service = (folder / "workbench.service").read_text()
    assert 'ExecStart=/bin/true --root "/a b"\n' in service
    assert ("WantedBy=default.target" in service) == user
    units.install(plan(folder, user=user))  # again is fine
    wants = folder / "sockets.target.wants"
    wants.mkdir()
    (wants / "workbench.socket").symlink_to(folder / "workbench.socket")
    assert len([line for line in units.uninstall(plan(folder, user=user)) if line.startswith("removed")]) == 2
    assert list(folder.iterdir()) == []
    assert "no units of ours" in units.uninstall(plan(folder, user=user))[0]


def test_units_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "workbench.service").write_text("[Unit]\n")
    for work in (units.install, units.uninstall):
        with pytest.raises(Conflict, match="was not written by workbench"):
            work(plan(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["workbench.service"]


@pytest.mark.peer("systemd-analyze")
@pytest.mark.parametrize("user", [False, True])
def test_systemd_finds_no_fault(tmp_path: Path, user: bool) -> None:
    units.install(plan(tmp_path, user=user))
    command = ["systemd-analyze", *(["--user"] if user else []), "verify", "--man=no"]
    names = [str(tmp_path / name) for name in ("workbench.service", "workbench.socket")]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run([*command, *names], capture_output=True, text=True, check=False, env=env)
    about_ours = [line for line in done.stderr.splitlines() if "workbench" in line]
    assert about_ours == []
    assert done.returncode == 0, done.stderr


def test_the_command_checks_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(units, "SYSTEM", tmp_path / "units")
    monkeypatch.setattr("engine.runtime.places.user", lambda: None)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    with pytest.raises(InvalidInput, match="exclude each other"):
        serve.cmd_serve(tmp_path, ["--install", "--uninstall"])
    with pytest.raises(InvalidInput, match="no group"):
        serve.cmd_serve(tmp_path, ["--install", "--group", "no-such-group"])
    with pytest.raises(InvalidInput, match="--tcp needs"):
        serve.cmd_serve(tmp_path, ["--install", "--tcp", "0.0.0.0:2376"])
    tls = ("--tlscacert", "ca.pem", "--tlscert", "c.pem", "--tlskey", "k.pem")
    assert serve.cmd_serve(tmp_path, ["--install", "--socket", "/run/s", "--tcp", "h:1", *tls]) == 0
    assert "export DOCKER_HOST=unix:///run/s" in capsys.readouterr().out
    text = (tmp_path / "units/workbench.service").read_text()
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart="))
    assert words[:3] == [sys.executable, "-m", "engine.cli.main"]
    assert words[3:8] == ["--root", str(tmp_path), "serve", "--tcp", "h:1"]
    assert words[-1] == str(Path("k.pem").absolute()), "a service has another working directory"


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        for address in (str(tmp_path / "notify"), f"\0wbtest-{os.getpid()}"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.bind(address)
                monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
                assert systemd.notify("READY=1", "STATUS=x")
                assert manager.recv(100) == b"READY=1\nSTATUS=x"
    assert not systemd.notify("READY=1"), "the manager has gone"


@pytest.mark.root
def test_started_by_systemd(tmp_path: Path) -> None:
    """With a socket from it, whose first request may come before the server; and it hears when the server is ready."""
    path, notify = str(tmp_path / "api.sock"), str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        listener.bind(path)
        listener.listen()
        manager.bind(notify)
        manager.settimeout(PATIENCE)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.sendall(b"GET /_ping HTTP/1.0\r\nHost: x\r\n\r\n")
        # The shell puts the descriptor where sd_listen_fds(3) has it, and its own process id, which becomes the server's.
        words = "-m engine.cli.main --root"
        script = (
            f'exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "{sys.executable}" {words} "{tmp_path}/root" serve'
        )
        server = subprocess.Popen(
            ["sh", "-c", script],
            stdin=listener,
            env={**os.environ, "NOTIFY_SOCKET": notify},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert manager.recv(200).startswith(b"READY=1\nSTATUS=")
            client.settimeout(PATIENCE)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            assert server.stdout is not None
            assert server.stdout.readline() == "serving the Docker API at 1 socket from systemd\n"
            server.send_signal(signal.SIGTERM)
            assert manager.recv(200) == b"STOPPING=1"
            assert server.wait(PATIENCE) == 0
        finally:
            client.close()
            server.kill()
            server.communicate()
    assert os.path.exists(path), "the socket is systemd's"
