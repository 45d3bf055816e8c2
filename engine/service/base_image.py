"""`workbench/base`: a small root made of this host's own files, so that a first image needs no network.

It holds the interpreter that runs us with its standard library, a shell, the core utilities, and the shared libraries that their
ELF headers name, each at the path it has on the host. Owner 0:0, time 0, sorted: equal on one host every time. The modules come
with their compiled form where the host has it: a container would else compile what it imports at every first start.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import stat
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.archive.writer import LayerWriter, Sink, TarEntry, Written
from engine.errors import Unsupported
from engine.service.elf import read_elf

SCHEMA = "2"
UTILITIES = (
    "sh bash ls cat cp mv rm mkdir rmdir ln echo env sleep date head tail grep sed sort uniq wc tr cut id ps uname chmod chown touch true "
    "false test printenv pwd du df find xargs tar gzip basename dirname readlink stat tee seq expr kill hostname mktemp awk diff"
).split()
SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
LIBRARY_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
FOLDERS = {
    "tmp": 0o1777,
    "root": 0o700,
    "home": 0o755,
    "proc": 0o755,
    "sys": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "var": 0o755,
    "run": 0o755,
    "var/tmp": 0o1777,
    "usr": 0o755,
    "usr/local": 0o755,
    "usr/local/bin": 0o755,
}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'NAME="Workbench base"\nID=workbench\nPRETTY_NAME="Workbench base"\n',
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
}
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def _python() -> Path:
    """The real interpreter, behind any virtual environment."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))


def base_config() -> dict[str, Any]:
    """The image's `config` section."""
    return {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["python3"]}


def base_fingerprint() -> str:
    """Changes when the host's interpreter, shell or C library does: cheap enough to ask before each build."""
    python = _python()
    parts = [SCHEMA, str(python), sys.version]
    for path in (
        str(python),
        "/bin/sh",
        shutil.which("bash") or "",
        shutil.which("ls") or "",
        CERTIFICATES,
        sysconfig.get_path("stdlib"),
    ):
        if path and os.path.exists(path):
            status = os.stat(path)
            parts.append(f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _Tree:
    """Paths of the host to put in, and links to make. Every link on the way to a file is taken along."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}  # path in the image -> file on the host
        self.links: dict[str, str] = {}
        self.compiled: dict[str, str] = {}  # path in the image -> the module's source on the host
        self._examined: set[str] = set()
        self._folders = list(LIBRARY_FOLDERS) + [
            f"{base}/{os.uname().machine}-linux-gnu" for base in ("/lib", "/usr/lib")
        ]

    def add(self, path: str) -> None:
        """`path` under its own name: links become links, what they point at comes along."""
        place = ""
        parts = [part for part in path.split("/") if part]
        for index, part in enumerate(parts):
            place = f"{place}/{part}"
            if os.path.islink(place):
                target = os.readlink(place)
                self.links[place[1:]] = target
                self.add(os.path.normpath(os.path.join(os.path.dirname(place), target, *parts[index + 1 :])))
                return
        if os.path.isfile(place):
            self.files[place[1:]] = place
            self._libraries(place)

    def _libraries(self, path: str) -> None:
        if path in self._examined:
            return
        self._examined.add(path)
        elf = read_elf(Path(path))
        if elf is None:
            return
        if elf.interpreter:
            self.add(elf.interpreter)
        for name in elf.needed:
            found = next(
                (f"{folder}/{name}" for folder in (*elf.search, *self._folders) if os.path.exists(f"{folder}/{name}")),
                None,
            )
            if found:
                self.add(found)

    def add_tree(self, root: str) -> None:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("config-"))
            for name in sorted(names):
                path = f"{folder}/{name}"
                if not name.endswith((".pyc", ".a")) and os.path.isfile(path):
                    self.add(path)
                if name.endswith(".py") and path[1:] in self.files:
                    self.compiled[importlib.util.cache_from_source(path)[1:]] = path


def _compiled(source: str) -> bytes | None:
    """The host's compiled form of a module with the time that the source has in the image (PEP 552); None where it is not current."""
    try:
        data, status = Path(importlib.util.cache_from_source(source)).read_bytes(), os.stat(source)
    except OSError:
        return None
    size = struct.pack("<I", status.st_size & 0xFFFFFFFF)
    current = struct.pack("<II", 0, int(status.st_mtime) & 0xFFFFFFFF) + size
    if data[:16] != importlib.util.MAGIC_NUMBER + current:
        return None
    return importlib.util.MAGIC_NUMBER + bytes(8) + size + data[16:]


def _collect() -> _Tree:
    tree = _Tree()
    python = _python()
    if read_elf(python) is None:
        raise Unsupported(
            f"{python} is not an ELF program: the embedded base image needs Linux on x86_64 or aarch64",
            hint="build on an image from a registry instead",
        )
    tree.add(str(python))
    tree.add_tree(sysconfig.get_path("stdlib"))
    dynload = sysconfig.get_config_var("DESTSHARED")
    if dynload and os.path.isdir(dynload):
        tree.add_tree(dynload)
    for name in UTILITIES:
        found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
        if found:
            tree.add(found)
    for folder in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{folder}"):
            tree.links[folder] = os.readlink(f"/{folder}")
    for name in ("python", "python3"):
        tree.links[f"usr/local/bin/{name}"] = str(python)
        tree.files.pop(f"usr/local/bin/{name}", None)
    # glibc loads these by name at run time, for look-ups of hosts and users.
    for folder in tree._folders:
        for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"):
            if os.path.exists(f"{folder}/{name}"):
                tree.add(f"{folder}/{name}")
    if os.path.exists(CERTIFICATES):
        tree.files[CERTIFICATES[1:]] = os.path.realpath(CERTIFICATES)
    return tree


def _entries(tree: _Tree) -> Iterator[tuple[TarEntry, str | bytes | None]]:
    """Everything, parents first."""
    links = {path: target for path, target in tree.links.items() if path not in FOLDERS}
    compiled = {path: data for path, source in tree.compiled.items() if (data := _compiled(source)) is not None}
    paths = {*tree.files, *links, *FILES, *compiled}
    folders = set(FOLDERS)
    for path in paths:
        parent = os.path.dirname(path)
        while parent and parent not in links:
            folders.add(parent)
            parent = os.path.dirname(parent)
    for path in sorted(folders | paths):
        if any(path.startswith(f"{link}/") for link in ("bin", "sbin", "lib", "lib64") if link in links):
            continue  # reached through the link
        if path in FILES:
            data = FILES[path].encode()
            yield TarEntry(path, "file", 0o644, size=len(data)), data
        elif path in compiled:
            yield TarEntry(path, "file", 0o644, size=len(compiled[path])), compiled[path]
        elif path in links:
            yield TarEntry(path, "symlink", 0o777, link=links[path]), None
        elif path in tree.files:
            status = os.stat(tree.files[path])
            mode = 0o755 if stat.S_IMODE(status.st_mode) & 0o111 else 0o644
            yield TarEntry(path, "file", mode, size=status.st_size), tree.files[path]
        else:
            yield TarEntry(path, "dir", FOLDERS.get(path, 0o755)), None


def write_base_layer(out: Sink) -> Written:
    """Writes the one layer of the base image. Raises `Unsupported` off Linux."""
    writer = LayerWriter(out)
    for entry, body in _entries(_collect()):
        if isinstance(body, str):
            with open(body, "rb") as file:
                writer.add(entry, file)
        else:
            writer.add(entry, io.BytesIO(body) if body is not None else None)
    return writer.finish()
