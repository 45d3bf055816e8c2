"""A compose document turned into what runs here. What this version does not do yet is named with file and line."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.base.units import parse_size
from engine.build.dockerfile.durations import parse_duration
from engine.errors import DockerfileError, EngineError, InvalidInput
from engine.model import (
    ContainerSpec,
    Device,
    EndpointSettings,
    Healthcheck,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from engine.network.files import parse_extra_host
from engine.network.ports import collect, parse_expose, parse_publish
from engine.project.compose.envfile import read_env_file
from engine.project.compose.load import is_url
from engine.project.compose.positions import Map, Place, Seq, problem
from engine.project.model import BuildSpec, Service

# Read by hand below, or by nobody because it says nothing about the container.
_SPECIAL = {
    "image", "build", "container_name", "depends_on", "profiles", "env_file", "environment", "networks", "network_mode",
    "ports", "volumes", "secrets", "configs", "deploy", "healthcheck", "logging", "restart", "ulimits", "tmpfs", "devices",
    "attach", "scale", "label_file", "labels", "pull_policy", "volumes_from",
}  # fmt: skip
_BUILD = {"context", "dockerfile", "dockerfile_inline", "args", "target", "labels", "no_cache", "pull", "network",
          "extra_hosts", "shm_size", "additional_contexts", "tags", "ulimits"}  # fmt: skip
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


def text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "yes", "on", "1"):
        return True
    if str(value).lower() in ("false", "no", "off", "0", ""):
        return False
    raise InvalidInput(f"{value!r} is neither true nor false")


def size(value: Any) -> int:
    return value if isinstance(value, int) else parse_size(str(value))


def nanoseconds(value: Any) -> int:
    return parse_duration(str(value))


def words(value: Any) -> tuple[str, ...]:
    return tuple(shlex.split(value)) if isinstance(value, str) else tuple(map(text, value))


def texts(value: Any) -> tuple[str, ...]:
    return tuple(map(text, value)) if isinstance(value, list) else (text(value),)


def mapping(value: Any) -> dict[str, str]:
    return {key: text(item) for key, item in value.items()}


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
    "pid": ("pid_mode", text),
    "ipc": ("ipc_mode", text),
    "uts": ("uts_mode", text),
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
    "links": ("links", texts),
}


def _hosts(value: Any) -> tuple[str, ...]:
    pairs = [
        f"{name}:{text(one)}" for name, item in value.items() for one in (item if isinstance(item, list) else [item])
    ]
    for pair in pairs:
        parse_extra_host(pair)
    return tuple(pairs)


class Services:
    """Reads the services of one document. `env` fills variables that a service names without a value."""

    def __init__(self, document: Map, project: str, env: Mapping[str, str], note: Callable[[str, Place], None]) -> None:
        self._document, self._project, self._env, self._note = document, project, env, note
        self.env_files: list[Path] = []

    def read(self, name: str, body: Map) -> Service:
        """Raises `DockerfileError` at the key that cannot be meant."""
        for key in body:
            if key not in _SPECIAL and key not in _PLAIN and not key.startswith("x-"):
                self._note(f"services.{name}.{key}", body.where(key))
        build = self._at(name, body, "build", self._build) if body.get("build") is not None else None
        if build is None and not body.get("image"):
            raise problem(
                body.place, f"service {name!r} has neither an image nor a build context", "add `build: .` or `image: …`"
            )
        values: dict[str, Any] = {}
        for key, (field, read) in _PLAIN.items():
            if body.get(key) is not None:
                values[field] = self._at(name, body, key, read)
        readers: dict[str, Callable[[Any], dict[str, Any]]] = {
            "deploy": lambda value: self._deploy(name, value),
            "healthcheck": lambda value: {"healthcheck": _healthcheck(value)},
            "logging": lambda value: {
                "log_config": LogConfig(text(value.get("driver")), mapping(value.get("options") or {}))
            },
            "restart": lambda value: {"restart_policy": _restart(text(value))},
            "ulimits": lambda value: {"ulimits": tuple(_ulimit(key, item) for key, item in value.items())},
            "tmpfs": lambda value: {"tmpfs": dict(entry.partition(":")[::2] for entry in texts(value))},
            "devices": lambda value: {"devices": tuple(map(_device, value))},
            "ports": lambda value: {"port_bindings": _ports(value)},
        }
        for key, reader in readers.items():
            if body.get(key) is not None:
                values |= self._at(name, body, key, reader)
        values["mounts"] = self._mounts(name, body)
        values["volumes"] = tuple(text(e) for e in body.get("volumes") or () if isinstance(e, str) and ":" not in e)
        values["env"] = self._environment(name, body)
        values["labels"] = self._labels(name, body)
        if body.get("pull_policy") not in (None, "missing", "if_not_present", "build"):
            self._note(f"services.{name}.pull_policy", body.where("pull_policy"))
        if body.get("volumes_from") is not None:
            self._note(f"services.{name}.volumes_from", body.where("volumes_from"))
        if body.get("scale") not in (None, 0, 1):
            self._note(f"services.{name}.scale (one container runs)", body.where("scale"))
        return Service(
            name=name,
            image=text(body.get("image")) or f"{self._project}-{name}",
            build=build,
            spec=ContainerSpec(image="", **values),
            container_name=text(body.get("container_name")),
            networks=self._at(name, body, "networks", self._networks) if body.get("networks") is not None else {},
            network_mode=text(body.get("network_mode")),
            depends_on=self._at(name, body, "depends_on", _dependencies) if body.get("depends_on") is not None else {},
        )

    def _at(self, name: str, body: Map, key: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(body[key])
        except DockerfileError:
            raise
        except (EngineError, ValueError, TypeError, KeyError, AttributeError) as error:
            hint = error.hint if isinstance(error, EngineError) else None
            raise problem(body.where(key), f"services.{name}.{key}: {error}", hint) from error

    # --- build ------------------------------------------------------------------------------------------

    def _build(self, value: Map) -> BuildSpec:
        for key in value:
            if key not in _BUILD and not key.startswith("x-"):
                self._note(f"build.{key}", value.where(key))
        context = str(value.get("context", "."))
        if is_url(context):
            raise InvalidInput(
                f"{context}: only folders of this machine can be watched and built", hint="clone it first"
            )
        folder = Path(context).resolve()
        if not folder.is_dir():
            raise InvalidInput(f"the build context {folder} is not a folder")
        contexts = mapping(value.get("additional_contexts") or {})
        for key, where in contexts.items():
            if where.startswith("service:"):
                raise InvalidInput(f"additional context {key}: contexts of other services are not supported yet")
        return BuildSpec(
            folder,
            folder / text(value.get("dockerfile") or "Dockerfile"),
            self._filled(value.get("args") or {}),
            text(value.get("target")),
            labels=mapping(value.get("labels") or {}),
            no_cache=flag(value.get("no_cache") or False),
            pull=flag(value.get("pull") or False),
            network=text(value.get("network")),
            add_hosts=tuple(f"{k}:{v}" for k, v in mapping(value.get("extra_hosts") or {}).items()),
            shm_size=size(value.get("shm_size") or 0),
            contexts=contexts,
            tags=texts(value.get("tags") or []),
            ulimits=tuple(
                f"{u.name}={u.soft}:{u.hard}" for u in (_ulimit(k, v) for k, v in (value.get("ulimits") or {}).items())
            ),
            dockerfile_text=text(value.get("dockerfile_inline")) or None,
        )

    # --- environment and labels -------------------------------------------------------------------------

    def _filled(self, value: Mapping[str, Any]) -> dict[str, str]:
        """A name without a value is the user's own variable, and is left out when that is not set."""
        return {
            key: self._env[key] if item is None else text(item)
            for key, item in value.items()
            if item is not None or key in self._env
        }

    def _environment(self, name: str, body: Map) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for entry, place in _entries(body.get("env_file")):
            path = Path(entry["path"] if isinstance(entry, Map) else entry)
            required = flag(entry.get("required", True)) if isinstance(entry, Map) else True
            raw = isinstance(entry, Map) and entry.get("format") == "raw"
            self.env_files.append(path)
            try:
                values = read_env_file(path, {**found, **self._env}, required=required, raw=raw)
            except DockerfileError:
                raise
            except InvalidInput as error:
                raise problem(place, f"services.{name}.env_file: {error.message}", error.hint) from error
            found |= self._filled(values)
        if body.get("environment") is not None:
            found |= self._at(name, body, "environment", self._filled)
        return tuple(f"{key}={value}" for key, value in found.items())

    def _labels(self, name: str, body: Map) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry, _ in _entries(body.get("label_file")):
            self.env_files.append(Path(entry))
            found |= {key: value or "" for key, value in read_env_file(Path(entry), {}, raw=True).items()}
        return found | (self._at(name, body, "labels", mapping) if body.get("labels") is not None else {})

    # --- mounts -----------------------------------------------------------------------------------------

    def _mounts(self, name: str, body: Map) -> tuple[Mount, ...]:
        found: list[Mount] = []
        for entry, place in _entries(body.get("volumes")):
            try:
                mount = self._volume(entry)
            except (EngineError, ValueError, TypeError, KeyError) as error:
                raise problem(place, f"services.{name}.volumes: {error}") from error
            if mount is not None:
                found.append(mount)
        for kind, folder in (("secrets", "/run/secrets/"), ("configs", "/")):
            for entry, place in _entries(body.get(kind)):
                found.append(self._file(kind, folder, entry, place))
        return tuple(found)

    def _volume(self, entry: Any) -> Mount | None:
        if isinstance(entry, str):
            source, colon, rest = entry.partition(":")
            if not colon:
                return None  # an anonymous volume: ContainerSpec.volumes
            target, _, mode = rest.partition(":")
            modes = set(mode.split(",")) if mode else set()
            unknown = modes - {"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"}
            if unknown:
                raise InvalidInput(f"{entry!r}: option {sorted(unknown)[0]!r} is not known")
            if source.startswith("/"):
                return Mount(source, target, "ro" in modes, create_source=True)
            return Mount(self._volume_name(source), target, "ro" in modes, "volume", no_copy="nocopy" in modes)
        kind = text(entry.get("type") or "volume")
        options: Mapping[str, Any] = entry.get(kind) or {}
        source, target, read_only = (
            text(entry.get("source")),
            text(entry["target"]),
            flag(entry.get("read_only") or False),
        )
        if kind == "bind":
            create = flag(options.get("create_host_path", True))
            return Mount(source, target, read_only, propagation=text(options.get("propagation")), create_source=create)
        if kind == "volume":
            name = self._volume_name(source) if source else ""
            no_copy, subpath = flag(options.get("nocopy") or False), text(options.get("subpath"))
            return Mount(name, target, read_only, "volume", no_copy=no_copy, subpath=subpath)
        if kind == "tmpfs":
            bits = int(options.get("mode") or 0)
            return Mount("", target, False, "tmpfs", tmpfs_size=size(options.get("size") or 0), tmpfs_mode=bits)
        raise InvalidInput(f"volumes of type {kind!r} are not supported yet")

    def _volume_name(self, name: str) -> str:
        section = self._document.get("volumes")
        if not isinstance(section, Map) or name not in section:
            raise InvalidInput(f"refers to undefined volume {name}: add it under volumes:")
        body = section[name] or {}
        if body.get("name"):
            return text(body["name"])
        return name if body.get("external") else f"{self._project}_{name}"

    def _file(self, kind: str, folder: str, entry: Any, place: Place) -> Mount:
        source = text(entry.get("source")) if isinstance(entry, Map) else text(entry)
        target = text(entry.get("target")) if isinstance(entry, Map) else ""
        section = self._document.get(kind)
        body = section.get(source) if isinstance(section, Map) else None
        if not isinstance(body, Map):
            raise problem(place, f"{kind}: {source!r} is not defined", f"add it under {kind}:")
        if not body.get("file"):
            raise problem(
                place, f"{kind}: {source!r} has no file: other sources are not supported yet", "give it `file: …`"
            )
        where = target if target.startswith("/") else folder + (target or source)
        return Mount(text(body["file"]), where, True)

    # --- networks and deploy ----------------------------------------------------------------------------

    def _networks(self, value: Map) -> dict[str, EndpointSettings]:
        found = {}
        for name, settings in value.items():
            known: Mapping[str, Any] = settings or {}
            unknown = set(known) - {"aliases", "ipv4_address", "ipv6_address", "mac_address", "priority", "gw_priority"}
            if unknown:
                raise InvalidInput(f"network {name}: {sorted(unknown)[0]} is not supported")
            found[name] = EndpointSettings(
                texts(known.get("aliases") or []),
                text(known.get("ipv4_address")),
                text(known.get("ipv6_address")),
                text(known.get("mac_address")),
            )
        return found

    def _deploy(self, name: str, value: Map) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in value:
            if key not in ("resources", "labels", "restart_policy", "replicas", "mode"):
                self._note(f"services.{name}.deploy.{key}", value.where(key))
        if value.get("replicas") not in (None, 1):
            self._note(f"services.{name}.deploy.replicas (one container runs)", value.where("replicas"))
        resources = value.get("resources") or {}
        limits, reserved = resources.get("limits") or {}, resources.get("reservations") or {}
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
            names = {"none": "no", "on-failure": "on-failure", "any": "always"}
            maximum = int(policy.get("max_attempts") or 0)
            kind = names[text(policy.get("condition") or "any")]
            found["restart_policy"] = RestartPolicy(kind, maximum if kind == "on-failure" else 0)
        return found


def _entries(value: Any) -> Iterable[tuple[Any, Place]]:
    return zip(value, value.at, strict=True) if isinstance(value, Seq) else ()


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


def _ulimit(name: str, value: Any) -> Ulimit:
    if isinstance(value, Map):
        return Ulimit(name, int(value["soft"]), int(value["hard"]))
    return Ulimit(name, int(value), int(value))


def _device(value: Any) -> Device:
    if isinstance(value, Map):
        return Device(text(value.get("source")), text(value.get("target")), text(value.get("permissions")) or "rwm")
    host, _, rest = text(value).partition(":")
    inside, _, permissions = rest.partition(":")
    return Device(host, inside, permissions or "rwm")


def _ports(value: Any) -> dict[str, tuple[PortBinding, ...]]:
    found: list[tuple[str, PortBinding]] = []
    for entry in value:
        if not isinstance(entry, Map):
            found += parse_publish(text(entry))
            continue
        target, published = text(entry["target"]), text(entry.get("published"))
        protocol, address = text(entry.get("protocol") or "tcp"), text(entry.get("host_ip"))
        outside = f"[{address}]:{published}:" if address else f"{published}:" if published else ""
        found += parse_publish(f"{outside}{target}/{protocol}")
    return collect(found)
