"""From a container's record to what the runtime starts: mounts, networks, shared namespaces, and what only this host can tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import Conflict, InvalidInput
from engine.model import ContainerSpec, host_config
from engine.runtime.spec import BindMount, SpecParams, validate
from engine.runtime.spec_namespaces import Join
from engine.service import hostside, life_config, oci_runtimes
from engine.service.container_record import spec_from_json
from engine.service.endpoints import Prepared
from engine.service.life import signal_number
from engine.service.mounts import in_order
from engine.service.network_files import mounts_of
from engine.service.network_modes import mode_of
from engine.service.points import points_of
from engine.service.userns import id_maps

if TYPE_CHECKING:
    from engine.runtime.client import Runtime
    from engine.service.containers import ContainerService
    from engine.service.mounts import Mounts
    from engine.store.images import Image
    from engine.store.store import Store


class StartParams:
    def __init__(self, store: Store, runtime: Runtime, mounts: Mounts, containers: ContainerService) -> None:
        self._store, self._runtime, self._mounts, self._containers = store, runtime, mounts, containers
        self._remover = containers.remover

    def params(self, container_id: str, record: dict[str, Any]) -> SpecParams:
        spec = spec_from_json(record["spec"])
        folder = self._containers.bundle(container_id)
        image = self._containers.image_of(container_id)
        if spec.network_mode.startswith("container:"):
            other = spec.network_mode.removeprefix("container:")
            shared = mounts_of(self._containers.bundle(self._containers.resolve(other)[0]))
            prepared = Prepared("container", {}, shared, record["hostname"])
            joined = {"network": self._join(other, "network")}
        else:
            prepared, joined = self._containers.endpoints.prepare(container_id, record, spec, folder), {}
        return SpecParams(
            container_id=container_id,
            args=tuple(record["args"]),
            env=_environment(prepared.env, record["env"]),
            cwd=record["cwd"],
            user=record["user"],
            tty=spec.tty,
            open_stdin=spec.open_stdin,
            lowers=tuple(str(path) for path in self._store.lowers(image)),
            upper=str(folder / "upper"),
            work=str(folder / "work"),
            log_path=record["log_path"],
            life=self._life_section(container_id, record, spec, image),
            mounts=in_order((*self._mounts.for_runtime(points_of(record)), *_engines(prepared.files, spec))),
            **prepared.params(),
            **host_config(spec),
            **self._on_this_host(spec, joined),
        )

    def _life_section(
        self, container_id: str, record: dict[str, Any], spec: ContainerSpec, image: Image
    ) -> dict[str, Any]:
        who = life_config.Identity(
            container_id,
            record["name"],
            spec.image,
            record["image_id"],
            record["args"],
            record["env"],
            spec.labels,
        )
        config = self._store.images.config(image)
        return life_config.section(
            spec,
            who,
            healthcheck=life_config.merge_healthcheck(spec.healthcheck, config.healthcheck),
            shell=config.shell or ("/bin/sh", "-c"),
            stop_signal=signal_number(record["stop_signal"]),
            remover=self._remover,
        )

    def settled(self, spec: ContainerSpec) -> ContainerSpec:
        """Checked, and with the containers that it shares namespaces with by their ids. Raises InvalidInput, NotFound."""
        if spec.uts_mode == "host" and spec.hostname:
            raise InvalidInput("conflicting options: hostname and the UTS mode")
        spec = dataclasses.replace(spec, runtime=oci_runtimes.settled(self._store.root, spec.runtime))
        mode: Any = mode_of(spec.network_mode)
        if spec.userns_mode != "host" and id_maps(self._store.root) is not None:
            if spec.privileged:
                raise InvalidInput(
                    "privileged mode is incompatible with user namespaces", hint="run it with --userns host"
                )
            if spec.pid_mode == "host":
                raise InvalidInput(
                    "cannot share the host PID namespace when user namespaces are enabled", hint="--userns host"
                )
            if mode == "host":
                raise InvalidInput(
                    "cannot share the host's network namespace when user namespaces are enabled", hint="--userns host"
                )
        validate(SpecParams("", args=("-",), network=mode, domainname=spec.domainname, **host_config(spec)))
        hostside.check_limits(spec)
        shared = {}
        for field in ("pid_mode", "ipc_mode", "network_mode"):
            kind, _, other = str(getattr(spec, field)).partition(":")
            if kind == "container":
                shared[field] = f"container:{self._containers.resolve(other)[0]}"
        return dataclasses.replace(spec, **shared) if shared else spec  # type: ignore[arg-type]

    def _on_this_host(self, spec: ContainerSpec, joined: dict[str, Join]) -> dict[str, Any]:
        """What only this host can tell: device numbers, and the processes whose namespaces are joined."""
        join = dict(joined)
        for kind, mode in (("pid", spec.pid_mode), ("ipc", spec.ipc_mode)):
            if mode.startswith("container:"):
                join[kind] = self._join(mode.removeprefix("container:"), kind)
        maps = id_maps(self._store.root) if spec.userns_mode != "host" else None
        if maps is not None and join:  # what is shared belongs to that one's user namespace
            other = next(iter(join.values()))
            maps = maps if hostside.has_own_users(other.pid) else None
            join |= {"user": other} if maps is not None else {}
        return {
            "device_nodes": hostside.device_nodes(spec),
            "device_numbers": hostside.device_numbers(spec),
            "oci_runtime": oci_runtimes.section(self._store.root, spec.runtime),
            "apparmor_profile": hostside.apparmor_profile(spec),
            "id_maps": maps,
            "join": join,
        }

    def _join(self, name: str, kind: str) -> Join:
        """The first process of a running container whose namespace is to be shared. Raises Conflict, InvalidInput."""
        container_id, record = self._containers.resolve(name)
        state = self._runtime.state(self._containers.bundle(container_id))
        if state.status != "running":
            what = "network" if kind == "network" else f"{kind.upper()} namespace"
            raise Conflict(
                f"cannot join {'the ' if kind != 'network' else ''}{what} of a non running container: {record['name']}"
            )
        if kind == "ipc" and spec_from_json(record["spec"]).ipc_mode not in ("shareable", "host"):
            raise InvalidInput(
                f"cannot join IPC namespace of container {record['name']}: non-shareable IPC",
                hint="start that one with --ipc shareable",
            )
        return Join(state.pid, state.pid_start)


def _engines(files: Sequence[BindMount], spec: ContainerSpec) -> Sequence[BindMount]:
    """`/etc/hosts` and its kin, which in a container with a read-only root are read-only too."""
    return [dataclasses.replace(file, read_only=True) for file in files] if spec.read_only else files


def _environment(linked: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """A variable without a value takes away what links bring of that name; the container's own stand over theirs."""
    named = {entry.partition("=")[0] for entry in own}
    return (*(entry for entry in linked if entry.partition("=")[0] not in named), *own)
