"""The engine in this process: `engine.api.Engine` over the services, blocking work on threads."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar

from engine.base.cancel import CancelToken
from engine.base.clock import parse_rfc3339
from engine.errors import InvalidInput
from engine.linux.inotify import Inotify
from engine.model import (
    EndpointSettings,
    EngineEvent,
    ImageDetail,
    LayerInfo,
    SystemInfo,
)
from engine.runtime.client import Runtime
from engine.runtime.places import runtime_dir as runtime_dir
from engine.service import oci_runtimes
from engine.service.containers import ContainerService
from engine.service.images import BASE, ImageService
from engine.service.logs import LogReader
from engine.service.streams import ThreadStream, on_thread, stream
from engine.service.system import describe_host
from engine.service.volumes import VolumeService
from engine.store.store import Store

if TYPE_CHECKING:
    from engine.api import Sink, Stream
    from engine.model import (
        BuildDetail,
        BuildEvent,
        BuildRecord,
        BuildRequest,
        CacheUsage,
        Change,
        CheckFinding,
        CommitRequest,
        Comparison,
        ContainerDetail,
        ContainerSpec,
        ContainerStats,
        ContainerSummary,
        DiskUsage,
        Drift,
        ExecSpec,
        FileDifference,
        ImageImport,
        ImageSummary,
        LoadedImage,
        LogLine,
        LogRecord,
        NetworkInfo,
        NetworkSpec,
        PathStat,
        ProcessList,
        Pruned,
        PullProgress,
        Resources,
        RestartPolicy,
        SyncEntry,
        SyncResult,
        VolumeInfo,
        WhyReport,
    )
    from engine.service.archives import ArchiveService
    from engine.service.builds import BuildService
    from engine.service.commit import CommitService
    from engine.service.files import FileService
    from engine.service.life import Condition
    from engine.service.ssh import SshService
    from engine.service.syncing import SyncService
    from engine.service.transfers import TransferService
    from engine.service.upkeep import UpkeepService
    from engine.service.usage import UsageService
    from engine.store.images import Image

T = TypeVar("T")


async def open_engine(root: Path) -> LocalEngine:
    """Opens the engine on a data root. Raises `AccessDenied`, `StorageFull`, `Unsupported`, `Corrupt`."""
    return await asyncio.to_thread(LocalEngine, root)


_REMOVER = "import sys; sys.path.append(sys.argv[1]); from engine.local import reconcile; reconcile(sys.argv[2])"


def reconcile(root: str) -> None:
    """Opens the engine, does what monitors have left to it (see `service.life`), and goes."""
    from engine.errors import EngineError

    with contextlib.suppress(EngineError, OSError):
        engine = LocalEngine(Path(root))
        engine._containers.life.reconcile()


class LocalEngine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = Store(root)
        self._runtime = Runtime(runtime_dir(root))
        self._images = ImageService(self._store)
        self._volumes = VolumeService(self._store)
        # What a monitor runs when an auto-remove container has ended and no engine waits for it.
        remover = (sys.executable, "-I", "-c", _REMOVER, str(Path(__file__).parent.parent), str(root))
        self._containers = ContainerService(self._store, self._runtime, remover)

    # The rest is imported when it is first used: `workbench ps` and `run` are processes, and theirs is the time that a
    # builder, a registry client or an archive reader takes to load.

    @functools.cached_property
    def _transfers(self) -> TransferService:
        from engine.service.transfers import TransferService

        return TransferService(self._store)

    @functools.cached_property
    def _archives(self) -> ArchiveService:
        from engine.service.archives import ArchiveService

        return ArchiveService(self._store)

    @functools.cached_property
    def _ssh(self) -> SshService:
        from engine.service.ssh import SshService

        return SshService(self._store, self._archives.unpack)

    @functools.cached_property
    def _usage(self) -> UsageService:
        from engine.service.usage import UsageService

        return UsageService(self._store, self._runtime, self._containers)

    @functools.cached_property
    def _upkeep(self) -> UpkeepService:
        from engine.service.upkeep import UpkeepService

        return UpkeepService(self._store, self._images, self._containers, self._volumes, self._images.summaries)

    @functools.cached_property
    def _files(self) -> FileService:
        from engine.service.files import FileService

        return FileService(self._store, self._runtime, self._containers)

    @functools.cached_property
    def _syncs(self) -> SyncService:
        from engine.service.syncing import SyncService

        return SyncService(self._store, self._runtime, self._containers, self._files)

    @functools.cached_property
    def _commits(self) -> CommitService:
        from engine.service.commit import CommitService

        return CommitService(self._store, self._runtime, self._containers)

    @functools.cached_property
    def _builds(self) -> BuildService:
        from engine.service.builds import BuildService

        return BuildService(self._store, self._runtime, self._images)

    async def close(self) -> None:
        if "_builds" in self.__dict__:
            await asyncio.to_thread(self._builds.close)
        await asyncio.to_thread(self._store.close)

    async def _do(self, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)

    # --- system ---------------------------------------------------------------------------------------

    async def info(self) -> SystemInfo:
        cgroup, notes = await self._do(describe_host)
        runtimes = await self._do(oci_runtimes.available, self.root)
        containers = await self.containers(all=True)
        return SystemInfo(
            "0.1.0",
            str(self.root),
            platform.release(),
            cgroup,
            len(await self.images(all=True)),
            len(containers),
            sum(container.running for container in containers),
            tuple(notes),
            {oci_runtimes.NATIVE: "", **{name: one.path for name, one in runtimes.items()}},
            await self._do(oci_runtimes.default, self.root),
        )

    async def check(self, *, repair: bool = False) -> Sequence[CheckFinding]:
        from engine.service.repair import RepairService

        service = RepairService(self._store)
        if repair:
            return await self._cancellable(service.repair)
        return await self._do(service.check)

    # --- images ---------------------------------------------------------------------------------------

    async def images(
        self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None
    ) -> Sequence[ImageSummary]:
        found = await self._do(self._images.filtered, filters or {})
        return [image for image in found if all or not image.dangling or "dangling" in (filters or {})]

    async def image(self, name: str) -> ImageDetail:
        return await self._do(self._image_detail, name)

    def _image_detail(self, name: str) -> ImageDetail:
        image = self._store.images.get(name)
        config, manifest = self._store.images.config(image), self._store.images.manifest(image)
        return ImageDetail(
            self._images.summary(image, self._images.users()),
            tuple(self._layers(image)),
            config.document,
            manifest.document,
            tuple(self._store.images.repo_digests(image)),
        )

    def _layers(self, image: Image) -> list[LayerInfo]:
        config = self._store.images.config(image)
        from engine.oci.chain import chain_ids

        chains = iter(zip(config.diff_ids, chain_ids(config.diff_ids), strict=True))
        steps = self._store.images.steps(image)
        layers = []
        for index, history in enumerate(config.history):
            step = steps[index] if index < len(steps) else {}
            diff_id, chain = ("", None) if history.empty_layer else next(chains, ("", None))
            record = self._store.layers.get(chain) if chain else None
            with contextlib.suppress(ValueError):
                created = parse_rfc3339(history.created) if history.created else 0
            layers.append(
                _layer(
                    index,
                    history.created_by,
                    str(diff_id),
                    record.size if record else 0,
                    created,
                    history.empty_layer,
                    step,
                )
            )
        return layers

    async def tag(self, source: str, target: str) -> None:
        await self._do(self._images.tag, source, target)

    async def keep_images(self, owner: str, images: Sequence[str]) -> None:
        await self._do(self._images.keep, owner, images)

    async def remove_image(self, name: str, *, force: bool = False) -> Sequence[str]:
        image = await self._do(self._store.images.get, name)
        return await self._do(self._images.remove, name, self._images.users().get(image.digest, []), force=force)

    def pull(self, reference: str) -> AsyncIterator[PullProgress]:
        return stream(lambda emit, cancel: self._images.pull(reference, emit, cancel))

    async def prune_images(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, dry_run: bool = False
    ) -> Pruned:
        return await self._do(self._upkeep.prune_images, filters or {}, dry_run=dry_run)

    async def prune_containers(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, dry_run: bool = False
    ) -> Pruned:
        return await self._do(self._upkeep.prune_containers, filters or {}, dry_run=dry_run)

    async def prune_system(
        self,
        filters: Mapping[str, Sequence[str]] | None = None,
        *,
        all: bool = False,
        volumes: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        return await self._do(self._upkeep.prune_system, filters or {}, all=all, volumes=volumes, dry_run=dry_run)

    async def build_cache(self) -> Sequence[CacheUsage]:
        from engine.service.build_cache import BuildCache

        return await self._do(BuildCache(self._store).usage)

    async def prune_build_cache(
        self,
        filters: Mapping[str, Sequence[str]] | None = None,
        *,
        all: bool = False,
        keep_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        from engine.service.build_cache import BuildCache

        cache = BuildCache(self._store)
        return await self._do(cache.prune, filters or {}, everything=all, keep_bytes=keep_bytes, dry_run=dry_run)

    async def disk_usage(self) -> DiskUsage:
        return await self._do(self._upkeep.disk_usage)

    def push(self, reference: str, *, target: str = "") -> AsyncIterator[PullProgress]:
        return stream(lambda emit, cancel: self._transfers.push(reference, emit, cancel, target=target))

    async def push_to_host(self, url: str, name: str) -> str:
        return await self._cancellable(lambda cancel: self._ssh.push(url, name, cancel))

    async def pull_from_host(self, url: str, name: str) -> ImageSummary:
        image = await self._cancellable(lambda cancel: self._ssh.pull(url, name, cancel))
        return self._images.summary(image, self._images.users())

    async def verify_on_host(self, url: str, name: str) -> Sequence[Comparison]:
        return await self._do(self._ssh.verify, url, name)

    async def _cancellable(self, work: Callable[[CancelToken], T]) -> T:
        cancel = CancelToken()
        try:
            return await asyncio.to_thread(work, cancel)
        finally:
            cancel.cancel()

    def save(
        self, names: Sequence[str], out: Sink, *, format: Literal["docker-archive", "oci-archive"] = "docker-archive"
    ) -> AsyncIterator[PullProgress]:
        return stream(lambda emit, cancel: self._archives.save(names, out, emit, cancel, format=format))

    def load(self, source: BinaryIO) -> AsyncIterator[PullProgress | LoadedImage]:
        return stream(lambda emit, cancel: self._archives.load(source, emit, cancel))

    async def import_image(self, source: BinaryIO, request: ImageImport) -> ImageSummary:
        image = await self._do(self._archives.import_, source, request, lambda event: None, CancelToken())
        return self._images.summary(image, {})

    def build(self, request: BuildRequest) -> AsyncIterator[BuildEvent]:
        return stream(lambda emit, cancel: self._builds.build(request, emit, cancel))

    async def builds(self, *, search: str = "", limit: int | None = None) -> Sequence[BuildRecord]:
        return await self._do(self._builds.history.records, search=search, limit=limit)

    async def build_detail(self, number: int) -> BuildDetail:
        return await self._do(self._builds.history.detail, number)

    async def build_diff(self, first: int, second: int) -> Sequence[FileDifference]:
        return await self._do(self._builds.diff, first, second)

    async def image_diff(self, first: str, second: str) -> Sequence[FileDifference]:
        return await self._do(self._builds.image_diff, first, second)

    async def remove_build(self, number: int) -> None:
        await self._do(self._builds.history.remove, number)

    async def why(self, request: BuildRequest, paths: Sequence[str]) -> Sequence[WhyReport]:
        return await self._do(lambda: [self._builds.why(request, path) for path in paths])

    async def ensure_base(self) -> str:
        await self._do(self._images.ensure_base)
        return BASE

    # --- containers -----------------------------------------------------------------------------------

    async def containers(self, *, all: bool = False) -> Sequence[ContainerSummary]:
        await self._do(self._containers.life.reconcile)
        return await self._do(self._containers.list, all=all)

    async def container(self, name: str) -> ContainerDetail:
        return await self._do(self._containers.detail, name)

    async def container_summary(self, name: str) -> ContainerSummary:
        return await self._do(self._containers.summary, name)

    async def create(self, spec: ContainerSpec) -> str:
        return await self._do(self._containers.create, spec)

    async def start(self, name: str, *, standby: bool = False) -> None:
        await self._do(self._containers.start, name, standby=standby)

    async def take_over(self, name: str, old: str, *, aside: str) -> None:
        await self._do(self._containers.take_over, name, old, aside)

    async def attach(self, name: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> Stream:
        work = functools.partial(self._containers.attach, name, stdin=stdin, stdout=stdout, stderr=stderr)
        return ThreadStream(await asyncio.to_thread(work))

    async def start_attached(self, name: str) -> Stream:
        connection = await self._do(self._containers.start, name, attach=True)
        assert connection is not None  # attach=True always gives one
        return ThreadStream(connection)

    async def stop(self, name: str, *, timeout: int | None = None, signal: str = "", hurry: bool = False) -> bool:
        return await self._do(self._containers.life.stop, name, timeout, signal, hurry=hurry)

    async def restart(self, name: str, *, timeout: int | None = None, signal: str = "") -> None:
        await self._do(self._containers.life.restart, name, timeout, signal)

    async def kill(self, name: str, signal: str = "KILL") -> None:
        await self._do(self._containers.life.kill, name, signal)

    async def pause(self, name: str) -> None:
        await self._do(self._containers.life.pause, name)

    async def unpause(self, name: str) -> None:
        await self._do(self._containers.life.unpause, name)

    async def resize(self, name: str, rows: int, columns: int) -> None:
        container_id, _ = await self._do(self._containers.resolve, name)
        await self._do(self._runtime.resize, container_id, rows, columns)

    async def resume(self) -> Sequence[str]:
        """Starts what has a restart policy and does not run, as Docker's daemon does when it starts; returns the names."""
        return await self._do(self._containers.life.resume)

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        await self._do(self._containers.remove, name, force=force, volumes=volumes)

    async def stats(self, name: str) -> ContainerStats:
        return await self._do(self._usage.stats, name)

    async def top(self, name: str, arguments: Sequence[str] = ()) -> ProcessList:
        return await self._do(self._usage.top, name, arguments)

    async def update(
        self, name: str, changes: Resources, *, restart_policy: RestartPolicy | None = None
    ) -> Sequence[str]:
        return await self._do(self._usage.update, name, changes, restart_policy)

    async def rename(self, name: str, new_name: str) -> None:
        await self._do(self._containers.rename, name, new_name)

    async def wait(self, name: str, *, condition: Condition = "not-running") -> int:
        cancel = CancelToken()
        try:
            return await on_thread(lambda: self._containers.life.wait(name, condition, cancel))
        finally:
            cancel.cancel()

    async def execs(self, name: str) -> Sequence[Mapping[str, object]]:
        """`{"id", "pid", "exit_code"}` of what runs in it beside its first process, or lately did."""
        container_id, _ = await self._do(self._containers.resolve, name)
        return await self._do(self._runtime.execs, container_id)

    async def exec(self, name: str, spec: ExecSpec) -> Stream:
        return ThreadStream(await self._do(self._containers.exec, name, spec))

    # --- files ----------------------------------------------------------------------------------------

    async def stat_path(self, name: str, path: str) -> PathStat:
        return await self._do(self._files.stat, name, path)

    async def get_archive(
        self, name: str, path: str, out: Sink, *, started: Callable[[PathStat], None] | None = None
    ) -> PathStat:
        cancel = CancelToken()
        with _cancelling(cancel):
            return await self._do(self._files.get, name, path, out, started, cancel)

    async def put_archive(
        self,
        name: str,
        path: str,
        source: BinaryIO,
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        cancel = CancelToken()
        with _cancelling(cancel):
            await self._do(
                self._files.put,
                name,
                path,
                source,
                keep_kinds=no_overwrite_dir_non_dir,
                copy_owner=copy_uid_gid,
                cancel=cancel,
            )

    async def export(self, name: str, out: Sink) -> None:
        cancel = CancelToken()
        with _cancelling(cancel):
            await self._do(self._files.export, name, out, cancel)

    async def changes(self, name: str) -> Sequence[Change]:
        return await self._do(self._commits.changes, name)

    async def commit(self, name: str, request: CommitRequest) -> str:
        cancel = CancelToken()
        with _cancelling(cancel):
            return (await self._do(self._commits.commit, name, request, cancel)).config_digest

    # --- the inner loop ---------------------------------------------------------------------------------

    async def sync(self, name: str, entries: Sequence[SyncEntry]) -> SyncResult:
        cancel = CancelToken()
        with _cancelling(cancel):
            return await self._do(self._syncs.sync, name, entries, cancel)

    async def drift(self, name: str, image: str = "") -> Sequence[Drift]:
        return await self._do(self._syncs.drift, name, image)

    async def listening(self, name: str) -> frozenset[int]:
        return await self._do(self._syncs.listening, name)

    # --- networks -------------------------------------------------------------------------------------

    async def networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[NetworkInfo]:
        return await self._do(self._containers.networks.list, filters)

    async def network(self, name: str) -> NetworkInfo:
        return await self._do(self._containers.networks.info, name)

    async def create_network(self, spec: NetworkSpec) -> str:
        return await self._do(self._containers.networks.create, spec)

    async def remove_network(self, name: str) -> None:
        await self._do(self._containers.networks.remove, name)

    async def prune_networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[str]:
        return await self._do(self._containers.networks.prune, filters)

    async def connect_network(self, network: str, container: str, settings: EndpointSettings | None = None) -> None:
        await self._do(self._containers.connect, network, container, settings or EndpointSettings())

    async def disconnect_network(self, network: str, container: str, *, force: bool = False) -> None:
        await self._do(self._containers.disconnect, network, container, force=force)

    # --- volumes --------------------------------------------------------------------------------------

    async def volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[VolumeInfo]:
        return await self._do(self._volumes.list, filters)

    async def volume(self, name: str) -> VolumeInfo:
        return await self._do(self._volumes.get, name)

    async def create_volume(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        return await self._do(self._volumes.create, name, driver, labels, options)

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        await self._do(self._volumes.remove, name, force=force)

    async def prune_volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Sequence[str], int]:
        return await self._do(self._volumes.prune, filters)

    # --- logs and events ------------------------------------------------------------------------------

    async def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[LogLine]:
        async with contextlib.aclosing(self._follow(name, follow, tail, since, until)) as readers:
            async for reader in readers:
                for line in reader.lines():
                    yield line

    async def log_records(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[Sequence[LogRecord]]:
        async with contextlib.aclosing(self._follow(name, follow, tail, since, until)) as readers:
            async for reader in readers:
                for batch in reader.records():
                    yield batch

    async def _follow(
        self, name: str, follow: bool, tail: int | None, since: int, until: int
    ) -> AsyncGenerator[LogReader, None]:
        """The reader each time that it may have more."""
        container_id, record = await self._do(self._containers.resolve, name)
        if (record["spec"].get("log_config") or {}).get("type") == "none":
            raise InvalidInput(
                "configured logging driver does not support reading", hint="it was made with --log-driver"
            )
        path, bundle = Path(str(record["log_path"])), self._containers.bundle(container_id)
        if not path.exists():
            if not follow or self._runtime.state(bundle).status != "created":
                return
            path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640))
        with (
            _Hints([str(path.parent), str(bundle)]) as hints,
            await self._do(LogReader, path, tail=tail, since=since, until=until) as reader,
        ):
            while True:
                state = self._runtime.state(bundle)
                alive = follow and bundle.exists() and (state.active or state.status == "created")
                yield reader
                left = (until - time.time_ns()) / 1e9 if until else 5.0
                if not alive or left <= 0:
                    return
                await hints.wait(min(left, 5.0))

    async def write_rule(self, log_path: str, text: str) -> None:
        await self._do(self._containers.write_rule, log_path, text)

    async def events(
        self, *, since: int | None = None, since_time: int | None = None, until: int | None = None
    ) -> AsyncIterator[EngineEvent]:
        records = self._store.records
        await self._do(self._containers.life.reconcile)
        if since_time is not None:
            rows = await self._do(records.read, "SELECT * FROM events WHERE time >= ? ORDER BY time, seq", since_time)
            seq = max((int(row["seq"]) for row in rows), default=-1)
            for row in rows:
                if until is None or row["time"] <= until:
                    yield _event(row)
        else:
            seq = -1 if since is None else since
        if seq < 0:
            (row,) = await self._do(records.read, "SELECT max(seq) AS last FROM events")
            seq = row["last"] or 0
        with _Hints([str(self._store.root), str(self._store.containers)]) as hints:
            watched: set[str] = set()
            while until is None or time.time_ns() < until:
                for path in self._store.containers.iterdir():
                    if path.name not in watched:
                        watched.add(path.name)
                        hints.add(str(path))
                await self._do(self._containers.life.reconcile)
                for row in await self._do(records.read, "SELECT * FROM events WHERE seq > ? ORDER BY seq", seq):
                    seq = int(row["seq"])
                    yield _event(row)
                await hints.wait(30.0 if until is None else max(min((until - time.time_ns()) / 1e9, 30.0), 0.0))


