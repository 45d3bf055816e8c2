"""The messages that BuildKit's clients send and understand; only the fields that mean something here.

Numbers are those of moby/buildkit's `.proto` files (control, gateway, filesync, auth, secrets, sshforward, upload) and
tonistiigi/fsutil's `types`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from engine.rest.buildkit.wire import BOOL, BYTES, INT, TEXT, many, mapping, one


@dataclass(slots=True)
class Empty:
    """Of any message without fields of interest."""


@dataclass(slots=True)
class Timestamp:
    """google.protobuf.Timestamp: seconds and nanoseconds since 1970."""

    seconds: int = one(1, INT)
    nanos: int = one(2, INT)

    @classmethod
    def of(cls, moment: float) -> Timestamp:
        return cls(int(moment), int(moment % 1 * 1e9))

    @classmethod
    def now(cls) -> Timestamp:
        return cls.of(time.time())


@dataclass(slots=True)
class AnyMessage:
    """google.protobuf.Any. BuildKit's errors have JSON inside."""

    type_url: str = one(1, TEXT)
    value: bytes = one(2, BYTES)


@dataclass(slots=True)
class RpcStatus:
    """google.rpc.Status."""

    code: int = one(1, INT)
    message: str = one(2, TEXT)
    details: list[AnyMessage] = many(3, AnyMessage)


# --- pb (solver/pb/ops.proto) --------------------------------------------------------------------------------


@dataclass(slots=True)
class Platform:
    architecture: str = one(1, TEXT)
    os: str = one(2, TEXT)
    variant: str = one(3, TEXT)


@dataclass(slots=True)
class SourceOp:
    identifier: str = one(1, TEXT)


@dataclass(slots=True)
class Input:
    digest: str = one(1, TEXT)
    index: int = one(2, INT)


@dataclass(slots=True)
class Op:
    inputs: list[Input] = many(1, Input)
    source: SourceOp | None = one(3, SourceOp)
    platform: Platform | None = one(10, Platform)


@dataclass(slots=True)
class Definition:
    """LLB: marshalled operations, the last one naming the result, and something about each by its digest."""

    operations: list[bytes] = many(1, BYTES)
    metadata: dict[str, Empty] = mapping(2, Empty)


@dataclass(slots=True)
class Position:
    line: int = one(1, INT)
    character: int = one(2, INT)


@dataclass(slots=True)
class Range:
    start: Position | None = one(1, Position)
    end: Position | None = one(2, Position)


@dataclass(slots=True)
class SourceInfo:
    filename: str = one(1, TEXT)
    data: bytes = one(2, BYTES)


# --- control -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CacheEntry:
    type: str = one(1, TEXT)
    attrs: dict[str, str] = mapping(2, TEXT)


@dataclass(slots=True)
class CacheOptions:
    exports: list[CacheEntry] = many(4, CacheEntry)
    imports: list[CacheEntry] = many(5, CacheEntry)


@dataclass(slots=True)
class Exporter:
    type: str = one(1, TEXT)
    attrs: dict[str, str] = mapping(2, TEXT)


@dataclass(slots=True)
class SolveRequest:
    """moby.buildkit.v1.SolveRequest."""

    ref: str = one(1, TEXT)
    definition: Definition | None = one(2, Definition)
    exporter_deprecated: str = one(3, TEXT)
    exporter_attrs_deprecated: dict[str, str] = mapping(4, TEXT)
    session: str = one(5, TEXT)
    frontend: str = one(6, TEXT)
    frontend_attrs: dict[str, str] = mapping(7, TEXT)
    cache: CacheOptions | None = one(8, CacheOptions)
    entitlements: list[str] = many(9, TEXT)
    frontend_inputs: dict[str, Definition] = mapping(10, Definition)
    exporters: list[Exporter] = many(13, Exporter)

    def outputs(self) -> list[Exporter]:
        if self.exporters or not self.exporter_deprecated:
            return self.exporters
        return [Exporter(self.exporter_deprecated, self.exporter_attrs_deprecated)]


@dataclass(slots=True)
class SolveResponse:
    exporter_response: dict[str, str] = mapping(1, TEXT)


@dataclass(slots=True)
class StatusRequest:
    ref: str = one(1, TEXT)


@dataclass(slots=True)
class Vertex:
    digest: str = one(1, TEXT)
    inputs: list[str] = many(2, TEXT)
    name: str = one(3, TEXT)
    cached: bool = one(4, BOOL)
    started: Timestamp | None = one(5, Timestamp)
    completed: Timestamp | None = one(6, Timestamp)
    error: str = one(7, TEXT)


@dataclass(slots=True)
class VertexStatus:
    id: str = one(1, TEXT)
    vertex: str = one(2, TEXT)
    name: str = one(3, TEXT)
    current: int = one(4, INT)
    total: int = one(5, INT)
    timestamp: Timestamp | None = one(6, Timestamp)
    started: Timestamp | None = one(7, Timestamp)
    completed: Timestamp | None = one(8, Timestamp)


@dataclass(slots=True)
class VertexLog:
    vertex: str = one(1, TEXT)
    timestamp: Timestamp | None = one(2, Timestamp)
    stream: int = one(3, INT)
    msg: bytes = one(4, BYTES)


