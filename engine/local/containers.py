"""Containers of the in-process engine, their files, and the inner loop's way into them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from engine.base.cancel import CancelToken
from engine.base.lazy import lazy
from engine.local.base import Services, cancelling
from engine.service.streams import ThreadStream, on_thread

if TYPE_CHECKING:
    import asyncio

    from engine.api import Sink, Stream
    from engine.model import (
        Change,
        CommitRequest,
        ContainerDetail,
        ContainerSpec,
        ContainerStats,
        ContainerSummary,
        Drift,
        ExecSpec,
        HostStats,
        PathStat,
        ProcessList,
        Resources,
        RestartPolicy,
        SyncEntry,
        SyncResult,
    )
    from engine.service.life import Condition
else:
    asyncio = lazy("asyncio")


class ContainersPart(Services):
    """One container at a time."""

    async def containers(self, *, all: bool = False) -> Sequence[ContainerSummary]:
        return await self._do(self._containers.list_settled, all=all)

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

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        if link:
            await self._do(self._containers.unlink, name)
            return
        await self._do(self._containers.remove, name, force=force, volumes=volumes)

    async def stats(self, name: str) -> ContainerStats:
        return await self._do(self._usage.stats, name)

    async def host_stats(self) -> HostStats:
        from engine.service.host_stats import read_host

        return await self._do(read_host)

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
            if self.inline:
                return self._containers.life.wait(name, condition, cancel)
            return await on_thread(lambda: self._containers.life.wait(name, condition, cancel))
        finally:
            cancel.cancel()

    async def execs(self, name: str) -> Sequence[Mapping[str, object]]:
        """`{"id", "pid", "exit_code"}` of what runs in it beside its first process, or lately did."""
        container_id, _ = await self._do(self._containers.resolve, name)
        return await self._do(self._runtime.execs, container_id)

    async def exec(self, name: str, spec: ExecSpec) -> Stream:
        return ThreadStream(await self._do(self._containers.exec, name, spec))

    async def stat_path(self, name: str, path: str) -> PathStat:
        return await self._do(self._files.stat, name, path)

    async def get_archive(
        self, name: str, path: str, out: Sink, *, started: Callable[[PathStat], None] | None = None
    ) -> PathStat:
        cancel = CancelToken()
        with cancelling(cancel):
            return await on_thread(lambda: self._files.get(name, path, out, started, cancel))

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
        with cancelling(cancel):
            await on_thread(
                lambda: self._files.put(
                    name,
                    path,
                    source,
                    keep_kinds=no_overwrite_dir_non_dir,
                    copy_owner=copy_uid_gid,
                    cancel=cancel,
                )
            )

    async def export(self, name: str, out: Sink) -> None:
        cancel = CancelToken()
        with cancelling(cancel):
            await on_thread(lambda: self._files.export(name, out, cancel))

    async def changes(self, name: str) -> Sequence[Change]:
        return await self._do(self._commits.changes, name)

    async def commit(self, name: str, request: CommitRequest) -> str:
        cancel = CancelToken()
        with cancelling(cancel):
            return (await self._do(self._commits.commit, name, request, cancel)).config_digest

    async def sync(self, name: str, entries: Sequence[SyncEntry]) -> SyncResult:
        cancel = CancelToken()
        with cancelling(cancel):
            return await self._do(self._syncs.sync, name, entries, cancel)

    async def drift(self, name: str, image: str = "") -> Sequence[Drift]:
        return await self._do(self._syncs.drift, name, image)

    async def listening(self, name: str) -> frozenset[int]:
        return await self._do(self._syncs.listening, name)
