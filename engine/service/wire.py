"""Documents of the API turned into the engine's records: the body of `POST /containers/create` and its parts.

Every field that the engine knows is read with its type checked; a value of the wrong type is a 400 that names the field. What
this engine cannot do at all is refused; unknown fields are passed over, as Docker does.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from engine.errors import InvalidInput, Unsupported
from engine.model import (
    ContainerSpec,
    Device,
    DeviceLimit,
    EndpointSettings,
    Healthcheck,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from engine.service.mount_specs import mount_from_api, parse_bind, validate

T = TypeVar("T")


class Fields:
    """A JSON object read field by field. `where` names it in errors ("HostConfig")."""

    def __init__(self, document: object, where: str = "") -> None:
        if document is None:
            document = {}
        if not isinstance(document, dict):
            raise InvalidInput(f"{where or 'the body'} must be an object")
        self._document: dict[str, Any] = document
        self._folded: dict[str, Any] | None = None
        self._where = where

    def raw(self, name: str) -> Any:
        """The field's value, None when it is missing. Its name may be written in any case (Go's encoding/json)."""
        if name in self._document:
            return self._document[name]
        if self._folded is None:
            self._folded = {key.lower(): value for key, value in self._document.items()}
        return self._folded.get(name.lower())

    def _get(self, name: str, kind: type[T] | tuple[type, ...], default: T) -> T:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) and kind is not bool and not (isinstance(kind, tuple) and bool in kind):
            raise self._wrong(name)
        if not isinstance(value, kind):
            raise self._wrong(name)
        if isinstance(value, (str, list, dict)) and any("\0" in text for text in _texts_of(value)):
            raise InvalidInput(f"{f'{self._where}.' if self._where else ''}{name} holds a NUL byte")
        return value  # type: ignore[return-value]

    def _wrong(self, name: str) -> InvalidInput:
        full = f"{self._where}.{name}" if self._where else name
        return InvalidInput(f"{full}: {type(self.raw(name)).__name__} is not what belongs there")

    def has(self, name: str) -> bool:
        return self.raw(name) is not None

    def text(self, name: str) -> str:
        return self._get(name, str, "")

    def flag(self, name: str) -> bool:
        return self._get(name, bool, False)

    def number(self, name: str, default: int = 0) -> int:
        value: Any = self._get(name, (int, float), default)
        if isinstance(value, float) and not value.is_integer():
            raise self._wrong(name)
        number = int(value)  # JSON has one kind of number
        if not -(1 << 63) <= number < 1 << 63:
            raise InvalidInput(f"{self._where}.{name}: {str(value)[:40]} is out of range".lstrip("."))
        return number

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._get(name, list, [])
        if not all(isinstance(item, str) for item in value):
            raise self._wrong(name)
        return tuple(value)

    def words(self, name: str) -> tuple[str, ...] | None:
        """A command: a list of words, or (old clients) one string that is split as a shell would."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, str):
            return _split(value)
        return self.texts(name)

    def mapping(self, name: str) -> dict[str, str]:
        value = self._get(name, dict, {})
        if not all(isinstance(item, str) for item in value.values()):
            raise self._wrong(name)
        return dict(value)

    def keys(self, name: str) -> tuple[str, ...]:
        return tuple(self._get(name, dict, {}))

    def objects(self, name: str) -> list[Fields]:
        full = f"{self._where}.{name}" if self._where else name
        return [Fields(item, full) for item in self._get(name, list, [])]

    def object(self, name: str) -> Fields:
        return Fields(self.raw(name), f"{self._where}.{name}" if self._where else name)

    def names(self) -> tuple[str, ...]:
        return tuple(self._document)


def _texts_of(value: str | list[Any] | dict[Any, Any]) -> Iterator[str]:
    """The strings of a field itself; those of objects in it are looked at when they are read."""
    if isinstance(value, str):
        yield value
        return
    for item in value if isinstance(value, list) else (*value, *value.values()):
        if isinstance(item, str):
            yield item


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidInput(f"the command {text[:80]!r} cannot be split: {error}", hint="send a list of words") from None


def container_spec(document: Mapping[str, Any], name: str, platform: str = "") -> ContainerSpec:
    """Raises `InvalidInput`, `Unsupported`."""
    _refuse(Fields(dict(document)).object("HostConfig"))
    return replace(container_spec_of(document, name), platform=platform)


