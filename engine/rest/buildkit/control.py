"""The services that a client of BuildKit calls: `Control`, and `LLBBridge`, by which buildx asks from within its own build function.

buildx calls `Control.Solve` with outputs and no frontend, and meanwhile `LLBBridge.Solve` with the Dockerfile's options, `Return` and
`Control.Status`; all name the same build ("ref"). Others call `Control.Solve` with the frontend itself.
"""

from __future__ import annotations

import contextlib
import platform as machine
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from engine.api import CacheUsage, Engine
from engine.errors import EngineError, InvalidInput, Unsupported
from engine.rest.buildkit import messages, wire
from engine.rest.buildkit.builds import Builds
from engine.rest.buildkit.errors import returned, rpc_error
from engine.rest.buildkit.jobs import Jobs
from engine.rest.buildkit.messages import (
    BuildkitVersion,
    Capability,
    Empty,
    GatewaySolveRequest,
    GatewaySolveResponse,
    PongResponse,
    Ref,
    Result,
    SolveRequest,
    SolveResponse,
    WorkerRecord,
)
from engine.rest.buildkit.request import Wanted, check_frontend

_VERSION = BuildkitVersion("github.com/moby/buildkit", "v0.13.0", "")
_CAPABILITIES = (
    "solve.base",
    "return",
    "returnmap",
    "proto.refarray",
    "importcaches",
    "gateway.solve.metadata",
    "frontend.caps",
    "reference.output",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.solve.evaluate",
)
# Of LLB, what the definitions of our own results (`Outcome.definition`) and their like need.
_LLB = ("source.image", "constraints", "platform", "meta.description")
# What looks into a result, or runs something in it, while the build function is at work.
_ABSENT = (
    "ResolveImageConfig", "ResolveSourceMeta", "ReadFile", "ReadDir", "StatFile", "Inputs", "NewContainer",
    "ReleaseContainer", "ExecProcess", "ReadFileContainer", "ReadDirContainer", "StatFileContainer",
)  # fmt: skip


class Control:
    """Every method that is served, for one engine."""

    def __init__(self, engine: Engine, builds: Builds, jobs: Jobs) -> None:
        self._engine, self._builds, self._jobs = engine, builds, jobs

    def methods(self) -> dict[str, Handler]:
        control, bridge = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
        return {
            control + "Solve": _unary(self.solve, SolveRequest),
            control + "Status": Handler(
                self.status, Cardinality.UNARY_STREAM, messages.StatusRequest, messages.StatusResponse
            ),
            control + "ListWorkers": _unary(self.workers, Empty),
            control + "Info": _unary(self.info, Empty),
            control + "DiskUsage": _unary(self.usage, messages.DiskUsageRequest),
            control + "Prune": Handler(
                self.prune, Cardinality.UNARY_STREAM, messages.PruneRequest, messages.UsageRecord
            ),
            bridge + "Ping": _unary(self.ping, Empty),
            bridge + "Solve": _unary(self.gateway_solve, GatewaySolveRequest),
            bridge + "Return": _unary(self.gateway_return, messages.ReturnRequest),
            bridge + "Warn": _unary(self.nothing, Empty),
            bridge + "Evaluate": _unary(self.nothing, Empty),
            **{control + name: _absent(name) for name in ("Session", "ListenBuildHistory", "UpdateBuildHistory")},
            **{bridge + name: _absent(name) for name in _ABSENT},
        }

    # --- builds ------------------------------------------------------------------------------------------

    async def solve(self, stream: Any, request: SolveRequest) -> SolveResponse:
        async with self._jobs.job(request.ref) as job:
            job.begin(request)
            try:
                if request.frontend:
                    check_frontend(request.frontend, request.frontend_attrs)
                    wanted = _wanted(request.frontend_attrs, request)
                    outcome = await self._builds.build(job, wanted, request.session)
                elif request.definition is not None and request.definition.operations:
                    raise Unsupported("builds of raw LLB are not supported", hint="build a Dockerfile")
                else:
                    outcome = await job.returned
                return SolveResponse(dict(outcome.response))
            finally:
                job.end()

    async def gateway_solve(self, stream: Any, request: GatewaySolveRequest) -> GatewaySolveResponse:
        if request.definition is not None and request.definition.operations and not request.frontend:
            if not _image_of(request.definition):
                raise Unsupported("builds of raw LLB are not supported", hint="build a Dockerfile")
            return GatewaySolveResponse(result=Result(Ref("result", request.definition)))  # one of ours, which is there
        async with self._jobs.job(_build_id(stream)) as job:
            asked = await job.asked()
            if not request.frontend:  # an empty result
                return GatewaySolveResponse(result=Result(Ref()))
            check_frontend(request.frontend, request.frontend_opt)
            wanted = _wanted(request.frontend_opt, asked, request)
            job.outcome = await self._builds.build(job, wanted, asked.session)
            result = Result(Ref(job.ref, job.outcome.definition), dict(job.outcome.metadata))
            return GatewaySolveResponse(result=result)

    async def gateway_return(self, stream: Any, request: messages.ReturnRequest) -> Empty:
        """The client's build function has ended: with it the build."""
        async with self._jobs.job(_build_id(stream)) as job:
            failed = request.error is not None and request.error.code
            job.give(returned(request.error) if request.error is not None and failed else job.outcome)
        return Empty()

    async def status(self, stream: Any) -> None:
        request = await stream.recv_message()
        async with self._jobs.job(request.ref if request else "") as job:
            async for message in job.progress():
                await stream.send_message(message)

    # --- what there is -----------------------------------------------------------------------------------

    async def ping(self, stream: Any, request: Empty) -> PongResponse:
        capabilities = [Capability(name, True) for name in _CAPABILITIES]
        return PongResponse(capabilities, [Capability(name, True) for name in _LLB], [await self._worker()])

    async def workers(self, stream: Any, request: Empty) -> messages.ListWorkersResponse:
        return messages.ListWorkersResponse([await self._worker()])

    async def _worker(self) -> WorkerRecord:
        system = machine.machine()
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(system, system)
        # The label that says that several platforms, archives and caches can be made (buildx `driver/docker/driver.go`).
        labels = {
            "org.mobyproject.buildkit.worker.moby.host-gateway-ip": await self._gateway(),
            "org.mobyproject.buildkit.worker.snapshotter": "overlayfs",
        }
        return WorkerRecord("workbench", labels, [messages.Platform(architecture, "linux")], _VERSION)

    async def _gateway(self) -> str:
        """The address that `host-gateway` stands for; "" on a host without a bridge."""
        with contextlib.suppress(EngineError):
            config: Any = (await self._engine.network("bridge")).config
            return str(config["IPAM"]["Config"][0].get("Gateway", ""))
        return ""

    async def info(self, stream: Any, request: Empty) -> messages.InfoResponse:
        return messages.InfoResponse(_VERSION)

    async def nothing(self, stream: Any, request: Empty) -> Empty:
        return Empty()

    async def usage(self, stream: Any, request: messages.DiskUsageRequest) -> messages.DiskUsageResponse:
        if any(request.filter):
            raise Unsupported("filters of the build cache's list are not supported")
        return messages.DiskUsageResponse([_usage(entry) for entry in await self._engine.build_cache()])

    async def prune(self, stream: Any) -> None:
        request = await stream.recv_message()
        with _as_status():
            for record in await self._pruned(request or messages.PruneRequest()):
                await stream.send_message(record)

    async def _pruned(self, request: messages.PruneRequest) -> list[messages.UsageRecord]:
        if request.max_used_space or request.min_free_space:
            raise Unsupported("--max-used-space and --min-free-space are not known here")
        filters = {"until": [f"{request.keep_duration // 10**9}s"]} if request.keep_duration else {}
        for text in filter(None, request.filter):
            name, equals, value = text.partition("==")
            if not equals:
                raise Unsupported(f"the filter {text!r} is not supported", hint="until, id and in-use are")
            filters.setdefault(name, []).append(value)
        known = {entry.id: entry for entry in await self._engine.build_cache()}
        pruned = await self._engine.prune_build_cache(
            filters, all=request.all, keep_bytes=request.reserved_space or None
        )
        return [_usage(known[name]) for name in pruned.cache if name in known]


