"""The records that every room and front end exchanges: frozen, plain data. `engine.api` re-exports them.

Times are nanoseconds since the epoch, sizes bytes, durations seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

# --- images ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """One image: its manifest digest is its identity here; `id` is the config digest, as in Docker."""

    id: str  # "sha256:…" of the config
    digest: str  # "sha256:…" of the manifest
    tags: tuple[str, ...]  # familiar form: "python:3.11-slim", "workbench/base:latest"
    created: int
    size: int  # unpacked bytes of all layers
    used_by: tuple[str, ...] = ()  # names of containers
    dangling: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    repo_digests: tuple[str, ...] = ()  # "python@sha256:…", what registries are known to call it


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One line of an image's history, newest last; an instruction without a layer has `diff_id == ""`."""

    index: int
    instruction: str  # "COPY . ." or the created_by text, cleaned
    created_by: str  # as written in the config
    diff_id: str
    size: int
    created: int
    empty: bool
    cached: bool | None = None  # from the last build here; None when it was pulled
    seconds: float | None = None  # what the step cost when it last ran
    reason: str = ""  # why it ran ("app.py content changed") or "" when cached or unknown
    line: int = 0  # Dockerfile line, 0 unknown
    author_build: str = ""


@dataclass(frozen=True, slots=True)
class ImageDetail:
    summary: ImageSummary
    layers: tuple[LayerInfo, ...]
    config: Mapping[str, object]  # the raw image config document
    manifest: Mapping[str, object]
    repo_digests: tuple[str, ...] = ()


# --- containers -----------------------------------------------------------------------------------

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


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
    annotations: Mapping[str, str] = field(default_factory=dict)


def host_config(config: HostConfig) -> dict[str, Any]:
    """The fields of `HostConfig` as keyword arguments for another of its kind."""
    return {entry.name: getattr(config, entry.name) for entry in fields(HostConfig)}


# --- networks -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PortBinding:
    """Where a container's port is published. `host_ip` "" is every address; `host_port` "" any free port, "8000-8010" the
    first free one of a range."""

    host_ip: str = ""
    host_port: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container as `ps` shows it; `public_port` 0 and no `ip` when it is only exposed."""

    private_port: int
    type: str  # "tcp", "udp"
    public_port: int = 0
    ip: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """A container's wishes for one network; "" leaves it to the engine."""

    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    links: tuple[str, ...] = ()  # "container:alias"


