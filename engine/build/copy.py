"""COPY: which files go where (pure), and writing them into the upper directory of a new layer."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.build.source import Node, Source, expand_sources
from engine.errors import InvalidInput, from_os_error
from engine.store.view import LayerView


@dataclass(frozen=True, slots=True)
class CopyItem:
    """One node and its place, relative to the root of the image."""

    node: Node
    target: str
    top: bool  # the copied directory itself: an existing target keeps its metadata


@dataclass(frozen=True, slots=True)
class Ownership:
    """`--chown` and `--chmod`, resolved; None keeps 0:0 and the file's own mode."""

    uid: int = 0
    gid: int = 0
    mode: int | None = None


def plan_copy(source: Source, sources: Sequence[str], dest: str, view: LayerView, where: str) -> list[CopyItem]:
    """Docker's rules: a directory's content is copied; a trailing slash or several sources make `dest` a folder."""
    nodes = expand_sources(source, sources, where)
    if len(sources) > 1 and not dest.endswith("/"):
        raise InvalidInput(f"with several sources the destination {dest!r} must be a directory and end with /")
    target = view.resolve(dest)
    existing = view.lookup(target)
    into = dest.endswith(("/", "/.")) or dest in (".", "") or (existing is not None and existing.is_dir)
    items: list[CopyItem] = []
    for node in nodes:
        if node.is_dir:
            for found in source.walk(node):
                inner = posixpath.relpath(found.path, node.path or ".") if found.path != node.path else ""
                if not node.path:
                    inner = found.path
                items.append(
                    CopyItem(found, posixpath.join(target, inner) if inner else target, top=found.path == node.path)
                )
        else:
            place = posixpath.join(target, posixpath.basename(node.path)) if into else target
            items.append(CopyItem(node, place, top=False))
    return items


def digest_items(source: Source, items: Sequence[CopyItem]) -> dict[str, str]:
    """What a COPY's result depends on: target path -> type, mode and content, in words that explain a change."""
    inputs: dict[str, str] = {}
    for item in items:
        mode = stat.S_IMODE(item.node.status.st_mode)
        if item.node.is_file:
            inputs[item.node.path or item.target] = f"{item.target} file {mode:04o} {source.digest(item.node)}"
        elif item.node.is_dir:
            inputs[(item.node.path or ".") + "/"] = f"{item.target} dir {mode:04o}"
        else:
            inputs[item.node.path] = (
                f"{item.target} {stat.S_IFMT(item.node.status.st_mode):o} {mode:04o} {item.node.link}"
            )
    return inputs


