"""A user's settings: `/etc/workbench/settings.json`, and over it `settings.json` in the data root.

{"build": {"host-ca": true, "history-size": "256m", "cache-size": "20g"}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.units import parse_size
from engine.errors import InvalidInput

SYSTEM = Path("/etc/workbench/settings.json")


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """`host_ca`: RUN steps trust the host's CA bundle and use its proxies. Sizes in bytes; `cache_size` 0 is no limit."""

    host_ca: bool = False
    history_size: int = 256 << 20
    cache_size: int = 0


def build_settings(root: Path) -> BuildSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    merged: dict[str, Any] = {}
    for path in (SYSTEM, root / "settings.json"):
        for name, value in _section(path, "build").items():
            if name not in _READ:
                raise InvalidInput(f"{path}: build.{name} is not a setting", hint=f"known: {', '.join(_READ)}")
            try:
                merged[name.replace("-", "_")] = _READ[name](value)
            except (TypeError, ValueError, InvalidInput) as error:
                raise InvalidInput(f"{path}: build.{name}: {error}") from error
    return BuildSettings(**merged)


def _section(path: Path, name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", hint="mend it or remove it") from error
    section = document.get(name, {}) if isinstance(document, dict) else None
    if not isinstance(section, dict):
        raise InvalidInput(f"{path}: {name} is not an object")
    return section


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{value!r} is neither true nor false")
    return value


def _size(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else parse_size(str(value))


_READ = {"host-ca": _switch, "history-size": _size, "cache-size": _size}
