"""The engine in this process: `engine.api.Engine` over the services, blocking work on threads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from engine.api import Sink, Stream
from engine.base.cancel import CancelToken
from engine.base.clock import parse_rfc3339
from engine.errors import NotFound
from engine.linux.inotify import Inotify
from engine.model import (
    BuildDetail,
    BuildEvent,
    BuildRecord,
    BuildRequest,
    CheckFinding,
    ContainerDetail,
    ContainerSpec,
    ContainerSummary,
    EngineEvent,
    ExecSpec,
    FileDifference,
    ImageDetail,
    ImageImport,
    ImageSummary,
    LayerInfo,
    LoadedImage,
    LogLine,
    PullProgress,
    SystemInfo,
    VolumeInfo,
)
from engine.runtime.client import Runtime
from engine.service.archives import ArchiveService
from engine.service.builds import BuildService
from engine.service.containers import ContainerService
from engine.service.images import BASE, ImageService
from engine.service.logs import LogReader, open_log, tail_offset
from engine.service.mounts import points_of
from engine.service.streams import ThreadStream, stream
from engine.service.system import describe_host
from engine.service.transfers import TransferService
from engine.service.volumes import VolumeService
from engine.store.images import Image
from engine.store.store import Store

T = TypeVar("T")


def runtime_dir(root: Path) -> Path:
    """Sockets live under /run (short paths, gone after a reboot); one folder for each data root."""
    base = (
        Path("/run/workbench")
        if os.geteuid() == 0
        else Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/workbench-{os.geteuid()}") / "workbench"
    )
    return base if str(root) == "/var/lib/workbench" else base / hashlib.sha256(str(root).encode()).hexdigest()[:12]


async def open_engine(root: Path) -> LocalEngine:
    """Opens the engine on a data root. Raises `AccessDenied`, `StorageFull`, `Unsupported`, `Corrupt`."""
    return await asyncio.to_thread(LocalEngine, root)


class LocalEngine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = Store(root)
        self._runtime = Runtime(runtime_dir(root))
        self._images = ImageService(self._store)
        self._transfers = TransferService(self._store)
        self._archives = ArchiveService(self._store)
        self._containers = ContainerService(self._store, self._runtime)
        self._volumes = VolumeService(self._store)
        self._builds = BuildService(self._store, self._runtime, self._images)

    async def close(self) -> None:
        await asyncio.to_thread(self._store.close)

    async def _do(self, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)

    # --- system ---------------------------------------------------------------------------------------

    async def info(self) -> SystemInfo:
        cgroup, notes = await self._do(describe_host)
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
        )

    async def check(self) -> Sequence[CheckFinding]:
        return [CheckFinding(p.kind, p.path, p.text) for p in await self._do(self._store.check)]

    # --- images ---------------------------------------------------------------------------------------

    async def images(self, *, all: bool = False) -> Sequence[ImageSummary]:
        found = await self._do(self._list_images)
        return [image for image in found if all or not image.dangling]

    def _users(self) -> dict[str, list[str]]:
        users: dict[str, list[str]] = {}
        for row in self._store.records.read("SELECT name, image, document FROM containers ORDER BY name"):
            mounted = {point.image for point in points_of(json.loads(row["document"])) if point.image}
            for image in {row["image"], *mounted}:
                users.setdefault(image, []).append(row["name"])
        return users

    def _list_images(self) -> list[ImageSummary]:
        users = self._users()
        return [self._image_summary(image, users) for image in self._store.images.list()]

    def _image_summary(self, image: Image, users: Mapping[str, Sequence[str]]) -> ImageSummary:
        return ImageSummary(
            image.config_digest,
            image.digest,
            image.familiar_tags,
            image.created,
            image.size,
            tuple(users.get(image.digest, ())),
            not image.tags,
        )

    async def image(self, name: str) -> ImageDetail:
        return await self._do(self._image_detail, name)

    def _image_detail(self, name: str) -> ImageDetail:
        image = self._store.images.get(name)
        config, manifest = self._store.images.config(image), self._store.images.manifest(image)
        return ImageDetail(
            self._image_summary(image, self._users()),
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

    async def remove_image(self, name: str, *, force: bool = False) -> Sequence[str]:
        image = await self._do(self._store.images.get, name)
        return await self._do(self._images.remove, name, self._users().get(image.digest, []), force=force)

    def pull(self, reference: str) -> AsyncIterator[PullProgress]:
        return stream(lambda emit, cancel: self._images.pull(reference, emit, cancel))

    def push(self, reference: str, *, target: str = "") -> AsyncIterator[PullProgress]:
        return stream(lambda emit, cancel: self._transfers.push(reference, emit, cancel, target=target))

    def save(
        self, names: Sequence[str], out: Sink, *, format: Literal["docker-archive", "oci-archive"] = "docker-archive"
    ) -> AsyncIterator[PullProgress]:
        return stream(lambda emit, cancel: self._archives.save(names, out, emit, cancel, format=format))

    def load(self, source: BinaryIO) -> AsyncIterator[PullProgress | LoadedImage]:
        return stream(lambda emit, cancel: self._archives.load(source, emit, cancel))

    async def import_image(self, source: BinaryIO, request: ImageImport) -> ImageSummary:
        image = await self._do(self._archives.import_, source, request, lambda event: None, CancelToken())
        return self._image_summary(image, {})

    def build(self, request: BuildRequest) -> AsyncIterator[BuildEvent]:
        return stream(lambda emit, cancel: self._builds.build(request, emit, cancel))

    async def builds(self, *, search: str = "", limit: int | None = None) -> Sequence[BuildRecord]:
        return await self._do(self._builds.history.records, search=search, limit=limit)

    async def build_detail(self, number: int) -> BuildDetail:
        return await self._do(self._builds.history.detail, number)

    async def build_diff(self, first: int, second: int) -> Sequence[FileDifference]:
        return await self._do(self._builds.diff, first, second)

    async def remove_build(self, number: int) -> None:
        await self._do(self._builds.history.remove, number)

    async def ensure_base(self) -> str:
        await self._do(self._images.ensure_base)
        return BASE

    # --- containers -----------------------------------------------------------------------------------

    async def containers(self, *, all: bool = False) -> Sequence[ContainerSummary]:
        await self._do(self._containers.reconcile)
        return await self._do(self._containers.list, all=all)

    async def container(self, name: str) -> ContainerDetail:
        return await self._do(self._containers.detail, name)

    async def create(self, spec: ContainerSpec) -> str:
        return await self._do(self._containers.create, spec)

    async def start(self, name: str) -> None:
        await self._do(self._containers.start, name)

    async def attach(self, name: str) -> Stream:
        container_id, _ = await self._do(self._containers.resolve, name)
        return ThreadStream(await self._do(self._runtime.attach, container_id))

    async def start_attached(self, name: str) -> Stream:
        connection = await self._do(self._containers.start, name, attach=True)
        assert connection is not None  # attach=True always gives one
        return ThreadStream(connection)

    async def stop(self, name: str, *, timeout: int | None = None) -> None:
        await self._do(self._containers.stop, name, timeout)
        await self._do(self._containers.reconcile)

    async def kill(self, name: str, signal: str = "KILL") -> None:
        await self._do(self._containers.kill, name, signal)

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        await self._do(self._containers.remove, name, force=force, volumes=volumes)

    async def rename(self, name: str, new_name: str) -> None:
        await self._do(self._containers.rename, name, new_name)

    async def wait(self, name: str) -> int:
        code = await self._do(self._containers.wait, name)
        await self._do(self._containers.reconcile)
        return code

    async def exec(self, name: str, spec: ExecSpec) -> Stream:
        return ThreadStream(await self._do(self._containers.exec, name, spec))

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
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0
    ) -> AsyncIterator[LogLine]:
        container_id, record = await self._do(self._containers.resolve, name)
        path, bundle = Path(str(record["log_path"])), self._containers.bundle(container_id)
        try:
            file = open_log(path)
        except NotFound:
            if not follow or self._runtime.state(bundle).status != "created":
                return
            path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640))
            file = open_log(path)
        with file, _Hints([str(path), str(bundle)]) as hints:
            reader = LogReader(file, tail_offset(file, tail) if tail is not None else 0)
            while True:
                alive = follow and bundle.exists() and self._runtime.state(bundle).status in ("running", "created")
                for line in reader.lines():
                    if line.time >= since:
                        yield line
                if not alive:
                    return
                await hints.wait(5.0)

    async def write_rule(self, log_path: str, text: str) -> None:
        await self._do(self._containers.write_rule, log_path, text)

    async def events(self, *, since: int | None = None) -> AsyncIterator[EngineEvent]:
        seq = since
        if seq is None:
            row = await self._do(self._store.records.one, "SELECT max(seq) AS last FROM events")
            seq = (row["last"] or 0) if row else 0
        with _Hints([str(self._store.root), str(self._store.containers)]) as hints:
            watched: set[str] = set()
            while True:
                for path in self._store.containers.iterdir():
                    if path.name not in watched:
                        watched.add(path.name)
                        hints.add(str(path))
                await self._do(self._containers.reconcile)
                for row in await self._do(
                    self._store.records.read, "SELECT * FROM events WHERE seq > ? ORDER BY seq", seq
                ):
                    seq = int(row["seq"])
                    yield EngineEvent(
                        seq, row["time"], row["type"], row["action"], row["id"], json.loads(row["attributes"])
                    )
                await hints.wait(30.0)


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
