"""Copying, also over SSH and within tmux and screen, and saying which way it went.

A terminal takes OSC 52 (xterm's control sequences, "Manipulate Selection Data") with the text in base64. tmux takes it from a
program only with `set-clipboard on`, and hands a wrapped one (`ESC P tmux;`) on only with `allow-passthrough on`; asked as
a command, `tmux load-buffer -w` always sets its buffer and the terminal's clipboard. GNU screen hands on what is wrapped in
DCS, in short pieces. Nobody answers whether it worked, so what is known not to work goes into a file instead.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.base.atomic import write_atomic
from workbench.messages import Said

if TYPE_CHECKING:
    from textual.app import App

LIMIT = 74_994  # bytes: 100,000 in base64, what xterm, hterm and many others take
_SCREEN = 256  # bytes of a piece that GNU screen hands on whole
_WAIT = 3.0  # seconds for a helper program

Way = Literal["tmux", "screen", "terminal", "nested", "file"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which way a text goes. `sequence`: what is written to the terminal; `why`: why it goes into a file."""

    way: Way
    sequence: str = ""
    why: str = ""


def plan(text: str, env: Mapping[str, str]) -> Plan:
    """Decides by the environment (pure)."""
    data = text.encode("utf-8", "replace")
    term = env.get("TERM", "")
    if env.get("TMUX"):
        return Plan("tmux")
    if len(data) > LIMIT:
        return Plan("file", why=f"{len(data)} bytes are more than terminals take ({LIMIT})")
    if term in ("", "dumb", "linux", "unknown"):
        return Plan("file", why=f"a terminal of type {term or 'unknown'} has no clipboard")
    if env.get("TERM_PROGRAM") == "Apple_Terminal" and not env.get("SSH_TTY"):
        return Plan("file", why="Terminal.app takes no text from programs")
    sequence = osc52(data)
    if env.get("STY"):
        return Plan("screen", for_screen(sequence))
    if term.startswith(("tmux", "screen")):  # on the far side of an ssh that was started in tmux or screen
        return Plan("nested", sequence + for_tmux(sequence))
    return Plan("terminal", sequence)


def osc52(data: bytes) -> str:
    return f"\x1b]52;c;{base64.b64encode(data).decode()}\x07"


def for_tmux(sequence: str) -> str:
    """Wrapped so that tmux hands it on (`allow-passthrough`): every ESC twice."""
    return f"\x1bPtmux;{sequence.replace(chr(27), chr(27) * 2)}\x1b\\"


def for_screen(sequence: str) -> str:
    pieces = [sequence[at : at + _SCREEN] for at in range(0, len(sequence), _SCREEN)]
    return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)


def fallback_file(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_STATE_HOME") or os.path.join(env.get("HOME") or "/tmp", ".local/state")
    return Path(base) / "workbench" / "clipboard.txt"


async def send(text: str, write: Callable[[str], None], env: Mapping[str, str]) -> str:
    """Copies `text`; `write` writes to the terminal. Returns which way it went, to be shown after "copied …: "."""
    chosen = plan(text, env)
    if chosen.way == "tmux":
        if await _run(["tmux", "load-buffer", "-w", "-"], text, env):
            return "to tmux's buffer, and to the clipboard of the terminal around it"
        if len(text.encode("utf-8", "replace")) <= LIMIT:
            sequence = osc52(text.encode("utf-8", "replace"))
            write(sequence + for_tmux(sequence))
            return f"to the terminal through {_IF_TMUX}{await _also(text, env)}"
        chosen = Plan("file", why=f"more than terminals take ({LIMIT} bytes), and tmux does not answer")
    if chosen.way == "file":
        path = fallback_file(env)
        await asyncio.to_thread(_save, path, text)
        return f"to {path}, since {chosen.why}"
    write(chosen.sequence)
    if chosen.way == "nested":
        return f"to the terminal's clipboard through {_IF_TMUX}{await _also(text, env)}"
    return f"to the terminal's clipboard{' through screen' if chosen.way == 'screen' else ''} (OSC 52)"


_IF_TMUX = "tmux, if its set-clipboard or allow-passthrough is on (OSC 52)"


async def _also(text: str, env: Mapping[str, str]) -> str:
    """Nobody says whether it came through, so it is kept in the file, too."""
    path = fallback_file(env)
    try:
        await asyncio.to_thread(_save, path, text)
    except OSError:
        return ""
    home = env.get("HOME", "")
    return f"; in any case to {f'~{str(path)[len(home) :]}' if home and path.is_relative_to(home) else path}"


def _save(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, text.encode("utf-8", "surrogateescape"), mode=0o600)


async def _run(command: list[str], text: str, env: Mapping[str, str]) -> bool:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(env),
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(_WAIT):
            await process.communicate(text.encode("utf-8", "surrogateescape"))
    except TimeoutError:
        process.kill()
        await process.wait()
    return process.returncode == 0


async def copy(app: App[Any], text: str, what: str) -> None:
    """Copies for the user and says so: `what` is "3 lines", "the id", …"""
    driver = app._driver
    write = driver.write if driver is not None else lambda data: None
    try:
        way = await send(text, write, os.environ)
    except OSError as error:
        app.post_message(Said(f"{what} could not be copied: {error}"))
        return
    if driver is not None:
        driver.flush()
    app.post_message(Said(f"copied {what} {way}"))


def release_mouse(app: App[Any], *, free: bool) -> None:
    """`free`: the terminal has the mouse, to select with it as in any program; else the app."""
    driver = app._driver
    if driver is not None:
        getattr(driver, "_disable_mouse_support" if free else "_enable_mouse_support", lambda: None)()
        driver.flush()