@dataclass(frozen=True, slots=True)
class IpamConfig:
    """One subnet of a network, as given to `network create`."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What to make. Names of `options` are Docker's: "com.docker.network.bridge.enable_icc"."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    ipam: tuple[IpamConfig, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network; `config` is what `network inspect` prints."""

    id: str
    name: str
    driver: str
    created: int
    internal: bool
    enable_ipv6: bool
    labels: Mapping[str, str]
    config: Mapping[str, object]
    scope: str = "local"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`name`: "" (no), "no", "always", "unless-stopped", "on-failure", which alone has a maximum (0: none)."""

    name: str = ""
    maximum_retry_count: int = 0


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Docker's: `test` is () (as the image says), ("NONE",), ("CMD", …) or ("CMD-SHELL", line). Times in nanoseconds; 0 is
    as the image says, else Docker's default: 30 s, 30 s, 0, 5 s, 3."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`type`: "" and "json-file" keep a log, "none" keeps none. `config`: max-size, max-file, compress, labels, labels-regex,
    env, env-regex, tag, mode, max-buffer-size."""

    type: str = ""
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerSpec(HostConfig):
    """What to run. None means "as the image says"."""

    image: str
    name: str = ""  # "" picks one
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()  # "K=V", over the image's
    user: str | None = None
    working_dir: str | None = None
    hostname: str = ""  # "" is the short id
    tty: bool = False
    open_stdin: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    volumes: tuple[str, ...] = ()  # paths that get a new anonymous volume (-v /path), beside the image's VOLUMEs
    volumes_from: tuple[str, ...] = ()  # "container[:ro]": its mounts, but where there is one of our own
    volume_driver: str = ""  # of volumes that are made for this container; "" is "local"
    domainname: str = ""
    network_mode: str = "default"  # "default", "bridge", "host", "none", "container:ID", or a network's name
    networks: Mapping[str, EndpointSettings] = field(default_factory=dict)  # by network; also further ones
    port_bindings: Mapping[str, tuple[PortBinding, ...]] = field(default_factory=dict)  # "80/tcp": where
    publish_all: bool = False  # PublishAllPorts
    exposed_ports: tuple[str, ...] = ()  # "80/tcp", beside the image's
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()  # "." is none
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:address", "name:host-gateway"
    mac_address: str = ""  # on its first network
    links: tuple[str, ...] = ()  # "container:alias"
    block_metadata: bool | None = None  # refuse the cloud's metadata addresses; None as the settings say
    stop_signal: str = ""
    stop_timeout: int | None = None
    auto_remove: bool = False
    stdin_once: bool = False  # the program's stdin ends when the client that fed it goes
    attach_stdin: bool = False  # what the starter attaches to, for `inspect`
    attach_stdout: bool = False
    attach_stderr: bool = False
    restart_policy: RestartPolicy = RestartPolicy()
    healthcheck: Healthcheck | None = None  # None is the image's
    log_config: LogConfig = LogConfig()
    log_path: str = ""  # "" is the container's own file; a service's containers share one
    runtime: str = ""  # "" or "native": this engine starts it itself


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    id: str
    name: str
    image: str  # as the user named it
    image_id: str
    command: str
    status: Status
    created: int
    started: int = 0
    finished: int = 0
    exit_code: int | None = None
    pid: int = 0
    ports: tuple[str, ...] = ()  # as `ps` shows them: "0.0.0.0:8080->80/tcp"
    labels: Mapping[str, str] = field(default_factory=dict)
    error: str = ""  # why it did not start, or what happened to its monitor
    oom_killed: bool = False
    health: str = ""  # "", starting, healthy, unhealthy
    restart_count: int = 0  # by its restart policy
    warnings: tuple[str, ...] = ()  # limits that were asked for and do not hold on this host
    networks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # Docker's NetworkSettings.Networks
    network_mode: str = "default"
    published: tuple[Port, ...] = ()  # Docker's Ports

    @property
    def running(self) -> bool:
        """As Docker has it: also paused, and between two runs of a restart policy."""
        return self.status in ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class ContainerDetail:
    summary: ContainerSummary
    spec: ContainerSpec
    config: Mapping[str, object]  # what `docker inspect` prints
    log_path: str


@dataclass(frozen=True, slots=True)
class CpuStats:
    """Times in ns since the container started; `system` is what all CPUs of the host have lived."""

    total: int
    user: int
    kernel: int
    each: tuple[int, ...]  # per CPU; cgroup v1 only
    system: int
    online: int  # CPUs
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes. `used` is `usage` without the page cache that the kernel gives up first: what Docker shows."""

    usage: int
    used: int
    max_usage: int
    limit: int  # the host's memory when there is none
    failures: int
    stat: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NetworkCounter:
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class BlockCounter:
    major: int
    minor: int
    kind: str  # "read", "write"
    size: int  # bytes
    count: int  # operations


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """One reading of a running container. Two readings give the CPU's share (`cpu_percent`)."""

    id: str
    name: str
    time: int
    cpu: CpuStats
    memory: MemoryStats
    networks: Mapping[str, NetworkCounter]
    block: tuple[BlockCounter, ...]
    pids: int
    pids_limit: int  # 0 is none
    cgroup_v2: bool

    def cpu_percent(self, before: ContainerStats | None) -> float:
        """Docker's figure: 100 is one CPU. Without a reading before it is over the host's whole life."""
        used = self.cpu.total - (before.cpu.total if before else 0)
        system = self.cpu.system - (before.cpu.system if before else 0)
        return 100.0 * used / system * self.cpu.online if used > 0 and system > 0 else 0.0

    @property
    def memory_percent(self) -> float:
        return 100.0 * self.memory.used / self.memory.limit if self.memory.limit else 0.0

    def block_bytes(self, kind: str) -> int:
        return sum(one.size for one in self.block if one.kind == kind)


