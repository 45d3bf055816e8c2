"""Containers of another engine, their files, and what of the inner loop's way into them Docker's API allows."""

from __future__ import annotations

import asyncio
import base64
import json
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from engine.base import procfs
from engine.base.units import human_size
from engine.errors import Conflict, EngineError, Unsupported
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
from engine.oci.reference import Reference
from engine.remote import read, write
from engine.remote.base import Remote, reading, writing
from engine.remote.errors import beyond, start_failed
from engine.remote.streams import RemoteStream, open_stream
from engine.remote.syncing import sync_archive

if TYPE_CHECKING:
    from engine.api import Sink, Stream

Condition = Literal["not-running", "next-exit", "removed"]
_KINDS: Mapping[int, Literal["A", "C", "D"]] = {0: "C", 1: "A", 2: "D"}


class ContainersPart(Remote):
    """One container at a time."""

    async def containers(self, *, all: bool = False) -> Sequence[ContainerSummary]:
        found = await self._client.get("/containers/json", {"all": all})
        return [read.list_row(row) for row in read.rows(found)]

    async def container(self, name: str) -> ContainerDetail:
        return read.inspected(read.mapping(await self._client.get(f"/containers/{_quoted(name)}/json")))

    async def container_summary(self, name: str) -> ContainerSummary:
        if await self._is_workbench():
            found: ContainerSummary = await self._own("container_summary", "", name=name)
            return found
        return (await self.container(name)).summary

    async def create(self, spec: ContainerSpec) -> str:
        body = write.create_body(spec)
        later = {}
        if len(spec.networks) > 1 and self._client.version < (1, 44):
            # Older daemons take one network at creation; the others are joined before the start.
            names = list(spec.networks)
            first = spec.network_mode if spec.network_mode in names else names[0]
            later = {name: settings for name, settings in spec.networks.items() if name != first}
            body["NetworkingConfig"] = {"EndpointsConfig": {first: write.endpoint(spec.networks[first])}}
        params = {"name": spec.name, **({"platform": spec.platform} if spec.platform else {})}
        identity = str(read.mapping(await self._client.post("/containers/create", params, body)).get("Id"))
        try:
            for name, settings in later.items():
                document = {"Container": identity, "EndpointConfig": write.endpoint(settings)}
                await self._client.post(f"/networks/{_quoted(name)}/connect", body=document)
        except EngineError:
            await self.remove(identity, force=True)
            raise
        if spec.log_path:
            self._log_paths[identity] = spec.log_path
        return identity

    async def start(self, name: str, *, standby: bool = False) -> None:
        if standby and not await self._is_workbench():
            raise Unsupported(
                "another engine cannot start a container without its published ports, and give them to it later",
                hint="the old one stops first",
            )
        try:
            if standby:
                await self._own("start", "", name=name, standby=True)
                return
            await self._client.post(f"/containers/{_quoted(name)}/start")
        except EngineError as error:
            raise start_failed(error) from error

    async def take_over(self, name: str, old: str, *, aside: str) -> None:
        await self._own("take_over", f"handing over the ports of {old}", name=name, old=old, aside=aside)

    async def _attach(self, name: str, streams: dict[str, bool], detail: ContainerDetail | None = None) -> RemoteStream:
        detail = detail or await self.container(name)
        identity = detail.summary.id
        params: dict[str, str | int | bool] = {"stream": True, **streams}

        async def code() -> int:
            return await self.wait(identity)

        async def resize(rows: int, columns: int) -> None:
            await self.resize(identity, rows, columns)

        return await open_stream(
            self._client,
            f"/containers/{identity}/attach",
            params,
            None,
            tty=detail.spec.tty,
            code=code,
            resize=resize,
        )

    async def start_attached(self, name: str) -> Stream:
        detail = await self.container(name)
        streams = {"stdin": detail.spec.open_stdin, "stdout": True, "stderr": True}
        stream = await self._attach(name, streams, detail)
        # Its exit code is asked for before the start: an --rm container may be gone right after its end.
        condition: Condition = "removed" if detail.spec.auto_remove else "next-exit"
        ending = asyncio.ensure_future(self.wait(detail.summary.id, condition=condition))
        self._endings[detail.summary.id] = ending
        stream.ends_with(ending)
        await asyncio.sleep(0)
        try:
            await self.start(name)
        except BaseException:
            del self._endings[detail.summary.id]
            ending.cancel()
            await stream.close()
            raise
        return stream

    async def attach(self, name: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> Stream:
        detail = await self.container(name)
        if not detail.summary.running:
            raise Conflict(f"container {name} is not running", hint="start it first")
        streams = {"stdin": stdin and detail.spec.open_stdin, "stdout": stdout, "stderr": stderr}
        return await self._attach(name, streams, detail)

    async def stop(self, name: str, *, timeout: int | None = None, signal: str = "", hurry: bool = False) -> bool:
        if hurry and await self._is_workbench():
            asked = {"name": name, "timeout": timeout, "signal": signal, "hurry": True}
            return bool(await self._own("stop", "", **asked))
        deaf = hurry and await self._is_deaf(name, signal)
        timeout = 0 if deaf else timeout
        params: dict[str, str | int | bool] = {} if timeout is None else {"t": timeout}
        await self._client.post(f"/containers/{_quoted(name)}/stop", {**params, "signal": self._signal(signal)})
        return deaf

    async def _is_deaf(self, name: str, signal: str) -> bool:
        """Whether its first process has no handler for the stop signal: without one it would only be waited for."""
        wanted = signal or str(
            read.mapping((await self.container(name)).config.get("Config")).get("StopSignal") or "TERM"
        )
        number = int(wanted) if wanted.isdigit() else getattr(signals, f"SIG{wanted.removeprefix('SIG')}", 0)
        status = await self._output(name, ("cat", "/proc/1/status"))
        if not number or not status or procfs.hears(status, number):
            return False
        return not procfs.hears(status, number, await self._output(name, ("cat", "/proc/1/syscall")))

    async def _output(self, name: str, command: tuple[str, ...]) -> str:
        """What a program in the container prints; "" where it cannot be run."""
        try:
            stream = await self.exec(name, ExecSpec(command))
        except EngineError:
            return ""
        out = bytearray()
        try:
            while (chunk := await stream.read()) is not None:
                out += chunk[1] if chunk[0] == "stdout" else b""
        finally:
            await stream.close()
        return out.decode("ascii", "replace")

    def _signal(self, signal: str) -> str:
        if signal:
            self._client.needs((1, 42), "--signal")
        return signal

    async def restart(self, name: str, *, timeout: int | None = None, signal: str = "") -> None:
        params: dict[str, str | int | bool] = {} if timeout is None else {"t": timeout}
        await self._client.post(f"/containers/{_quoted(name)}/restart", {**params, "signal": self._signal(signal)})

    async def kill(self, name: str, signal: str = "KILL") -> None:
        await self._client.post(f"/containers/{_quoted(name)}/kill", {"signal": signal})

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        params = {"force": force, "v": volumes} | ({"link": True} if link else {})
        await self._client.json("DELETE", f"/containers/{_quoted(name)}", params)

    async def pause(self, name: str) -> None:
        await self._client.post(f"/containers/{_quoted(name)}/pause")

    async def unpause(self, name: str) -> None:
        await self._client.post(f"/containers/{_quoted(name)}/unpause")

    async def resize(self, name: str, rows: int, columns: int) -> None:
        if rows and columns:
            await self._client.post(f"/containers/{_quoted(name)}/resize", {"h": rows, "w": columns})

    async def resume(self) -> Sequence[str]:
        """Restart policies over there are that engine's own business."""
        return ()

    async def stats(self, name: str) -> ContainerStats:
        if not (await self.container_summary(name)).running:
            raise Conflict(f"container {name} is not running")
        params: dict[str, str | int | bool] = {"stream": "0"}
        if self._client.version >= (1, 41):
            params["one-shot"] = True
        return read.stats(read.mapping(await self._client.get(f"/containers/{_quoted(name)}/stats", params)))

    async def host_stats(self) -> HostStats:
        found: HostStats = await self._own("host_stats", "reading what the host uses")
        return found

    async def top(self, name: str, arguments: Sequence[str] = ()) -> ProcessList:
        params = {"ps_args": " ".join(arguments)}
        found = read.mapping(await self._client.get(f"/containers/{_quoted(name)}/top", params))
        return ProcessList(
            read.texts(found.get("Titles")), tuple(tuple(map(str, row)) for row in found.get("Processes") or ())
        )

    async def update(
        self, name: str, changes: Resources, *, restart_policy: RestartPolicy | None = None
    ) -> Sequence[str]:
        body = write.resources(changes)
        if restart_policy is not None:
            body["RestartPolicy"] = {
                "Name": restart_policy.name,
                "MaximumRetryCount": restart_policy.maximum_retry_count,
            }
        answer = await self._client.post(f"/containers/{_quoted(name)}/update", body=body)
        return read.texts(read.mapping(answer).get("Warnings"))

    async def rename(self, name: str, new_name: str) -> None:
        await self._client.post(f"/containers/{_quoted(name)}/rename", {"name": new_name})

    async def wait(self, name: str, *, condition: Condition = "not-running") -> int:
        if condition == "not-running" and (ending := self._endings.get(name)) and not ending.cancelled():
            return await asyncio.shield(ending)
        params = {"condition": condition if condition != "not-running" else ""}
        found = read.mapping(await self._client.post(f"/containers/{_quoted(name)}/wait", params))
        problem = str(read.mapping(found.get("Error")).get("Message") or "")
        if problem or not isinstance(found.get("StatusCode"), int):
            raise EngineError(problem or f"nobody knows the exit code of {name}")
        return int(found["StatusCode"])

    # --- exec -------------------------------------------------------------------------------------------

    async def execs(self, name: str) -> Sequence[Mapping[str, object]]:
        detail = await self.container(name)
        found = []
        for identity in read.texts(detail.config.get("ExecIDs")):
            document = read.mapping(await self._client.get(f"/exec/{identity}/json"))
            code = document.get("ExitCode")
            found.append(
                {
                    "id": identity,
                    "pid": int(document.get("Pid") or 0),
                    "exit_code": None if document.get("Running") else code,
                }
            )
        return found

    async def exec(self, name: str, spec: ExecSpec) -> Stream:
        attached = not spec.detach
        body: dict[str, Any] = {
            "Cmd": list(spec.command),
            "Env": list(spec.env),
            "User": spec.user or "",
            "WorkingDir": spec.working_dir or "",
            "Tty": spec.tty,
            "Privileged": spec.privileged,
            "AttachStdin": spec.stdin and attached,
            "AttachStdout": attached,
            "AttachStderr": attached,
        }
        made = read.mapping(await self._client.post(f"/containers/{_quoted(name)}/exec", body=body))
        identity = str(made.get("Id"))
        start: dict[str, Any] = {"Detach": spec.detach, "Tty": spec.tty}
        if spec.tty and all(spec.tty_size) and self._client.version >= (1, 42):
            start["ConsoleSize"] = list(spec.tty_size)

        async def code() -> int:
            document = read.mapping(await self._client.get(f"/exec/{identity}/json"))
            return int(document.get("ExitCode") or 0)

        async def resize(rows: int, columns: int) -> None:
            if rows and columns:
                await self._client.post(f"/exec/{identity}/resize", {"h": rows, "w": columns})

        if spec.detach:
            try:
                await self._client.post(f"/exec/{identity}/start", body=start)
            except EngineError as error:
                raise start_failed(error) from error
            return _Gone(code)
        try:
            stream = await open_stream(
                self._client, f"/exec/{identity}/start", {}, start, tty=spec.tty, code=code, resize=resize
            )
        except EngineError as error:
            raise start_failed(error) from error
        if not spec.stdin:
            await stream.close_stdin()
        return stream

    # --- files ------------------------------------------------------------------------------------------

    async def stat_path(self, name: str, path: str) -> PathStat:
        async with self._client.answer("HEAD", f"/containers/{_quoted(name)}/archive", {"path": path}) as answer:
            return _stat_header(answer.headers)

    async def get_archive(
        self, name: str, path: str, out: Sink, *, started: Callable[[PathStat], None] | None = None
    ) -> PathStat:
        async with self._client.answer("GET", f"/containers/{_quoted(name)}/archive", {"path": path}) as answer:
            found = _stat_header(answer.headers)
            if started is not None:
                await asyncio.to_thread(started, found)
            await writing(answer.aiter_raw(), out)
        return found

    async def put_archive(
        self,
        name: str,
        path: str,
        source: BinaryIO,
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        params: dict[str, str | int | bool] = {
            "path": path,
            "noOverwriteDirNonDir": no_overwrite_dir_non_dir,
            "copyUIDGID": copy_uid_gid,
        }
        headers = {"content-type": "application/x-tar"}
        where = f"/containers/{_quoted(name)}/archive"
        async with self._client.answer("PUT", where, params, content=reading(source), headers=headers) as answer:
            await answer.aread()

    async def export(self, name: str, out: Sink) -> None:
        async with self._client.answer("GET", f"/containers/{_quoted(name)}/export") as answer:
            await writing(answer.aiter_raw(), out)

    async def changes(self, name: str) -> Sequence[Change]:
        found = await self._client.get(f"/containers/{_quoted(name)}/changes")
        changes = [Change(_KINDS.get(int(row.get("Kind") or 0), "C"), str(row.get("Path"))) for row in read.rows(found)]
        return sorted(changes, key=lambda change: change.path)

    async def commit(self, name: str, request: CommitRequest) -> str:
        repo, tag = "", ""
        if request.reference:
            reference = Reference.parse(request.reference)
            repo, tag = reference.familiar_name, reference.tag or ""
        params: dict[str, Any] = {
            "container": name,
            "repo": repo,
            "tag": tag,
            "comment": request.comment,
            "author": request.author,
            "changes": list(request.changes),
            "pause": "1" if request.pause else "0",
        }
        return str(read.mapping(await self._client.post("/commit", params)).get("Id"))

    # --- the inner loop ---------------------------------------------------------------------------------

    async def sync(self, name: str, entries: Sequence[SyncEntry]) -> SyncResult:
        """Through `PUT archive`. Removing needs `rm` in the container: Docker's API has no word for it."""
        return await sync_archive(self, name, entries)

    async def drift(self, name: str, image: str = "") -> Sequence[Drift]:
        if await self._is_workbench():
            found: Sequence[Drift] = await self._own("drift", "", name=name, image=image)
            return found
        if image:
            raise beyond("comparing with another image than the container's own")
        return [Drift(change.kind, change.path, False) for change in await self.changes(name)]

    async def listening(self, name: str) -> frozenset[int]:
        """From /proc/net/tcp in the container, by `cat`; without one nothing is known to listen."""
        if await self._is_workbench():
            found: frozenset[int] = await self._own("listening", "", name=name)
            return found
        return procfs.listening_ports(await self._output(name, ("cat", *procfs.TCP_TABLES)))


class _Gone:
    """The streams of an exec that nobody holds."""

    def __init__(self, code: Callable[[], Any]) -> None:
        self._code = code

    async def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        return None

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, columns: int) -> None: ...

    async def wait(self) -> int:
        return int(await self._code())

    async def detach(self) -> None: ...

    async def close(self) -> None: ...


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name.lstrip("/"), safe="")


def _stat_header(headers: Mapping[str, str]) -> PathStat:
    text = headers.get("x-docker-container-path-stat") or ""
    try:
        return read.path_stat(cast("dict[str, Any]", json.loads(base64.b64decode(text))))
    except ValueError:
        raise EngineError(f"the engine says nothing of that path ({human_size(len(text))} of header)") from None
