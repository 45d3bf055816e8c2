"""A compose document turned into what runs here. What this version does not do is named with file and line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import DockerfileError, EngineError, InvalidInput
from engine.model import (
    ContainerSpec,
    Device,
    DeviceLimit,
    EndpointSettings,
    Healthcheck,
    LogConfig,
    PortBinding,
    RestartPolicy,
)
from engine.network.files import parse_extra_host
from engine.network.ports import collect, parse_expose, parse_publish
from engine.oci.platform import Platform
from engine.project.compose.build_section import read_build
from engine.project.compose.deploy import read_deploy, read_scale
from engine.project.compose.develop import read_hooks, read_watch
from engine.project.compose.envfile import read_env_file
from engine.project.compose.mounts import Mounts
from engine.project.compose.positions import Map, Place, problem
from engine.project.compose.values import (
    entries,
    filled,
    flag,
    mapping,
    nanoseconds,
    size,
    text,
    texts,
    ulimit,
    words,
)
from engine.project.model import Service

# Named by its place when it is there.
LEFT_OUT = {
    "credential_spec": "of Windows",
    "cpu_count": "of Windows; `cpus` limits them",
    "cpu_percent": "of Windows; `cpus` limits them",
    "cpu_rt_period": "real-time scheduling is not given to containers here",
    "cpu_rt_runtime": "real-time scheduling is not given to containers here",
    "gpus": "devices of a GPU are not passed on; name them under `devices`",
    "isolation": "of Windows",
    "models": "there is no model runner here",
    "provider": "other programs are not asked to provide a service",
    "storage_opt": "a container's disk has no limit of its own",
    "use_api_socket": "mount the socket of `workbench serve` as a volume instead",
}
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


# compose key → (field of ContainerSpec, reader)
_PLAIN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "command": ("command", words),
    "entrypoint": ("entrypoint", words),
    "user": ("user", text),
    "working_dir": ("working_dir", text),
    "hostname": ("hostname", text),
    "domainname": ("domainname", text),
    "expose": ("exposed_ports", lambda value: tuple(port for entry in value for port in parse_expose(text(entry)))),
    "dns": ("dns", texts),
    "dns_search": ("dns_search", texts),
    "dns_opt": ("dns_options", texts),
    "mac_address": ("mac_address", text),
    "extra_hosts": ("extra_hosts", lambda value: _hosts(value)),
    "stop_signal": ("stop_signal", text),
    "stop_grace_period": ("stop_timeout", lambda value: round(nanoseconds(value) / 1e9)),
    "tty": ("tty", flag),
    "stdin_open": ("open_stdin", flag),
    "read_only": ("read_only", flag),
    "privileged": ("privileged", flag),
    "init": ("init", flag),
    "cap_add": ("cap_add", texts),
    "cap_drop": ("cap_drop", texts),
    "security_opt": ("security_opt", texts),
    "group_add": ("group_add", texts),
    "device_cgroup_rules": ("device_cgroup_rules", texts),
    "uts": ("uts_mode", text),
    "pid": ("pid_mode", text),
    "ipc": ("ipc_mode", text),
    "userns_mode": ("userns_mode", text),
    "cgroup": ("cgroupns_mode", text),
    "cgroup_parent": ("cgroup_parent", text),
    "annotations": ("annotations", mapping),
    "sysctls": ("sysctls", mapping),
    "shm_size": ("shm_size", size),
    "runtime": ("runtime", text),
    "mem_limit": ("memory", size),
    "memswap_limit": ("memory_swap", size),
    "mem_reservation": ("memory_reservation", size),
    "mem_swappiness": ("memory_swappiness", int),
    "oom_kill_disable": ("oom_kill_disable", flag),
    "oom_score_adj": ("oom_score_adj", int),
    "cpus": ("cpus", float),
    "cpu_shares": ("cpu_shares", int),
    "cpu_quota": ("cpu_quota", int),
    "cpu_period": ("cpu_period", int),
    "cpuset": ("cpuset_cpus", text),
    "pids_limit": ("pids_limit", int),
}


_MAX_DIGESTED = 16 << 20  # bytes
_NETWORK_LEFT_OUT = {
    "interface_name": "interfaces are eth0, eth1, …",
    "link_local_ips": "",
    "driver_opts": "",
    "priority": "networks are connected in the order of their names",
    "gw_priority": "the first network with a gateway is the default route",
}


class Services:
    """Reads the services of one document. `env` fills variables that a service names without a value."""

    def __init__(self, document: Map, project: str, env: Mapping[str, str], note: Callable[[str, Place], None]) -> None:
        self._document, self._project, self._env, self._note = document, project, env, note
        self._mounts = Mounts(document, project, env, note)
        self.env_files: list[Path] = []

    def read(self, name: str, body: Map) -> Service:
        """Raises `DockerfileError` at the key that cannot be meant."""
        for key, why in LEFT_OUT.items():
            if body.get(key) is not None:
                self._note(f"services.{name}.{key}: {why}", body.where(key))
        build = self._at(name, body, "build", self._build(name)) if body.get("build") is not None else None
        if build is None and not body.get("image"):
            raise problem(
                body.place, f"service {name!r} has neither an image nor a build context", "add `build: .` or `image: …`"
            )
        binds, given = self._mounts.files(name, body)
        values = self._plain(name, body) | self._grouped(name, body)
        values["mounts"] = (*self._mounts.read(name, body), *binds)
        values["volumes"] = tuple(text(e) for e in body.get("volumes") or () if isinstance(e, str) and ":" not in e)
        values["env"] = self._environment(name, body)
        values["labels"] = self._labels(name, body)
        depends: dict[str, str] = self._read(name, body, "depends_on", _dependencies, {})
        settings: Mapping[str, Any] = body.get("depends_on") or {}
        own, containers = _sources(body.get("volumes_from") or ())
        values["volumes_from"] = containers
        return Service(
            name=name,
            image=text(body.get("image")) or f"{self._project}-{name}",
            build=build,
            spec=ContainerSpec(image="", **values),
            container_name=text(body.get("container_name")),
            networks=self._read(name, body, "networks", lambda value: self._networks(name, value), {}),
            network_mode=text(body.get("network_mode")),
            depends_on=depends,
            optional=frozenset(key for key in depends if (settings[key] or {}).get("required") is False),
            restart_with=frozenset(key for key in depends if flag((settings[key] or {}).get("restart") or False)),
            watch=self._read(name, body, "develop", lambda value: read_watch(value, self._env), ()),
            post_start=self._read(name, body, "post_start", lambda value: read_hooks(value, self._env), ()),
            pre_stop=self._read(name, body, "pre_stop", lambda value: read_hooks(value, self._env), ()),
            scale=self._at(name, body, "scale" if "scale" in body else "deploy", lambda _: read_scale(body)),
            pull_policy=self._pull_policy(name, body),
            attach=flag(body.get("attach", True)),
            files=given,
            contents={mount.source: _digest(Path(mount.source)) for mount in binds},
            volumes_from=own,
            links=texts(body.get("links") or []),
            external_links=texts(body.get("external_links") or []),
            platform=self._platform(name, body),
            profiles=frozenset(texts(body.get("profiles") or [])),
        )

    def _at(self, name: str, body: Map, key: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(body.get(key))
        except DockerfileError:
            raise
        except (EngineError, ValueError, TypeError, KeyError, AttributeError) as error:
            hint = error.hint if isinstance(error, EngineError) else None
            raise problem(body.where(key), f"services.{name}.{key}: {error}", hint) from error

    def _read(self, name: str, body: Map, key: str, read: Callable[[Any], Any], missing: Any) -> Any:
        return self._at(name, body, key, read) if body.get(key) is not None else missing

    def _plain(self, name: str, body: Map) -> dict[str, Any]:
        return {
            field: self._at(name, body, key, read) for key, (field, read) in _PLAIN.items() if body.get(key) is not None
        }

    def _grouped(self, name: str, body: Map) -> dict[str, Any]:
        """Keys whose value makes several fields, or one of another shape."""
        readers: dict[str, Callable[[Any], dict[str, Any]]] = {
            "deploy": lambda value: read_deploy(name, value, self._note),
            "healthcheck": lambda value: {"healthcheck": _healthcheck(value)},
            "logging": lambda value: {
                "log_config": LogConfig(text(value.get("driver")), mapping(value.get("options") or {}))
            },
            "restart": lambda value: {"restart_policy": _restart(text(value))},
            "ulimits": lambda value: {"ulimits": tuple(ulimit(key, item) for key, item in value.items())},
            "tmpfs": lambda value: {"tmpfs": dict(entry.partition(":")[::2] for entry in texts(value))},
            "devices": lambda value: {"devices": tuple(map(_device, value))},
            "ports": lambda value: {"port_bindings": self._ports(name, value)},
            "blkio_config": _blkio,
        }
        found: dict[str, Any] = {}
        for key, reader in readers.items():
            if body.get(key) is not None:
                found |= self._at(name, body, key, reader)
        return found

    def _build(self, name: str) -> Callable[[Any], Any]:
        return lambda value: read_build(name, value, self._document, self._env, self._note)

    def _platform(self, name: str, body: Map) -> str:
        """Images of another platform can be built here, but not pulled and run."""
        platform = text(body.get("platform"))
        if platform and platform.split("/")[:2] != str(Platform.host()).split("/")[:2]:
            self._note(f"services.{name}.platform: images of {Platform.host()} run here", body.where("platform"))
        return platform

    def _pull_policy(self, name: str, body: Map) -> str:
        policy = text(body.get("pull_policy"))
        if policy == "refresh":
            after = text(body.get("pull_refresh_after"))
            return self._at(name, body, "pull_refresh_after", lambda _: _refresh(after))  # type: ignore[no-any-return]
        if "pull_refresh_after" in body:
            self._note(
                f"services.{name}.pull_refresh_after: it goes with pull_policy: refresh",
                body.where("pull_refresh_after"),
            )
        self._at(name, body, "pull_policy", lambda _: pull_seconds(policy))
        return "" if policy in ("missing", "if_not_present") else policy

    # --- environment and labels -------------------------------------------------------------------------

    def _environment(self, name: str, body: Map) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for entry, place in entries(body.get("env_file")):
            path = Path(entry["path"] if isinstance(entry, Map) else entry)
            try:
                required = flag(entry.get("required", True)) if isinstance(entry, Map) else True
            except InvalidInput as error:
                raise problem(place, f"services.{name}.env_file: required: {error.message}") from error
            form = text(entry.get("format")) if isinstance(entry, Map) else ""
            if form not in ("", "raw"):
                raise problem(place, f"services.{name}.env_file: the format {form!r} is not known", "raw, or none")
            self.env_files.append(path)
            try:
                values = read_env_file(path, {**found, **self._env}, required=required, raw=form == "raw")
            except DockerfileError:
                raise
            except InvalidInput as error:
                raise problem(place, f"services.{name}.env_file: {error.message}", error.hint) from error
            found |= filled(values, self._env)
        if body.get("environment") is not None:
            found |= self._at(name, body, "environment", lambda value: filled(value, self._env))
        return tuple(f"{key}={value}" for key, value in found.items())

    def _labels(self, name: str, body: Map) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry, _ in entries(body.get("label_file")):
            self.env_files.append(Path(entry))
            found |= {key: value or "" for key, value in read_env_file(Path(entry), {}, raw=True).items()}
        return found | (self._at(name, body, "labels", mapping) if body.get("labels") is not None else {})

    # --- networks and ports -----------------------------------------------------------------------------

    def _networks(self, service: str, value: Map) -> dict[str, EndpointSettings]:
        found = {}
        for name, settings in value.items():
            known: Mapping[str, Any] = settings or {}
            for key, why in _NETWORK_LEFT_OUT.items():
                if key in known:
                    shown = f"services.{service}.networks.{name}.{key}"
                    self._note(f"{shown}: {why}" if why else shown, settings.where(key))
            found[name] = EndpointSettings(
                texts(known.get("aliases") or []),
                text(known.get("ipv4_address")),
                text(known.get("ipv6_address")),
                text(known.get("mac_address")),
            )
        return found

    def _ports(self, service: str, value: Any) -> dict[str, tuple[PortBinding, ...]]:
        found: list[tuple[str, PortBinding]] = []
        for entry in value:
            if not isinstance(entry, Map):
                found += parse_publish(text(entry))
                continue
            if entry.get("mode") not in (None, "host", "ingress"):
                raise InvalidInput(f"mode {entry['mode']!r} is neither host nor ingress")
            target, published = text(entry["target"]), text(entry.get("published"))
            protocol, address = text(entry.get("protocol") or "tcp"), text(entry.get("host_ip"))
            outside = f"[{address}]:{published}:" if address else f"{published}:" if published else ""
            found += parse_publish(f"{outside}{target}/{protocol}")
        return collect(found)


def _hosts(value: Any) -> tuple[str, ...]:
    pairs = [
        f"{name}:{text(one)}" for name, item in value.items() for one in (item if isinstance(item, list) else [item])
    ]
    for pair in pairs:
        parse_extra_host(pair)
    return tuple(pairs)


def _digest(path: Path) -> str:
    """Of what a secret or config holds now, so that other content is another service."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(_MAX_DIGESTED)).hexdigest()
    except OSError:
        return ""