@dataclass(frozen=True, slots=True)
class ProcessList:
    """Processes as ps(1) prints them: titles, and a row for each."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a container's log without its newline.

    `stream` "workbench" marks a rule that the inner loop wrote between two generations of a service.
    `offset` is how far into the log its record ends, in bytes, counting the older files that are there.
    """

    text: str
    stream: Literal["stdout", "stderr", "workbench"]
    time: int
    offset: int = 0


class LogRecord(NamedTuple):
    """A piece of a log exactly as the program wrote it: a line with its newline, or without one a part of a line.

    Bytes that are no UTF-8 are lone surrogates (surrogateescape). `stamp` is RFC 3339 with nine digits of a second.
    """

    text: str
    stream: str
    stamp: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ExecSpec:
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    tty: bool = False
    stdin: bool = False  # False gives it /dev/null
    privileged: bool = False
    detach: bool = False  # nobody holds its streams
    tty_size: tuple[int, int] = (0, 0)  # rows, columns
    id: str = ""  # "" picks one


# --- volumes and files ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A mount of a container as it is: what `inspect` lists under Mounts."""

    type: MountType
    destination: str
    name: str = ""  # of a volume
    source: str = ""  # host path; for an image its name
    driver: str = ""
    mode: str = ""
    read_write: bool = True
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    name: str
    driver: str
    mountpoint: str
    labels: Mapping[str, str]
    options: Mapping[str, str]
    created: int
    scope: str = "local"
    used_by: tuple[str, ...] = ()  # names of containers
    size: int = -1  # bytes; -1 when it was not asked for

    @property
    def anonymous(self) -> bool:
        return "com.docker.volume.anonymous" in self.labels


@dataclass(frozen=True, slots=True)
class PathStat:
    """What a path in a container is (the header X-Docker-Container-Path-Stat). `mode` is st_mode of stat(2)."""

    name: str
    size: int
    mode: int
    mtime: int  # ns
    link_target: str = ""  # of a symbolic link: followed inside the container as far as it goes


@dataclass(frozen=True, slots=True)
class Change:
    """One path that a container's root differs in from its image: "A" added, "C" changed, "D" deleted."""

    kind: Literal["A", "C", "D"]
    path: str


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """`changes` are Dockerfile instructions ("ENV A=1"); `reference` "" leaves the image without a tag."""

    reference: str = ""
    comment: str = ""
    author: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True


