"""What a running container uses and may use: `stats`, `top`, `update`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.base.atomic import write_atomic
from engine.errors import Conflict, InvalidInput, Unsupported, from_os_error
from engine.linux import cgroup
from engine.model import ContainerSpec, ContainerStats, ProcessList, Resources, RestartPolicy
from engine.runtime import spec_resources
from engine.runtime.client import Runtime
from engine.runtime.state import State
from engine.service import hostside, life_config, processes, stats
from engine.service.container_record import spec_from_json
from engine.service.containers import ContainerService
from engine.store.store import Store

_layout = functools.cache(cgroup.here)
_DEFAULTS = {entry.name: entry.default for entry in dataclasses.fields(Resources)}


class UsageService:
    def __init__(self, store: Store, runtime: Runtime, containers: ContainerService) -> None:
        self._store, self._runtime, self._containers = store, runtime, containers

    def _config(self, container_id: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self._containers.bundle(container_id) / "config.json").read_bytes())
        return document

    def _running(self, name: str) -> tuple[str, str, dict[str, Any], State]:
        """Id, name, configuration and state. Raises Conflict when it does not run."""
        container_id, record = self._containers.resolve(name)
        state = self._runtime.state(self._containers.bundle(container_id))
        if state.status not in ("running", "paused"):
            raise Conflict(
                f"container {container_id} is not running", hint=f"start it: workbench start {record['name']}"
            )
        return container_id, record["name"], self._config(container_id), state

    def stats(self, name: str) -> ContainerStats:
        """One reading. Raises NotFound, Conflict."""
        container_id, shown, config, state = self._running(name)
        group = _group(config, state)
        if not group.exists():
            raise Unsupported(
                f"stats of container {shown}: there is no control group of its own to read them from",
                hint="`workbench info` says what this host gives to this user; `workbench top` works without",
            )
        own = any(entry["type"] == "network" for entry in config["linux"]["namespaces"])
        return stats.sample(container_id, shown, group, state.pid, own_network=own)

    def top(self, name: str, arguments: Sequence[str] = ()) -> ProcessList:
        """Its processes, with ps(1)'s options. Raises NotFound, Conflict, InvalidInput."""
        processes.columns(arguments)
        container_id, _name, config, state = self._running(name)
        self._containers.event("top", *self._containers.resolve(container_id))
        group = _group(config, state)
        members = [int(pid) for pid in group.members()] if group.exists() else processes.of_namespace(state.pid)
        return processes.processes(members, arguments)

    def update(self, name: str, changes: Resources, restart_policy: RestartPolicy | None = None) -> Sequence[str]:
        """New limits and another restart policy, now and for later starts; what is not set in `changes` stays. Returns
        Docker's warnings: limits that do not hold on this host. Raises NotFound, InvalidInput, Conflict."""
        container_id, record = self._containers.resolve(name)
        before = spec_from_json(record["spec"])
        after = merged(before, changes)
        if restart_policy is not None:
            after = _with_policy(after, restart_policy, record["name"])
        numbers = hostside.device_numbers(after)
        hostside.check_limits(after)
        wanted = spec_resources.limits(_changed(after, changes), numbers)
        notes: list[str] = []
        state = self._runtime.state(self._containers.bundle(container_id))
        if restart_policy is not None and state.active:
            with contextlib.suppress(Conflict):  # it has ended meanwhile: the record is what counts then
                self._runtime.change_policy(container_id, restart_policy.name, restart_policy.maximum_retry_count)
        if state.status in ("running", "paused"):
            config = self._config(container_id)
            group = _group(config, state)
            try:
                if config["workbench"].get("runtime"):  # the group is its runtime's
                    self._runtime.update(container_id, wanted)
                else:
                    group.update(wanted)
            except OSError as error:
                raise from_os_error(error, f"Cannot update container {record['name']}") from error
            notes = group.notes
        if state.active:  # a restart by policy reads it again
            config = self._config(container_id)
            config["linux"]["resources"].update(spec_resources.limits(after, numbers))
            write_atomic(self._path(container_id), json.dumps(config).encode(), durable=False)
        self._record(container_id, after)
        return notes

    def _path(self, container_id: str) -> Path:
        return self._containers.bundle(container_id) / "config.json"

    def _record(self, container_id: str, spec: ContainerSpec) -> None:
        with self._store.records.write() as db:
            row = db.execute("SELECT name, document FROM containers WHERE id = ?", (container_id,)).fetchone()
            record = json.loads(row["document"])
            for entry in dataclasses.fields(Resources):
                value = getattr(spec, entry.name)
                record["spec"][entry.name] = (
                    [dataclasses.asdict(one) for one in value] if isinstance(value, tuple) else value
                )
            record["spec"]["restart_policy"] = dataclasses.asdict(spec.restart_policy)
            db.execute("UPDATE containers SET document = ? WHERE id = ?", (json.dumps(record), container_id))
        self._containers.event("update", container_id, {**record, "name": row["name"]})


def _group(config: dict[str, Any], state: State) -> cgroup.Cgroup:
    layout = cgroup.recorded(state.cgroup) if state.cgroup else _layout()
    return cgroup.Cgroup(layout, config["linux"]["cgroupsPath"])


def _with_policy(before: ContainerSpec, policy: RestartPolicy, name: str) -> ContainerSpec:
    if before.auto_remove:
        raise Conflict(
            f"Cannot update container {name}: Restart policy cannot be updated because AutoRemove is enabled for the "
            "container"
        )
    after = dataclasses.replace(before, restart_policy=policy)
    life_config.check(after)
    return after


def _given(changes: Resources) -> dict[str, Any]:
    return {name: value for name in _DEFAULTS if (value := getattr(changes, name)) != _DEFAULTS[name]}


def merged(before: ContainerSpec, changes: Resources) -> ContainerSpec:
    """The specification with the changes, by Docker's rules. Raises InvalidInput."""
    given = _given(changes)
    if not given:
        return before
    if "cpus" in given and (before.cpu_period or before.cpu_quota):
        raise InvalidInput("Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set")
    for name, words in (("cpu_period", "CPU Period"), ("cpu_quota", "CPU Quota")):
        if name in given and before.cpus:
            raise InvalidInput(f"Conflicting options: {words} cannot be updated as NanoCPUs has already been set")
    swap = before.memory_swap or before.memory * 2
    if "memory" in given and "memory_swap" not in given and 0 < swap < changes.memory:
        raise InvalidInput(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            hint="--memory-swap, or -1 for no limit",
        )
    if "memory" in given and "memory_swap" not in given and swap:
        given["memory_swap"] = swap
    after = dataclasses.replace(before, **given)
    spec_resources.check(after)
    return after


def _changed(after: ContainerSpec, changes: Resources) -> Resources:
    """Only what changes, but memory with its swap, which are checked together."""
    names = set(_given(changes))
    if names & {"memory", "memory_swap"}:
        names |= {"memory", "memory_swap"}
    return Resources(**{name: getattr(after, name) for name in names})
