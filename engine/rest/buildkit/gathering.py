"""What a build needs of its client before it starts: the Dockerfile, the context, secrets, agents and credentials."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from engine.api import BuildRequest, BuildSecret, RegistryAuth, SshAgent
from engine.build.contexts import read_stream
from engine.build.dockerfile.ast import Add, Copy, Dockerfile, Run
from engine.build.dockerfile.ignore import read_patterns
from engine.build.dockerfile.mounts import parse_mount
from engine.build.dockerfile.parser import parse
from engine.build.dockerfile.words import expand
from engine.errors import EngineError, NotFound
from engine.linux.openat2 import open_in_root
from engine.oci.reference import DEFAULT_DOMAIN, Reference
from engine.rest.buildkit.folders import Folders, folder_key
from engine.rest.buildkit.jobs import Job
from engine.rest.buildkit.progress import Progress
from engine.rest.buildkit.request import Wanted, named_folder
from engine.rest.buildkit.sessions import Session
from engine.rest.files import BodyFile
from engine.rest.http import Body
from engine.rest.remote_context import fetched
from engine.service.streams import on_thread

_MAX_DOCKERFILE = 16 << 20  # bytes
_UPLOAD = "buildkit-session"  # the host of what the client got on stdin (moby/buildkit `session/upload`)
_HUB = "registry-1.docker.io"  # how BuildKit's clients call Docker Hub


@dataclass(frozen=True, slots=True)
class Gathered:
    """`dockerfile` is a file of ours; `text` is what stands in it."""

    context: Path
    dockerfile: Path
    text: str


class Gathering:
    """For one build. `scratch` is its own folder, `root` the data root (None: remote contexts cannot be fetched).

    `body` is the context where that came with the request, and not over the session."""

    def __init__(
        self,
        job: Job,
        progress: Progress,
        session: Session,
        wanted: Wanted,
        scratch: Path,
        root: Path | None,
        body: Body | None,
    ) -> None:
        self._job, self._progress, self._session = job, progress, session
        self._wanted, self._scratch, self._root, self._body = wanted, scratch, root, body

    async def files(self, folders: Folders, closing: contextlib.AsyncExitStack) -> Gathered:
        """The Dockerfile and the contexts. Raises `EngineError`."""
        wanted = self._wanted
        dockerfile: Path | None = None
        if wanted.dockerfile_key:
            dockerfile = await self._dockerfile(wanted.dockerfile_key)
        if wanted.context:
            context = await self._elsewhere(wanted.context, closing)
            dockerfile = dockerfile or self._plain(context, wanted.filename)
        else:
            context = await self._context(folders, closing, dockerfile)
        for key in wanted.local_contexts().values():
            await self._named(key)
        assert dockerfile is not None  # there is a key, or a context elsewhere
        return Gathered(context, dockerfile, dockerfile.read_text("utf-8", "surrogateescape"))

    async def _dockerfile(self, key: str) -> Path:
        name = self._wanted.filename
        folder = self._scratch / "dockerfile"
        folder.mkdir()
        async with self._vertex(f"[internal] load build definition from {name}") as vertex:
            only = [name, f"{name}.dockerignore"]
            came = await self._session.files(key, folder, only=only)
            await self._job.tell(self._progress.count(vertex, "transferring dockerfile:", came, done=True))
            return self._plain(folder, name)

    def _plain(self, folder: Path, name: str) -> Path:
        """The Dockerfile (and the ignore file beside it) as files of ours: the client's may be links."""
        plain = self._scratch / "plain"
        plain.mkdir(exist_ok=True)
        text = _read(folder, name)
        if text is None:
            raise NotFound(f"failed to read dockerfile: open {name}: no such file or directory")
        ignore = _read(folder, f"{name}.dockerignore")
        path = plain / (os.path.basename(name) or "Dockerfile")
        path.write_bytes(text)
        if ignore is not None:
            path.with_name(path.name + ".dockerignore").write_bytes(ignore)
        return path

    async def _context(self, folders: Folders, closing: contextlib.AsyncExitStack, dockerfile: Path | None) -> Path:
        key = self._wanted.context_key
        ignored = await self._ignored(key, dockerfile)
        own = folder_key(self._session.shared_key, key)
        folder = await closing.enter_async_context(folders.kept(own))
        async with self._vertex("[internal] load build context") as vertex:
            waiting: list[int] = []
            reporting = asyncio.create_task(self._report(vertex, waiting))
            try:
                came = await self._session.files(key, folder, but=ignored, progress=waiting.append)
            finally:
                reporting.cancel()
            await self._job.tell(self._progress.count(vertex, "transferring context:", came, done=True))
        return folder

    async def _report(self, vertex: str, counts: list[int]) -> None:
        while True:
            await asyncio.sleep(0.1)
            if counts:
                current = counts[-1]
                counts.clear()
                await self._job.tell(self._progress.count(vertex, "transferring context:", current))

    async def _ignored(self, key: str, dockerfile: Path | None) -> list[str]:
        """The patterns of the Dockerfile's own ignore file, else of the context's."""
        own = dockerfile.with_name(dockerfile.name + ".dockerignore") if dockerfile else None
        if own is not None and own.exists():
            return read_patterns(own.read_text("utf-8", "replace"))
        folder = self._scratch / "ignore"
        folder.mkdir()
        async with self._vertex("[internal] load .dockerignore") as vertex:
            came = await self._session.files(key, folder, only=[".dockerignore"])
            await self._job.tell(self._progress.count(vertex, "transferring context:", came, done=True))
        text = _read(folder, ".dockerignore")
        return read_patterns(text.decode("utf-8", "replace")) if text is not None else []

    async def _named(self, key: str) -> None:
        folder = named_folder(self._scratch, key)
        folder.mkdir()
        ignore = self._scratch / "named-ignore"
        ignore.mkdir(exist_ok=True)
        async with self._vertex(f"[context {key}] load from client") as vertex:
            await self._session.files(key, ignore, only=[".dockerignore"])
            text = _read(ignore, ".dockerignore")
            patterns = read_patterns(text.decode("utf-8", "replace")) if text is not None else []
            came = await self._session.files(key, folder, but=patterns)
            await self._job.tell(self._progress.count(vertex, f"transferring {key}:", came, done=True))

    async def _elsewhere(self, place: str, closing: contextlib.AsyncExitStack) -> Path:
        """A context at a URL, in a git repository, or on the client's stdin."""
        folder = self._scratch / "fetched"
        folder.mkdir()
        parts = urlsplit(place)
        async with self._vertex(f"[internal] load remote build context from {parts.hostname or place[:80]}"):
            if parts.hostname == _UPLOAD:
                body = BodyFile(self._body or self._session.upload(parts.path, _UPLOAD))
                try:
                    unpacked = await on_thread(lambda: read_stream(io.BufferedReader(body, 1 << 18), folder))
                    await body.drain()
                finally:
                    body.abandon()
                return _with_text(folder, self._wanted.filename, unpacked.dockerfile_text)
            return await self._fetch(place, folder, closing)

    async def _fetch(self, place: str, folder: Path, closing: contextlib.AsyncExitStack) -> Path:
        held = contextlib.ExitStack()
        closing.push_async_callback(asyncio.to_thread, held.close)
        secrets = await self._secrets(
            [f"GIT_AUTH_TOKEN.{urlsplit(place).hostname}", "GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"]
        )
        came = await fetched(place, folder, self._root, held, BuildRequest(folder, secrets=secrets))
        return _with_text(came.context, self._wanted.filename, came.text)

    @contextlib.asynccontextmanager
    async def _vertex(self, name: str) -> AsyncIterator[str]:
        await self._job.tell(self._progress.begin(name))
        yield name
        await self._job.tell(self._progress.end(name))

    # --- what else it asks for --------------------------------------------------------------------------

    async def fill(self, plan: BuildRequest, text: str, closing: contextlib.AsyncExitStack) -> BuildRequest:
        """The request with the secrets, agents and credentials that its Dockerfile asks for."""
        try:
            dockerfile = parse(text, "Dockerfile")
        except EngineError:
            return plan  # the build says it better
        secrets, agents = _asked(dockerfile)
        return replace(
            plan,
            secrets=await self._secrets(secrets),
            ssh=tuple([agent for name in agents if (agent := await self._agent(name, closing))]),
            auths=tuple([auth for domain in _domains(dockerfile, plan) if (auth := await self._auth(domain))]),
        )

    async def _secrets(self, names: Sequence[str]) -> tuple[BuildSecret, ...]:
        found = []
        for name in dict.fromkeys(names):
            value = await self._session.secret(name)
            if value is not None:
                found.append(BuildSecret(name, value=value))
        return tuple(found)

    async def _agent(self, name: str, closing: contextlib.AsyncExitStack) -> SshAgent | None:
        if not await self._session.has_agent(name):
            return None
        path = self._scratch / f"agent-{len(os.listdir(self._scratch))}"
        await closing.enter_async_context(self._session.agent(name, path))
        return SshAgent(name, socket=path)

    async def _auth(self, domain: str) -> RegistryAuth | None:
        user, secret = await self._session.credentials(_HUB if domain == DEFAULT_DOMAIN else domain)
        if not secret:
            return None
        return RegistryAuth(domain, user, secret) if user else RegistryAuth(domain, identity_token=secret)


