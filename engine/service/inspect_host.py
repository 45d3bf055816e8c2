"""Docker's `HostConfig` of a container: the part that isolation and limits fill."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine.runtime.spec import MASKED_PATHS, READONLY_PATHS
from engine.runtime.spec_mounts import SHM_SIZE
from engine.runtime.spec_security import parse_security_options

if TYPE_CHECKING:
    from engine.model import DeviceLimit, HostConfig


def _limits(entries: tuple[DeviceLimit, ...], key: str = "Rate") -> list[dict[str, Any]]:
    return [{"Path": entry.path, key: entry.rate} for entry in entries]


def host_config_document(spec: HostConfig, runtime: str = "") -> dict[str, Any]:
    """By Docker's names, with its defaults spelt out."""
    bare = spec.privileged or parse_security_options(spec.security_opt).systempaths_unconfined
    return {
        "CapAdd": _capabilities(spec.cap_add),
        "CapDrop": _capabilities(spec.cap_drop),
        "CgroupnsMode": spec.cgroupns_mode or "private",
        "GroupAdd": list(spec.group_add) or None,
        "IpcMode": spec.ipc_mode or "private",
        "OomScoreAdj": spec.oom_score_adj,
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": list(spec.security_opt) or None,
        "UTSMode": spec.uts_mode,
        "UsernsMode": spec.userns_mode,
        "ShmSize": spec.shm_size or SHM_SIZE,
        "Runtime": runtime or "native",
        "Isolation": spec.isolation,
        "CgroupParent": spec.cgroup_parent,
        "Devices": [
            {
                "PathOnHost": device.path_on_host,
                "PathInContainer": device.path_in_container or device.path_on_host,
                "CgroupPermissions": device.cgroup_permissions,
            }
            for device in spec.devices
        ],
        "DeviceCgroupRules": list(spec.device_cgroup_rules) or None,
        "DeviceRequests": None,
        "Ulimits": [{"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft} for limit in spec.ulimits] or None,
        "MaskedPaths": [] if bare else list(MASKED_PATHS if spec.masked_paths is None else spec.masked_paths),
        "ReadonlyPaths": [] if bare else list(READONLY_PATHS if spec.readonly_paths is None else spec.readonly_paths),
        "Cgroup": "",
        "ConsoleSize": [0, 0],
        "ContainerIDFile": "",
        **_resources(spec),
        **{name: value for name, value in _rare(spec).items() if value},
    }


def _rare(spec: HostConfig) -> dict[str, Any]:
    """What Docker leaves out where there is none of it."""
    return {
        "Tmpfs": dict(spec.tmpfs),
        "Sysctls": dict(spec.sysctls),
        "Init": spec.init,
        "Annotations": dict(spec.annotations),
    }


def _resources(spec: HostConfig) -> dict[str, Any]:
    return {
        "CpuShares": spec.cpu_shares,
        "Memory": spec.memory,
        "NanoCpus": round(spec.cpus * 1e9),
        "BlkioWeight": spec.blkio_weight,
        "BlkioWeightDevice": _limits(spec.blkio_weight_device, "Weight"),
        "BlkioDeviceReadBps": _limits(spec.blkio_device_read_bps),
        "BlkioDeviceWriteBps": _limits(spec.blkio_device_write_bps),
        "BlkioDeviceReadIOps": _limits(spec.blkio_device_read_iops),
        "BlkioDeviceWriteIOps": _limits(spec.blkio_device_write_iops),
        "CpuPeriod": spec.cpu_period,
        "CpuQuota": spec.cpu_quota,
        "CpuRealtimePeriod": spec.cpu_rt_period,
        "CpuRealtimeRuntime": spec.cpu_rt_runtime,
        "CpusetCpus": spec.cpuset_cpus,
        "CpusetMems": spec.cpuset_mems,
        "MemoryReservation": spec.memory_reservation,
        "MemorySwap": spec.memory_swap or spec.memory * 2,
        "MemorySwappiness": spec.memory_swappiness if spec.memory_swappiness >= 0 else None,
        "OomKillDisable": spec.oom_kill_disable,
        "PidsLimit": spec.pids_limit or None,
        "CpuCount": 0,  # these four are Windows'
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _capabilities(names: Iterable[str]) -> list[str] | None:
    """With their whole names, however they were written."""
    upper = sorted({name.upper() for name in names})
    return [name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper] or None
