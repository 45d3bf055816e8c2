"""What an exec runs as: the container's own process section with the request's differences."""

from __future__ import annotations

import os
from typing import Any

from engine.linux import capability


def exec_process(spec: dict[str, Any], request: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(process section, user). Capabilities, filter and no_new_privs are the container's, unless privileged."""
    base = spec["process"]
    caps = base["capabilities"]
    if request.get("privileged"):
        names = [f"CAP_{name}" for name in capability.available()]
        caps = {"bounding": names, "effective": names, "permitted": names}
    env = [entry for entry in request.get("env") or [] if "=" in entry]
    names_given = {entry.partition("=")[0] for entry in env}
    kept = [entry for entry in base["env"] if entry.partition("=")[0] not in names_given]
    if request.get("tty") and not any(entry.startswith("TERM=") for entry in (*kept, *env)):
        env.append("TERM=xterm")
    user = request.get("user")
    process = {
        "args": list(request["args"]),
        "env": kept + env,
        "cwd": os.fspath(request.get("cwd") or base["cwd"]),
        "capabilities": caps,
        "noNewPrivileges": base.get("noNewPrivileges", False),
        "rlimits": base.get("rlimits", []),
    }
    return process, spec["workbench"]["user"] if user is None else str(user)