# --- engine events --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """What happened to an object: Docker's type and action ("container", "start"), readable by every process."""

    seq: int
    time: int
    type: Literal["container", "image", "build", "volume", "network"]
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One damaged, missing or foreign thing that `check` found in the store."""

    kind: str  # "blob", "layer", "record", "foreign"
    path: str
    problem: str
    mended: bool = False  # by a repair
    why: str = ""  # why a repair could not mend it


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """`shared` bytes are in other images too; what is left of `size` goes when this image goes."""

    image: ImageSummary
    shared: int


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """One entry of the build cache. `in_use`: an image has its layer, so that removing it frees nothing."""

    id: str
    size: int
    last_used: int
    in_use: bool


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What `system df` shows. `containers` and `volumes` pair a name with bytes, and say whether it is in use."""

    images: tuple[ImageUsage, ...]
    layers_size: int  # bytes of all images' layers, each once
    containers: tuple[tuple[ContainerSummary, int], ...]
    volumes: tuple[VolumeInfo, ...]
    cache: tuple[CacheUsage, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed, or with a dry run would remove: names in Docker's words, by kind, and bytes."""

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()  # "untagged: NAME", "deleted: sha256:…"
    volumes: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    reclaimed: int = 0


@dataclass(frozen=True, slots=True)
class SystemInfo:
    version: str
    root: str
    kernel: str
    cgroup: str  # "v1", "v2", "hybrid", "none"
    images: int
    containers: int
    running: int
    notes: tuple[str, ...] = ()  # limits that do not hold here, each in one sentence


# --- pull and build -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PullProgress:
    """State of one blob of a pull (waiting, downloading, extracting, done or exists) or push (uploading, mounted)."""

    reference: str
    layer: str  # short digest; "" speaks of the whole image
    phase: Literal[
        "resolving", "waiting", "downloading", "uploading", "loading", "extracting", "exists", "mounted", "done"
    ]
    current: int = 0
    total: int = 0
    text: str = ""
    rate: float = 0.0  # bytes a second over the last few seconds; 0 when not known
    left: float | None = None  # seconds until this blob is there, at that rate


@dataclass(frozen=True, slots=True)
class BuildSecret:
    """A secret that `RUN --mount=type=secret,id=ID` may ask for. Its value enters neither the image nor a cache key.

    One of `path` (a file on this host), `variable` (of the caller's environment) and `value` is set.
    """

    id: str
    path: Path | None = None
    variable: str = ""
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class SshAgent:
    """What `RUN --mount=type=ssh,id=ID` forwards: an agent's socket, or an agent made of private key files."""

    id: str = "default"
    socket: Path | None = None
    keys: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """Where a result goes (`--output`). `image` is this engine's store; `path` is a folder (local) or a file ("-" is stdout)."""

    type: Literal["image", "local", "tar", "oci", "docker", "registry", "cacheonly"]
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)  # name, push, tar, compression, …


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that came out of an archive. `moved` tells, a sentence each, of tags that another image had before."""

    id: str
    digest: str
    tags: tuple[str, ...]
    moved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing of an image, here and on another host."""

    what: str  # "config", "layer 3", "manifest"
    here: str
    there: str

    @property
    def same(self) -> bool:
        return self.here == self.there


