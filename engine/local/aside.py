"""Pulls and pushes in a process of their own, for a front end whose keys must not wait.

Packing, unpacking and hashing thousands of files is Python in part, and threads of one interpreter take it from each other: beside a
pull in the same process one key press in a hundred was drawn after 60 to 200 ms. Any process may open the data root, so another
one does the work: with low priority, so that on a busy machine the app comes first, and as fast as ever on an idle one.

It gets one JSON document on its standard input, writes a JSON array for each progress event on its standard output, and a last one
that says how it ended. When its input ends, which it also does when this process is killed, it cancels what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, Literal

from engine import errors
from engine.base.cancel import CancelToken
from engine.model import PullProgress

NICE = 19
_LONGEST = 1 << 20  # bytes of a line
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from engine.local.aside import main; main()"


async def transfer(
    root: Path, kind: Literal["pull", "push"], reference: str, *, platform: str = "", target: str = ""
) -> AsyncIterator[PullProgress]:
    """What `Engine.pull` and `Engine.push` do. Closing the iterator cancels it and waits for its end."""
    order = {"root": str(root), "kind": kind, "reference": reference, "platform": platform, "target": target}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        _PROGRAM,
        str(Path(__file__).parents[2]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST,
        start_new_session=True,  # ctrl+c in the terminal is the app's
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    words = asyncio.create_task(process.stderr.read())
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        while line := await process.stdout.readline():
            what = json.loads(line)
            if isinstance(what, dict):
                if what:
                    raise _error(what)
                return
            yield PullProgress(*what)
        text = (await words).decode(errors="replace").strip().rpartition("\n")[2]
        raise errors.EngineError(f"the {kind} of {reference} ended before it was done{f': {text}' if text else ''}")
    finally:
        process.stdin.close()
        words.cancel()
        await asyncio.shield(process.wait())


def _error(what: dict[str, Any]) -> errors.EngineError:
    kind: Any = getattr(errors, what["type"], errors.EngineError)
    try:
        error: errors.EngineError = kind(what["message"], hint=what["hint"])
    except TypeError:  # one that wants more than these
        error = errors.EngineError(what["message"], hint=what["hint"])
    return error


def main() -> None:
    """The other process."""
    _step_back()
    order = json.loads(sys.stdin.buffer.readline())
    cancel = CancelToken()
    threading.Thread(target=_wait_for_end, args=(cancel,), daemon=True).start()
    lock = threading.Lock()

    def say(what: object) -> None:
        with lock, contextlib.suppress(OSError):  # nobody listens any more: the input has ended too
            sys.stdout.buffer.write(json.dumps(what).encode() + b"\n")
            sys.stdout.buffer.flush()

    try:
        _work(order, lambda event: say(astuple(event)), cancel)
        say({})
    except errors.EngineError as error:
        say({"type": type(error).__name__, "message": error.message, "hint": error.hint})


def _step_back() -> None:
    """A session of its own is a group of its own for the scheduler (sched(7), autogroup), in which `nice` alone says nothing about
    the other groups."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "wb", buffering=0) as group:
        group.write(b"%d" % NICE)


def _wait_for_end(cancel: CancelToken) -> None:
    while os.read(0, 4096):
        pass
    cancel.cancel()


def _work(order: dict[str, str], emit: Any, cancel: CancelToken) -> None:
    from engine.oci.platform import Platform
    from engine.service.images import ImageService
    from engine.service.transfers import TransferService
    from engine.store.store import Store

    store = Store(Path(order["root"]))
    try:
        if order["kind"] == "pull":
            platform = Platform.parse(order["platform"]) if order["platform"] else None
            ImageService(store).pull(order["reference"], emit, cancel, platform)
        else:
            TransferService(store).push(order["reference"], emit, cancel, target=order["target"])
    finally:
        store.close()
