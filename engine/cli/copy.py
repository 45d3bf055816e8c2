"""`cp`, `export`, `diff` and `commit`: files in and out of containers, and images of what changed there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import stat
import sys
import tarfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from engine.base.units import human_size
from engine.cli.common import clean, read, run
from engine.cli.copy_paths import End, local_source, local_target, prepare, preserve, renamed, split, split_argument
from engine.cli.flags import Flag
from engine.cli.tables import render
from engine.errors import EngineError, InvalidInput, NotFound, from_os_error
from engine.model import CommitRequest

if TYPE_CHECKING:
    from engine.api import Engine


def cmd_cp(root: Path, args: list[str]) -> int:
    flags = [
        Flag("archive", "Archive mode (copy all uid/gid information)", "a"),
        Flag("follow-link", "Always follow symbol link in SRC_PATH", "L"),
        Flag("quiet", "Suppress progress output during copy", "q"),
    ]
    usage = "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-  (or SRC_PATH|- CONTAINER:DEST_PATH)"
    summary = "Copy files/folders between a container and the local filesystem"
    parsed = read(args, usage, summary, flags, minimum=2, maximum=2)
    if parsed is None:
        return 0
    (source_box, source), (target_box, target) = map(split_argument, parsed.args)
    if not source or not target:
        raise InvalidInput("source and destination can not be empty" if not source else "destination can not be empty")
    if source_box and target_box:
        raise InvalidInput("copying between containers is not supported", hint="copy to this host first, or through -")
    if not source_box and not target_box:
        raise InvalidInput("must specify at least one container source", hint="write CONTAINER:PATH on one side")
    archive, follow = parsed.on("archive"), parsed.on("follow-link")

    async def work(engine: Engine) -> int:
        if source_box:
            size = await _copy_out(engine, source_box, source, target, archive=archive, follow=follow)
            shown = target
        else:
            size = await _copy_in(engine, source, target_box, target, archive=archive, follow=follow)
            shown = f"{target_box}:{target}"
        if not parsed.on("quiet") and target != "-" and sys.stderr.isatty():
            print(f"Successfully copied {human_size(size)} to {shown}", file=sys.stderr)
        return 0

    return run(root, work)


# --- out of a container ----------------------------------------------------------------------------


async def _copy_out(engine: Engine, box: str, path: str, target: str, *, archive: bool, follow: bool) -> int:
    rebase = ""
    if follow:
        path, rebase = await _followed(engine, box, path)
    if target == "-":
        if sys.stdout.isatty():
            raise InvalidInput("refusing to write a tar to a terminal", hint="redirect the output, or name a file")
        await engine.get_archive(box, path, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return 0
    target = preserve(os.path.abspath(target), target)
    found = await engine.stat_path(box, path)
    rename: Callable[[str], str] = lambda name: name  # noqa: E731
    if rebase:
        rename = renamed(split(path)[1], rebase)
    here = _locally(lambda: local_target(target), target)
    folder, moved = prepare(End(path, True, stat.S_ISDIR(found.mode), rebase), here)
    first = rename

    def unpack(tar: BinaryIO) -> int:
        name = lambda text: moved(first(text))  # noqa: E731
        if sys.platform != "linux":
            return _unpack_plainly(tar, folder, name)
        from engine.archive.extract import Rules, extract

        rules = Rules(
            links=False,
            # As Docker: files that come out belong to who copies them. With -a the owners of the container are kept.
            owner="keep" if archive and os.geteuid() == 0 else "none",
            keep_kinds=True,
            rename=name,
        )
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return extract(tar, fd, rules)
        finally:
            os.close(fd)

    async def send(out: BinaryIO) -> None:
        await engine.get_archive(box, path, out)

    return await _piped(send, unpack, folder)


def _unpack_plainly(tar: BinaryIO, folder: str, name: Callable[[str], str]) -> int:
    """With the standard library, where there is no openat2(2): nothing is written outside of `folder` (PEP 706), which is the
    user's own."""
    size = 0

    def moved(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
        nonlocal size
        size += member.size
        link = name(member.linkname) if member.islnk() else member.linkname
        return tarfile.tar_filter(member.replace(name=name(member.name), linkname=link, deep=False), place)

    with tarfile.open(fileobj=tar, mode="r|") as archive:
        archive.extractall(folder, filter=moved)
    return size


async def _followed(engine: Engine, box: str, path: str) -> tuple[str, str]:
    """Where the link at `path` leads, and the name that the copy is to have."""
    with contextlib.suppress(NotFound):
        found = await engine.stat_path(box, path)
        if stat.S_ISLNK(found.mode):
            target = found.link_target
            if not target.startswith("/"):
                target = posixpath.join(split(path)[0], target)
            resolved = preserve(target, path)
            wanted = posixpath.basename(path.rstrip("/"))
            return resolved, wanted if posixpath.basename(resolved.rstrip("/")) != wanted else ""
    return path, ""


async def _piped(send: Callable[[BinaryIO], Awaitable[None]], receive: Callable[[BinaryIO], int], place: str) -> int:
    """Runs both ends of a pipe; the receiver's error is the one that explains the other's."""
    reading, writing = os.pipe()

    def take() -> int:
        with open(reading, "rb", buffering=1 << 18) as tar:
            return receive(tar)

    receiver = asyncio.create_task(asyncio.to_thread(take))
    failed: BaseException | None = None
    try:
        await send(cast(BinaryIO, _Whole(writing)))
    except (EngineError, BrokenPipeError) as error:
        failed = error
    finally:
        os.close(writing)
        result = (await asyncio.gather(receiver, return_exceptions=True))[0]
    if failed is not None and not isinstance(failed, BrokenPipeError) and not _is_broken_pipe(failed):
        raise failed
    if isinstance(result, OSError):
        raise from_os_error(result, f"copying to {place}") from result
    if isinstance(result, BaseException):
        raise result
    if failed is not None:
        raise failed
    return result


def _is_broken_pipe(error: BaseException) -> bool:
    return isinstance(error.__cause__, BrokenPipeError)


class _Whole:
    """A descriptor whose `write` takes everything."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        return len(data)


# --- into a container ------------------------------------------------------------------------------


async def _copy_in(engine: Engine, path: str, box: str, target: str, *, archive: bool, follow: bool) -> int:
    end = await _container_target(engine, box, target)
    if path == "-":
        if not end.is_dir:
            raise InvalidInput(f'destination "{box}:{target}" must be a directory')
        await engine.put_archive(box, end.path, sys.stdin.buffer, no_overwrite_dir_non_dir=True, copy_uid_gid=archive)
        return 0
    source = _locally(lambda: local_source(preserve(os.path.abspath(path), path), follow=follow), path)
    folder, moved = prepare(source, end)
    parent, base = split(source.path)
    sizes = _Counted()

    def pack(out: BinaryIO) -> None:
        if sys.platform != "linux":
            with tarfile.open(fileobj=cast(Any, sizes.over(out)), mode="w|") as tar:
                tar.add(source.path, moved(source.rebase or base))
            return
        from engine.archive.pack import TreePacker
        from engine.archive.writer import LayerWriter

        writer = LayerWriter(sizes.over(out))
        packer = TreePacker(writer)
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            shown = moved(source.rebase or base)
            if base in (".", "/"):
                packer.directory(fd, shown)
            else:
                packer.entry(fd, base, shown)
        finally:
            os.close(fd)
        writer.finish()

    reading, writing = os.pipe()
    errors: list[BaseException] = []

    def feed() -> None:
        with open(writing, "wb", buffering=1 << 18) as out, contextlib.suppress(BrokenPipeError):
            try:
                pack(out)
            except BrokenPipeError:
                raise
            except BaseException as error:
                errors.append(error)

    feeder = threading.Thread(target=feed, name="cp-pack", daemon=True)
    feeder.start()
    tar = os.fdopen(reading, "rb", buffering=1 << 18)
    try:
        await engine.put_archive(box, folder, tar, no_overwrite_dir_non_dir=True, copy_uid_gid=archive)
    except EngineError:
        if not errors:
            raise
    finally:
        tar.close()
        await asyncio.to_thread(feeder.join)
    if errors:
        error = errors[0]
        raise from_os_error(error, f"reading {path}") if isinstance(error, OSError) else error
    return sizes.total


class _Counted:
    def __init__(self) -> None:
        self.total = 0
        self._out: BinaryIO

    def over(self, out: BinaryIO) -> _Counted:
        self._out = out
        return self

    def write(self, data: bytes) -> int:
        self.total += len(data)
        return self._out.write(data)


async def _container_target(engine: Engine, box: str, path: str) -> End:
    """A target in a container, a link at its end followed. One that is not there is where the copy goes."""
    try:
        found = await engine.stat_path(box, path)
    except NotFound:
        await engine.container(box)  # the container itself is there
        return End(path, False)
    if stat.S_ISLNK(found.mode):
        path = found.link_target
        if not path.startswith("/"):
            path = posixpath.join(split(path)[0], path)
        try:
            found = await engine.stat_path(box, path)
        except NotFound:
            return End(path, False)
    if not (stat.S_ISDIR(found.mode) or stat.S_ISREG(found.mode)):
        raise InvalidInput(f'destination "{box}:{path}" must be a directory or a regular file')
    return End(path, True, stat.S_ISDIR(found.mode))


def _locally(look: Callable[[], End], path: str) -> End:
    try:
        return look()
    except OSError as error:
        raise from_os_error(error, "cp") from error


# --- export ----------------------------------------------------------------------------------------


def cmd_export(root: Path, args: list[str]) -> int:
    flags = [Flag("output", "Write to a file, instead of STDOUT", "o", kind="str")]
    usage = "export [OPTIONS] CONTAINER"
    parsed = read(args, usage, "Export a container's filesystem as a tar archive", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0
    output = parsed.text("output")
    if not output and sys.stdout.isatty():
        raise InvalidInput("cowardly refusing to save to a terminal", hint="use the -o flag or redirect")

    return run(root, lambda engine: _export(engine, parsed.args[0], output))


async def _export(engine: Engine, name: str, output: str) -> int:
    if not output:
        await engine.export(name, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return 0
    await engine.container(name)
    temporary = f"{output}.{os.getpid()}.part"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            await engine.export(name, _Whole(fd))
        finally:
            os.close(fd)
        os.replace(temporary, output)
    except OSError as error:
        raise from_os_error(error, f"writing {output}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return 0


# --- diff and commit -------------------------------------------------------------------------------


def cmd_diff(root: Path, args: list[str]) -> int:
    flags = [Flag("format", "Format output: json, or a template of {{.Type}} {{.Path}}", kind="str")]
    summary = "Inspect changes to files or directories on a container's filesystem"
    parsed = read(args, "diff CONTAINER", summary, flags, minimum=1, maximum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        changes = await engine.changes(parsed.args[0])
        if parsed.given("format"):
            rows = [{"Type": change.kind, "Path": change.path} for change in changes]
            print(render(parsed.text("format"), rows), end="\n" if rows else "")
        else:
            for change in changes:
                print(f"{change.kind} {clean(change.path)}")
        return 0

    return run(root, work, plain=True)


def cmd_commit(root: Path, args: list[str]) -> int:
    flags = [
        Flag("author", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")', "a", kind="str"),
        Flag("change", "Apply Dockerfile instruction to the created image", "c", kind="list"),
        Flag("message", "Commit message", "m", kind="str"),
        Flag("no-pause", "Disable pausing container during commit"),
        Flag("pause", "Pause container during commit (default true)", "p"),
    ]
    usage = "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]"
    parsed = read(args, usage, "Create a new image from a container's changes", flags, minimum=1, maximum=2)
    if parsed is None:
        return 0
    pause = parsed.on("pause") if parsed.given("pause") else not parsed.on("no-pause")
    request = CommitRequest(
        parsed.args[1] if len(parsed.args) > 1 else "",
        parsed.text("message"),
        parsed.text("author"),
        tuple(parsed.items("change")),
        pause,
    )

    async def work(engine: Engine) -> int:
        print(await engine.commit(parsed.args[0], request))
        return 0

    return run(root, work)
