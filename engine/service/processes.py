"""`top`: the processes of a container as the host's ps(1) would show them, read from /proc.

No program runs, neither of the host nor (CVE-2022-1227) of the image: names come from the host's own /etc/passwd.
"""

from __future__ import annotations

import os
import pwd
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInput
from engine.model import ProcessList

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """proc_pid_stat(5), and what else a column wants."""

    pid: int
    uid: int
    user: str
    fields: tuple[str, ...]  # of /proc/PID/stat from field 3 (the state) on
    comm: str
    args: str
    boot: float  # when the host started, seconds since the epoch
    memory: int  # of the host, bytes

    @property
    def started(self) -> float:
        return self.boot + int(self.fields[19]) / _TICK

    @property
    def cpu(self) -> float:
        """Seconds of CPU time."""
        return (int(self.fields[11]) + int(self.fields[12])) / _TICK

    @property
    def alive(self) -> float:
        return max(time.time() - self.started, 0.001)

    @property
    def rss(self) -> int:
        return int(self.fields[21]) * _PAGE


def of_namespace(pid: int) -> list[int]:
    """The processes in the pid namespace of `pid`, which must not be our own: for a container without a control group."""
    try:
        wanted = os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return []
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}/ns/pid").st_ino == wanted:
                found.append(int(name))
        except OSError:
            continue  # another user's, or gone
    return found if wanted != os.stat("/proc/self/ns/pid").st_ino else [pid]


