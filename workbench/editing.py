"""The user's editor at a line of a file, in place of the app for as long as it runs."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from textual.app import App

_COLON = {"code", "codium", "code-insiders", "subl", "zed", "hx", "helix", "cursor"}  # take FILE:LINE
_FLAG = {"code", "codium", "code-insiders", "cursor"}  # and want to be told that they do


def editor_command(file: str, line: int, env: Mapping[str, str] = os.environ) -> list[str]:
    """$VISUAL, else $EDITOR, else the first of nano, vim and vi that is here. Raises `Unsupported`."""
    words = shlex.split(env.get("VISUAL") or env.get("EDITOR") or "")
    if not words:
        words = next(([name] for name in ("nano", "vim", "vi") if shutil.which(name)), [])
    if not words:
        raise Unsupported("no editor is known", hint="set EDITOR, for example: export EDITOR=vim")
    name = os.path.basename(words[0])
    if line <= 0:
        return [*words, file]
    if name in _COLON:
        return [*words, *(["--goto"] if name in _FLAG and "--goto" not in words else []), f"{file}:{line}"]
    return [*words, f"+{line}", file]


async def edit(app: App[Any], file: str, line: int) -> None:
    """Until the editor ends; the app's loop goes on behind it, so that what is saved is built. Raises `EngineError`."""
    if not Path(file).is_file():
        raise InvalidInput(f"{file or 'the Dockerfile'} is not a file on this machine")
    command = editor_command(file, line)
    driver = app._driver
    if driver is None or not driver.can_suspend or not sys.__stdin__ or not os.isatty(sys.__stdin__.fileno()):
        raise Unsupported("there is no terminal for an editor", hint=f"open {file}:{line} yourself")
    with app.batch_update(), app.suspend():
        code = await run(command)
    app.refresh(layout=True)
    if code:
        raise Unsupported(f"{command[0]} ended with {code}", hint="set EDITOR to the editor that you use")


async def run(command: Sequence[str]) -> int:
    """On this terminal. Raises `Unsupported` when it cannot be run."""
    # Ctrl-C is the program's: a handler, for that is not inherited as being ignored would be.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = await asyncio.create_subprocess_exec(*command)
        return await process.wait()
    except OSError as error:
        hint = "set EDITOR to an editor that is installed"
        raise Unsupported(f"{command[0]} cannot be run: {error.strerror}", hint=hint) from error
    finally:
        signal.signal(signal.SIGINT, before)
