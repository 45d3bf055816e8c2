"""The app and the command line with `--host` also work where there is no Linux (macOS): nothing that they load needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# As far as this can be had on Linux: sys.platform, the names that macOS's `os` and friends do not have, and none of our Linux modules.
SCRIPT = """
import importlib, json, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import asyncio, ctypes, curses, fcntl, httpx, os, select, signal, socket, ssl, subprocess, tempfile, termios, textual.app  # as they are here
import engine.cli, textual.widgets
LINUX = {
    os: "O_PATH O_TMPFILE memfd_create pidfd_open setns unshare eventfd splice copy_file_range sched_getaffinity pipe2 getxattr "
        "setxattr listxattr posix_fadvise setresuid CLONE_NEWNS",
    select: "epoll", socket: "SO_PEERCRED SCM_CREDENTIALS AF_NETLINK SOCK_CLOEXEC", signal: "pidfd_send_signal",
}
for module, names in LINUX.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for module in [name for name in sys.modules if name.startswith("engine.")]:
    del sys.modules[module]
sys.platform = "darwin"


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[:2] in (["engine", "linux"], ["engine", "local"]):
            raise ImportError(f"{name} is for Linux")


sys.meta_path.insert(0, Blocked())
import engine.cli, workbench
names = [f"{package.__name__}.{found.name}" for package in (engine.cli, workbench) for found in pkgutil.iter_modules(package.__path__)]
names.remove("engine.cli.build_calls")  # `build --call` asks the builder, and says so elsewhere
for name in (*names, "engine.opening", "engine.remote", "engine.project.loop", "engine.project.discovery"):
    importlib.import_module(name)
print(json.dumps(sorted(name for name in sys.modules if name.startswith("engine."))))
"""


def test_nothing_that_a_client_loads_needs_linux() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert "engine.remote.wires" in loaded
    assert "engine.project.watch" in loaded
    assert not [name for name in loaded if name.startswith(("engine.linux", "engine.local"))]


def test_an_engine_of_its_own_is_for_linux() -> None:
    script = (
        "import asyncio, sys, engine\n"
        "async def main():\n"
        "    async with engine.open(root='/nonexistent'):\n"
        "        pass\n"
        "import engine.opening\n"
        "sys.platform = 'darwin'\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert "containers of this machine's own need Linux" in done.stderr
