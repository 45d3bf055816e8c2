"""Docker's documents turned into the engine's records. Pure. What an engine leaves out is empty, never guessed."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from engine.base.clock import parse_rfc3339
from engine.errors import EngineError
from engine.model import (
    BlockCounter,
    ContainerDetail,
    ContainerSpec,
    ContainerStats,
    ContainerSummary,
    CpuStats,
    EngineEvent,
    MemoryStats,
    NetworkCounter,
    NetworkInfo,
    PathStat,
    Port,
    Status,
    VolumeInfo,
)
from engine.network.ports import displayable
from engine.service.wire import container_spec_of

_STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_CODE = re.compile(r"\((\d+)\)")
_AGE = re.compile(r"(\d+|an?) (second|minute|hour|day|week|month|year)s?", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000, "year": 31536000}


def moment(text: object) -> int:
    """Nanoseconds since the epoch; 0 for Go's zero time and for what is no time."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return 0
    try:
        return parse_rfc3339(text)
    except ValueError:
        return 0


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def texts(value: object) -> tuple[str, ...]:
    return tuple(str(entry) for entry in value) if isinstance(value, list) else ()


# --- containers -----------------------------------------------------------------------------------------


def _age(text: str) -> int:
    """Nanoseconds of "About a minute", "5 minutes ago"; a list tells ages in words alone, and shows them so again."""
    if "Less than a second" in text:
        return 0
    if found := _AGE.search(text):
        number = 1 if found[1].lower() in ("a", "an") else int(found[1])
        return number * _SECONDS[found[2].lower()] * 1_000_000_000
    return 0


def _status(state: str) -> Status:
    # Podman has further words.
    known = {"configured": "created", "stopped": "exited", "stopping": "running", "initialized": "created"}
    return cast("Status", state if state in _STATUSES else known.get(state, "dead"))


def list_row(row: Mapping[str, Any], now: int | None = None) -> ContainerSummary:
    """A row of `GET /containers/json`. When it started or ended is only known as `ps` prints it."""
    now = time.time_ns() if now is None else now
    text, status = str(row.get("Status") or ""), _status(str(row.get("State") or ""))
    code = _CODE.search(text)
    age = now - _age(text) if text else 0
    up = status in ("running", "paused")
    health = next((word for word in ("unhealthy", "healthy", "starting") if word in text), "") if up else ""
    published = tuple(_port(port) for port in rows(row.get("Ports")))
    names = texts(row.get("Names"))
    # A link gives a container further names, with a slash in them.
    name = next((name for name in names if "/" not in name.lstrip("/")), names[0] if names else "")
    shown = displayable(published)
    return ContainerSummary(
        str(row.get("Id") or ""),
        name.lstrip("/"),
        str(row.get("Image") or ""),
        str(row.get("ImageID") or ""),
        str(row.get("Command") or ""),
        status,
        int(row.get("Created") or 0) * 1_000_000_000,
        started=age if up else 0,
        finished=age if status in ("exited", "dead", "restarting") else 0,
        exit_code=int(code[1]) if code and status in ("exited", "dead", "restarting") else None,
        ports=tuple(shown.split(", ")) if shown else (),
        labels=dict(mapping(row.get("Labels"))),
        health=health,
        networks=dict(mapping(mapping(row.get("NetworkSettings")).get("Networks"))),
        network_mode=str(mapping(row.get("HostConfig")).get("NetworkMode") or "default"),
        published=published,
        mounts=tuple(rows(row.get("Mounts"))),
    )


def _port(port: Mapping[str, Any]) -> Port:
    return Port(
        int(port.get("PrivatePort") or 0),
        str(port.get("Type") or "tcp"),
        int(port.get("PublicPort") or 0),
        str(port.get("IP") or ""),
    )


def inspected(document: Mapping[str, Any]) -> ContainerDetail:
    """`GET /containers/X/json`."""
    return ContainerDetail(_summary(document), _spec(document), document, str(document.get("LogPath") or ""))