class UpperWriter:
    """Writes into the upper directory of a layer over `view`. `upper` is ours alone, so plain paths in it are safe."""

    def __init__(self, upper: Path, view: LayerView, owner: Ownership) -> None:
        self._upper, self._view, self._owner = str(upper), view, owner
        self._made: dict[str, bool] = {"": True}
        root = view.lookup("")
        if root and root.real != "/":
            self._like(self._upper, root.status)

    def _like(self, real: str, status: os.stat_result) -> None:
        os.chown(real, status.st_uid, status.st_gid)
        os.chmod(real, stat.S_IMODE(status.st_mode))
        os.utime(real, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def parents(self, target: str) -> None:
        folder = posixpath.dirname(target)
        if folder not in self._made:
            self.parents(folder)
            self.directory(folder, None)

    def directory(self, target: str, node: Node | None, *, mode: int = 0o755, keep: bool = True) -> None:
        """Makes `target`; an existing directory keeps its metadata when `keep`."""
        if target in self._made and (keep or node is None):
            return
        below = self._view.lookup(target, follow=False) if target else self._view.lookup("")
        real = f"{self._upper}/{target}"
        if below is not None and not below.is_dir:
            raise InvalidInput(f"cannot copy a directory onto the file /{target}")
        if target not in self._made:
            os.mkdir(real)
            self._made[target] = True
        if below is not None and keep:
            self._like(real, below.status)
            return
        if node is not None:
            mode = self._owner.mode if self._owner.mode is not None else stat.S_IMODE(node.status.st_mode)
        os.chown(real, self._owner.uid, self._owner.gid)
        os.chmod(real, mode)
        stamp = node.status.st_mtime_ns if node else 0
        os.utime(real, ns=(stamp, stamp))

    def place(self, source: Source, item: CopyItem) -> None:
        self.parents(item.target)
        node = item.node
        if node.is_dir:
            self.directory(item.target, node, keep=item.top)
            return
        below = self._view.lookup(item.target, follow=False)
        if below is not None and below.is_dir:
            raise InvalidInput(f"cannot copy the file {node.path} onto the directory /{item.target}")
        real = f"{self._upper}/{item.target}"
        if os.path.lexists(real):
            os.unlink(real)
        mode = self._owner.mode if self._owner.mode is not None else stat.S_IMODE(node.status.st_mode)
        if node.is_file:
            self._file(source, node, real, mode)
        elif stat.S_ISLNK(node.status.st_mode):
            os.symlink(node.link, real)
            os.lchown(real, self._owner.uid, self._owner.gid)
        else:
            os.mknod(real, node.status.st_mode, node.status.st_rdev)
            os.chown(real, self._owner.uid, self._owner.gid)
            os.chmod(real, mode)
        stamp = node.status.st_mtime_ns
        os.utime(real, ns=(stamp, stamp), follow_symlinks=False)

    def _file(self, source: Source, node: Node, real: str, mode: int) -> None:
        reading = source.open(node)
        try:
            writing = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                while os.sendfile(writing, reading, None, 1 << 24):
                    pass
                os.fchown(writing, self._owner.uid, self._owner.gid)
                os.fchmod(writing, mode)
            finally:
                os.close(writing)
        finally:
            os.close(reading)


def write_items(
    source: Source, items: Sequence[CopyItem], upper: Path, view: LayerView, owner: Ownership, cancel: CancelToken
) -> None:
    writer = UpperWriter(upper, view, owner)
    try:
        for item in items:
            cancel.check()
            writer.place(source, item)
    except OSError as error:
        raise from_os_error(error, "copying into the image") from error


def resolve_owner(text: str, view: LayerView) -> tuple[int, int]:
    """`--chown=user[:group]` by number, or by name from the image's own passwd and group files."""
    user, _, group = text.partition(":")
    users = _table(view, "etc/passwd")
    groups = _table(view, "etc/group")
    if user.isascii() and user.isdigit():
        uid, gid = int(user), int(user)
    elif user in users:
        uid, gid = int(users[user][2]), int(users[user][3])
    else:
        raise InvalidInput(
            f"--chown={text}: the image has no user {user!r}", hint="create it in a RUN step before, or give a number"
        )
    if group:
        if group.isascii() and group.isdigit():
            gid = int(group)
        elif group in groups:
            gid = int(groups[group][2])
        else:
            raise InvalidInput(
                f"--chown={text}: the image has no group {group!r}", hint="create it before, or give a number"
            )
    if max(uid, gid) > 2**31 - 1:
        raise InvalidInput(f"--chown={text}: ids go up to 2147483647")
    return uid, gid


def _table(view: LayerView, path: str) -> Mapping[str, list[str]]:
    data = view.read(path) or b""
    rows = (line.split(":") for line in data.decode(errors="replace").splitlines())
    return {row[0]: row for row in rows if len(row) >= 3 and row[2].isdigit()}


def parse_mode(text: str) -> int | None:
    """`--chmod` in octal. Raises `InvalidInput`."""
    if not text:
        return None
    try:
        mode = int(text, 8)
    except ValueError:
        raise InvalidInput(
            f"--chmod={text}: only octal modes so far", hint="write it as a number: --chmod=755"
        ) from None
    if not 0 <= mode <= 0o7777:
        raise InvalidInput(f"--chmod={text}: modes go from 0 to 7777")
    return mode
