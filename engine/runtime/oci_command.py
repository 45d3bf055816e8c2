"""An OCI runtime's command line: how one operation is run, how long it may take, and what it said when it failed.

The operations and global options are those of runc(8), which crun(1) and the others take too. Each runs in a child with a
mount namespace of its own: there the empty cgroup2 mount of a "hybrid" host is taken away, because crun refuses hosts
that have one beside the controllers of v1, and because the runtime would make groups in it that serve for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from engine.linux import libc, mount, namespace
from engine.linux.cgroup import Layout
from engine.runtime import init

SECONDS = 30.0  # for kill, pause, delete and their kin
CREATE_SECONDS = 120.0  # for create and exec: a runtime may start a virtual machine
STATE = "oci"  # in the run directory: what runtimes are given as --root
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_CTYPE": "C.UTF-8"}
_WORDS = 2000  # characters of a runtime's error that are kept


class RuntimeFailed(OSError):
    """The runtime failed; `strerror` is what it said. `code` as Docker's exit code of a start."""

    def __init__(self, message: str, code: int = 125, number: int = 0) -> None:
        super().__init__(number, message)
        self.code = code

    def __str__(self) -> str:
        return str(self.strerror)


class Command:
    """One runtime: `choice` is the configuration's {"name", "path", "args"}, `root` where it keeps its state."""

    def __init__(self, choice: dict[str, Any], root: str, layout: Layout) -> None:
        self.name, self.path = str(choice["name"]), str(choice["path"])
        self.arguments = [str(word) for word in choice.get("args", ())]
        self.root, self.layout = root, layout

    def argv(self, log: int | None, *words: str) -> list[str]:
        """`log`: a descriptor of the calling process, which the runtime writes its errors to."""
        place = [] if log is None else ["--log", f"/proc/{os.getpid()}/fd/{log}", "--log-format", "json"]
        return [self.path, *self.arguments, "--root", self.root, *place, *words]

    def call(self, *words: str, seconds: float = SECONDS) -> None:
        """Runs one operation to its end. Raises RuntimeFailed."""
        with Log() as log:
            argv = self.argv(log.fd, *words)
            pid = os.fork()
            if pid == 0:
                become(self, argv, log)
            self.wait(pid, words[0], log, seconds)

    def wait(
        self,
        pid: int,
        operation: str,
        log: Log,
        seconds: float,
        *,
        ready: Callable[[], object] | None = None,
        printed: int = -1,
    ) -> None:
        """Waits for the child `pid`, which is killed when it takes longer. `ready` is called now and then meanwhile; `printed`
        is where its standard error can be read. Raises RuntimeFailed."""
        pidfd, end = os.pidfd_open(pid), time.monotonic() + seconds
        try:
            while not select.select([pidfd], [], [], 0.01 if ready else seconds)[0]:
                if ready is not None:
                    ready()
                if time.monotonic() >= end:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    raise RuntimeFailed(f"{self.name} {operation} did not end within {seconds:.0f} s and was killed")
            if ready is not None:
                ready()
        finally:
            os.close(pidfd)
        _pid, status = os.waitpid(pid, 0)
        if status:
            raise self.failure(operation, log, status, _read(printed))

    def failure(self, operation: str, log: Log, status: int, more: str = "") -> RuntimeFailed:
        """What a runtime that ended with `status` said; `more` is what it printed elsewhere."""
        if log.own is not None:  # it never came to the runtime
            return RuntimeFailed(str(log.own["message"]), int(log.own["code"]), int(log.own["errno"]))
        said = log.words() or more.strip().rpartition("\n")[2]
        code = os.waitstatus_to_exitcode(status)
        ended = f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code} and said nothing"
        words = said or ended
        prefix = "" if words.startswith(self.name) else f"{self.name} {operation} failed: "
        return RuntimeFailed(f"OCI runtime {operation} failed: {prefix}{words}"[:_WORDS], docker_code(words))