def _sources(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`volumes_from`: of services, and of containers (`container:NAME[:ro]`)."""
    every = texts(value)
    return (
        tuple(each for each in every if not each.startswith("container:")),
        tuple(each.removeprefix("container:") for each in every if each.startswith("container:")),
    )


_POLICIES = {
    "": 0,
    "missing": 0,
    "if_not_present": 0,
    "always": 0,
    "never": 0,
    "build": 0,
    "daily": 86400,
    "weekly": 604800,
}
_EVERY = re.compile(r"([0-9]+)([wdhms])")
_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


def pull_seconds(policy: str) -> int:
    """The age in seconds from which an image is pulled again; 0: age does not count. Raises `InvalidInput`."""
    if policy in _POLICIES:
        return _POLICIES[policy]
    found = _EVERY.findall(policy.removeprefix("every_"))
    if not policy.startswith("every_") or "".join(a + b for a, b in found) != policy.removeprefix("every_"):
        raise InvalidInput(
            f"pull_policy {policy!r} is not known", hint="always, missing, never, build, daily, weekly or every_12h"
        )
    return sum(int(number) * _SECONDS[unit] for number, unit in found)


def _refresh(after: str) -> str:
    pull_seconds(f"every_{after}")
    return f"every_{after}"


def _blkio(value: Map) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if value.get("weight") is not None:
        found["blkio_weight"] = int(value["weight"])
    weights = tuple(DeviceLimit(text(e["path"]), int(e["weight"])) for e in value.get("weight_device") or ())
    if weights:
        found["blkio_weight_device"] = weights
    for key in ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"):
        if value.get(key):
            found[f"blkio_{key}"] = tuple(DeviceLimit(text(e["path"]), size(e["rate"])) for e in value[key])
    return found


def _dependencies(value: Map) -> dict[str, str]:
    """Service → condition. A dependency that is not required and not there is dropped by the caller."""
    found = {}
    for name, settings in value.items():
        condition = text((settings or {}).get("condition") or "service_started")
        if condition not in CONDITIONS:
            raise InvalidInput(f"{name}: condition {condition!r} is none of {', '.join(CONDITIONS)}")
        found[name] = condition
    return found


def _healthcheck(value: Map) -> Healthcheck:
    if flag(value.get("disable") or False):
        return Healthcheck(("NONE",))
    test = value.get("test") or ()

    def time(key: str) -> int:
        return nanoseconds(value[key]) if value.get(key) else 0

    return Healthcheck(
        ("CMD-SHELL", test) if isinstance(test, str) else tuple(map(text, test)),
        time("interval"),
        time("timeout"),
        time("start_period"),
        time("start_interval"),
        int(value.get("retries") or 0),
    )


def _restart(value: str) -> RestartPolicy:
    kind, _, count = value.partition(":")
    return RestartPolicy(kind, int(count or 0))


def _device(value: Any) -> Device:
    if isinstance(value, Map):
        return Device(text(value.get("source")), text(value.get("target")), text(value.get("permissions")) or "rwm")
    host, _, rest = text(value).partition(":")
    inside, _, permissions = rest.partition(":")
    return Device(host, inside, permissions or "rwm")