def _read(folder: Path, name: str) -> bytes | None:
    """A file below `folder`, links followed inside it; None when it is not there."""
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(_MAX_DOCKERFILE)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    finally:
        os.close(root)


def _with_text(folder: Path, name: str, text: str | None) -> Path:
    """The context; with the Dockerfile in it where that is all that came."""
    if text is not None:
        (folder / (os.path.basename(name) or "Dockerfile")).write_text(text, "utf-8", "surrogateescape")
    return folder


def _asked(dockerfile: Dockerfile) -> tuple[list[str], list[str]]:
    """The ids of the secrets and of the agents that RUN steps mount, or that an ADD of a private place may need."""
    secrets: list[str] = []
    agents: list[str] = []
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, Run):
                for text in instruction.mounts:
                    with contextlib.suppress(EngineError):
                        mount = parse_mount(str(text), lambda word: word)
                        if mount.kind == "secret":
                            secrets.append(mount.secret_id)
                        elif mount.kind == "ssh":
                            agents.append(mount.id or "default")
            elif isinstance(instruction, Add):
                for source in instruction.sources:
                    host = urlsplit(str(source)).hostname
                    if host:
                        secrets += [
                            f"{kind}{host}" for kind in ("GIT_AUTH_TOKEN.", "HTTP_AUTH_TOKEN_", "HTTP_AUTH_HEADER_")
                        ]
                        secrets += ["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"]
                    elif "@" in str(source):
                        agents.append("default")
    return list(dict.fromkeys(secrets)), list(dict.fromkeys(agents))


def _domains(dockerfile: Dockerfile, plan: BuildRequest) -> list[str]:
    """The registries that a build may ask: of its bases, of what it copies from, and where its result goes."""
    scope: dict[str, str] = {}
    names: list[str] = [*plan.tags] if any(output.options.get("push") for output in plan.outputs) else []
    names += [
        part.removeprefix("ref=")
        for cache in (*plan.cache_from, *plan.cache_to)
        for part in cache.split(",")
        if part.startswith("ref=")
    ]
    names += [
        place.removeprefix("docker-image://") for place in plan.contexts.values() if place.startswith("docker-image://")
    ]
    with contextlib.suppress(EngineError):
        for arg in dockerfile.meta_args:
            for name, default in arg.pairs:
                scope[name] = plan.build_args.get(name, expand(default or "", scope, dockerfile.escape))
        for stage in dockerfile.stages:
            names.append(expand(stage.base, scope, dockerfile.escape))
            names += [
                instruction.from_
                for instruction in stage.instructions
                if isinstance(instruction, Copy) and instruction.from_
            ]
    domains = []
    for name in names:
        with contextlib.suppress(EngineError):
            domains.append(Reference.parse(name).domain)
    return list(dict.fromkeys(domains))