def container_spec_of(document: Mapping[str, Any], name: str) -> ContainerSpec:
    """The same for a container that there is, also with what this engine would refuse. Raises `InvalidInput`."""
    config = Fields(dict(document))
    host = config.object("HostConfig")
    image = config.text("Image")
    if not image:
        raise InvalidInput("no image is given", hint='the body needs "Image"')
    entrypoint, command = config.words("Entrypoint"), config.words("Cmd")
    stop_timeout = config.number("StopTimeout") if config.has("StopTimeout") else None
    return ContainerSpec(
        image=image,
        name=name,
        # An empty list is "not given", as in Docker: `--entrypoint ""` sends [""].
        command=command or None,
        entrypoint=(() if entrypoint == ("",) else entrypoint) if entrypoint else None,
        env=config.texts("Env"),
        user=config.text("User") or None,
        working_dir=config.text("WorkingDir") or None,
        hostname=config.text("Hostname"),
        tty=config.flag("Tty"),
        open_stdin=config.flag("OpenStdin"),
        stdin_once=config.flag("StdinOnce"),
        attach_stdin=config.flag("AttachStdin"),
        attach_stdout=config.flag("AttachStdout"),
        attach_stderr=config.flag("AttachStderr"),
        labels=config.mapping("Labels"),
        stop_signal=config.text("StopSignal"),
        stop_timeout=stop_timeout,
        healthcheck=_healthcheck(config),
        volumes=config.keys("Volumes"),
        mounts=_mounts(host),
        volumes_from=host.texts("VolumesFrom"),
        volume_driver=host.text("VolumeDriver"),
        auto_remove=host.flag("AutoRemove"),
        restart_policy=restart_policy(host),
        log_config=LogConfig(host.object("LogConfig").text("Type"), host.object("LogConfig").mapping("Config")),
        runtime=host.text("Runtime") or config.text("Runtime"),  # docker-py writes it beside HostConfig
        domainname=config.text("Domainname"),
        exposed_ports=config.keys("ExposedPorts"),
        **_network(config, host, config.object("NetworkingConfig")),
        **_isolation(host),
        **resources(host),
    )


def _refuse(host: Fields) -> None:
    for field, flag in (
        ("DeviceRequests", "--gpus"),
        ("StorageOpt", "--storage-opt"),
        ("Cgroup", "--cgroup"),
        ("CpuCount", "--cpu-count"),
    ):
        if host.raw(field):
            raise Unsupported(f"{flag} is not supported by this engine")
    if host.text("Isolation") not in ("", "default"):
        raise InvalidInput(f"invalid isolation: \"{host.text('Isolation')}\" - linux only supports 'default'")
    if host.number("ShmSize") < 0:
        raise InvalidInput("SHM size can not be less than 0")


def _healthcheck(config: Fields) -> Healthcheck | None:
    if not config.has("Healthcheck"):
        return None
    check = config.object("Healthcheck")
    return Healthcheck(
        check.texts("Test"),
        check.number("Interval"),
        check.number("Timeout"),
        check.number("StartPeriod"),
        check.number("StartInterval"),
        check.number("Retries"),
    )


def restart_policy(host: Fields) -> RestartPolicy:
    policy = host.object("RestartPolicy")
    return RestartPolicy(policy.text("Name"), policy.number("MaximumRetryCount"))


def _mounts(host: Fields) -> tuple[Mount, ...]:
    found = [parse_bind(text, host.text("VolumeDriver")) for text in host.texts("Binds")]
    for entry in host.raw("Mounts") or []:
        if not isinstance(entry, dict):
            raise InvalidInput("HostConfig.Mounts must be a list of objects")
        mount, options = mount_from_api(entry)
        validate(mount, options=options)
        found.append(mount)
    return tuple(found)


def _network(config: Fields, host: Fields, networking: Fields) -> dict[str, Any]:
    endpoints = networking.object("EndpointsConfig")
    return {
        "network_mode": "none" if config.flag("NetworkDisabled") else host.text("NetworkMode") or "default",
        "networks": {name: endpoint(endpoints.object(name)) for name in endpoints.names()},
        "port_bindings": {
            port if "/" in port else f"{port}/tcp": tuple(
                PortBinding(b.text("HostIp"), b.text("HostPort")) for b in host.object("PortBindings").objects(port)
            )
            or (PortBinding(),)
            for port in host.object("PortBindings").names()
        },
        "publish_all": host.flag("PublishAllPorts"),
        "dns": host.texts("Dns"),
        "dns_search": host.texts("DnsSearch"),
        "dns_options": host.texts("DnsOptions"),
        "extra_hosts": host.texts("ExtraHosts"),
        "mac_address": config.text("MacAddress"),
        "links": host.texts("Links"),
    }


