"""Files of containers over the API: archive (`docker cp`), export, changes, commit."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import stat
from collections.abc import AsyncIterator

from engine.api import Engine, PathStat, Sink
from engine.base.clock import rfc3339
from engine.errors import InvalidInput
from engine.model import CommitRequest
from engine.rest.files import BodyFile, begun, piped
from engine.rest.http import Answer, Request, Response, json_response
from engine.rest.router import Router
from engine.service.wire import Fields

_TAR = "application/x-tar"
_KINDS = {"A": 1, "C": 0, "D": 2}
# Go's os.FileMode bits, which the header carries (pkg.go.dev/io/fs#FileMode).
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: (1 << 26) | (1 << 21),
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}


class ArchiveRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("HEAD", "/containers/{name}/archive", self.stat)
        router.add("GET", "/containers/{name}/archive", self.get)
        router.add("PUT", "/containers/{name}/archive", self.put, keep=False)
        router.add("GET", "/containers/{name}/export", self.export)
        router.add("GET", "/containers/{name}/changes", self.changes)
        router.add("POST", "/commit", self.commit)

    async def stat(self, request: Request) -> Answer:
        found = await self._engine.stat_path(request.params["name"], _path(request))
        return Response(200, b"", headers={"X-Docker-Container-Path-Stat": header(found)})

    async def get(self, request: Request) -> Answer:
        name, path = request.params["name"], _path(request)
        begins: asyncio.Future[PathStat] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def started(found: PathStat) -> None:
            loop.call_soon_threadsafe(begins.set_result, found)

        async def produce(out: Sink) -> None:
            await self._engine.get_archive(name, path, out, started=started)

        body: AsyncIterator[bytes] = await begun(piped(produce))
        headers = {"X-Docker-Container-Path-Stat": header(await begins)}
        return Response(200, body, _TAR, headers)

    async def put(self, request: Request) -> Answer:
        await self._engine.container_summary(request.params["name"])  # before the body is asked for
        body = BodyFile(request.body)
        try:
            await self._engine.put_archive(
                request.params["name"],
                _path(request),
                io.BufferedReader(body, 1 << 18),
                no_overwrite_dir_non_dir=request.query.flag("noOverwriteDirNonDir"),
                copy_uid_gid=request.query.flag("copyUIDGID"),
            )
        finally:
            body.abandon()
        return Response(200, b"", "text/plain; charset=utf-8")

    async def export(self, request: Request) -> Answer:
        async def produce(out: Sink) -> None:
            await self._engine.export(request.params["name"], out)

        return Response(200, await begun(piped(produce)), _TAR)

    async def changes(self, request: Request) -> Answer:
        found = await self._engine.changes(request.params["name"])
        return json_response([{"Path": change.path, "Kind": _KINDS[change.kind]} for change in found] or None)

    async def commit(self, request: Request) -> Answer:
        query = request.query
        if not query.text("container"):
            raise InvalidInput('invalid name or ID supplied: ""')
        # The body is a container's Config; some clients send it within one.
        body = Fields(await request.json())
        given = _config_changes(body.object("Config") if body.raw("Config") else body)
        repo, tag = query.text("repo"), query.text("tag")
        changes = tuple(line for text in query.all("changes") for line in text.split("\n") if line.strip())
        image = await self._engine.commit(
            query.text("container"),
            CommitRequest(
                f"{repo}:{tag}" if repo and tag else repo,
                query.text("comment"),
                query.text("author"),
                (*given, *changes),
                query.flag("pause", True),
            ),
        )
        return json_response({"Id": image}, 201)


def _config_changes(config: Fields) -> tuple[str, ...]:
    """A Config as the instructions that make it: what it sets stands over the container's, its variables beside them."""
    found = [
        f"ENV {_quoted(name)}={_quoted(value)}" for name, _, value in (e.partition("=") for e in config.texts("Env"))
    ]
    found += [f"LABEL {_quoted(name)}={_quoted(value)}" for name, value in config.mapping("Labels").items()]
    found += [f"EXPOSE {port}" for port in config.keys("ExposedPorts")]
    for field, word in (("Entrypoint", "ENTRYPOINT"), ("Cmd", "CMD")):
        if words := config.words(field):
            found.append(f"{word} {json.dumps(words)}")
    if paths := config.keys("Volumes"):
        found.append(f"VOLUME {json.dumps(paths)}")
    for field, word in (("User", "USER"), ("WorkingDir", "WORKDIR"), ("StopSignal", "STOPSIGNAL")):
        if text := config.text(field):
            found.append(f"{word} {text}")
    if any("\n" in line for line in found):
        raise InvalidInput("a line break cannot stand in a config to commit")
    return tuple(found)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidInput("path is needed")
    if "\0" in path:
        raise InvalidInput("the path holds a NUL byte")
    return path


def header(found: PathStat) -> str:
    """The stat of a path as base64 of JSON, with Go's mode bits."""
    mode = stat.S_IMODE(found.mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(found.mode), 0)
    for bit, go in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        mode |= go if found.mode & bit else 0
    document = {
        "name": found.name,
        "size": found.size,
        "mode": mode,
        "mtime": rfc3339(found.mtime),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(json.dumps(document).encode()).decode()
