"""A real firewalld on a bus of its own: without a zone its rules refuse what ours let pass.

Everything runs in new mount, network and pid namespaces: nothing of this host's firewall is touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.linux import dbus
from engine.runtime import firewalld
from tests.patience import PATIENCE

SCRIPT = r"""
import asyncio, json, os, signal, socket, struct, subprocess, sys, time
from pathlib import Path
from engine.api import ContainerSpec, PortBinding
from engine.linux import mount
from engine.local import open_engine
from engine.runtime import firewalld, protocol, supervisor
from engine.runtime.places import runtime_dir
from tests.patience import PATIENCE

def run(*words, ok=True):
    return subprocess.run(words, check=ok, capture_output=True, text=True).stdout.strip()

def until(ready):
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, ready
        time.sleep(0.05)

def start():
    daemon = subprocess.Popen(["firewalld", "--nofork", "--nopid"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: run("firewall-cmd", "--state", ok=False) == "running")
    return daemon

CALL = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); print(s.recv(9).decode())"
SERVE = "import socket\ns = socket.create_server(('', %d))\nprint('up', flush=True)\nwhile True: c, _ = s.accept(); c.sendall(b'hello'); c.close()"

async def main(root):
    for place in ("/run/dbus", "/run/firewalld", "/run/workbench"):
        os.makedirs(place, exist_ok=True)
        mount.mount("tmpfs", place, "tmpfs")
    run("ip", "link", "set", "lo", "up")
    outside = subprocess.Popen(["unshare", "-n", sys.executable, "-c", "import sys; sys.stdin.read(1); " + SERVE % 7000],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    there = ["nsenter", "-n", "-t", str(outside.pid)]
    until(lambda: os.stat(f"/proc/{outside.pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino)
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", str(outside.pid))
    run("ip", "addr", "add", "10.99.0.1/24", "dev", "up0"); run("ip", "link", "set", "up0", "up")
    run(*there, "ip", "addr", "add", "10.99.0.2/24", "dev", "up1"); run(*there, "ip", "link", "set", "up1", "up")
    outside.stdin.write(b"x"); outside.stdin.flush(); outside.stdout.readline()
    run("dbus-daemon", "--system", "--fork", "--nopidfile")
    daemon = start()
    engine = await open_engine(Path(root))
    base = await engine.ensure_base()
    await engine.create(ContainerSpec(base, name="web", command=("python3", "-c", SERVE % 80),
                                      port_bindings={"80/tcp": (PortBinding("", "18099"),)}))
    await engine.start("web")
    async for line in engine.logs("web", follow=True):
        break
    bridge = f"wb-{(await engine.network('bridge')).id[:12]}"
    zone = lambda: run("firewall-cmd", f"--get-zone-of-interface={bridge}", ok=False)
    found = {"zone": zone(), "in": run(*there, sys.executable, "-c", CALL, "10.99.0.1", "18099", ok=False)}
    name = await engine.create(ContainerSpec(base, command=("python3", "-c", CALL, "10.99.0.2", "7000")))
    await engine.start(name)
    found["out code"] = await engine.wait(name)
    daemon.terminate(); daemon.wait()
    daemon = start()
    until(zone)
    found["again"] = zone()
    run("firewall-cmd", f"--change-interface={bridge}", "--zone=internal")
    found["the user's"] = firewalld.admit(bridge) or zone()
    run("firewall-cmd", f"--change-interface={bridge}", "--zone=trusted")
    for each in ("web", name):
        await engine.remove(each, force=True)
    firewalld.dismiss(bridge)
    found["dismissed"] = zone()
    daemon.terminate(); daemon.wait(); outside.kill()
    with protocol.connect(str(runtime_dir(Path(root))), supervisor.SOCKET) as sock:
        pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    os.kill(pid, signal.SIGTERM)  # it gives its spare containers back
    until(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat").read().rpartition(")")[2][:3])
    print(json.dumps(found))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.root
@pytest.mark.peer("firewalld")
@pytest.mark.peer("dbus-daemon")
def test_the_bridges_are_in_a_zone_that_lets_them_pass(tmp_path: Path) -> None:
    root = tmp_path / "root"
    command = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    ]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, str(root)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "zone": "trusted", "in": "hello", "out code": 0, "again": "trusted", "the user's": "internal", "dismissed": "",
    }  # fmt: skip


def test_a_call_is_written_as_the_specification_says() -> None:
    """Little endian; PATH, INTERFACE, MEMBER, DESTINATION and SIGNATURE, each at a multiple of eight; texts with their NUL."""
    raw = dbus.message(7, "org.a", "/org/a", "org.a.B", "Do", ("one", "three"))
    assert raw[:4] == b"l\x01\x02\x01"
    assert int.from_bytes(raw[8:12], "little") == 7
    assert raw.endswith(b"\3\0\0\0one\0\5\0\0\0three\0")
    assert raw[16:32] == b"\1\1o\0\6\0\0\0/org/a\0\0"
    assert b"\x08\1g\0\2ss\0" in raw


def test_no_bus_is_no_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dbus.call, "__kwdefaults__", {"bus": str(tmp_path / "none")})
    assert firewalld.admit("wb-x") == ""
