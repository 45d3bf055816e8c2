"""A user's settings: `/etc/workbench/settings.json`, and over it `settings.json` in the data root.

{"build": {"host-ca": true, "history-size": "256m", "cache-size": "20g", "block-metadata": true},
 "network": {"block-metadata": false},
 "push": {"compression": "gzip"},
 "project": {"generations": 20, "generations-size": "10g"}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class PushSettings:
    """`compression`: what plain layers are packed with for a registry: gzip, zstd, or uncompressed."""

    compression: str = "gzip"


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """How many generations of a service are kept, and how many bytes those before the one that serves may have beyond it (0: any)."""

    generations: int = 20
    generations_size: int = 10 << 30


@dataclass(frozen=True, slots=True)
class RuntimeProgram:
    """An OCI runtime: where it is, and global options for it."""

    path: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """`userns_remap`: whose ids containers have, "" for no user namespaces; `default`: the runtime of a container that names
    none, "" for this engine's own; `runtimes`: further OCI runtimes by name."""

    userns_remap: str = ""
    default: str = ""
    runtimes: Mapping[str, RuntimeProgram] = field(default_factory=dict)


def build_settings(root: Path) -> BuildSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    return BuildSettings(**_settings(root, "build", _BUILD))


def network_settings(root: Path) -> NetworkSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    return NetworkSettings(**_settings(root, "network", _NETWORK))


def push_settings(root: Path) -> PushSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    return PushSettings(**_settings(root, "push", _PUSH))


def project_settings(root: Path) -> ProjectSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    return ProjectSettings(**_settings(root, "project", _PROJECT))


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


def runtime_settings(root: Path) -> RuntimeSettings:
    """Raises `InvalidInput`, naming the file, for what cannot be read or is not known."""
    values = _settings(root, "runtime", _RUNTIME)
    return RuntimeSettings(
        values.get("userns_remap", ""), values.get("default_runtime", ""), values.get("runtimes", {})
    )


def userns_remap(root: Path) -> str:
    """`{"runtime": {"userns-remap": "default"}}`: user namespaces for every container; "" is none. Raises InvalidInput."""
    return runtime_settings(root).userns_remap


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


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput(f"{value!r} is not a number from 1 up")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{value!r} is not a text")
    return value


def _compression(value: object) -> str:
    if value not in ("gzip", "zstd", "uncompressed"):
        raise InvalidInput(f"{value!r} is none of gzip, zstd and uncompressed")
    return str(value)


def _programs(value: object) -> Mapping[str, RuntimeProgram]:
    if not isinstance(value, dict):
        raise InvalidInput("it is not an object", hint='{"mine": {"path": "/usr/local/bin/mine"}}')
    found = {}
    for name, entry in value.items():
        path = entry.get("path") if isinstance(entry, dict) else None
        words = (entry.get("runtimeArgs") or []) if isinstance(entry, dict) else None
        if not isinstance(path, str) or not path.startswith("/") or set(entry) - {"path", "runtimeArgs"}:
            raise InvalidInput(f"{name}: it takes an absolute path", hint='{"path": "/usr/local/bin/mine"}')
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InvalidInput(f"{name}: runtimeArgs is not a list of texts")
        found[name] = RuntimeProgram(path, tuple(words))
    return found


_RUNTIME = {"userns-remap": _text, "default-runtime": _text, "runtimes": _programs}
_BUILD = {"host-ca": _switch, "history-size": _size, "cache-size": _size, "block-metadata": _switch}
_NETWORK = {"block-metadata": _switch}
_PUSH = {"compression": _compression}
_PROJECT = {"generations": _count, "generations-size": _size}
