"""What the tests may leave on the machine, looked at after every test and judged when the last one has ended.

A thing is one line: its kind, its name, and what tells whose it is. The check fails the run for what was not there before,
is still there after some seconds, and is ours; it names the test after which it was first seen. What carries no mark of this
run (another user of the machine may have made it meanwhile) fails the run in CI, which has its machine to itself, and is
only told elsewhere.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import sqlite3
import struct
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from engine.linux import cgroup
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.runtime import bridges
from engine.runtime.places import runtime_dir

PATIENCE = float(
    os.environ.get("LEAK_PATIENCE", "15")
)  # seconds: idle networks go after one, a dying pid namespace may take longer
RECORDS = "records.sqlite"  # what makes a folder a data root


# --- looking --------------------------------------------------------------------------------------------


def everything() -> set[str]:
    """All there is of the kinds of thing that the engine makes."""
    found: set[str] = set()
    for look in (mounts, links, filters, cgroups, processes, namespaces, run_folders):
        found.update(look())
    return found


def mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        kind = line.partition(" - ")[2]
        if "/garbage-" not in fields[4]:  # a killed run's, which pytest gives another name to
            yield f"mount {fields[4]} ({kind})"


def links() -> Iterator[str]:
    """All but those that a Docker on this machine names."""
    with Netlink(nl.ROUTE) as sock:
        for link in rt.links(sock):
            if not link.name.startswith(("docker", "br-", "veth")):
                yield f"link {link.name}"


def filters() -> Iterator[str]:
    """Tables, and our rules in others' FORWARD chains."""
    if os.geteuid() != 0:
        return
    every = nl.Message(nft.GETTABLE | 10 << 8, struct.pack(">BBH", 0, 0, 0), nl.DUMP, "nf_tables tables")
    with contextlib.suppress(OSError), nft.open_socket() as sock:
        for _kind, body in sock.ask(every):
            yield f"nft table {body[0]} {nl.attributes(body[4:])[1].rstrip(bytes(1)).decode()}"
        for family in (nft.IPV4, nft.IPV6):
            for rule in nft.rules(sock, family, "filter", "FORWARD"):
                if rule.comment:
                    yield f"nft rule FORWARD {family}: {rule.comment}"


def cgroups() -> Iterator[str]:
    for root in {*cgroup.here().roots.values(), *Path("/sys/fs/cgroup").glob("freezer")}:
        with contextlib.suppress(OSError):
            for entry in os.scandir(root / "workbench"):
                if entry.is_dir():
                    yield f"cgroup {entry.path}"


def processes() -> Iterator[str]:
    """Supervisors, monitors and their helpers by name; what runs in a container's control group; every child of ours."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{entry}/stat").read_text(errors="replace")
            name, fields = stat[stat.find("(") + 1 : stat.rfind(")")], stat[stat.rfind(")") + 2 :].split()
            group = Path(f"/proc/{entry}/cgroup").read_text()
            words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        at = group.find("/workbench/")
        mine = fields[1] == str(os.getpid())
        if name.startswith("wb-") or at >= 0 or mine:
            where = f" in {group[at + 11 : at + 75].splitlines()[0]}" if at >= 0 else ""
            zombie = " (zombie)" if fields[0] == "Z" else ""
            # The bootstrap's text is long; what follows it names the run directory.
            yield f"process {entry} {name}{zombie}{where}{' child' if mine else ''}: {words[-200:].strip()}"


def namespaces() -> Iterator[str]:
    """Those that a process is in. One that only a mount holds is among the mounts (nsfs)."""
    ours = {kind: _namespace("self", kind) for kind in ("mnt", "net", "pid", "user", "cgroup", "uts", "ipc", "time")}
    seen: set[str] = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        for kind, own in ours.items():
            found = _namespace(entry, kind)
            if found and found != own and found not in seen:
                seen.add(found)
                yield f"namespace {found}"


def _namespace(pid: str, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def run_folders() -> Iterator[str]:
    """Folders of sockets."""
    for base in (Path("/run/workbench"), *Path("/tmp").glob("workbench-*/workbench")):
        with contextlib.suppress(OSError):
            for name in os.listdir(base):
                if len(name) == 12 and name.isalnum():
                    yield f"sockets {base / name}"


_POOLS = ("unpack",)  # threads of pools that a process makes once and keeps


def own() -> set[str]:
    """Descriptors and threads of this process."""
    threads = (thread.name for thread in threading.enumerate() if not thread.daemon)
    found = {f"thread {name}" for name in threads if not name.startswith(_POOLS)}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"descriptor {name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def marked(things: Iterable[str], marks: Iterable[str]) -> set[str]:
    """Those that hold one of `marks`: a container's id or twelve digits of it, a folder."""
    wanted = tuple(marks)
    return {thing for thing in things if any(mark in thing for mark in wanted)}


