"""The leak check itself: it must see each kind of thing, say which test made it, and fail the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.linux import cgroup

pytestmark = pytest.mark.root
CONFTEST = """
from tests.faults.leaks import LeakCheck

def pytest_configure(config):
    config.pluginmanager.register(LeakCheck(), "leak-check")
"""
LEAKS = """
import ctypes, os, subprocess, tempfile, threading

def test_a_mount(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)

def test_a_descriptor():
    os.open("/etc/passwd", os.O_RDONLY)

def test_a_process():
    subprocess.Popen(["sleep", "1000"])

def test_a_namespace_and_a_link():
    subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    subprocess.run(["ip", "link", "add", "NAME", "type", "bridge"], check=True)

def test_a_control_group():
    os.makedirs("GROUP")

def test_a_table():
    subprocess.run(["nft", "add", "table", "inet", "NAME"], check=True)

def test_a_file():
    tempfile.mkstemp()

def test_nothing(tmp_path):
    (tmp_path / "a").write_text("a")
"""


@pytest.fixture
def name() -> Iterator[str]:
    """Of what the leaking run makes; all of it is gone afterwards."""
    name = f"wbt-{os.urandom(4).hex()}"
    yield name
    subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["nft", "delete", "table", "inet", name], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.peer("ip")
@pytest.mark.peer("nft")
def test_what_is_left_is_named(tmp_path: Path, name: str) -> None:
    group = next(iter(cgroup.here().roots.values())) / "workbench" / name
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_leaks.py").write_text(LEAKS.replace("NAME", name).replace("GROUP", str(group)))
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(repository), "LEAK_PATIENCE": "0"}
    base = tmp_path / "base"
    try:
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={base}", str(tmp_path)]
        leaker = subprocess.Popen(
            words, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        output, _ = leaker.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leaker.pid, signal.SIGKILL)  # what it left running is in its group, and is no leak of this run
        subprocess.run(["umount", base / "test_a_mount0"], check=False)
        group.rmdir()
    assert leaker.returncode == 1, output
    left = [line for line in output.splitlines() if "(seen after" in line]

    def found(start: str, test: str) -> bool:
        return any(line.startswith(start) and test in line for line in left)

    assert found(f"mount {base}", "test_a_mount")
    assert found("descriptor", "/etc/passwd")
    assert found("process", "test_a_process")
    assert found("namespace net:", "test_a_namespace")
    assert found(f"link {name}", "test_a_namespace")
    assert found(f"cgroup {group}", "test_a_control_group")
    assert found(f"nft table 1 {name}", "test_a_table")
    assert found(f"file {base}", "")
    ours = [line for line in left if name in line or str(base) in line]  # others of this machine make things meanwhile
    assert not any("test_nothing" in line for line in ours)
