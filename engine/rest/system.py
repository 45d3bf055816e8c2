"""`/_ping`, `/version`, `/info`, `/events`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import socket
from collections.abc import AsyncIterator

from engine.api import Engine
from engine.base.clock import rfc3339
from engine.errors import InvalidInput
from engine.rest.event_hub import EventHub
from engine.rest.http import Answer, Request, Response, json_response
from engine.rest.router import API_VERSION, MIN_VERSION, Router
from engine.service.event_filters import check_filters, event_document, matches

_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


class SystemRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine, self._hub = engine, EventHub(engine)
        router.add("GET", "/_ping", self.ping)
        router.add("GET", "/version", self.version)
        router.add("GET", "/info", self.info)
        router.add("GET", "/events", self.events)

    async def ping(self, request: Request) -> Answer:
        headers = {
            "Api-Version": dotted(API_VERSION),
            "Builder-Version": "2",  # docker 18.09 to 20.10 then asks for BuildKit (`engine.rest.buildkit.classic`)
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": "container-workbench (linux)",
            "Swarm": "inactive",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
        }
        return Response(200, b"OK", "text/plain; charset=utf-8", headers)

    async def version(self, request: Request) -> Answer:
        info = await self._engine.info()
        kernel, machine = platform.release(), _ARCH.get(platform.machine(), platform.machine())
        details = {
            "ApiVersion": dotted(API_VERSION),
            "Arch": machine,
            "Experimental": "false",
            "KernelVersion": kernel,
            "MinAPIVersion": dotted(MIN_VERSION),
            "Os": "linux",
        }
        return json_response(
            {
                "Platform": {"Name": "container-workbench"},
                "Components": [{"Name": "Engine", "Version": info.version, "Details": details}],
                "Version": info.version,
                "ApiVersion": dotted(API_VERSION),
                "MinAPIVersion": dotted(MIN_VERSION),
                "GitCommit": "",
                "GoVersion": "",
                "Os": "linux",
                "Arch": machine,
                "KernelVersion": kernel,
                "BuildTime": "",
            }
        )

    async def info(self, request: Request) -> Answer:
        info = await self._engine.info()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return json_response(
            {
                "ID": info.root,
                "Name": socket.gethostname(),
                "Containers": info.containers,
                "ContainersRunning": info.running,
                "ContainersPaused": 0,
                "ContainersStopped": info.containers - info.running,
                "Images": info.images,
                "Driver": "overlay2",
                "DriverStatus": [["Backing Filesystem", "overlayfs"]],
                "Plugins": {
                    "Volume": ["local"],
                    "Network": ["bridge", "host", "none"],
                    "Authorization": None,
                    "Log": ["json-file", "local", "none"],
                },
                "MemoryLimit": info.cgroup != "none",
                "SwapLimit": info.cgroup != "none",
                "CpuCfsPeriod": info.cgroup != "none",
                "CpuCfsQuota": info.cgroup != "none",
                "CPUShares": info.cgroup != "none",
                "CPUSet": info.cgroup != "none",
                "PidsLimit": info.cgroup != "none",
                "IPv4Forwarding": _forwarding(),
                "BridgeNfIptables": False,  # the bridges' rules are nf_tables' own
                "BridgeNfIp6tables": False,
                "KernelMemoryTCP": False,
                "OomKillDisable": info.cgroup in ("v1", "hybrid"),
                "LoggingDriver": "json-file",
                "CgroupDriver": "cgroupfs",
                "CgroupVersion": "2" if info.cgroup == "v2" else "1",
                "NEventsListener": self._hub.listeners,
                "NFd": len(os.listdir("/proc/self/fd")),
                "NGoroutines": len(asyncio.all_tasks()),
                "KernelVersion": info.kernel,
                "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
                "OSVersion": _os_release().get("VERSION_ID", ""),
                "OSType": "linux",
                "Architecture": platform.machine(),
                "NCPU": os.cpu_count() or 1,
                "MemTotal": memory,
                "IndexServerAddress": "https://index.docker.io/v1/",
                "DockerRootDir": info.root,
                "ServerVersion": info.version,
                "SystemTime": rfc3339(),
                "Runtimes": {name: {"path": path or name} for name, path in info.runtimes.items()},
                "DefaultRuntime": info.default_runtime,
                "Swarm": {
                    "NodeID": "",
                    "NodeAddr": "",
                    "LocalNodeState": "inactive",
                    "ControlAvailable": False,
                    "Error": "",
                    "RemoteManagers": None,
                },
                "SecurityOptions": ["name=seccomp,profile=builtin"],
                "Warnings": list(info.notes) or None,
                "Debug": False,
                "ExperimentalBuild": False,
                "LiveRestoreEnabled": True,
                "HttpProxy": "",
                "HttpsProxy": "",
                "NoProxy": "",
                "Labels": [],
                "InitBinary": "",
                "ContainerdCommit": {"ID": ""},
                "RuncCommit": {"ID": ""},
                "InitCommit": {"ID": ""},
                "Isolation": "",
                "GenericResources": None,
                "CDISpecDirs": [],
                "DefaultAddressPools": [
                    *({"Base": f"172.{second}.0.0/16", "Size": 16} for second in range(17, 32)),
                    {"Base": "192.168.0.0/16", "Size": 20},
                ],
                "FirewallBackend": {"Driver": "nftables"},
                "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
            }
        )

    async def events(self, request: Request) -> Answer:
        filters = request.query.filters()
        check_filters(filters)
        since, until = _moment(request.query.text("since")), _moment(request.query.text("until"))
        if since is not None and until is not None and since > until:
            raise InvalidInput(
                f"`since` time ({request.query.text('since')}) cannot be after `until` time ({request.query.text('until')})"
            )
        return Response(200, self._events(filters, since, until))

    async def _events(
        self, filters: dict[str, list[str]], since: int | None, until: int | None
    ) -> AsyncIterator[bytes]:
        yield b""
        async with contextlib.aclosing(self._hub.follow(since, until)) as events:
            async for event in events:
                if matches(event, filters):
                    yield json.dumps(event_document(event)).encode() + b"\n"


def _moment(text: str) -> int | None:
    """Nanoseconds of `1763900000` or `1763900000.123456789`, which is how the client sends every time."""
    if not text:
        return None
    seconds, _, fraction = text.partition(".")
    try:
        return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])
    except ValueError:
        raise InvalidInput(
            f"{text!r} is not a time", hint="seconds since the epoch, with a fraction if need be"
        ) from None


def _forwarding() -> bool:
    try:
        with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