@dataclass(slots=True)
class VertexWarning:
    vertex: str = one(1, TEXT)
    level: int = one(2, INT)
    short: bytes = one(3, BYTES)
    detail: list[bytes] = many(4, BYTES)
    url: str = one(5, TEXT)
    info: SourceInfo | None = one(6, SourceInfo)
    ranges: list[Range] = many(7, Range)


@dataclass(slots=True)
class StatusResponse:
    vertexes: list[Vertex] = many(1, Vertex)
    statuses: list[VertexStatus] = many(2, VertexStatus)
    logs: list[VertexLog] = many(3, VertexLog)
    warnings: list[VertexWarning] = many(4, VertexWarning)


@dataclass(slots=True)
class BuildkitVersion:
    package: str = one(1, TEXT)
    version: str = one(2, TEXT)
    revision: str = one(3, TEXT)


@dataclass(slots=True)
class WorkerRecord:
    id: str = one(1, TEXT)
    labels: dict[str, str] = mapping(2, TEXT)
    platforms: list[Platform] = many(3, Platform)
    buildkit_version: BuildkitVersion | None = one(5, BuildkitVersion)


@dataclass(slots=True)
class ListWorkersResponse:
    record: list[WorkerRecord] = many(1, WorkerRecord)


@dataclass(slots=True)
class InfoResponse:
    buildkit_version: BuildkitVersion | None = one(1, BuildkitVersion)


@dataclass(slots=True)
class UsageRecord:
    id: str = one(1, TEXT)
    mutable: bool = one(2, BOOL)
    in_use: bool = one(3, BOOL)
    size: int = one(4, INT)
    created_at: Timestamp | None = one(6, Timestamp)
    last_used_at: Timestamp | None = one(7, Timestamp)
    usage_count: int = one(8, INT)
    description: str = one(9, TEXT)
    record_type: str = one(10, TEXT)
    shared: bool = one(11, BOOL)


@dataclass(slots=True)
class DiskUsageRequest:
    filter: list[str] = many(1, TEXT)


@dataclass(slots=True)
class DiskUsageResponse:
    record: list[UsageRecord] = many(1, UsageRecord)


@dataclass(slots=True)
class PruneRequest:
    filter: list[str] = many(1, TEXT)
    all: bool = one(2, BOOL)
    keep_duration: int = one(3, INT)  # nanoseconds
    reserved_space: int = one(4, INT)
    max_used_space: int = one(5, INT)
    min_free_space: int = one(6, INT)


# --- the gateway that a build function in the client calls ------------------------------------------------------


@dataclass(slots=True)
class Capability:
    id: str = one(1, TEXT)
    enabled: bool = one(2, BOOL)


@dataclass(slots=True)
class PongResponse:
    frontend_caps: list[Capability] = many(1, Capability)
    llb_caps: list[Capability] = many(2, Capability)
    workers: list[WorkerRecord] = many(3, WorkerRecord)


@dataclass(slots=True)
class GatewaySolveRequest:
    """moby.buildkit.v1.frontend.SolveRequest."""

    definition: Definition | None = one(1, Definition)
    frontend: str = one(2, TEXT)
    frontend_opt: dict[str, str] = mapping(3, TEXT)
    cache_imports: list[CacheEntry] = many(12, CacheEntry)
    frontend_inputs: dict[str, Definition] = mapping(13, Definition)


@dataclass(slots=True)
class Ref:
    id: str = one(1, TEXT)
    definition: Definition | None = one(2, Definition)


@dataclass(slots=True)
class Result:
    ref: Ref | None = one(3, Ref)
    metadata: dict[str, bytes] = mapping(10, BYTES)


@dataclass(slots=True)
class GatewaySolveResponse:
    ref: str = one(1, TEXT)
    result: Result | None = one(3, Result)


@dataclass(slots=True)
class ReturnRequest:
    error: RpcStatus | None = one(2, RpcStatus)


# --- the session: what we call in the client --------------------------------------------------------------------


@dataclass(slots=True)
class Stat:
    """fsutil.types.Stat. `mode` is Go's os.FileMode; `modTime` nanoseconds since 1970."""

    path: str = one(1, TEXT)
    mode: int = one(2, INT)
    uid: int = one(3, INT)
    gid: int = one(4, INT)
    size: int = one(5, INT)
    mod_time: int = one(6, INT)
    linkname: str = one(7, TEXT)
    devmajor: int = one(8, INT)
    devminor: int = one(9, INT)
    xattrs: dict[str, bytes] = mapping(10, BYTES)


@dataclass(slots=True)
class Packet:
    """fsutil.types.Packet."""

    type: int = one(1, INT)
    stat: Stat | None = one(2, Stat)
    id: int = one(3, INT)
    data: bytes = one(4, BYTES)


@dataclass(slots=True)
class BytesMessage:
    data: bytes = one(1, BYTES)


@dataclass(slots=True)
class SecretRequest:
    id: str = one(1, TEXT)


@dataclass(slots=True)
class SecretResponse:
    data: bytes = one(1, BYTES)


@dataclass(slots=True)
class CheckAgentRequest:
    id: str = one(1, TEXT)


@dataclass(slots=True)
class CredentialsRequest:
    host: str = one(1, TEXT)


@dataclass(slots=True)
class CredentialsResponse:
    username: str = one(1, TEXT)
    secret: str = one(2, TEXT)
