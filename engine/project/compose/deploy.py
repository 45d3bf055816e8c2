"""`deploy` of a service: what of it means something on one machine (compose-spec, deploy.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import InvalidInput
from engine.model import RestartPolicy
from engine.project.compose.positions import Map, Place
from engine.project.compose.values import size, text

Note = Callable[[str, Place], None]
# Of a cluster, which one machine is not.
LEFT_OUT = {
    "endpoint_mode": "of a cluster",
    "placement": "of a cluster",
    "rollback_config": "of a cluster; here a container that does not start never replaces the one before",
    "update_config": "of a cluster; here a container that does not start never replaces the one before",
    "labels": "they are the service's in a cluster, and no container's",
}
_RESTART = {"none": "no", "on-failure": "on-failure", "any": "always"}


def read_deploy(name: str, value: Map, note: Note) -> dict[str, Any]:
    """Fields of `ContainerSpec`."""
    found: dict[str, Any] = {}
    for key, why in LEFT_OUT.items():
        if key in value:
            note(f"services.{name}.deploy.{key}: {why}", value.where(key))
    mode = text(value.get("mode") or "replicated")
    if mode not in ("replicated", "global"):
        note(f"services.{name}.deploy.mode {mode}: of a cluster", value.where("mode"))
    resources = value.get("resources") or {}
    limits: Any = resources.get("limits") or {}
    reserved: Any = resources.get("reservations") or {}
    for key in ("cpus", "generic_resources", "devices"):
        if key in reserved:
            note(f"services.{name}.deploy.resources.reservations.{key}", reserved.where(key))
    if limits.get("cpus") is not None:
        found["cpus"] = float(limits["cpus"])
    if limits.get("memory") is not None:
        found["memory"] = size(limits["memory"])
    if limits.get("pids") is not None:
        found["pids_limit"] = int(limits["pids"])
    if reserved.get("memory") is not None:
        found["memory_reservation"] = size(reserved["memory"])
    policy = value.get("restart_policy")
    if policy is not None:
        for key in ("delay", "window"):
            if key in policy:
                note(f"services.{name}.deploy.restart_policy.{key}: the engine's own waits hold", policy.where(key))
        maximum, kind = int(policy.get("max_attempts") or 0), text(policy.get("condition") or "any")
        if kind not in _RESTART:
            raise InvalidInput(f"restart_policy.condition {kind!r} is none of {', '.join(_RESTART)}")
        found["restart_policy"] = RestartPolicy(_RESTART[kind], maximum if kind == "on-failure" else 0)
    return found


def read_scale(body: Map) -> int:
    """`scale`, else `deploy.replicas`, else 1. Raises `InvalidInput`."""
    deploy = body.get("deploy") or {}
    scale, replicas = body.get("scale"), deploy.get("replicas")
    if scale is not None and replicas is not None and int(scale) != int(replicas):
        raise InvalidInput(f"scale {scale} and deploy.replicas {replicas} contradict each other")
    given = scale if scale is not None else replicas
    count = 1 if given is None else int(given)
    if count < 0:
        raise InvalidInput(f"{count} containers cannot be run")
    if count > 1 and body.get("container_name"):
        raise InvalidInput(
            f"container_name is one name, and {count} containers are asked for", hint="leave container_name out"
        )
    return count