def _summary(document: Mapping[str, Any]) -> ContainerSummary:
    state, config = mapping(document.get("State")), mapping(document.get("Config"))
    network, host = mapping(document.get("NetworkSettings")), mapping(document.get("HostConfig"))
    status = _status(str(state.get("Status") or ""))
    words = [str(document.get("Path") or ""), *texts(document.get("Args"))]
    published = _published(mapping(network.get("Ports")))
    shown = displayable(published)
    code = state.get("ExitCode")
    return ContainerSummary(
        str(document.get("Id") or ""),
        str(document.get("Name") or "").lstrip("/"),
        str(config.get("Image") or ""),
        str(document.get("Image") or ""),
        " ".join(f"'{word}'" if " " in word else word for word in words),
        status,
        moment(document.get("Created")),
        moment(state.get("StartedAt")),
        moment(state.get("FinishedAt")),
        int(code) if isinstance(code, int) and status in ("exited", "dead", "restarting") else None,
        int(state.get("Pid") or 0),
        ports=tuple(shown.split(", ")) if shown else (),
        mounts=tuple(rows(document.get("Mounts"))),
        labels=dict(mapping(config.get("Labels"))),
        error=str(state.get("Error") or ""),
        oom_killed=bool(state.get("OOMKilled")),
        health=_health(state),
        restart_count=int(document.get("RestartCount") or 0),
        networks=dict(mapping(network.get("Networks"))),
        network_mode=str(host.get("NetworkMode") or "default"),
        published=published,
    )


def _health(state: Mapping[str, Any]) -> str:
    found = str(mapping(state.get("Health")).get("Status") or "")
    return "" if found == "none" else found


def _published(ports: Mapping[str, Any]) -> tuple[Port, ...]:
    found = []
    for name, bindings in ports.items():
        number, _, kind = name.partition("/")
        if not number.isdigit():
            continue
        for binding in rows(bindings):
            public = str(binding.get("HostPort") or "")
            found.append(
                Port(int(number), kind, int(public) if public.isdigit() else 0, str(binding.get("HostIp") or ""))
            )
        if not rows(bindings):
            found.append(Port(int(number), kind))
    return tuple(found)


def _spec(document: Mapping[str, Any]) -> ContainerSpec:
    """What was asked for, as far as `inspect` tells."""
    config = mapping(document.get("Config"))
    networks = mapping(mapping(document.get("NetworkSettings")).get("Networks"))
    body = {
        **config,
        "HostConfig": document.get("HostConfig"),
        "NetworkingConfig": {"EndpointsConfig": {name: mapping(each) for name, each in networks.items()}},
    }
    name = str(document.get("Name") or "").lstrip("/")
    try:
        return container_spec_of(body, name)
    except EngineError:  # it has what this engine's records have no words for; what the front ends need is these
        return ContainerSpec(
            image=str(config.get("Image") or ""),
            name=name,
            tty=bool(config.get("Tty")),
            open_stdin=bool(config.get("OpenStdin")),
            labels=dict(mapping(config.get("Labels"))),
        )


# --- stats ----------------------------------------------------------------------------------------------


def stats(document: Mapping[str, Any]) -> ContainerStats:
    """One reading of `GET /containers/X/stats`."""
    cpu, usage = mapping(document.get("cpu_stats")), mapping(mapping(document.get("cpu_stats")).get("cpu_usage"))
    throttled = mapping(cpu.get("throttling_data"))
    each = [int(value) for value in usage.get("percpu_usage") or ()]
    pids = mapping(document.get("pids_stats"))
    limit = int(pids.get("limit") or 0)
    memory = mapping(document.get("memory_stats"))
    return ContainerStats(
        str(document.get("id") or ""),
        str(document.get("name") or "").lstrip("/"),
        moment(document.get("read")),
        CpuStats(
            int(usage.get("total_usage") or 0),
            int(usage.get("usage_in_usermode") or 0),
            int(usage.get("usage_in_kernelmode") or 0),
            tuple(each),
            int(cpu.get("system_cpu_usage") or 0),
            int(cpu.get("online_cpus") or len(each) or 1),
            int(throttled.get("periods") or 0),
            int(throttled.get("throttled_periods") or 0),
            int(throttled.get("throttled_time") or 0),
        ),
        _memory(memory),
        {name: _counter(mapping(counter)) for name, counter in mapping(document.get("networks")).items()},
        _blocks(mapping(document.get("blkio_stats"))),
        int(pids.get("current") or 0),
        0 if limit >= 1 << 62 else limit,
        "max_usage" not in memory,
    )