def _clock(seconds: float) -> str:
    total = int(seconds)
    days, rest = divmod(total, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def _elapsed(seconds: float) -> str:
    text = _clock(seconds)
    return text.removeprefix("00:") if "-" not in text else text


def _start(process: Process) -> str:
    """The time of today, the day of this year, else the year."""
    at, now = time.localtime(process.started), time.localtime()
    if process.alive < 86400 and at.tm_yday == now.tm_yday:
        return time.strftime("%H:%M", at)
    return time.strftime("%b%d" if at.tm_year == now.tm_year else "%Y", at)


def _terminal(process: Process) -> str:
    number = int(process.fields[4])
    if not number:
        return "?"
    major, minor = os.major(number), os.minor(number)
    return f"pts/{minor + (major - 136) * 256}" if 136 <= major <= 143 else f"{major}:{minor}"


def _state(process: Process) -> str:
    text = process.fields[0]
    nice = int(process.fields[16])
    text += "<" if nice < 0 else "N" if nice > 0 else ""
    text += "s" if int(process.fields[3]) == int(process.pid) else ""
    text += "l" if int(process.fields[17]) > 1 else ""
    return text + ("+" if process.fields[5] == process.fields[2] and process.fields[4] != "0" else "")


Column = tuple[str, Callable[[Process], str]]
_PERCENT_CPU: Callable[[Process], str] = lambda p: f"{100 * p.cpu / p.alive:.1f}"  # noqa: E731
COLUMNS: dict[str, Column] = {
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: p.fields[1]),
    "pgid": ("PGID", lambda p: p.fields[2]),
    "sid": ("SID", lambda p: p.fields[3]),
    "uid": ("UID", lambda p: str(p.uid)),
    "user": ("USER", lambda p: p.user),
    "c": ("C", lambda p: str(int(99 if p.cpu >= p.alive else 100 * p.cpu / p.alive))),
    "pcpu": ("%CPU", _PERCENT_CPU),
    "pmem": ("%MEM", lambda p: f"{100 * p.rss / p.memory:.1f}"),
    "vsz": ("VSZ", lambda p: str(int(p.fields[20]) // 1024)),
    "rss": ("RSS", lambda p: str(p.rss // 1024)),
    "stat": ("STAT", _state),
    "state": ("S", lambda p: p.fields[0]),
    "tty": ("TTY", _terminal),
    "stime": ("STIME", _start),
    "start": ("START", _start),
    "time": ("TIME", lambda p: _clock(p.cpu)),
    "bsdtime": ("TIME", lambda p: f"{int(p.cpu) // 60}:{int(p.cpu) % 60:02d}"),
    "etime": ("ELAPSED", lambda p: _elapsed(p.alive)),
    "etimes": ("ELAPSED", lambda p: str(int(p.alive))),
    "ni": ("NI", lambda p: p.fields[16]),
    "pri": ("PRI", lambda p: str(39 - int(p.fields[15]))),
    "nlwp": ("NLWP", lambda p: p.fields[17]),
    "psr": ("PSR", lambda p: p.fields[36]),
    "comm": ("COMMAND", lambda p: p.comm),
    "args": ("COMMAND", lambda p: p.args or f"[{p.comm}]"),
}
_SAME = {
    "cmd": ("args", "CMD"), "command": ("args", "COMMAND"), "ucmd": ("comm", "CMD"), "%cpu": ("pcpu", "%CPU"),
    "%mem": ("pmem", "%MEM"), "euid": ("uid", "EUID"), "ruid": ("uid", "RUID"), "euser": ("user", "EUSER"),
    "uname": ("user", "USER"), "tt": ("tty", "TT"), "tname": ("tty", "TTY"), "cputime": ("time", "TIME"),
    "s": ("state", "S"), "vsize": ("vsz", "VSZ"), "rssize": ("rss", "RSS"), "rsz": ("rss", "RSZ"),
    "nice": ("ni", "NI"), "thcount": ("nlwp", "THCNT"), "pgrp": ("pgid", "PGRP"), "sess": ("sid", "SESS"),
    "start_time": ("stime", "START"), "lstart": ("stime", "STARTED"),
}  # fmt: skip
_FULL = ("user:UID", "pid", "ppid", "c", "stime", "tty", "time", "args:CMD")
_USER = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "bsdtime", "args")
_PLAIN = ("pid", "tty", "time", "comm:CMD")
_BY_FLAGS = {"f": _FULL, "u": _USER, "": _PLAIN}


def columns(arguments: Sequence[str]) -> list[Column]:
    """The columns of ps(1)'s `-ef`, `aux`, `-o LIST` and their spellings. Raises InvalidInput for what is not shown here."""
    try:
        words = [word for text in arguments for word in shlex.split(text)] or ["-ef"]
    except ValueError as error:
        raise InvalidInput(f"the arguments for ps cannot be split: {error}", hint="-ef, aux, -o pid,comm") from None
    chosen: list[Column] = []
    style = ""
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word.startswith("--format="):
            chosen += _listed(word.partition("=")[2])
        elif word in ("-o", "o", "-eo", "-axo", "axo", "-Ao", "--format", "-O"):
            if not queue:
                raise InvalidInput("ps: the list of formats is missing", hint="-o pid,comm,args")
            chosen += _listed(queue.pop(0))
        elif word.startswith("-o") and len(word) > 2:
            chosen += _listed(word[2:])
        elif set(word.lstrip("-")) <= set("eAaxfuwFl"):  # which processes is not asked: they are the container's
            letters = word.lstrip("-")
            style = "f" if "f" in letters.lower() and word[0] == "-" else "u" if "u" in letters else style
        else:
            raise InvalidInput(f"ps option {word!r} is not supported", hint="-ef, aux, -o pid,user,etime,args")
    return chosen or [_column(name) for name in _BY_FLAGS[style]]


def _listed(text: str) -> list[Column]:
    return [_column(name) for name in text.replace(",", " ").split()]


def _column(text: str) -> Column:
    name, mark, title = text.partition("=")
    if not mark:
        name, mark, title = text.partition(":")
    key, own = _SAME.get(name.lower(), (name.lower(), ""))
    if key not in COLUMNS:
        raise InvalidInput(f'ps: unknown user-defined format specifier "{name}"', hint=", ".join(COLUMNS))
    shown, value = COLUMNS[key]
    return (title if mark else own or shown), value


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _boot() -> float:
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def read_process(pid: int, boot: float, memory: int) -> Process | None:
    """None when it ended meanwhile."""
    try:
        folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:

        def content(name: str) -> bytes:
            with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
                return file.read(1 << 16)

        head, _, tail = content("stat").decode("utf-8", "replace").rpartition(")")
        args = content("cmdline").rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        uid = os.fstat(folder).st_uid
        owner = next((line for line in content("status").splitlines() if line.startswith(b"Uid:")), b"")
        if owner:  # of a process that is not dumpable the folder is root's
            uid = int(owner.split()[2])
        return Process(pid, uid, _name(uid), tuple(tail.split()), head.partition("(")[2], args, boot, memory)
    except OSError:
        return None
    finally:
        os.close(folder)


def processes(pids: Sequence[int], arguments: Sequence[str]) -> ProcessList:
    """What the arguments ask for, of these processes, the oldest first."""
    wanted = columns(arguments)
    boot, memory = _boot(), os.sysconf("SC_PHYS_PAGES") * _PAGE
    found = [process for pid in sorted(pids) if (process := read_process(pid, boot, memory)) is not None]
    rows = [tuple(value(process) for _title, value in wanted) for process in found]
    return ProcessList(tuple(title for title, _value in wanted), tuple(rows))
