"""The engine's records turned into Docker's documents: bodies of requests. Pure. What was not asked for is not sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import Unsupported
from engine.network.ports import bindings_to_api
from engine.service.mount_specs import mount_to_api

if TYPE_CHECKING:
    from engine.model import (
        ContainerSpec,
        DeviceLimit,
        EndpointSettings,
        Healthcheck,
        HostConfig,
        NetworkSpec,
        Resources,
    )

_OWN_RUNTIMES = ("", "native")


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", 0, False, [], {}, ())}


def create_body(spec: ContainerSpec) -> dict[str, Any]:
    """The body of `POST /containers/create`. Raises `Unsupported` for what the API has no field for.

    `log_path` and `block_metadata` are this engine's own: a log stays where the other engine keeps it."""
    if spec.block_metadata:
        raise Unsupported(
            "another engine does not refuse the cloud's metadata addresses",
            hint="leave --block-metadata out with --host",
        )
    body = _given(
        Image=spec.image,
        Env=list(spec.env),
        User=spec.user,
        WorkingDir=spec.working_dir,
        Hostname=spec.hostname,
        Domainname=spec.domainname,
        Tty=spec.tty,
        OpenStdin=spec.open_stdin,
        StdinOnce=spec.stdin_once,
        AttachStdin=spec.attach_stdin,
        AttachStdout=spec.attach_stdout,
        AttachStderr=spec.attach_stderr,
        Labels=dict(spec.labels),
        StopSignal=spec.stop_signal,
        MacAddress=spec.mac_address,
        Volumes={path: {} for path in spec.volumes},
        ExposedPorts={port: {} for port in (*spec.exposed_ports, *spec.port_bindings)},
        Healthcheck=_healthcheck(spec.healthcheck) if spec.healthcheck else None,
    )
    if spec.command is not None:
        body["Cmd"] = list(spec.command)
    if spec.entrypoint is not None:
        body["Entrypoint"] = list(spec.entrypoint) or [""]
    if spec.stop_timeout is not None:
        body["StopTimeout"] = spec.stop_timeout
    body["HostConfig"] = {**_host(spec), **_isolation(spec), **resources(spec)}
    if spec.networks:
        endpoints = {name: endpoint(settings) for name, settings in spec.networks.items()}
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return body


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    return _given(
        Test=list(check.test),
        Interval=check.interval,
        Timeout=check.timeout,
        StartPeriod=check.start_period,
        StartInterval=check.start_interval,
        Retries=check.retries,
    )


def _host(spec: ContainerSpec) -> dict[str, Any]:
    policy = spec.restart_policy
    log = _given(Type=spec.log_config.type, Config=dict(spec.log_config.config))
    return _given(
        NetworkMode=spec.network_mode,
        PortBindings=bindings_to_api(spec.port_bindings),
        PublishAllPorts=spec.publish_all,
        Dns=list(spec.dns),
        DnsSearch=list(spec.dns_search),
        DnsOptions=list(spec.dns_options),
        ExtraHosts=list(spec.extra_hosts),
        Links=list(spec.links),
        Binds=[mount.bind for mount in spec.mounts if mount.bind],
        Mounts=[mount_to_api(mount) for mount in spec.mounts if not mount.bind],
        VolumesFrom=list(spec.volumes_from),
        VolumeDriver=spec.volume_driver,
        AutoRemove=spec.auto_remove,
        RestartPolicy={"Name": policy.name, "MaximumRetryCount": policy.maximum_retry_count} if policy.name else None,
        LogConfig=log,
        Runtime="" if spec.runtime in _OWN_RUNTIMES else spec.runtime,
    )


# What the client turns into empty lists: a daemon does not know these words.
_SYSTEM_PATHS = ("systempaths=unconfined", "systempaths:unconfined")


def _hidden_paths(spec: HostConfig) -> dict[str, Any]:
    bare = any(option in _SYSTEM_PATHS for option in spec.security_opt)
    wanted = {"MaskedPaths": spec.masked_paths, "ReadonlyPaths": spec.readonly_paths}
    return {name: [] if bare else list(paths or ()) for name, paths in wanted.items() if bare or paths is not None}


