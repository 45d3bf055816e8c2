"""How a container is kept apart from the host and what it may use: Docker's HostConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

MountType = Literal["bind", "volume", "tmpfs", "image"]


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount as it was asked for; the fields are Docker's (HostConfig.Mounts and its options), in snake case.

    `source` is an absolute host path (bind), a volume's name ("": a new anonymous one), an image, or "" (tmpfs).
    """

    source: str = ""
    target: str = ""
    read_only: bool = False
    type: MountType = "bind"
    consistency: str = ""  # means nothing on Linux; kept for `inspect`
    propagation: str = ""  # bind: rprivate (""), private, rshared, shared, rslave, slave
    non_recursive: bool = False  # bind: without the mounts below the source
    create_source: bool = False  # bind: a missing source becomes a folder
    read_only_non_recursive: bool = False  # bind: the mounts below stay writable
    read_only_force_recursive: bool = False  # bind: all read-only, or an error
    no_copy: bool = False  # volume: without the image's content
    labels: Mapping[str, str] = field(default_factory=dict)  # volume: of one that is made for this mount
    subpath: str = ""  # volume, image: a path inside it
    driver: str = ""
    driver_options: Mapping[str, str] = field(default_factory=dict)
    tmpfs_size: int = 0  # bytes; 0 is half the memory
    tmpfs_mode: int = 0  # permission bits; 0 is 1777
    tmpfs_options: tuple[str, ...] = ()
    bind: str = ""  # the text, where it came from -v (HostConfig.Binds): "data:/data:ro"
    mode: str = ""  # the options of that text: "ro,z"


@dataclass(frozen=True, slots=True)
class Device:
    """A host device shown in the container. `path_on_host` may be a folder: then every device in it."""

    path_on_host: str
    path_in_container: str = ""  # "" is the host's path
    cgroup_permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class DeviceLimit:
    """A block device's weight (10 to 1000), or its limit in bytes or operations a second."""

    path: str
    rate: int


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A limit of setrlimit(2); -1 is none. `name` in lower case without RLIMIT_: "nofile"."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What `update` can change while a container runs: Docker's HostConfig.Resources. 0, "" and () are "not set"."""

    memory: int = 0  # bytes
    memory_swap: int = 0  # memory plus swap; 0 is twice the memory, -1 no limit
    memory_reservation: int = 0
    memory_swappiness: int = -1  # 0 to 100; -1 is the host's
    oom_kill_disable: bool = False
    cpus: float = 0.0  # Docker's NanoCpus / 1e9
    cpu_shares: int = 0
    cpu_period: int = 0  # microseconds
    cpu_quota: int = 0  # microseconds in a period
    cpu_rt_period: int = 0  # microseconds; of the real-time scheduler, which cgroup v1 alone has
    cpu_rt_runtime: int = 0  # microseconds in such a period
    cpuset_cpus: str = ""  # "0-2,4"
    cpuset_mems: str = ""
    pids_limit: int = 0  # -1 takes a limit away (update)
    blkio_weight: int = 0  # 10 to 1000
    blkio_weight_device: tuple[DeviceLimit, ...] = ()
    blkio_device_read_bps: tuple[DeviceLimit, ...] = ()
    blkio_device_write_bps: tuple[DeviceLimit, ...] = ()
    blkio_device_read_iops: tuple[DeviceLimit, ...] = ()
    blkio_device_write_iops: tuple[DeviceLimit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig(Resources):
    """How a container is kept apart from the host: the names are those of Docker's HostConfig."""

    read_only: bool = False  # ReadonlyRootfs
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    # "no-new-privileges", "seccomp=unconfined", "seccomp={json}", "apparmor=name", "systempaths=unconfined", ...
    security_opt: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] | None = None  # None: Docker's; (), as with systempaths=unconfined, none
    readonly_paths: tuple[str, ...] | None = None
    pid_mode: str = ""  # "", "host", "container:ID"
    ipc_mode: str = ""  # "" (private), "none", "private", "shareable", "host", "container:ID"
    uts_mode: str = ""  # "", "host"
    cgroupns_mode: str = ""  # "" (private), "private", "host"
    userns_mode: str = ""  # "" (as the engine is set up), "host"
    tmpfs: Mapping[str, str] = field(default_factory=dict)  # path in the container: options of mount(8)
    shm_size: int = 0  # bytes; 0 is 64 MiB
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()  # "c 1:3 rwm"
    group_add: tuple[str, ...] = ()
    oom_score_adj: int = 0
    init: bool = False  # a small init as process 1: it forwards signals and reaps
    cgroup_parent: str = ""
    isolation: str = ""  # "" or "default": others are for Windows
    annotations: Mapping[str, str] = field(default_factory=dict)


def host_config(config: HostConfig) -> dict[str, Any]:
    """The fields of `HostConfig` as keyword arguments for another of its kind."""
    return {entry.name: getattr(config, entry.name) for entry in fields(HostConfig)}
