"""What a list of containers says of each. Beside `containers`, since `ps` needs nothing of how a container is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container as `ps` shows it; `public_port` 0 and no `ip` when it is only exposed."""

    private_port: int
    type: str  # "tcp", "udp"
    public_port: int = 0
    ip: str = ""


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
    mounts: tuple[Mapping[str, object], ...] = ()  # Docker's Mounts

    @property
    def running(self) -> bool:
        """As Docker has it: also paused, and between two runs of a restart policy."""
        return self.status in ("running", "paused", "restarting")
