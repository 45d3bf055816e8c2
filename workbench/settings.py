"""What the user has chosen (a file of theirs, read), and where the app was left (a file of ours, written)."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.atomic import write_atomic
from workbench import keymaps

PLACES = 50  # folders that are remembered


@dataclass(frozen=True, slots=True)
class Settings:
    """`keys` maps ids of actions to keys ("container.stop" = "ctrl+s,f4"). `problems` are sentences about what was not understood."""

    theme: str = ""
    keymap: str = ""
    read_only: bool = False
    mouse: bool = True
    stats: bool = True
    keys: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)  # "FILE:LINE" of each of `keys`
    problems: tuple[str, ...] = ()


def config_file(env: Mapping[str, str] = os.environ) -> Path:
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "workbench" / "config.toml"


def state_file(env: Mapping[str, str] = os.environ) -> Path:
    return Path(env.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "workbench" / "app.json"


def read_settings(path: Path) -> Settings:
    """The file's; what it does not say, or says wrongly, is as without it."""
    try:
        text = path.read_text()
        document = tomllib.loads(text)
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Settings(problems=(f"{path}: {error}",))
    problems = []
    values: dict[str, Any] = {}
    kinds = {"theme": str, "keymap": str, "read_only": bool, "mouse": bool, "stats": bool}
    for name, value in document.items():
        if name == "keys" and isinstance(value, dict):
            values["places"] = {key: f"{path}:{line}" for key, line in _lines(text, value).items()}
            values["keys"], wrong = _keys(value, values["places"])
            problems += wrong
        elif isinstance(value, kinds.get(name, type(None))):
            values[name] = value
        else:
            known = ", ".join([*kinds, "[keys]"])
            problems.append(f"{path}: {name} = {value!r} is not understood (known: {known})")
    return Settings(**values, problems=tuple(problems))


def _lines(text: str, keys: Mapping[str, Any]) -> dict[str, int]:
    """In which line of the file each of the table [keys] stands: tomllib does not say."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.partition("=")[0].strip().strip("\"'")
        if name in keys:
            found[name] = number
    return found | dict.fromkeys(keys.keys() - found.keys(), 1)


def _keys(given: Mapping[str, Any], places: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Those that are understood, and a sentence about each of the others."""
    found: dict[str, str] = {}
    problems = []
    for action, keys in given.items():
        if not isinstance(keys, str):
            problems.append(f"{places[action]}: the keys of {action} are no text")
            continue
        names = [name.strip() for name in keys.split(",")] if keys.strip() else []
        if wrong := [name for name in names if not keymaps.is_key(name)]:
            near = keymaps.near_key(wrong[0])
            guess = f", did you mean {near!r}?" if near else ": keys are a, A, f4, ctrl+s, space, question_mark …"
            problems.append(f"{places[action]}: {action}: there is no key {wrong[0]!r}{guess}")
        good = [name for name in names if name not in wrong]
        if good or not names:  # "" takes the key away
            found[action] = ",".join(good) or f"unbound-{action}"
    return found, problems


@dataclass(frozen=True, slots=True)
class Left:
    """Where the app was left, for one place. `selected` are ids by pane."""

    recent: tuple[str, ...] = ()
    zoom: str = ""
    theme: str = ""
    selected: Mapping[str, str] = field(default_factory=dict)


def read_left(path: Path, place: str) -> Left:
    try:
        document = json.loads(path.read_bytes())
        found = document.get(place, {})
        zoom = found.get("zoom", "")
        return Left(
            tuple(str(name) for name in found.get("recent", ())),
            zoom if zoom in ("", "half", "full") else "",
            str(found.get("theme", "")),
            {str(key): str(value) for key, value in dict(found.get("selected", {})).items()},
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return Left()


def write_left(path: Path, place: str, left: Left) -> None:
    """The newest places are kept. A disk that is full or read-only costs the memory alone."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            document = {}
        if not isinstance(document, dict):
            document = {}
        document.pop(place, None)
        document[place] = {
            "recent": list(left.recent),
            "zoom": left.zoom,
            "theme": left.theme,
            "selected": dict(left.selected),
        }
        kept = dict(list(document.items())[-PLACES:])
        write_atomic(path, json.dumps(kept, indent=1).encode(), 0o600, durable=False)
    except OSError:
        pass
