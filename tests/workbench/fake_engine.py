"""An engine that does what a test says: lists that actions change, scripted streams, and a note of every call.

engine = FakeEngine(containers=[a_container("web")], images=[an_image("shop-web")])
engine.logs_of["web"] = [LogLine("hello", "stdout", 0, 6)]
engine.fails["stop"] = Conflict("it does not run")
...
assert ("stop", "web") in engine.calls
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from engine.api import (
    BuildDetail,
    BuildEvent,
    BuildRecord,
    BuildRequest,
    Change,
    CommitRequest,
    ContainerDetail,
    ContainerSpec,
    ContainerStats,
    ContainerSummary,
    DiskUsage,
    EngineEvent,
    ExecSpec,
    FileComparison,
    FileContent,
    FileDifference,
    FileStep,
    HostStats,
    ImageDetail,
    ImageSummary,
    ImageUsage,
    LayerInfo,
    LayerWaste,
    LogLine,
    LogRecord,
    NetworkInfo,
    NetworkSpec,
    ProcessList,
    Pruned,
    PullProgress,
    RegistryAuth,
    StepInfo,
    SystemInfo,
    TreeExtent,
    TreeQuery,
    TreeRow,
    VolumeInfo,
    WastedPath,
    WasteReport,
    WhyReport,
)
from engine.errors import EngineError, NotFound
from engine.model.stats import BlockCounter, CpuStats, MemoryStats, NetworkCounter
from engine.project.generations import Generation
from engine.service.log_source import LogPlace
from engine.service.log_tail import TailBook
from tests.patience import PATIENCE

NOW = 1_700_000_000_000_000_000


def digest(text: str) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def a_container(name: str, status: str = "running", image: str = "shop-web", **more: Any) -> ContainerSummary:
    values: dict[str, Any] = {
        "id": digest(f"container {name}")[7:],
        "image": image,
        "image_id": digest(f"config {image}"),
        "command": "python3 app.py",
        "created": NOW,
        "started": NOW,
        "exit_code": None if status in ("running", "paused", "created") else 0,
        "ports": ("0.0.0.0:8000->8000/tcp",) if status == "running" else (),
    }
    return ContainerSummary(name=name, status=status, **(values | more))  # type: ignore[arg-type]


def an_image(tag: str, size: int = 12_000_000, **more: Any) -> ImageSummary:
    full = tag if not tag or ":" in tag else f"{tag}:latest"
    values: dict[str, Any] = {
        "id": digest(f"config {tag}"),
        "digest": digest(f"manifest {tag}"),
        "tags": (full,) if tag else (),
        "created": NOW,
        "size": size,
    }
    return ImageSummary(**(values | more))


def some_layers() -> tuple[LayerInfo, ...]:
    return (
        LayerInfo(0, "FROM workbench/base", "base", digest("base"), 11_000_000, NOW, False, True, None, "", 1),
        LayerInfo(1, "WORKDIR /app", "WORKDIR /app", digest("workdir"), 0, NOW, False, True, 0.002, "", 2),
        LayerInfo(2, "ENV PORT=8000", "ENV PORT=8000", "", 0, NOW, True, None, None, "", 3),
        LayerInfo(3, "COPY app.py .", "COPY app.py .", digest("copy"), 1300, NOW, False, False, 0.041, "app.py content changed", 5),
        LayerInfo(4, 'CMD ["python3", "app.py"]', "CMD", "", 0, NOW, True, None, None, "", 6),
    )  # fmt: skip


def a_reading(name: str, n: int = 1, *, cpu: int = 10_000_000, memory: int = 20_000_000) -> ContainerStats:
    """The `n`th reading of a container, a second after the one before: `cpu` is ns of CPU time a second."""
    return ContainerStats(
        digest(f"container {name}")[7:],
        name,
        NOW + n * 1_000_000_000,
        CpuStats(cpu * n, cpu * n, 0, (), 2_000_000_000 * n, 2),
        MemoryStats(memory, memory, memory, 1_000_000_000, 0, {}),
        {"eth0": NetworkCounter(1000 * n, n, 0, 0, 2000 * n, n, 0, 0)},
        (BlockCounter(8, 0, "read", 4096 * n, n), BlockCounter(8, 0, "write", 8192 * n, n)),
        3,
        0,
        False,
    )


def a_build(number: int, status: str = "done", **more: Any) -> BuildRecord:
    values: dict[str, Any] = {
        "started": NOW,
        "seconds": 0.4,
        "name": "shop-web",
        "context": "/shop",
        "dockerfile": "/shop/Dockerfile",
        "steps": 6,
        "cached": 5,
        "reason": "app.py content changed",
    }
    return BuildRecord(number=number, status=status, **(values | more))  # type: ignore[arg-type]


def a_volume(name: str, **more: Any) -> VolumeInfo:
    return VolumeInfo(name, "local", f"/volumes/{name}", {}, {}, NOW, **more)


def a_network(name: str, **more: Any) -> NetworkInfo:
    config = {"IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}, "Containers": {}}
    return NetworkInfo(digest(f"network {name}")[7:], name, "bridge", NOW, False, False, {}, config, **more)


def steps(*instructions: str) -> tuple[StepInfo, ...]:
    return tuple(StepInfo(f"stage-0/{n}", "0", n, len(instructions), text, n) for n, text in enumerate(instructions, 1))


def a_file(path: str, kind: str = "file", size: int = 10, mark: str = "", layer: int = 3) -> TreeRow:
    mode = 0o755 if kind == "dir" else 0o644
    return TreeRow(path, path.count("/") - 1, kind, mode, 0, 0, size, NOW, mark, layer)  # type: ignore[arg-type]


class FakeTree:
    """Rows in the order that the test gives; folders are open at first."""

    def __init__(self, rows: Sequence[TreeRow]) -> None:
        self._all = list(rows)
        self.query = TreeQuery()
        self._shut: set[str] = set()

    def _rows(self) -> list[TreeRow]:
        import re

        query = self.query
        rows = [row for row in self._all if row.mark in query.marks and re.search(query.pattern, row.path)]
        rows = [row for row in rows if not any(row.path.startswith(f"{shut}/") for shut in self._shut)]
        return [dataclasses.replace(row, open=row.kind == "dir" and row.path not in self._shut) for row in rows]

    async def extent(self) -> TreeExtent:
        marks = [row.mark for row in self._all if row.kind != "dir"]
        counts = (marks.count("A"), marks.count("M"), marks.count("D"))
        return TreeExtent(len(self._rows()), len(marks), 100, *counts, len(self._rows()))

    async def select(self, query: TreeQuery) -> TreeExtent:
        self.query = query
        return await self.extent()

    async def rows(self, first: int, count: int) -> Sequence[TreeRow]:
        return self._rows()[first : first + count]

    async def fold(self, row: int, *, open: bool) -> TreeExtent:
        path = self._rows()[row].path
        self._shut = self._shut - {path} if open else self._shut | {path}
        return await self.extent()

    async def fold_all(self, *, open: bool) -> TreeExtent:
        self._shut = set() if open else {row.path for row in self._all if row.kind == "dir"}
        return await self.extent()

    async def row_of(self, path: str) -> int | None:
        return next((n for n, row in enumerate(self._rows()) if row.path == path), None)


class FakeStream:
    """A terminal's other end: `said` is what the program gets, `say` is what it prints."""

    def __init__(self) -> None:
        self._out: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()
        self.said = b""
        self.sizes: list[tuple[int, int]] = []
        self.closed = self.detached = False
        self.code = 0

    def say(self, data: bytes, stream: str = "stdout") -> None:
        self._out.put_nowait((stream, data))

    def end(self, code: int = 0) -> None:
        self.code = code
        self._out.put_nowait(None)

    async def read(self) -> tuple[str, bytes] | None:
        return await self._out.get()

    async def write(self, data: bytes) -> None:
        self.said += data

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def wait(self) -> int:
        return self.code

    async def detach(self) -> None:
        self.detached = True

    async def close(self) -> None:
        self.closed = True