def _isolation(spec: HostConfig) -> dict[str, Any]:
    return _hidden_paths(spec) | _given(
        ReadonlyRootfs=spec.read_only,
        Privileged=spec.privileged,
        CapAdd=list(spec.cap_add),
        CapDrop=list(spec.cap_drop),
        SecurityOpt=[option for option in spec.security_opt if option not in _SYSTEM_PATHS],
        PidMode=spec.pid_mode,
        IpcMode=spec.ipc_mode,
        UTSMode=spec.uts_mode,
        CgroupnsMode=spec.cgroupns_mode,
        UsernsMode=spec.userns_mode,
        Tmpfs=dict(spec.tmpfs),
        ShmSize=spec.shm_size,
        Sysctls=dict(spec.sysctls),
        Ulimits=[{"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in spec.ulimits],
        Devices=[
            {
                "PathOnHost": device.path_on_host,
                "PathInContainer": device.path_in_container or device.path_on_host,
                "CgroupPermissions": device.cgroup_permissions,
            }
            for device in spec.devices
        ],
        DeviceCgroupRules=list(spec.device_cgroup_rules),
        GroupAdd=list(spec.group_add),
        OomScoreAdj=spec.oom_score_adj,
        Init=spec.init or None,
        CgroupParent=spec.cgroup_parent,
        Isolation=spec.isolation,
        Annotations=dict(spec.annotations),
    )


def resources(limits: Resources) -> dict[str, Any]:
    """The limits: of a new container, and the body of `update`."""

    def devices(entries: Sequence[DeviceLimit], key: str = "Rate") -> list[dict[str, Any]]:
        return [{"Path": entry.path, key: entry.rate} for entry in entries]

    found = _given(
        Memory=limits.memory,
        MemorySwap=limits.memory_swap,
        MemoryReservation=limits.memory_reservation,
        OomKillDisable=limits.oom_kill_disable,
        NanoCpus=round(limits.cpus * 1e9),
        CpuShares=limits.cpu_shares,
        CpuPeriod=limits.cpu_period,
        CpuQuota=limits.cpu_quota,
        CpuRealtimePeriod=limits.cpu_rt_period,
        CpuRealtimeRuntime=limits.cpu_rt_runtime,
        CpusetCpus=limits.cpuset_cpus,
        CpusetMems=limits.cpuset_mems,
        PidsLimit=limits.pids_limit,
        BlkioWeight=limits.blkio_weight,
        BlkioWeightDevice=devices(limits.blkio_weight_device, "Weight"),
        BlkioDeviceReadBps=devices(limits.blkio_device_read_bps),
        BlkioDeviceWriteBps=devices(limits.blkio_device_write_bps),
        BlkioDeviceReadIOps=devices(limits.blkio_device_read_iops),
        BlkioDeviceWriteIOps=devices(limits.blkio_device_write_iops),
    )
    return found | ({"MemorySwappiness": limits.memory_swappiness} if limits.memory_swappiness >= 0 else {})


def endpoint(settings: EndpointSettings) -> dict[str, Any]:
    addresses = _given(
        IPv4Address=settings.ipv4_address, IPv6Address=settings.ipv6_address, LinkLocalIPs=list(settings.link_local)
    )
    return _given(
        Aliases=list(settings.aliases),
        Links=list(settings.links),
        MacAddress=settings.mac_address,
        IPAMConfig=addresses,
        DriverOpts=dict(settings.driver_options),
        GwPriority=settings.gateway_priority,
    )


def network_body(spec: NetworkSpec) -> dict[str, Any]:
    """The body of `POST /networks/create`."""
    configs = [
        _given(Subnet=one.subnet, Gateway=one.gateway, IPRange=one.ip_range, AuxiliaryAddresses=dict(one.auxiliary))
        for one in spec.ipam
    ]
    return {
        "Name": spec.name,
        "CheckDuplicate": True,  # API 1.43 and older
        "Driver": spec.driver,
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "EnableIPv6": spec.enable_ipv6,
        "Options": dict(spec.options),
        "Labels": dict(spec.labels),
        **({"IPAM": {"Driver": "default", "Config": configs}} if configs else {}),
    }


def filters(wanted: Mapping[str, Sequence[str]] | None) -> str:
    """The query's `filters`; "" for none."""
    return json.dumps({key: list(values) for key, values in wanted.items()}) if wanted else ""