# --- ending what a data root of a test has running ---------------------------------------------------------


def end_supervisor(run_dir: Path) -> None:
    """Kills it, removes the networks that it would have removed a second later, and its folder of sockets."""
    path = run_dir / "supervisor.sock"
    if path.exists():
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(str(path))
            pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            os.kill(pid, signal.SIGKILL)
    bridges.reap(str(run_dir), 0)
    if run_dir.is_dir() and not os.listdir(run_dir / "c"):  # a socket in there: a container runs on, and is to be seen
        shutil.rmtree(run_dir)


def roots_below(folder: Path) -> list[Path]:
    found = [folder] if (folder / RECORDS).exists() else []
    for depth in ("*", "*/*", "*/*/*"):
        found += [path.parent for path in folder.glob(f"{depth}/{RECORDS}")]
    return found


# --- the check --------------------------------------------------------------------------------------------


class LeakCheck:
    """A pytest plugin. Register it once."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._own: set[str] = set()
        self._first: dict[str, str] = {}  # thing → the test after which it was first there
        self._marks: set[str] = {" child"}
        self._base = self._temporary = Path()
        self.left: list[str] = []
        self.told: list[str] = []

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        self._base = factory.getbasetemp()
        self._marks.add(str(self._base))
        # Temporary files of this run and of its children have a folder of their own: what is left there is ours.
        self._temporary = self._base / "t"
        self._temporary.mkdir()
        self._temporary.chmod(0o1777)
        os.environ["TMPDIR"] = str(self._temporary)
        tempfile.tempdir = None
        self._before, self._own = everything(), own()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        values = dict(getattr(item, "funcargs", None) or {})
        try:
            yield
        finally:
            if "tmp_path" in values:
                self._marks.update(name[:15] for name in os.listdir(values["tmp_path"]) if len(name) == 64)  # bundles
                for root in roots_below(values["tmp_path"]):
                    self._learn(root)
                    end_supervisor(runtime_dir(root))
            for thing in (everything() - self._before) | (own() - self._own):
                self._first.setdefault(thing, item.nodeid)

    def _learn(self, root: Path | None) -> None:
        """By what the things of a data root can be told: its folder of sockets, its containers, its networks."""
        if root is None:
            return
        run_dir = runtime_dir(root)
        self._marks.add(str(run_dir))
        with contextlib.suppress(OSError):
            self._marks.update(name[:15] for name in os.listdir(run_dir / "net"))
        with contextlib.suppress(sqlite3.Error):
            db = sqlite3.connect(f"file:{root / RECORDS}?mode=ro", uri=True)
            rows = db.execute("SELECT id FROM events UNION SELECT id FROM networks").fetchall()
            self._marks.update(identity[:12] for (identity,) in rows if len(identity) == 64)
            db.close()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        for root in roots_below(self._base):
            self._learn(root)
        alone = os.environ.get("CI") == "true"
        end = time.monotonic() + PATIENCE
        while True:
            new = everything() - self._before
            ours = new if alone else marked(new, self._marks)
            if not ours or time.monotonic() >= end:
                break
            time.sleep(0.1)
        self.told = sorted(new - ours)
        with contextlib.suppress(FileNotFoundError):
            ours |= {f"file {path}" for path in self._temporary.iterdir()}
        gc.collect()  # what only a cycle holds is no leak
        ours |= own() - self._own
        self.left = [f"{thing} (seen after {self._first.get(thing, 'the last test')})" for thing in sorted(ours)]
        if self.left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            terminalreporter.section("left behind by the tests", red=True)
            for line in self.left:
                terminalreporter.line(line)
        if self.told:
            many = f"{len(self.told)} new things of other users of this machine, it seems"
            terminalreporter.line(f"{many}, such as: {self.told[0]}")