def _wanted(options: dict[str, str], solve: SolveRequest, gateway: GatewaySolveRequest | None = None) -> Wanted:
    cache = solve.cache or messages.CacheOptions()
    inputs = gateway.frontend_inputs if gateway is not None else solve.frontend_inputs
    return Wanted(
        options,
        solve.outputs(),
        cache.exports,
        [*cache.imports, *(gateway.cache_imports if gateway is not None else ())],
        solve.entitlements,
        {name: place for name, given in inputs.items() if (place := _image_of(given))},
    )


def _image_of(definition: messages.Definition) -> str:
    """The image that a result of ours names itself by (`Outcome.definition`)."""
    for part in definition.operations:
        with contextlib.suppress(wire.Malformed):
            operation = wire.decode(part, messages.Op)
            if operation.source is not None:
                return operation.source.identifier
    return ""


def _usage(entry: CacheUsage) -> messages.UsageRecord:
    used = messages.Timestamp.of(entry.last_used / 10**9)
    return messages.UsageRecord(
        entry.id, in_use=entry.in_use, size=entry.size, created_at=used, last_used_at=used, usage_count=1,
        record_type="regular", shared=entry.in_use,
    )  # fmt: skip


def _build_id(stream: Any) -> str:
    """The gateway's calls name their build in the metadata (moby/buildkit `client/buildid`)."""
    found = (stream.metadata or {}).get("buildkit-controlapi-buildid", "")
    if not found:
        raise InvalidInput("the call names no build")
    return str(found)


@contextlib.contextmanager
def _as_status() -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise rpc_error(error) from error


def _unary(method: Callable[[Any, Any], Awaitable[Any]], request: type) -> Handler:
    async def called(stream: Any) -> None:
        with _as_status():
            message = await stream.recv_message()
            if message is None:
                raise InvalidInput("the call has no message")
            await stream.send_message(await method(stream, message))

    return Handler(called, Cardinality.UNARY_UNARY, request, object)


def _absent(name: str) -> Handler:
    """Answered as a BuildKit without it does: grpclib's own answer has no content type, which Go's clients take for a broken server."""

    async def called(stream: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, f"{name} is not supported by this engine")

    return Handler(called, Cardinality.STREAM_STREAM, Empty, Empty)
