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
    problems: tuple[str, ...] = ()


def config_file(env: Mapping[str, str] = os.environ) -> Path:
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "workbench" / "config.toml"


def state_file(env: Mapping[str, str] = os.environ) -> Path:
    return Path(env.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "workbench" / "app.json"


def read_settings(path: Path) -> Settings:
    """The file's; what it does not say, or says wrongly, is as without it."""
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Settings(problems=(f"{path}: {error}",))
    problems = []
    values: dict[str, Any] = {}
    kinds = {"theme": str, "keymap": str, "read_only": bool, "mouse": bool, "stats": bool}
    for name, value in document.items():
        if name == "keys" and isinstance(value, dict):
            values["keys"] = {key: keys for key, keys in value.items() if isinstance(keys, str)}
            problems += [f"{path}: the keys of {key} are no text" for key in value if key not in values["keys"]]
        elif isinstance(value, kinds.get(name, type(None))):
            values[name] = value
        else:
            known = ", ".join([*kinds, "[keys]"])
            problems.append(f"{path}: {name} = {value!r} is not understood (known: {known})")
    return Settings(**values, problems=tuple(problems))


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
