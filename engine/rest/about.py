"""What the engine says of itself: the versions of the API that it speaks, and Docker's document of `/info`."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

from engine.base.clock import rfc3339
from engine.model import SystemInfo

API_VERSION = (1, 51)  # the newest that docker 28 speaks
MIN_VERSION = (1, 24)
_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def machine_name() -> str:
    """The host's architecture as Go and OCI call it."""
    return _ARCH.get(platform.machine(), platform.machine())


def info_document(info: SystemInfo) -> dict[str, Any]:
    """Another engine's own document, or one of what this engine and host are."""
    if info.document:
        return dict(info.document)
    release, limits = _os_release(), info.cgroup != "none"
    return {
        "ID": info.root,
        "Name": socket.gethostname(),
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.containers - info.running - info.paused,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "none"],
            "Authorization": None,
            "Log": ["json-file", "local", "none"],
        },
        "MemoryLimit": limits,
        "SwapLimit": limits,
        "CpuCfsPeriod": limits,
        "CpuCfsQuota": limits,
        "CPUShares": limits,
        "CPUSet": limits,
        "PidsLimit": limits,
        "IPv4Forwarding": _forwarding(),
        "BridgeNfIptables": False,  # the bridges' rules are nf_tables' own
        "BridgeNfIp6tables": False,
        "KernelMemoryTCP": False,
        "OomKillDisable": info.cgroup in ("v1", "hybrid"),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if info.cgroup == "v2" else "1",
        "KernelVersion": info.kernel,
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
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
        "FirewallBackend": {"Driver": "nftables"},
        "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
    }


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
