"""`save`, `load`, `import`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.errors import InvalidInput, Unavailable, from_os_error
from engine.model import ImageImport, LoadedImage

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.store.archive_save import Format

_FORMATS = ("docker-archive", "oci-archive")


def cmd_save(root: Path, args: list[str]) -> int:
    flags = [
        Flag("output", "Write to a file, instead of STDOUT", "o", kind="str"),
        Flag("format", "docker-archive (other tools read it as either; the default) or oci-archive", kind="str"),
        Flag("compress", "Compress the whole archive: gzip or zstd", kind="str"),
    ]
    parsed = read(
        args,
        "save [OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        flags,
        minimum=1,
    )
    if parsed is None:
        return 0
    form = parsed.text("format", _FORMATS[0])
    if form not in _FORMATS:
        raise InvalidInput(f"--format {form!r} is not known", hint=" and ".join(_FORMATS) + " are")
    target = parsed.text("output", "-")
    if target == "-" and sys.stdout.isatty():
        raise InvalidInput("an archive is not written to a terminal", hint="use -o FILE, or redirect the output")

    async def work(engine: Engine) -> int:
        with _target(target) as out, _packed(out, parsed.text("compress")) as packed:
            async for _ in engine.save(parsed.args, packed, format=cast("Format", form)):
                pass
        return 0

    return run(root, work)


@contextlib.contextmanager
def _target(path: str) -> Iterator[BinaryIO]:
    """A file that appears whole or not at all, or stdout."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temp = f"{path}.{os.getpid()}.part"
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise InvalidInput(f"invalid output path: there is no folder {folder}", hint=f"mkdir -p {folder}")
    if os.path.isdir(path):
        raise InvalidInput(f"invalid output path: {path} is a folder", hint="name a file in it")
    try:
        with open(temp, "xb", buffering=1 << 20) as out:
            yield out
        os.rename(temp, path)
    except OSError as error:
        if error.filename == temp:  # a name that nobody gave
            error.filename = path
        raise from_os_error(error, f"writing {path}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)


@contextlib.contextmanager
def _packed(out: BinaryIO, kind: str) -> Iterator[BinaryIO]:
    from engine.archive.compression import compressor

    if not kind:
        yield out
        return
    packer = compressor(out, kind)
    try:
        yield cast(BinaryIO, packer)
    finally:
        packer.close()


def cmd_load(root: Path, args: list[str]) -> int:
    flags = [
        Flag("input", "Read from a tar archive file, instead of STDIN", "i", kind="str"),
        Flag("quiet", "Suppress the load output", "q"),
    ]
    parsed = read(args, "load [OPTIONS]", "Load images from a tar archive or STDIN", flags, maximum=0)
    if parsed is None:
        return 0
    source = parsed.text("input", "-")
    if source == "-" and sys.stdin.isatty():
        raise InvalidInput("requested load from stdin, but stdin is a terminal", hint="use -i FILE or a pipe")

    async def work(engine: Engine) -> int:
        with _source(source) as file:
            async for event in engine.load(file):
                if isinstance(event, LoadedImage):
                    for line in event.moved:
                        print(clean(line))
                    for tag in event.tags:
                        print(f"Loaded image: {clean(tag)}")
                    if not event.tags:
                        print(f"Loaded image ID: {event.id}")
        return 0

    return run(root, work)


def cmd_import(root: Path, args: list[str]) -> int:
    flags = [
        Flag("change", "Apply Dockerfile instruction to the created image", "c", kind="list"),
        Flag("message", "Set commit message for imported image", "m", kind="str"),
        Flag("platform", "Set platform of the imported image", kind="str"),
    ]
    parsed = read(
        args,
        "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        flags,
        minimum=1,
        maximum=2,
    )
    if parsed is None:
        return 0
    source = parsed.args[0]
    request = ImageImport(
        parsed.args[1] if len(parsed.args) > 1 else "",
        parsed.text("message") or f"Imported from {source}",
        tuple(parsed.items("change")),
        parsed.text("platform"),
    )

    async def work(engine: Engine) -> int:
        with _fetched(source) if source.startswith(("http://", "https://")) else _source(source) as file:
            image = await engine.import_image(file, request)
        print(image.id)
        return 0

    return run(root, work)


@contextlib.contextmanager
def _source(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb", buffering=1 << 18)  # noqa: SIM115 closed below
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error
    with file:
        yield file


@contextlib.contextmanager
def _fetched(url: str) -> Iterator[BinaryIO]:
    """The body of an address that the user gave."""
    import io

    import httpx

    class Body(io.RawIOBase):
        def __init__(self, chunks: Iterator[bytes]) -> None:
            self._chunks, self._rest = chunks, b""

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            view = memoryview(cast(bytearray, buffer))
            while not self._rest:
                try:
                    self._rest = next(self._chunks)
                except StopIteration:
                    return 0
            size = min(len(view), len(self._rest))
            view[:size], self._rest = self._rest[:size], self._rest[size:]
            return size

    try:
        with httpx.stream("GET", url, follow_redirects=True, headers={"accept-encoding": "identity"}) as response:
            if response.status_code != 200:
                raise Unavailable(f"{url} answered {response.status_code}", hint="check the address")
            yield io.BufferedReader(Body(response.iter_raw()), 1 << 18)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"{url} could not be fetched: {error}", hint="check the address and the network") from error