def _event(row: sqlite3.Row) -> EngineEvent:
    return EngineEvent(
        int(row["seq"]), row["time"], row["type"], row["action"], row["id"], json.loads(row["attributes"])
    )


@contextlib.contextmanager
def _cancelling(cancel: CancelToken) -> Iterator[None]:
    """The work on its thread ends when the task that waits for it is cancelled."""
    try:
        yield
    except asyncio.CancelledError:
        cancel.cancel()
        raise


class _Hints:
    """inotify as a hint that a look is worth while; a time-out looks anyway."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._inotify: Inotify | None = Inotify()
        except OSError:
            self._inotify = None  # out of instances: the time-outs below still look
        else:
            self._loop.add_reader(self._inotify.fd, self._ready)
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        if self._inotify is not None:
            with contextlib.suppress(OSError):
                self._inotify.add(path)

    def _ready(self) -> None:
        if self._inotify is not None and self._inotify.drain():
            self._event.set()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds if self._inotify else 0.2)
        self._event.clear()

    def __enter__(self) -> _Hints:
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()


def _layer(
    index: int, created_by: str, diff_id: str, size: int, created: int, empty: bool, step: Mapping[str, object]
) -> LayerInfo:
    shown = str(
        step.get("instruction") or created_by.removeprefix("/bin/sh -c #(nop) ").removesuffix(" # buildkit")
    ).strip()
    seconds = step.get("seconds")
    cached = step.get("cached")
    line = step.get("line")
    return LayerInfo(
        index,
        shown,
        created_by,
        diff_id,
        size,
        created,
        empty,
        bool(cached) if cached is not None else None,
        float(seconds) if isinstance(seconds, int | float) else None,
        str(step.get("reason") or ""),
        int(line) if isinstance(line, int) else 0,
    )
