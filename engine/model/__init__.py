"""The records that every room and front end exchanges: frozen, plain data. `engine.api` re-exports them.

Times are nanoseconds since the epoch, sizes bytes, durations seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.model.build import (
        BuildEvent,
        BuildFinished,
        BuildNotice,
        BuildOutput,
        BuildRequest,
        BuildSecret,
        BuildStarted,
        SshAgent,
        StepFinished,
        StepInfo,
        StepOutput,
        StepProgress,
        StepStarted,
    )
    from engine.model.containers import (
        ContainerDetail,
        ContainerSpec,
        ExecSpec,
        Healthcheck,
        LogConfig,
        LogLine,
        LogRecord,
        RestartPolicy,
    )
    from engine.model.files import Change, CommitRequest, MountPoint, PathStat, VolumeInfo
    from engine.model.history import (
        BuildDetail,
        BuildOutputLine,
        BuildRecord,
        BuildStatus,
        BuildStepRecord,
        FileDifference,
        WhyReport,
        WhyStep,
    )
    from engine.model.host import Device, DeviceLimit, HostConfig, Mount, MountType, Resources, Ulimit, host_config
    from engine.model.images import ImageDetail, ImageManifest, ImageSummary, LayerInfo
    from engine.model.logs import LogExtent, LogHit, LogQuery, LogRow
    from engine.model.networks import EndpointSettings, IpamConfig, NetworkInfo, NetworkSpec, PortBinding
    from engine.model.stats import (
        BlockCounter,
        ContainerStats,
        CpuStats,
        HostStats,
        MemoryStats,
        NetworkCounter,
        ProcessList,
    )
    from engine.model.summaries import ContainerSummary, Port, Status
    from engine.model.syncs import Drift, SyncEntry, SyncResult
    from engine.model.system import CacheUsage, CheckFinding, DiskUsage, EngineEvent, ImageUsage, Pruned, SystemInfo
    from engine.model.transfers import (
        Comparison,
        Distribution,
        ImageImport,
        LoadedImage,
        PullProgress,
        RegistryAuth,
        RegistryDocument,
        RegistryMatch,
    )
    from engine.model.trees import (
        FileComparison,
        FileContent,
        FileKind,
        FileStep,
        LayerWaste,
        Mark,
        TreeExtent,
        TreeQuery,
        TreeRow,
        WastedPath,
        WasteReport,
    )

# A hundred records take longer to make than most commands to run: a module of them is loaded when one of its names is asked for.
_NAMES = {
    "build": "BuildEvent BuildFinished BuildNotice BuildOutput BuildRequest BuildSecret BuildStarted SshAgent StepFinished StepInfo StepOutput StepProgress StepStarted",
    "containers": "ContainerDetail ContainerSpec ExecSpec Healthcheck LogConfig LogLine LogRecord RestartPolicy",
    "files": "Change CommitRequest MountPoint PathStat VolumeInfo",
    "history": "BuildDetail BuildOutputLine BuildRecord BuildStatus BuildStepRecord FileDifference WhyReport WhyStep",
    "host": "Device DeviceLimit HostConfig Mount MountType Resources Ulimit host_config",
    "images": "ImageDetail ImageManifest ImageSummary LayerInfo",
    "logs": "LogExtent LogHit LogQuery LogRow",
    "networks": "EndpointSettings IpamConfig NetworkInfo NetworkSpec PortBinding",
    "stats": "BlockCounter ContainerStats CpuStats HostStats MemoryStats NetworkCounter ProcessList",
    "summaries": "ContainerSummary Port Status",
    "syncs": "Drift SyncEntry SyncResult",
    "system": "CacheUsage CheckFinding DiskUsage EngineEvent ImageUsage Pruned SystemInfo",
    "transfers": "Comparison Distribution ImageImport LoadedImage PullProgress RegistryAuth RegistryDocument "
    "RegistryMatch",
    "trees": "FileComparison FileContent FileKind FileStep LayerWaste Mark TreeExtent TreeQuery TreeRow WastedPath WasteReport",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "BlockCounter",
    "BuildDetail",
    "BuildEvent",
    "BuildFinished",
    "BuildNotice",
    "BuildOutput",
    "BuildOutputLine",
    "BuildRecord",
    "BuildRequest",
    "BuildSecret",
    "BuildStarted",
    "BuildStatus",
    "BuildStepRecord",
    "CacheUsage",
    "Change",
    "CheckFinding",
    "CommitRequest",
    "Comparison",
    "ContainerDetail",
    "ContainerSpec",
    "ContainerStats",
    "ContainerSummary",
    "CpuStats",
    "Device",
    "DeviceLimit",
    "DiskUsage",
    "Distribution",
    "Drift",
    "EndpointSettings",
    "EngineEvent",
    "ExecSpec",
    "FileComparison",
    "FileContent",
    "FileDifference",
    "FileKind",
    "FileStep",
    "Healthcheck",
    "HostConfig",
    "HostStats",
    "ImageDetail",
    "ImageImport",
    "ImageManifest",
    "ImageSummary",
    "ImageUsage",
    "IpamConfig",
    "LayerInfo",
    "LayerWaste",
    "LoadedImage",
    "LogConfig",
    "LogExtent",
    "LogHit",
    "LogLine",
    "LogQuery",
    "LogRecord",
    "LogRow",
    "Mark",
    "MemoryStats",
    "Mount",
    "MountPoint",
    "MountType",
    "NetworkCounter",
    "NetworkInfo",
    "NetworkSpec",
    "PathStat",
    "Port",
    "PortBinding",
    "ProcessList",
    "Pruned",
    "PullProgress",
    "RegistryAuth",
    "RegistryDocument",
    "RegistryMatch",
    "Resources",
    "RestartPolicy",
    "SshAgent",
    "Status",
    "StepFinished",
    "StepInfo",
    "StepOutput",
    "StepProgress",
    "StepStarted",
    "SyncEntry",
    "SyncResult",
    "SystemInfo",
    "TreeExtent",
    "TreeQuery",
    "TreeRow",
    "Ulimit",
    "VolumeInfo",
    "WasteReport",
    "WastedPath",
    "WhyReport",
    "WhyStep",
    "host_config",
]
