"""Containers: what to run, what runs, what it said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from engine.model.host import HostConfig, Mount
from engine.model.networks import EndpointSettings, PortBinding
from engine.model.summaries import ContainerSummary


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
    """`type`: "" and "json-file" keep a log, "local" a rotated and compressed one, "none" none. `config`: max-size, max-file, compress, labels, labels-regex,
    env, env-regex, tag, mode, max-buffer-size."""

    type: str = ""
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerSpec(HostConfig):
    """What to run. None means "as the image says"."""

    image: str
    name: str = ""  # "" picks one
    platform: str = ""  # "linux/arm64": of an image for several, this one; "" is this machine's
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
    runtime: str = ""  # "" is the default of the settings, "native" this engine's own launcher; else an OCI runtime


@dataclass(frozen=True, slots=True)
class ContainerDetail:
    summary: ContainerSummary
    spec: ContainerSpec
    config: Mapping[str, object]  # what `docker inspect` prints
    log_path: str


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