class FakeEngine:
    """`calls` are tuples of a method's name and its arguments; `fails` maps such a name to the error it raises (once for each
    entry of a list). What is not here raises AttributeError: script it."""

    def __init__(
        self,
        *,
        containers: Sequence[ContainerSummary] = (),
        images: Sequence[ImageSummary] = (),
        volumes: Sequence[VolumeInfo] = (),
        networks: Sequence[NetworkInfo] = (),
        builds: Sequence[BuildRecord] = (),
    ) -> None:
        self.containers_: dict[str, ContainerSummary] = {one.name: one for one in containers}
        self.images_: dict[str, ImageSummary] = {one.digest: one for one in images}
        self.volumes_: dict[str, VolumeInfo] = {one.name: one for one in volumes}
        self.networks_: dict[str, NetworkInfo] = {one.name: one for one in networks}
        self.builds_: dict[int, BuildRecord] = {one.number: one for one in builds}
        self.build_details: dict[int, BuildDetail] = {}
        self.layers_of: dict[str, tuple[LayerInfo, ...]] = {}  # by manifest digest; else `some_layers()`
        self.logs_of: dict[str, list[LogLine]] = {}
        self.readings: dict[str, int] = {}  # how many readings were taken
        self.stats_of: dict[str, list[ContainerStats]] = {}  # else `a_reading`
        self.pulls: dict[str, list[PullProgress]] = {}
        self.build_events: list[BuildEvent] = []
        self.why_reports: list[WhyReport] = []
        self.pruned = Pruned()
        self.host_readings = 0
        self.files: list[TreeRow] = [
            a_file("/app", "dir", 40, "A"),
            a_file("/app/app.py", "file", 40, "A"),
            a_file("/etc", "dir", 9),
        ]
        self.reading: asyncio.Event | None = None  # an index is made until it is set
        self.files_of: dict[str, list[TreeRow]] = {}  # by "IMAGE#LINE"; else `files`
        self.contents: dict[str, bytes] = {}
        self.waste = WasteReport(
            (LayerWaste(0, 11_000_000, 1000), LayerWaste(3, 1300, 0)), (WastedPath("/etc/motd", 1000, 1),)
        )
        self.streams: list[FakeStream] = []
        self.ended = asyncio.Event()  # of the programs that are waited for
        self.changed: list[Change] = []
        self.archives: dict[str, bytes] = {}  # tars by path
        self.differences: list[FileDifference] = []
        self.calls: list[tuple[Any, ...]] = []
        self.fails: dict[str, EngineError | list[EngineError]] = {}
        self.closed = False
        self._events: list[asyncio.Queue[EngineEvent]] = []
        self._lines: dict[str, list[asyncio.Queue[LogLine | None]]] = {}
        self._seq = 0

    # --- for the test -------------------------------------------------------------------------------------------

    def happened(self, type: str, action: str, id: str, **attributes: str) -> None:
        """An event, for every reader."""
        self._seq += 1
        event = EngineEvent(self._seq, NOW + self._seq, type, action, id, attributes)  # type: ignore[arg-type]
        for queue in self._events:
            queue.put_nowait(event)

    def put(self, container: ContainerSummary, action: str = "start") -> None:
        """A container is there now, or is otherwise than before."""
        self.containers_[container.name] = container
        self.happened("container", action, container.id, name=container.name)

    def log(self, name: str, text: str, stream: str = "stdout") -> None:
        """A line more in its log, also for who follows it."""
        kept = self.logs_of.setdefault(name, [])
        offset = (kept[-1].offset if kept else 0) + len(text) + 1
        line = LogLine(text, stream, NOW + offset, offset)  # type: ignore[arg-type]
        kept.append(line)
        for queue in self._lines.get(name, []):
            queue.put_nowait(line)

    def called(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    def _call(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        error = self.fails.get(name)
        if isinstance(error, list):
            if error:
                raise error.pop(0)
        elif error is not None:
            raise error

    def _found(self, name: str) -> ContainerSummary:
        for one in self.containers_.values():
            if name == one.name or one.id.startswith(name):
                return one
        raise NotFound(f"no such container: {name}")

    def _change(self, verb: str, name: str, action: str, **changes: Any) -> None:
        self._call(verb, name)
        self.put(dataclasses.replace(self._found(name), **changes), action)

    # --- the engine: what lists show ------------------------------------------------------------------------------

    async def info(self) -> SystemInfo:
        return SystemInfo("0", "/root", "6.1", "v2", len(self.images_), len(self.containers_), 0)

    async def images(self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None) -> Any:
        self._call("images")
        return tuple(self.images_.values())

    async def containers(self, *, all: bool = False) -> Any:
        self._call("containers")
        return tuple(one for one in self.containers_.values() if all or one.running)

    async def volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> Any:
        return tuple(self.volumes_.values())

    async def networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Any:
        return tuple(self.networks_.values())

    async def builds(self, *, search: str = "", limit: int | None = None) -> Any:
        self._call("builds", search)
        found = sorted(self.builds_.values(), key=lambda one: -one.number)
        return tuple(one for one in found if search in one.name or search in one.reason)[:limit]

    async def disk_usage(self) -> DiskUsage:
        self._call("disk_usage")
        images = tuple(ImageUsage(one, one.size // 2) for one in self.images_.values())
        return DiskUsage(images, sum(one.size for one in self.images_.values()), (), tuple(self.volumes_.values()), ())

    async def events(self, **_: Any) -> AsyncIterator[EngineEvent]:
        queue: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self._events.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._events.remove(queue)

    # --- one of them ------------------------------------------------------------------------------------------------

    async def image(self, name: str) -> ImageDetail:
        self._call("image", name)
        for one in self.images_.values():
            if name in (one.digest, one.id, *one.tags):
                layers = self.layers_of.get(one.digest, some_layers())
                config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["python3", "app.py"]}}
                return ImageDetail(one, layers, config, {"schemaVersion": 2}, ())
        raise NotFound(f"no such image: {name}")

    async def container(self, name: str) -> ContainerDetail:
        self._call("container", name)
        one = self._found(name)
        config = {"Id": one.id, "Name": f"/{one.name}", "State": {"Status": one.status}, "Image": one.image_id}
        return ContainerDetail(one, ContainerSpec(image=one.image, name=one.name), config, f"/logs/{one.name}.log")

    async def container_summary(self, name: str) -> ContainerSummary:
        return self._found(name)

    async def network(self, name: str) -> NetworkInfo:
        for one in self.networks_.values():
            if name in (one.name, one.id):
                return one
        raise NotFound(f"no such network: {name}")

    async def volume(self, name: str) -> VolumeInfo:
        if name not in self.volumes_:
            raise NotFound(f"no such volume: {name}")
        return self.volumes_[name]

    async def build_detail(self, number: int) -> BuildDetail:
        self._call("build_detail", number)
        return self.build_details.get(number) or BuildDetail(self.builds_[number], (), (), {})

    async def build_diff(self, first: int, second: int) -> Any:
        self._call("build_diff", first, second)
        return tuple(self.differences)

    async def image_diff(self, first: str, second: str) -> Any:
        self._call("image_diff", first, second)
        return tuple(self.differences)

    # --- files of layers ----------------------------------------------------------------------------------------

    async def open_files(self, name: str, *, progress: Any = None, depth: int = 0) -> Any:
        self._call("open_files", name, depth)
        files = self.files_of.get(name, self.files)
        if not depth and self.reading is not None:
            progress(12_345)
            await self.reading.wait()
        return FakeTree([row for row in files if not depth or row.path.count("/") <= depth])

    async def image_waste(self, name: str) -> WasteReport:
        self._call("image_waste", name)
        return self.waste

    async def file_history(self, name: str, path: str) -> Any:
        self._call("file_history", name, path)
        return (FileStep(3, "COPY app.py .", 5, "A", "file", 0o644, 0, 0, 12),)

    async def file_content(self, name: str, path: str, *, limit: int = 1 << 20) -> FileContent:
        self._call("file_content", name, path)
        data = self.contents.get(path, b"hello\n")
        return FileContent(path, "file", len(data), data[:limit], b"\0" not in data, len(data) > limit)

    async def file_diff(self, first: str, second: str, path: str) -> FileComparison:
        self._call("file_diff", first, second, path)
        return FileComparison(path, "changed", ("--- a", "+++ b", "@@ -1 +1 @@", "-old", "+new"))

    async def save_file(self, name: str, path: str, out: Any) -> None:
        self._call("save_file", name, path)
        out.write(self.contents.get(path, b"hello\n"))

    async def why(self, request: BuildRequest, paths: Sequence[str]) -> Any:
        self._call("why", request, tuple(paths))
        return tuple(self.why_reports)

    async def stats(self, name: str) -> ContainerStats:
        self._call("stats", name)
        n = self.readings[name] = self.readings.get(name, 0) + 1
        scripted = self.stats_of.get(name)
        return scripted[min(n, len(scripted)) - 1] if scripted else a_reading(name, n)

    async def host_stats(self) -> HostStats:
        self._call("host_stats")
        n = self.host_readings = self.host_readings + 1
        return HostStats(
            NOW + n * 10**9, n * 10**9, 4 * n * 10**9, 4, 2_000_000_000, 8_000_000_000, n * 5000, 0, 0, n * 9000
        )

    async def top(self, name: str, arguments: Sequence[str] = ()) -> ProcessList:
        return ProcessList(("PID", "CMD"), (("1", "python3 app.py"),))

    # --- life -----------------------------------------------------------------------------------------------------------

    async def create(self, spec: ContainerSpec) -> str:
        self._call("create", spec)
        made = a_container(spec.name or "brave_hopper", "created", spec.image)
        self.put(made, "create")
        return made.id

    async def start(self, name: str, *, standby: bool = False) -> None:
        self._change("start", name, "start", status="running", exit_code=None)

    async def stop(self, name: str, *, timeout: int | None = None, signal: str = "", hurry: bool = False) -> bool:
        self._change("stop", name, "die", status="exited", exit_code=0, ports=())
        return False

    async def restart(self, name: str, *, timeout: int | None = None, signal: str = "") -> None:
        self._change("restart", name, "restart", status="running")

    async def kill(self, name: str, signal: str = "KILL") -> None:
        self._change("kill", name, "kill", status="exited", exit_code=137)

    async def pause(self, name: str) -> None:
        self._change("pause", name, "pause", status="paused")

    async def unpause(self, name: str) -> None:
        self._change("unpause", name, "unpause", status="running")

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        self._call("remove", name)
        found = self._found(name)
        del self.containers_[found.name]
        self.happened("container", "destroy", found.id, name=found.name)

    async def rename(self, name: str, new_name: str) -> None:
        self._call("rename", name, new_name)
        found = self._found(name)
        del self.containers_[found.name]
        self.put(dataclasses.replace(found, name=new_name), "rename")

    async def commit(self, name: str, request: CommitRequest) -> str:
        self._call("commit", name, request)
        made = an_image(request.reference)
        self.images_[made.digest] = made
        self.happened("image", "create", made.id)
        return made.id

    async def exec(self, name: str, spec: ExecSpec) -> Any:
        self._call("exec", name, spec)
        self.streams.append(FakeStream())
        return self.streams[-1]

    async def wait(self, name: str) -> int:
        """When the test sets `ended`."""
        await self.ended.wait()
        return 0

    async def changes(self, name: str) -> Sequence[Change]:
        return self.changed

    async def get_archive(self, name: str, path: str, out: Any, **_: Any) -> None:
        self._call("get_archive", name, path)
        out.write(self.archives[path])

    async def attach(self, name: str, **_: Any) -> Any:
        self._call("attach", name)
        self.streams.append(FakeStream())
        return self.streams[-1]

    async def resize(self, name: str, rows: int, columns: int) -> None:
        self._call("resize", name, rows, columns)

    async def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[LogLine]:
        self._call("logs", name)
        queue: asyncio.Queue[LogLine | None] = asyncio.Queue()
        self._lines.setdefault(name, []).append(queue)
        try:
            kept = list(self.logs_of.get(name, []))
            for line in kept if tail is None else kept[-tail:]:
                if since <= line.time and (not until or line.time <= until):
                    yield line
            while follow and (line := await queue.get()):  # type: ignore[assignment]
                yield line
        finally:
            self._lines[name].remove(queue)

    async def open_logs(self, names: Sequence[str]) -> TailBook:
        self._call("open_logs", *names)

        async def find(name: str) -> LogPlace:
            one = self._found(name)
            return LogPlace(one.id, "", one.created)

        return await TailBook.open(names, lambda name, since: self.logs(name, follow=True, since=since), find)

    async def log_records(self, name: str, **more: Any) -> AsyncIterator[Sequence[LogRecord]]:
        async for line in self.logs(name, **more):
            yield [LogRecord(f"{line.text}\n", line.stream, "2023-11-14T22:13:20.000000000Z", {})]

    # --- images and the rest ----------------------------------------------------------------------------------------

    async def tag(self, source: str, target: str) -> None:
        self._call("tag", source, target)
        for one in list(self.images_.values()):
            if source in (one.digest, one.id, *one.tags):
                self.images_[one.digest] = dataclasses.replace(one, tags=(*one.tags, target))
                self.happened("image", "tag", one.id, name=target)

    async def remove_image(self, name: str, *, force: bool = False) -> Any:
        self._call("remove_image", name)
        for one in list(self.images_.values()):
            if name in one.tags and len(one.tags) > 1:
                self.images_[one.digest] = dataclasses.replace(one, tags=tuple(tag for tag in one.tags if tag != name))
                self.happened("image", "untag", one.id, name=name)
                return (f"Untagged: {name}",)
            if name in (one.digest, one.id, *one.tags):
                del self.images_[one.digest]
                self.happened("image", "delete", one.id, name=name)
                return (f"Untagged: {name}", f"Deleted: {one.id}")
        raise NotFound(f"no such image: {name}")

    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, all_tags: bool = False
    ) -> AsyncIterator[PullProgress]:
        self._call("pull", reference)
        for progress in self.pulls.get(reference, [PullProgress(reference, "", "done")]):
            yield progress
        made = an_image(reference)
        self.images_[made.digest] = made
        self.happened("image", "pull", made.id, name=reference)

    async def push(
        self, reference: str, *, target: str = "", auth: RegistryAuth | None = None
    ) -> AsyncIterator[PullProgress]:
        self._call("push", reference)
        for progress in self.pulls.get(reference, [PullProgress(reference, "", "done")]):
            yield progress

    async def build(self, request: BuildRequest) -> AsyncIterator[BuildEvent]:
        self._call("build", request)
        for event in self.build_events:
            yield event

    async def remove_build(self, number: int) -> None:
        self._call("remove_build", number)
        del self.builds_[number]
        self.happened("build", "delete", str(number))

    async def prune_system(self, filters: Any = None, *, dry_run: bool = False, **more: Any) -> Pruned:
        self._call("prune_system", dry_run, more)
        return self.pruned

    async def create_volume(self, name: str = "", **more: Any) -> VolumeInfo:
        self._call("create_volume", name)
        made = self.volumes_[name] = a_volume(name)
        self.happened("volume", "create", name)
        return made

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        self._call("remove_volume", name)
        del self.volumes_[name]
        self.happened("volume", "destroy", name)

    async def create_network(self, spec: NetworkSpec) -> str:
        self._call("create_network", spec)
        made = self.networks_[spec.name] = a_network(spec.name)
        self.happened("network", "create", made.id, name=spec.name)
        return made.id

    async def remove_network(self, name: str) -> None:
        self._call("remove_network", name)
        found = await self.network(name)
        del self.networks_[found.name]
        self.happened("network", "destroy", found.id, name=found.name)

    async def close(self) -> None:
        self.closed = True


class FakeLoop:
    """A project's loop: the test says what it reports."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.rebuilt: list[str | None] = []
        self.requests: dict[str, BuildRequest] = {}
        self.rolled_back: list[tuple[str, int]] = []
        self.closed = False

    def report(self, *events: Any) -> None:
        for event in events:
            self._queue.put_nowait(event)

    async def events(self) -> AsyncIterator[Any]:
        while True:
            yield await self._queue.get()

    async def rebuild(self, service: str | None = None) -> None:
        self.rebuilt.append(service)

    def request(self, service: str) -> BuildRequest | None:
        return self.requests.get(service)

    def generations(self, service: str) -> Any:
        """Two of every service; the second one serves."""
        made = [Generation(n, digest(f"config {n}"), NOW, ("app.py",), "COPY app.py .") for n in (1, 2)]
        return made, 2

    async def rollback(self, service: str, number: int) -> None:
        self.rolled_back.append((service, number))

    async def close(self) -> None:
        self.closed = True


async def until(pilot: Any, ready: Any, seconds: float = PATIENCE) -> None:
    """Lets the app work until `ready()`."""
    async with asyncio.timeout(seconds):
        while not ready():
            await pilot.pause(0.01)