def endpoint(settings: Fields) -> EndpointSettings:
    """`EndpointsConfig`'s values, and the body of `connect`."""
    ipam = settings.object("IPAMConfig")
    return EndpointSettings(
        settings.texts("Aliases"),
        ipam.text("IPv4Address"),
        ipam.text("IPv6Address"),
        settings.text("MacAddress"),
        settings.texts("Links"),
        ipam.texts("LinkLocalIPs"),
        settings.mapping("DriverOpts"),
        settings.number("GwPriority"),
    )


def _isolation(host: Fields) -> dict[str, Any]:
    return {
        "read_only": host.flag("ReadonlyRootfs"),
        "privileged": host.flag("Privileged"),
        "cap_add": host.texts("CapAdd"),
        "cap_drop": host.texts("CapDrop"),
        "security_opt": host.texts("SecurityOpt"),
        "masked_paths": host.texts("MaskedPaths") if isinstance(host.raw("MaskedPaths"), list) else None,
        "readonly_paths": host.texts("ReadonlyPaths") if isinstance(host.raw("ReadonlyPaths"), list) else None,
        "pid_mode": host.text("PidMode"),
        "ipc_mode": host.text("IpcMode"),
        "uts_mode": host.text("UTSMode"),
        "cgroupns_mode": host.text("CgroupnsMode"),
        "userns_mode": host.text("UsernsMode"),
        "tmpfs": host.mapping("Tmpfs"),
        "shm_size": host.number("ShmSize"),
        "sysctls": host.mapping("Sysctls"),
        "ulimits": tuple(Ulimit(u.text("Name"), u.number("Soft"), u.number("Hard")) for u in host.objects("Ulimits")),
        "devices": tuple(
            Device(d.text("PathOnHost"), d.text("PathInContainer"), d.text("CgroupPermissions") or "rwm")
            for d in host.objects("Devices")
        ),
        "device_cgroup_rules": host.texts("DeviceCgroupRules"),
        "group_add": host.texts("GroupAdd"),
        "oom_score_adj": host.number("OomScoreAdj"),
        "init": host.flag("Init"),
        "cgroup_parent": host.text("CgroupParent"),
        "isolation": host.text("Isolation"),
        "annotations": host.mapping("Annotations"),
    }


def resources(host: Fields) -> dict[str, Any]:
    """The limits, which `POST /containers/X/update` has as well."""

    def limits(name: str, field: str = "Rate") -> tuple[DeviceLimit, ...]:
        return tuple(DeviceLimit(entry.text("Path"), entry.number(field)) for entry in host.objects(name))

    return {
        "memory": host.number("Memory"),
        "memory_swap": host.number("MemorySwap"),
        "memory_reservation": host.number("MemoryReservation"),
        "memory_swappiness": host.number("MemorySwappiness", -1),
        "oom_kill_disable": host.flag("OomKillDisable"),
        "cpus": host.number("NanoCpus") / 1e9,
        "cpu_shares": host.number("CpuShares"),
        "cpu_period": host.number("CpuPeriod"),
        "cpu_quota": host.number("CpuQuota"),
        "cpu_rt_period": host.number("CpuRealtimePeriod"),
        "cpu_rt_runtime": host.number("CpuRealtimeRuntime"),
        "cpuset_cpus": host.text("CpusetCpus"),
        "cpuset_mems": host.text("CpusetMems"),
        "pids_limit": host.number("PidsLimit"),
        "blkio_weight": host.number("BlkioWeight"),
        "blkio_weight_device": limits("BlkioWeightDevice", "Weight"),
        "blkio_device_read_bps": limits("BlkioDeviceReadBps"),
        "blkio_device_write_bps": limits("BlkioDeviceWriteBps"),
        "blkio_device_read_iops": limits("BlkioDeviceReadIOps"),
        "blkio_device_write_iops": limits("BlkioDeviceWriteIOps"),
    }
