"""A user's settings: `/etc/workbench/settings.json`, and over it `settings.json` in the data root.

{"build": {"host-ca": true, "history-size": "256m", "cache-size": "20g", "block-metadata": true},
 "network": {"block-metadata": false}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.units import parse_size
from engine.errors import InvalidInput

SYSTEM = Path("/etc/workbench/settings.json")


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """`host_ca`: RUN steps trust the host's CA bundle and use its proxies. Sizes in bytes; `cache_size` 0 is no limit.
    `block_metadata`: RUN steps cannot reach the cloud's metadata addresses."""

    host_ca: bool = False
    history_size: int = 256 << 20
    cache_size: int = 0
    block_metadata: bool = True


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`block_metadata`: containers that do not say otherwise cannot reach the cloud's metadata addresses."""

    block_metadata: bool = False


def build_settings(root: Path) -> BuildSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    return BuildSettings(**_settings(root, "build", _BUILD))


def network_settings(root: Path) -> NetworkSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    return NetworkSettings(**_settings(root, "network", _NETWORK))


def _settings(root: Path, section: str, known: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for path in (SYSTEM, root / "settings.json"):
        for name, value in _section(path, section).items():
            if name not in known:
                raise InvalidInput(f"{path}: {section}.{name} is not a setting", hint=f"known: {', '.join(known)}")
            try:
                merged[name.replace("-", "_")] = known[name](value)
            except (TypeError, ValueError, InvalidInput) as error:
                raise InvalidInput(f"{path}: {section}.{name}: {error}") from error
    return merged


def userns_remap(root: Path) -> str:
    """`{"runtime": {"userns-remap": "default"}}`: user namespaces for every container; "" is none. Raises InvalidInput."""
    chosen = ""
    for path in (SYSTEM, root / "settings.json"):
        for name, value in _section(path, "runtime").items():
            if name != "userns-remap":
                raise InvalidInput(f"{path}: runtime.{name} is not a setting", hint="known: userns-remap")
            if not isinstance(value, str):
                raise InvalidInput(f"{path}: runtime.userns-remap is not a text", hint='"default" or "100000:65536"')
            chosen = value
    return chosen


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


_BUILD = {"host-ca": _switch, "history-size": _size, "cache-size": _size, "block-metadata": _switch}
_NETWORK = {"block-metadata": _switch}