def docker_code(words: str) -> int:
    """Docker's exit code for what a runtime said: the command is not there, or cannot be executed."""
    text = words.lower()
    if "executable file" in text and "not found" in text:
        return 127
    # moby looks at the same words; only what is said of the command counts, or of its working directory.
    if not any(word in text for word in ('exec: "', "executable", "chdir to cwd", "chdir `")):
        return 125
    if "no such file or directory" in text:
        return 127
    refused = ("permission denied", "is a directory", "operation not permitted")
    return 126 if any(word in text for word in refused) else 125


def _read(fd: int) -> str:
    """What a pipe holds now."""
    if fd < 0:
        return ""
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


class Log:
    """What one operation wrote: its log and, of those whose streams are nobody's, its standard error. In memory."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("runtime-log", os.MFD_CLOEXEC)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) | os.O_APPEND)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self.fd)

    def report(self, stage: str, error: BaseException) -> None:
        """In the child: it failed before the runtime ran."""
        init.report(self.fd, stage, error)

    def _lines(self) -> list[str]:
        return os.pread(self.fd, 1 << 20, 0).decode("utf-8", "replace").splitlines()

    @property
    def own(self) -> dict[str, Any] | None:
        """What `report` has written."""
        for line in self._lines():
            document = _json(line)
            if isinstance(document.get("error"), dict):
                return dict(document["error"])
        return None

    def words(self) -> str:
        """The last error, as the runtime put it."""
        plain, said = "", ""
        for line in self._lines():
            document = _json(line)
            if document.get("level") in ("error", "fatal") and document.get("msg"):
                said = str(document["msg"])
            elif not document and line.strip():
                plain = line.strip()
        return said or plain


def _json(line: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def become(command: Command, argv: Sequence[str], log: Log, stdio: tuple[int, int, int] | None = None) -> NoReturn:
    """In a child: becomes the runtime, and when that fails says so in `log`. Without `stdio` its output is part of the log."""
    try:
        init.default_signals()
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # of the runtime, not of the container that it makes
        os.setsid()
        leave_hybrid(command.layout)
        execute(argv, log, stdio)
    except BaseException as error:
        log.report(f"starting {command.name} ({command.path})", error)
    finally:
        os._exit(127)


def execute(argv: Sequence[str], log: Log, stdio: tuple[int, int, int] | None = None) -> NoReturn:
    """execve(2) with these streams and no other descriptor but the log's, which closes itself. Raises OSError."""
    if stdio is None:
        stdio = (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), log.fd, log.fd)
    kept = init.take_stdio(stdio, log.fd)
    assert not kept
    log.fd = init.CHANNEL
    os.execve(argv[0], list(argv), ENVIRONMENT)


def leave_hybrid(layout: Layout) -> None:
    """A mount namespace of its own, without the cgroup2 mount of a host whose controllers are those of v1."""
    namespace.unshare(namespace.NEWNS)
    mount.make_slave()
    hide_unified(layout)


def hide_unified(layout: Layout) -> None:
    if layout.version != "hybrid":
        return
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.partition(" - ") for line in file]
    for left, _dash, right in lines:
        if right.startswith("cgroup2 "):
            with contextlib.suppress(OSError):
                mount.unmount(left.split(" ")[4].replace("\\040", " "))


def is_gone(error: RuntimeFailed) -> bool:
    """The runtime says that the container, or its process, is not there."""
    text = str(error)
    return error.errno == errno.ESRCH or any(
        words in text
        for words in ("does not exist", "not running", "already finished", "no such process", "No such process")
    )


def bury(choice: dict[str, Any], run_dir: str, identity: str) -> None:
    """In an engine: a lost monitor's container is deleted by its runtime, as well as that can be done."""
    import subprocess  # an engine has it; a monitor never comes here

    command = Command(choice, os.path.join(run_dir, STATE), Layout("none", {}))
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            command.argv(None, "delete", "--force", identity),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            env=ENVIRONMENT,
            check=False,
        )