@dataclass(frozen=True, slots=True)
class ImageImport:
    """An image to make of a file system's tar. `changes` are Dockerfile instructions for its config."""

    reference: str = ""  # "" leaves it without a tag
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""  # "" is this host's


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build. Fields bear the names of Docker's flags; empty means "not given"."""

    context: Path
    dockerfile: Path | None = None  # default: context/Dockerfile
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    no_cache_filter: tuple[str, ...] = ()  # stages whose steps run again
    dockerfile_text: str | None = None  # the Dockerfile itself, where it is no file (`-f -`, the API)
    contexts: Mapping[str, str] = field(
        default_factory=dict
    )  # named contexts: a folder, URL, docker-image://…, oci-layout://…
    platforms: tuple[str, ...] = ()  # "linux/arm64"; several give an index
    secrets: tuple[BuildSecret, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    network: str = ""  # of RUN steps: "default", "none", "host"
    add_hosts: tuple[str, ...] = ()  # "name:address"
    ulimits: tuple[str, ...] = ()  # "nofile=1024:2048"
    shm_size: int = 0  # bytes; 0 is 64 MiB
    memory: int = 0  # bytes; 0 no limit
    allow: tuple[str, ...] = ()  # entitlements: "network.host", "security.insecure"
    cache_from: tuple[str, ...] = ()  # "type=registry,ref=…", "type=local,src=…"
    cache_to: tuple[str, ...] = ()
    outputs: tuple[BuildOutput, ...] = ()  # none: the image goes into the store
    annotations: Mapping[str, str] = field(default_factory=dict)  # of the manifest
    host_ca: bool | None = None  # RUN steps trust the host's CA bundle and use its proxies; None: as the setting says
    keep_failed: bool = False  # a RUN that fails leaves an image of its files, environment, user and directory
    changed: frozenset[str] | None = (
        None  # paths below the context that may differ from the last build here; None: look
    )
    allow_metadata: bool = False  # RUN steps may reach the cloud's metadata addresses


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One instruction that the target needs. `number` counts from 1 within the stage; `key` is unique in the build."""

    key: str  # "stage-0/3"
    stage: str  # name, or its index
    number: int
    total: int
    instruction: str  # "COPY . ."
    line: int


@dataclass(frozen=True, slots=True)
class BuildStarted:
    dockerfile: str
    steps: tuple[StepInfo, ...]
    number: int = 0  # in the history: `workbench builds show NUMBER`


@dataclass(frozen=True, slots=True)
class StepStarted:
    step: StepInfo
    reason: str  # why it runs: "app.py content changed", "never built"
    causes: tuple[str, ...] = ()  # all of them, where `reason` names the first two


@dataclass(frozen=True, slots=True)
class StepOutput:
    key: str
    stream: Literal["stdout", "stderr"]
    text: str  # whole lines, control characters as the program wrote them


@dataclass(frozen=True, slots=True)
class StepFinished:
    step: StepInfo
    cached: bool
    seconds: float
    size: int  # bytes the layer adds, 0 for an empty layer
    reason: str = ""
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far a long step is, in bytes. `total` 0: not known."""

    key: str
    current: int
    total: int = 0


@dataclass(frozen=True, slots=True)
class BuildNotice:
    """Something the user should know that is not an error: a huge context, an unreadable ignore file."""

    text: str


@dataclass(frozen=True, slots=True)
class BuildFinished:
    image_id: str  # config digest
    digest: str  # manifest digest
    tags: tuple[str, ...]
    seconds: float
    first_changed: StepInfo | None = None  # the first step that ran; None when all was cached
    reason: str = ""


BuildEvent = (
    PullProgress | BuildStarted | StepStarted | StepOutput | StepProgress | StepFinished | BuildNotice | BuildFinished
)


# --- history of builds ------------------------------------------------------------------------------

BuildStatus = Literal["running", "done", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One line of the history. `interrupted`: the process that built ended without saying how (killed, power cut)."""

    number: int
    status: BuildStatus
    started: int
    seconds: float
    name: str  # first tag, or the folder's name
    context: str
    dockerfile: str
    target: str = ""
    tags: tuple[str, ...] = ()
    image_id: str = ""  # config digest, "" when there is no result
    digest: str = ""
    steps: int = 0
    cached: int = 0
    reason: str = ""  # why its first step that ran did so
    error: str = ""

    @property
    def cache_share(self) -> float:
        """Part of its finished steps that came from the cache, 0 to 1."""
        return self.cached / self.steps if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class BuildStepRecord:
    """A step as it went. `state` "waiting" was never reached; `at` is seconds after the build's start."""

    step: StepInfo
    state: Literal["waiting", "running", "cached", "done", "failed"]
    at: float = 0.0
    seconds: float = 0.0
    size: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuildOutputLine:
    """Output of one step, or of the build itself (`key` ""): whole lines."""

    key: str
    stream: Literal["stdout", "stderr", "note"]
    text: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class BuildDetail:
    record: BuildRecord
    steps: tuple[BuildStepRecord, ...]
    output: tuple[BuildOutputLine, ...]
    args: Mapping[str, str]
    hint: str = ""
    truncated: bool = False  # output beyond the limit was not kept


@dataclass(frozen=True, slots=True)
class FileDifference:
    """One path that two results do not share. Sizes are None where it does not exist; `what` names the difference."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: int | None
    after: int | None
    what: str = ""


@dataclass(frozen=True, slots=True)
class WhyStep:
    """A step that a change would make run, why, and what it cost when it last did (None: it never ran here)."""

    step: StepInfo
    cause: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WhyReport:
    """What a change of `path` would invalidate. `note` says why nothing is, when nothing is."""

    path: str
    steps: tuple[WhyStep, ...] = ()
    stages: tuple[str, ...] = ()
    images: tuple[str, ...] = ()  # tags that builds of this Dockerfile made
    containers: tuple[str, ...] = ()  # names of those that run on such an image
    seconds: float = 0.0  # the steps' costs together
    note: str = ""
