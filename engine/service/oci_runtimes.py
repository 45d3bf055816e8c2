"""Which OCI runtimes there are: those of the settings, runc and crun where they are installed, and any path.

{"runtime": {"default-runtime": "runc", "runtimes": {"mine": {"path": "/opt/mine", "runtimeArgs": ["--debug"]}}}} in the settings,
with the names of Docker's daemon.json. "native" is this engine's own launcher.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.base.settings import RuntimeProgram, runtime_settings
from engine.errors import InvalidInput, Unsupported
from engine.linux import idmap

NATIVE = "native"
_USUAL = ("runc", "crun")
_ALIASES = {"io.containerd.runc.v2": "runc"}  # Docker's other name for it
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def available(root: Path) -> Mapping[str, RuntimeProgram]:
    """Name to program, the native launcher aside. Raises InvalidInput for settings that cannot be read."""
    found = {name: RuntimeProgram(path) for name in _USUAL if (path := shutil.which(name, path=_PATH))}
    return {**found, **runtime_settings(root).runtimes}


def default(root: Path) -> str:
    """The runtime of a container that names none."""
    return runtime_settings(root).default or NATIVE


def settled(root: Path, wanted: str) -> str:
    """The runtime's name as a container keeps it: "" for the native launcher. Raises InvalidInput: there is no such one; Unsupported: this
    engine is an ordinary user's."""
    name = wanted or default(root)
    name = _ALIASES.get(name, name)
    if name == NATIVE:
        return ""
    if idmap.inside():
        raise Unsupported(
            f"--runtime {name}: an ordinary user's containers are started by the native launcher alone",
            hint="leave --runtime out, or run the engine as root",
        )
    _program(root, name)
    return name


def _program(root: Path, name: str) -> RuntimeProgram:
    known = available(root)
    program = known.get(name) or (RuntimeProgram(name) if name.startswith("/") else None)
    if program is None:
        there = ", ".join([NATIVE, *known])
        raise InvalidInput(
            f"unknown or invalid runtime name: {name}", hint=f"there are {there}; or install it, or give a path"
        )
    if not os.access(program.path, os.X_OK) or not os.path.isfile(program.path):
        raise InvalidInput(
            f"runtime {name}: {program.path} is not a program that can be executed", hint="see `workbench info`"
        )
    return program


def section(root: Path, name: str) -> dict[str, Any]:
    """What the runtime configuration says of it (`SpecParams.oci_runtime`); {} for the native launcher."""
    if name in ("", NATIVE):
        return {}
    program = _program(root, name)
    return {
        "name": os.path.basename(name),
        "path": program.path,
        "args": list(program.args),
        "time": _knows_time(program.path),
    }


def _knows_time(path: str) -> bool:
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return _features_name_time(path, status.st_mtime_ns, status.st_size)
    return False


@functools.cache
def _features_name_time(path: str, _changed: int, _size: int) -> bool:
    """Whether `features` (OCI 1.1) names time namespaces. A runtime without that command does not make them."""
    try:
        done = subprocess.run(
            [path, "features"], capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
        return "time" in (json.loads(done.stdout)["linux"]["namespaces"] or [])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return False
