"""What every part of the in-process engine shares: the services, each made when it is first used, and the threads they work on."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.base.cancel import CancelToken
from engine.base.lazy import lazy, part
from engine.runtime.client import Runtime
from engine.runtime.places import runtime_dir
from engine.store.store import Store

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from engine.service.archives import ArchiveService
    from engine.service.builds import BuildService
    from engine.service.cloning import CloneService
    from engine.service.commit import CommitService
    from engine.service.containers import ContainerService
    from engine.service.files import FileService
    from engine.service.images import ImageService
    from engine.service.ssh import SshService
    from engine.service.syncing import SyncService
    from engine.service.transfers import TransferService
    from engine.service.upkeep import UpkeepService
    from engine.service.usage import UsageService
    from engine.service.volumes import VolumeService
else:
    asyncio = lazy("asyncio")

_REMOVER = "import sys; sys.path.append(sys.argv[1]); from engine.local import reconcile; reconcile(sys.argv[2])"

T = TypeVar("T")
THREADS = 16  # that work at once; what may wait for long has threads of its own (`on_thread`)


class Services:
    """Everything that the parts are methods of; `root` is the data root. `inline`: what would be done on a thread is done at once, and
    nothing ever waits for a loop; for a command that does one thing after the other (`engine.cli.common.run`)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._aside = False
        self._store = Store(root)
        # What sees to auto-remove containers that ended while no engine waited, and to killed monitors.
        self._remover = (sys.executable, "-I", "-c", _REMOVER, str(Path(__file__).parents[2]), str(root))
        self._runtime = Runtime(runtime_dir(root), self._remover)
        self.inline = False

    # The rest is imported when it is first used: `workbench ps` and `run` are processes, and theirs is the time that a
    # builder, a registry client or an archive reader takes to load.

    @part
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(THREADS, "engine")

    @part
    def _containers(self) -> ContainerService:
        from engine.service.containers import ContainerService

        return ContainerService(self._store, self._runtime, self._remover)

    @part
    def _images(self) -> ImageService:
        from engine.service.images import ImageService

        return ImageService(self._store)

    @part
    def _volumes(self) -> VolumeService:
        from engine.service.volumes import VolumeService

        return VolumeService(self._store)

    @part
    def _transfers(self) -> TransferService:
        from engine.service.transfers import TransferService

        return TransferService(self._store)

    @part
    def _archives(self) -> ArchiveService:
        from engine.service.archives import ArchiveService

        return ArchiveService(self._store)

    @part
    def _ssh(self) -> SshService:
        from engine.service.ssh import SshService

        return SshService(self._store, self._archives)

    @part
    def _clones(self) -> CloneService:
        from engine.service.cloning import CloneService

        return CloneService(self._store, self._ssh, self._archives, self._containers, self._files)

    @part
    def _usage(self) -> UsageService:
        from engine.service.usage import UsageService

        return UsageService(self._store, self._runtime, self._containers)

    @part
    def _upkeep(self) -> UpkeepService:
        from engine.service.upkeep import UpkeepService

        return UpkeepService(self._store, self._images, self._containers, self._volumes, self._images.summaries)

    @part
    def _files(self) -> FileService:
        from engine.service.files import FileService

        return FileService(self._store, self._runtime, self._containers)

    @part
    def _syncs(self) -> SyncService:
        from engine.service.syncing import SyncService

        return SyncService(self._store, self._runtime, self._containers, self._files)

    @part
    def _commits(self) -> CommitService:
        from engine.service.commit import CommitService

        return CommitService(self._store, self._runtime, self._containers)

    @part
    def _builds(self) -> BuildService:
        from engine.service.builds import BuildService

        return BuildService(self._store, self._runtime, self._images)

    async def close(self) -> None:
        made = self.__dict__
        if "_builds" in made:
            await self._beside(self._builds.close)
        if "_containers" in made:
            await self._beside(self._containers.graves.close)
            self._containers.listing.close()
        await self._beside(self._store.close)
        if "_pool" in made:
            self._pool.shutdown(wait=False)

    async def _beside(self, work: Callable[[], T]) -> T:
        return work() if self.inline else await asyncio.to_thread(work)

    def stays(self) -> None:
        """This process serves others for long: what need not be waited for is done after the answer."""
        self._containers.graves.beside()

    def draws(self) -> None:
        """This process answers keys: pulls and pushes are done by another one (`engine.local.aside`)."""
        self._aside = True

    async def _do(self, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        if self.inline:
            return work(*args, **kwargs)
        from engine.service.streams import PoolClosed, in_pool

        call = functools.partial(work, *args, **kwargs)
        try:
            return await in_pool(self._pool, call)
        except PoolClosed:  # by who still has something to take away
            return await asyncio.to_thread(call)

    async def _cancellable(self, work: Callable[[CancelToken], T]) -> T:
        cancel = CancelToken()
        try:
            return await self._beside(lambda: work(cancel))
        finally:
            cancel.cancel()


@contextlib.contextmanager
def cancelling(cancel: CancelToken) -> Iterator[None]:
    """The work on its thread ends when the task that waits for it is cancelled."""
    try:
        yield
    except asyncio.CancelledError:
        cancel.cancel()
        raise