def _memory(memory: Mapping[str, Any]) -> MemoryStats:
    numbers = {key: int(value) for key, value in mapping(memory.get("stats")).items() if isinstance(value, int)}
    usage = int(memory.get("usage") or 0)
    # The page cache that the kernel gives up first: v1, then v2 (docker/cli, calculateMemUsageUnixNoCache).
    cache = numbers.get("total_inactive_file", numbers.get("inactive_file", 0))
    return MemoryStats(
        usage,
        usage - cache if cache < usage else usage,
        int(memory.get("max_usage") or 0),
        int(memory.get("limit") or 0),
        int(memory.get("failcnt") or 0),
        numbers,
    )


def _counter(counter: Mapping[str, Any]) -> NetworkCounter:
    names = ("bytes", "packets", "errors", "dropped")
    return NetworkCounter(*(int(counter.get(f"{way}_{name}") or 0) for way in ("rx", "tx") for name in names))


def _blocks(document: Mapping[str, Any]) -> tuple[BlockCounter, ...]:
    found: dict[tuple[int, int, str], list[int]] = {}
    for index, name in enumerate(("io_service_bytes_recursive", "io_serviced_recursive")):
        for row in rows(document.get(name)):
            kind = str(row.get("op") or "").lower()
            if kind in ("read", "write"):
                key = (int(row.get("major") or 0), int(row.get("minor") or 0), kind)
                found.setdefault(key, [0, 0])[index] = int(row.get("value") or 0)
    return tuple(BlockCounter(*key, *values) for key, values in found.items())


# --- files ----------------------------------------------------------------------------------------------

_GO_TYPES = (
    (1 << 31, stat.S_IFDIR),
    (1 << 27, stat.S_IFLNK),
    (1 << 21, stat.S_IFCHR),
    (1 << 26, stat.S_IFBLK),
    (1 << 25, stat.S_IFIFO),
    (1 << 24, stat.S_IFSOCK),
)


def path_stat(document: Mapping[str, Any]) -> PathStat:
    """The header X-Docker-Container-Path-Stat; its mode has Go's bits (pkg.go.dev/io/fs#FileMode)."""
    go = int(document.get("mode") or 0)
    mode = go & 0o777 | next((kind for bit, kind in _GO_TYPES if go & bit), stat.S_IFREG)
    for bit, flag in ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX)):
        mode |= flag if go & bit else 0
    return PathStat(
        str(document.get("name") or ""),
        int(document.get("size") or 0),
        mode,
        moment(document.get("mtime")),
        str(document.get("linkTarget") or ""),
    )


# --- networks, volumes, events --------------------------------------------------------------------------


def network(document: Mapping[str, Any]) -> NetworkInfo:
    return NetworkInfo(
        str(document.get("Id") or ""),
        str(document.get("Name") or ""),
        str(document.get("Driver") or ""),
        moment(document.get("Created")),
        bool(document.get("Internal")),
        bool(document.get("EnableIPv6")),
        dict(mapping(document.get("Labels"))),
        document,
        str(document.get("Scope") or "local"),
    )


def volume(document: Mapping[str, Any], used_by: Sequence[str] = ()) -> VolumeInfo:
    usage = mapping(document.get("UsageData"))
    return VolumeInfo(
        str(document.get("Name") or ""),
        str(document.get("Driver") or "local"),
        str(document.get("Mountpoint") or ""),
        dict(mapping(document.get("Labels"))),
        dict(mapping(document.get("Options"))),
        moment(document.get("CreatedAt")),
        str(document.get("Scope") or "local"),
        tuple(used_by),
        int(usage.get("Size", -1)),
    )


def event(document: Mapping[str, Any]) -> EngineEvent:
    """The time of an event stands for its sequence number: it grows, and asking for what came after it works."""
    actor = mapping(document.get("Actor"))
    when = int(document.get("timeNano") or int(document.get("time") or 0) * 1_000_000_000)
    return EngineEvent(
        when,
        when,
        cast("Any", str(document.get("Type") or "container")),
        str(document.get("Action") or document.get("status") or ""),
        str(actor.get("ID") or document.get("id") or ""),
        {str(key): str(value) for key, value in mapping(actor.get("Attributes")).items()},
    )
