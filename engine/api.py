"""The engine's face: what every front end (app, command line, REST, Python) sees.

`Engine` is a protocol; `engine.local.LocalEngine` implements it in this process, `engine.remote.RemoteEngine` over Docker's API.
`engine.open()` opens either. All records are frozen.
Long work is an async iterator of events that ends normally or raises an `EngineError`; closing the iterator
(`aclose`, or cancelling the task that reads it) cancels the work. Times are nanoseconds since the epoch,
sizes bytes, durations seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from engine import model

if TYPE_CHECKING:
    from engine.model import (
        BuildDetail as BuildDetail,
    )
    from engine.model import (
        BuildEvent as BuildEvent,
    )
    from engine.model import (
        BuildFinished as BuildFinished,
    )
    from engine.model import (
        BuildNotice as BuildNotice,
    )
    from engine.model import (
        BuildOutput as BuildOutput,
    )
    from engine.model import (
        BuildRecord as BuildRecord,
    )
    from engine.model import (
        BuildRequest as BuildRequest,
    )
    from engine.model import (
        BuildSecret as BuildSecret,
    )
    from engine.model import (
        BuildStarted as BuildStarted,
    )
    from engine.model import (
        CacheUsage as CacheUsage,
    )
    from engine.model import (
        Change as Change,
    )
    from engine.model import (
        CheckFinding as CheckFinding,
    )
    from engine.model import (
        CommitRequest as CommitRequest,
    )
    from engine.model import (
        Comparison as Comparison,
    )
    from engine.model import (
        ContainerDetail as ContainerDetail,
    )
    from engine.model import (
        ContainerSpec as ContainerSpec,
    )
    from engine.model import (
        ContainerStats as ContainerStats,
    )
    from engine.model import (
        ContainerSummary as ContainerSummary,
    )
    from engine.model import (
        Device as Device,
    )
    from engine.model import (
        DeviceLimit as DeviceLimit,
    )
    from engine.model import (
        DiskUsage as DiskUsage,
    )
    from engine.model import (
        Distribution as Distribution,
    )
    from engine.model import (
        Drift as Drift,
    )
    from engine.model import (
        EndpointSettings as EndpointSettings,
    )
    from engine.model import (
        EngineEvent as EngineEvent,
    )
    from engine.model import (
        ExecSpec as ExecSpec,
    )
    from engine.model import (
        FileComparison as FileComparison,
    )
    from engine.model import (
        FileContent as FileContent,
    )
    from engine.model import (
        FileDifference as FileDifference,
    )
    from engine.model import (
        FileKind as FileKind,
    )
    from engine.model import (
        FileStep as FileStep,
    )
    from engine.model import (
        Healthcheck as Healthcheck,
    )
    from engine.model import (
        HostConfig as HostConfig,
    )
    from engine.model import (
        HostStats as HostStats,
    )
    from engine.model import (
        ImageDetail as ImageDetail,
    )
    from engine.model import (
        ImageImport as ImageImport,
    )
    from engine.model import (
        ImageManifest as ImageManifest,
    )
    from engine.model import (
        ImageSummary as ImageSummary,
    )
    from engine.model import (
        IpamConfig as IpamConfig,
    )
    from engine.model import (
        LayerInfo as LayerInfo,
    )
    from engine.model import (
        LayerWaste as LayerWaste,
    )
    from engine.model import (
        LoadedImage as LoadedImage,
    )
    from engine.model import (
        LogConfig as LogConfig,
    )
    from engine.model import (
        LogExtent as LogExtent,
    )
    from engine.model import (
        LogHit as LogHit,
    )
    from engine.model import (
        LogLine as LogLine,
    )
    from engine.model import (
        LogQuery as LogQuery,
    )
    from engine.model import (
        LogRecord as LogRecord,
    )
    from engine.model import (
        LogRow as LogRow,
    )
    from engine.model import (
        Mark as Mark,
    )
    from engine.model import (
        Mount as Mount,
    )
    from engine.model import (
        MountPoint as MountPoint,
    )
    from engine.model import (
        NetworkInfo as NetworkInfo,
    )
    from engine.model import (
        NetworkSpec as NetworkSpec,
    )
    from engine.model import (
        PathStat as PathStat,
    )
    from engine.model import (
        Port as Port,
    )
    from engine.model import (
        PortBinding as PortBinding,
    )
    from engine.model import (
        ProcessList as ProcessList,
    )
    from engine.model import (
        Pruned as Pruned,
    )
    from engine.model import (
        PullProgress as PullProgress,
    )
    from engine.model import (
        RegistryAuth as RegistryAuth,
    )
    from engine.model import (
        RegistryDocument as RegistryDocument,
    )
    from engine.model import (
        RegistryMatch as RegistryMatch,
    )
    from engine.model import (
        Resources as Resources,
    )
    from engine.model import (
        RestartPolicy as RestartPolicy,
    )
    from engine.model import (
        SshAgent as SshAgent,
    )
    from engine.model import (
        Status as Status,
    )
    from engine.model import (
        StepFinished as StepFinished,
    )
    from engine.model import (
        StepInfo as StepInfo,
    )
    from engine.model import (
        StepOutput as StepOutput,
    )
    from engine.model import (
        StepProgress as StepProgress,
    )
    from engine.model import (
        StepStarted as StepStarted,
    )
    from engine.model import (
        SyncEntry as SyncEntry,
    )
    from engine.model import (
        SyncResult as SyncResult,
    )
    from engine.model import (
        SystemInfo as SystemInfo,
    )
    from engine.model import (
        TreeExtent as TreeExtent,
    )
    from engine.model import (
        TreeQuery as TreeQuery,
    )
    from engine.model import (
        TreeRow as TreeRow,
    )
    from engine.model import (
        Ulimit as Ulimit,
    )
    from engine.model import (
        VolumeInfo as VolumeInfo,
    )
    from engine.model import (
        WastedPath as WastedPath,
    )
    from engine.model import (
        WasteReport as WasteReport,
    )
    from engine.model import (
        WhyReport as WhyReport,
    )
    from engine.model import (
        WhyStep as WhyStep,
    )


def __getattr__(name: str) -> Any:
    """The records (PEP 562): each module of them when it is asked for."""
    return getattr(model, name)


class Sink(Protocol):
    """Where bytes go: a file, a pipe, a compressor."""

    def write(self, data: bytes, /) -> int: ...


class Stream(Protocol):
    """A running exec or an attached container: bytes both ways. Close it to let go (the process goes on)."""

    async def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        """Next chunk, None at the end."""

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, columns: int) -> None: ...

    async def wait(self) -> int:
        """The exit code, once output has ended."""

    async def detach(self) -> None:
        """Lets go as the detach keys do: the program keeps its stdin, its terminal and its output."""

    async def close(self) -> None: ...


class LogBook(Protocol):
    """Logs of one or several containers, merged by time, as rows with numbers: any of them can be read at any time, and memory
    does not grow with them. An engine that has no files to read from keeps the last rows alone.

    `advance` looks further, some milliseconds of work at a time; the others answer for what it has seen. A new query or search
    begins at the start again: `LogExtent.share` says how far it is. Close it to let go.
    """

    @property
    def names(self) -> Sequence[str]:
        """The containers, in the order of `LogRow.source`. Those that write to one log are one."""

    async def advance(self) -> LogExtent: ...

    async def changed(self) -> None:
        """Until there may be more than `advance` has seen."""

    async def renew(self) -> None:
        """Looks again who bears the names. What another container of a name writes goes on in the same rows, behind a rule; so does
        what a container writes that was started again. Raises `NotFound`: one of them is gone; its rows stay."""

    async def select(self, query: LogQuery | None, *, since: int = 0) -> None:
        """Keeps the rows that match and are no older than `since` (ns since the epoch), and every rule of the workbench.
        Raises `InvalidInput`."""

    async def search(self, query: LogQuery | None) -> None:
        """What `next_hit` finds among the rows that are kept. Raises `InvalidInput`."""

    async def rows(self, first: int, count: int) -> Sequence[LogRow]:
        """Kept rows by number; fewer where there are none."""

    async def row_of(self, place: int) -> int:
        """How many kept rows come before the row with this `LogRow.place`."""

    async def next_hit(self, row: int, *, forward: bool = True) -> LogHit | None:
        """The first hit behind (before) the kept row `row`, from the other end if there is none; None without any."""

    async def close(self) -> None: ...


class FileTree(Protocol):
    """The files of a stack of layers as rows, of which any can be read at any time: folders open and close, a query chooses what shows.
    At first all folders are closed. Nothing needs to be closed."""

    async def extent(self) -> TreeExtent: ...

    async def select(self, query: TreeQuery) -> TreeExtent:
        """Raises `InvalidInput` for a pattern that is no regular expression. Under a pattern folders are open at first."""

    async def rows(self, first: int, count: int) -> Sequence[TreeRow]: ...

    async def fold(self, row: int, *, open: bool) -> TreeExtent:
        """Opens or closes the folder of a row; nothing happens where it is none."""

    async def fold_all(self, *, open: bool) -> TreeExtent: ...

    async def row_of(self, path: str) -> int | None:
        """The row of a path, after opening the folders above it; None where it does not show."""


class Engine(Protocol):
    """One container engine. Names and ids are accepted where Docker accepts them (unique id prefixes too)."""

    async def info(self) -> SystemInfo: ...

    async def check(self, *, repair: bool = False, files: bool = False) -> Sequence[CheckFinding]:
        """What is damaged, missing or foreign in the store; with `files` each file of unpacked layers is compared with its layer.
        `repair` fetches or makes again only that."""

    # images
    async def images(
        self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None
    ) -> Sequence[ImageSummary]:
        """Filters as Docker's: before, dangling, label, reference, since, until."""

    async def prune_images(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, dry_run: bool = False
    ) -> Pruned:
        """Removes untagged images, with the filter `dangling=false` all that no container uses. Filters: label, label!, until."""

    async def prune_containers(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, dry_run: bool = False
    ) -> Pruned: ...

    async def prune_system(
        self,
        filters: Mapping[str, Sequence[str]] | None = None,
        *,
        all: bool = False,
        volumes: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        """Ended containers, unused images (`all`: tagged ones too), the build cache, and anonymous volumes if asked."""

    async def disk_usage(self) -> DiskUsage: ...

    async def build_cache(self) -> Sequence[CacheUsage]:
        """Results of steps and cache mounts, newest use first."""

    async def prune_build_cache(
        self,
        filters: Mapping[str, Sequence[str]] | None = None,
        *,
        all: bool = False,
        keep_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """What no image has (`all`: everything that is not at work), least recently used first, until `keep_bytes` are left."""

    async def image(self, name: str) -> ImageDetail: ...

    async def tag(self, source: str, target: str) -> None: ...

    async def image_manifests(self) -> Mapping[str, Sequence[ImageManifest]]:
        """For each image (by `ImageSummary.digest`) the manifests under its name: those of other platforms, too."""

    async def keep_images(self, owner: str, images: Sequence[str]) -> None:
        """The images (ids) that `owner` needs from now on: `prune` passes them over though they have no tag. None: no more."""

    async def remove_image(self, name: str, *, force: bool = False) -> Sequence[str]:
        """Untags, and deletes when no tag is left. Returns Docker's lines ("Untagged: …", "Deleted: …")."""

    def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, all_tags: bool = False
    ) -> AsyncIterator[PullProgress]:
        """`platform` "" is the engine's own. `all_tags`: `reference` is a repository, each image begins with "resolving". `auth` stands in the place of the credentials that the engine finds itself."""

    def push(
        self, reference: str, *, target: str = "", auth: RegistryAuth | None = None
    ) -> AsyncIterator[PullProgress]:
        """To the registry that `reference` (or `target`) names. The last event's text holds the digest."""

    async def login(self, auth: RegistryAuth) -> None:
        """Tries `auth` on its registry; keeps nothing. Raises `Unauthorized`, `Unavailable`."""

    async def search_images(
        self, term: str, *, limit: int = 25, auth: RegistryAuth | None = None
    ) -> Sequence[RegistryMatch]:
        """Repositories of the registry that `term` begins with (`HOST/TERM`), or of Docker Hub. Raises `Unsupported` where the
        registry has no search."""

    async def distribution(self, reference: str, *, auth: RegistryAuth | None = None) -> Distribution:
        """What the registry has under a name, without pulling it."""

    async def manifests(
        self, reference: str, *, children: bool = False, insecure: bool = False
    ) -> Sequence[RegistryDocument]:
        """The manifest or index that a registry has under a name; with `children` those that an index names, too, and the images'
        configs."""

    async def push_index(
        self, target: str, document: bytes, sources: Mapping[str, str], *, insecure: bool = False
    ) -> str:
        """An index (or one image's manifest) to a registry under `target`. `sources` says of each digest that it names (or of its
        own) which repository has it: what is missing is mounted, or copied, from there. Returns the digest."""

    async def referrers(
        self, reference: str, *, artifact_type: str = "", platform: str = "", insecure: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        """Descriptors of what says that it belongs to an image (signatures, SBOMs, …): OCI 1.1's referrers API, or its tag
        where a registry has none. `platform`: to that image of an index, instead of to the index."""

    async def push_to_host(
        self, url: str, name: str, *, progress: Callable[[PullProgress], None] = lambda event: None
    ) -> str:
        """An image to another host over SSH, missing blobs alone. Returns the engine that took it. `progress` is called on
        other threads."""

    async def pull_from_host(
        self, url: str, name: str, *, progress: Callable[[PullProgress], None] = lambda event: None
    ) -> ImageSummary: ...

    async def verify_on_host(self, url: str, name: str, *, files: bool = False) -> Sequence[Comparison]:
        """Config, layers and manifest of an image, side by side; with `files` also a row for every file that differs."""

    async def look_at_host(self, url: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """A container of another host (`ssh://HOST[/ENGINE]/CONTAINER`): its `inspect` document there, and for the source of
        each of its binds what it is: "d" a folder, "f" a file, "o" something else, "-" nothing."""

    async def clone_from_host(
        self,
        url: str,
        found: Mapping[str, Any],
        spec: ContainerSpec,
        copies: Sequence[tuple[str, bool]] = (),
        *,
        changes: bool = True,
        progress: Callable[[PullProgress], None] = lambda event: None,
    ) -> str:
        """A container here after `found` (see `look_at_host`): its image, with `changes` its changed files, and what stands
        at `copies` (a path there, and whether it is a folder). `spec` says the rest; its image is not looked at. Returns the id."""

    def save(
        self, names: Sequence[str], out: Sink, *, format: Literal["docker-archive", "oci-archive"] = "docker-archive"
    ) -> AsyncIterator[PullProgress]:
        """Writes images into `out` (called on another thread) as one tar archive, bytes of each blob unchanged."""

    def load(self, source: BinaryIO) -> AsyncIterator[PullProgress | LoadedImage]:
        """Images out of what `save`, `docker save`, `podman save` or skopeo wrote; compressed or not, also from a pipe."""

    async def import_image(self, source: BinaryIO, request: ImageImport) -> ImageSummary: ...

    def build(self, request: BuildRequest) -> AsyncIterator[BuildEvent]: ...

    # the history of builds
    async def builds(self, *, search: str = "", limit: int | None = None) -> Sequence[BuildRecord]:
        """Newest first; `search` looks into names, steps, reasons, errors and output."""

    async def build_detail(self, number: int) -> BuildDetail: ...

    async def build_diff(self, first: int, second: int) -> Sequence[FileDifference]:
        """What the results of two builds do not share, by path."""

    # files of images; an image may be `IMAGE#LINE`: its layers up to that line of its history (`LayerInfo.index`), or `scratch`: none. Of an
    # engine behind Docker's API the whole image is fetched for them, once, to a folder of this machine, which needs Linux: else `Unsupported`.
    async def image_diff(self, first: str, second: str) -> Sequence[FileDifference]:
        """What two images (names or ids) do not share, by path. Raises `NotFound`."""

    async def open_files(
        self, name: str, *, progress: Callable[[int], None] = lambda entries: None, depth: int = 0
    ) -> FileTree:
        """The files of an image as a tree, with what its topmost layer changed. The first time an index is made, beside everything
        else: `progress` hears, on other threads, how many entries it has. `depth`: until there is an index, folders so
        deep are not looked into, and that takes a moment. Raises `NotFound`, `Unsupported`."""

    async def image_waste(self, name: str) -> WasteReport:
        """What its layers bring that later ones replace or remove again. Raises `NotFound`, `Unsupported` (also of another engine's image
        that was not fetched yet: `open_files` does)."""

    async def file_history(self, name: str, path: str) -> Sequence[FileStep]:
        """Which layer made a path, and what the others did to it, bottom first. Raises `NotFound`, `Unsupported`."""

    async def file_content(self, name: str, path: str, *, limit: int = 1 << 20) -> FileContent:
        """The first `limit` bytes of a file; of one that the topmost layer removed, as it was. Raises `NotFound`, `Unsupported`."""

    async def file_diff(self, first: str, second: str, path: str) -> FileComparison:
        """One path in two images, by lines where it is text. Raises `NotFound` when neither has it, `Unsupported`."""

    async def save_file(self, name: str, path: str, out: Sink) -> None:
        """A file's bytes into `out` (called on another thread); a folder as a tar. Raises `NotFound`, `InvalidInput`, `Unsupported`."""

    async def remove_build(self, number: int) -> None: ...

    async def why(self, request: BuildRequest, paths: Sequence[str]) -> Sequence[WhyReport]:
        """What a change of each path (relative to the context) would invalidate, and what that cost last time. Builds nothing."""

    async def ensure_base(self) -> str:
        """Makes `workbench/base` from this host's own files if it is missing or stale; returns its name."""

    # containers
    async def containers(self, *, all: bool = False) -> Sequence[ContainerSummary]: ...

    async def container(self, name: str) -> ContainerDetail: ...

    async def container_summary(self, name: str) -> ContainerSummary:
        """What a list shows of one: much less work than `container`. Raises `NotFound`, `Conflict`."""
        ...

    async def create(self, spec: ContainerSpec) -> str: ...

    async def start(self, name: str, *, standby: bool = False) -> None:
        """`standby`: without its published ports, and not found by its names, until it takes over from another one. Raises
        `Unsupported` where an engine cannot."""

    async def take_over(self, name: str, old: str, *, aside: str) -> None:
        """The standby container `name` gets the name of the container `old`, which is called `aside` from now on, its published
        ports and its names on their networks. Connections that are there stay with `old`; no new one is refused meanwhile."""

    async def start_attached(self, name: str) -> Stream:
        """Starts it with its output attached from the first byte."""

    async def attach(self, name: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> Stream:
        """Output from now on, and stdin where the container has it open."""

    async def stop(self, name: str, *, timeout: int | None = None, signal: str = "", hurry: bool = False) -> bool:
        """Its stop signal (or `signal`), `timeout` seconds (None: as the container says, else 10; -1: for ever), KILL.
        `hurry` gives no time to a first process that has no handler for the signal; returns whether that was so."""

    async def restart(self, name: str, *, timeout: int | None = None, signal: str = "") -> None: ...

    async def kill(self, name: str, signal: str = "KILL") -> None: ...

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """`volumes`: with the anonymous volumes that no other container has. `link`: `name` is "CONTAINER/ALIAS", and that
        legacy link of the container alone is removed."""

    async def pause(self, name: str) -> None:
        """Stops every process where it stands. Raises `Conflict`, `Unsupported`."""

    async def unpause(self, name: str) -> None: ...

    async def resize(self, name: str, rows: int, columns: int) -> None:
        """Of the container's terminal."""

    async def resume(self) -> Sequence[str]:
        """Starts what has a restart policy and does not run, as Docker's daemon does when it starts; returns the names.
        For programs that stand for the whole host (`serve`), once, when they start."""

    async def stats(self, name: str) -> ContainerStats:
        """One reading; two of them give the CPU's share (`ContainerStats.cpu_percent`). Raises Conflict when it does not
        run."""

    async def host_stats(self) -> HostStats:
        """One reading of the engine's host. An engine behind Docker's API does not tell: `Unsupported`."""

    async def top(self, name: str, arguments: Sequence[str] = ()) -> ProcessList:
        """Its processes, with ps(1)'s options: `-ef` (the default), `aux`, `-o pid,args`."""

    async def update(
        self, name: str, changes: Resources, *, restart_policy: RestartPolicy | None = None
    ) -> Sequence[str]:
        """New limits and another restart policy, now and for later starts; what is not set stays. Returns warnings: what
        does not hold here. Raises Conflict for a restart policy where the container removes itself."""

    async def rename(self, name: str, new_name: str) -> None: ...

    async def wait(
        self, name: str, *, condition: Literal["not-running", "next-exit", "removed"] = "not-running"
    ) -> int:
        """The exit code. Raises `EngineError` when nobody knows it."""

    async def execs(self, name: str) -> Sequence[Mapping[str, object]]:
        """`{"id", "pid", "exit_code"}` of what runs in it beside its first process, or lately did."""

    async def exec(self, name: str, spec: ExecSpec) -> Stream: ...

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[LogLine]:
        """Whole lines, also of files put aside. Times in ns since the epoch, 0: no bound."""

    def log_records(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[Sequence[LogRecord]]:
        """The same exactly as it was written, many at a time: the fast way."""

    async def open_logs(self, names: Sequence[str]) -> LogBook:
        """Their logs to look around in. Raises `NotFound`, `InvalidInput` (a container without a log)."""

    async def write_rule(self, log_path: str, text: str) -> None:
        """Appends a "workbench" line to a service's log: what changed between two generations."""

    # files of containers, running and stopped
    async def stat_path(self, name: str, path: str) -> PathStat:
        """What `path` is; its last part is not followed unless a slash ends it."""

    async def get_archive(
        self, name: str, path: str, out: Sink, *, started: Callable[[PathStat], None] | None = None
    ) -> PathStat:
        """Writes what is at `path` into `out` as a tar. `out` and `started` (before the first byte) are called on another
        thread. Volumes and binds are seen as the container sees them."""

    async def put_archive(
        self,
        name: str,
        path: str,
        source: BinaryIO,
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Unpacks a tar (read on another thread; plain or compressed) into the directory `path`. Raises `InvalidInput` for
        what is no tar, or does not fit what is there; `copy_uid_gid` gives all to the container's user."""

    async def export(self, name: str, out: Sink) -> None:
        """The container's whole root as a tar, without what is mounted on it."""

    async def changes(self, name: str) -> Sequence[Change]:
        """What its root differs in from its image, sorted (`docker diff`)."""

    async def commit(self, name: str, request: CommitRequest) -> str:
        """An image of a container and its changes; returns the image's id."""

    # the inner loop's way into a container
    async def sync(self, name: str, entries: Sequence[SyncEntry]) -> SyncResult:
        """Makes paths in the container what they are here, no program inside needed; running or stopped. Raises `NotFound`,
        `Conflict` (it has just ended), `InvalidInput`, `StorageFull`; doing it again is always right."""

    async def drift(self, name: str, image: str = "") -> Sequence[Drift]:
        """What a container's root differs in from its own image, and whether `image` (none: what its image's name stands for
        now) has it so."""

    async def listening(self, name: str) -> frozenset[int]:
        """TCP ports on which something listens in the container's network."""

    # networks
    async def networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[NetworkInfo]:
        """Docker's filters: driver, id, label, name, scope, type, dangling."""

    async def network(self, name: str) -> NetworkInfo:
        """With the containers on it, in its `config`."""

    async def create_network(self, spec: NetworkSpec) -> str:
        """Its id."""

    async def remove_network(self, name: str) -> None: ...

    async def prune_networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[str]:
        """Removes what no container refers to; names. Filters: label, label!, until."""

    async def connect_network(self, network: str, container: str, settings: EndpointSettings | None = None) -> None: ...

    async def disconnect_network(self, network: str, container: str, *, force: bool = False) -> None: ...

    # volumes
    async def volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[VolumeInfo]:
        """By name. Filters are Docker's: dangling, driver, label, name."""

    async def volume(self, name: str) -> VolumeInfo: ...

    async def create_volume(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        """A volume of that name, made if it is missing; without a name a new anonymous one."""

    async def remove_volume(self, name: str, *, force: bool = False) -> None: ...

    async def prune_volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Sequence[str], int]:
        """Removes unused anonymous volumes (filter `all=true`: named ones too); names and bytes."""

    def events(
        self, *, since: int | None = None, since_time: int | None = None, until: int | None = None
    ) -> AsyncIterator[EngineEvent]:
        """Events after sequence number `since` or from the time `since_time` on (neither: from now on), of every process
        on this data root; ends at the time `until` (ns since the epoch), if there is one."""

    async def close(self) -> None: ...


# --- projects (implemented by engine.project over an Engine) -----------------------------------------


@dataclass(frozen=True, slots=True)
class ProjectFound:
    name: str
    path: str
    file: str
    services: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what the file says that is not supported yet, each with file and line


@dataclass(frozen=True, slots=True)
class ServiceState:
    """`phase`: waiting, pulling, building, starting, running, exited, failed (build or start; the old one keeps running)."""

    service: str
    phase: Literal["waiting", "pulling", "building", "starting", "running", "exited", "failed"]
    container: str = ""
    image: str = ""
    generation: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class ServiceBuild:
    service: str
    event: BuildEvent


@dataclass(frozen=True, slots=True)
class ServiceBuildFailed:
    """The build, sync or start of a service failed; a container that ran before goes on, and `still_runs` says so. Lines of
    `message` behind the first one are what the failed container said last."""

    service: str
    message: str
    hint: str = ""
    file: str = ""
    line: int = 0
    still_runs: bool = False


@dataclass(frozen=True, slots=True)
class ChangeSeen:
    """Files changed; a rebuild follows unless their content is what it was."""

    service: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A new generation serves. `rule` is the text written into the log; `phases` how long each took, in seconds: noticed (save
    to event), planned, built, created, started, healthy."""

    service: str
    container: str
    generation: int
    rule: str
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Synced:
    """Files were brought into the running container. `then`: "", "restart" or "exec"; `drift`: how many of its paths the image
    does not have yet."""

    service: str
    container: str
    paths: tuple[str, ...]
    seconds: float
    then: str = ""
    drift: int = 0


@dataclass(frozen=True, slots=True)
class LoopNotice:
    """Anything else worth a line: overtaken builds, polling instead of inotify, another workbench on this project."""

    text: str
    service: str = ""


LoopEvent = (
    ProjectFound | ServiceState | ServiceBuild | ServiceBuildFailed | ChangeSeen | Replaced | Synced | LoopNotice
)
