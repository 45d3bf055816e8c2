"""RUN as work: command, environment, mounts, network, rights; and the key they make."""

from __future__ import annotations

import codecs
import contextlib
import json
import posixpath
import re
import secrets
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from engine.build.cache_mounts import CacheMounts, CacheSpec
from engine.build.copier import write_plan
from engine.build.copy import CopyPlan, digest_plan, take_path
from engine.build.dockerfile.ast import Run
from engine.build.dockerfile.mounts import Mount, parse_mount
from engine.build.dockerfile.words import expand
from engine.build.emulation import check_runnable
from engine.build.interfaces import RunStep, StepMount
from engine.build.metadata import run_history, run_words
from engine.build.secret_values import read_secret
from engine.build.site import Origin, Site, Work
from engine.build.state import State, env_map
from engine.build.variables import proxy_environment
from engine.errors import AccessDenied, BuildFailed, InvalidInput, NotFound, Unsupported
from engine.model import SshAgent, StepInfo, StepOutput
from engine.store.view import LayerView

OUTPUT_LINES = 12  # of a failed command, in its error
_HOSTNAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # sethostname(2): HOST_NAME_MAX
_SSH_TARGET = "/run/buildkit/ssh_agent.{}"


@dataclass(slots=True)
class _Plan:
    """What the mounts of a RUN come to. `cache` are the folders that are held while it runs."""

    inputs: dict[str, str] = field(default_factory=dict)
    ready: list[StepMount] = field(default_factory=list)
    caches: list[tuple[CacheSpec, Mount, str, Origin]] = field(default_factory=list)
    contexts: list[tuple[Mount, str, CopyPlan]] = field(default_factory=list)
    secrets: list[tuple[Mount, str]] = field(default_factory=list)
    agents: list[tuple[Mount, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def plan_run(site: Site, state: State, run: Run, stage: int, step: StepInfo) -> Work:
    """Raises `InvalidInput`, `AccessDenied` (a right that was not given), `Unsupported`."""
    args, script = run_words(state, run)
    network, privileged = _rights(site, run)
    hostname = _hostname(site)
    check_runnable(state.config)
    if run.devices:
        raise Unsupported("RUN --device needs CDI devices, which are not known here", hint="leave --device out")
    plan = _mounts(site, state, run, stage)
    if script:
        name = posixpath.basename(args[-1])
        plan.ready.append(
            StepMount("file", f"/dev/pipes/{name}", data=script.encode("utf-8", "surrogateescape"), mode=0o755)
        )
        plan.inputs["heredoc"] = script
    inputs = {
        "instruction": json.dumps(args),
        "user": state.config.user,
        "workdir": state.workdir,
        "network": network,
        "security": run.security if privileged else "",
        **plan.inputs,
    }
    lasting = env_map(state.config.env)
    inputs |= {f"{'env' if name in lasting else 'arg'}:{name}": value for name, value in state.variables.items()}
    snapshot = replace(state, variables=dict(state.variables))

    def perform(upper: Path, scratch: Path) -> None:
        scratch.mkdir(mode=0o700)
        base = RunStep(
            tuple(site.trees(snapshot)),
            upper,
            scratch,
            args,
            (),
            snapshot.workdir,
            snapshot.config.user,
            network,
            privileged=privileged,
            hostname=hostname,
        )
        _Running(site, run, step, plan, base, snapshot).go()

    return Work(inputs, run_history(state, args), perform)


def _hostname(site: Site) -> str:
    """`BUILDKIT_SANDBOX_HOSTNAME`, an ARG before the first FROM or a build argument."""
    name = "BUILDKIT_SANDBOX_HOSTNAME"
    found = site.outer.get(name) or site.request.build_args.get(name) or "buildkitsandbox"
    if not _HOSTNAME.fullmatch(found):
        raise InvalidInput(f"{name}={found[:80]!r} is no host name", hint="up to 64 letters, digits, '-', '_' and '.'")
    return found


def _rights(site: Site, run: Run) -> tuple[str, bool]:
    """The network and whether the step is privileged. Both need the user's word, for a Dockerfile may be another's."""
    network = run.network if run.network not in ("", "default") else site.request.network or "default"
    allowed = site.request.allow
    if run.network == "host" and site.request.network != "host" and "network.host" not in allowed:
        raise AccessDenied(
            "RUN --network=host is not allowed",
            hint="allow it: --allow network.host (or --network host for every step)",
        )
    if run.security == "insecure" and "security.insecure" not in allowed:
        raise AccessDenied("RUN --security=insecure is not allowed", hint="allow it: --allow security.insecure")
    return network, run.security == "insecure"


# --- mounts ---------------------------------------------------------------------------------------------


def _mounts(site: Site, state: State, run: Run, stage: int) -> _Plan:
    plan = _Plan()
    for number, text in enumerate(run.mounts):
        mount = parse_mount(text, lambda word: expand(word, state.variables, site.escape))
        plan.inputs[f"mount:{number}"] = repr(mount)
        if mount.kind == "secret":
            plan.secrets.append((mount, _target(state, mount.secret_target) if mount.secret_target else ""))
        elif mount.kind == "ssh":
            plan.agents.append((mount, _target(state, mount.target or _SSH_TARGET.format(len(plan.agents)))))
        elif mount.kind == "tmpfs":
            plan.ready.append(
                StepMount("tmpfs", _target(state, mount.target), read_only=mount.read_only, size=mount.size)
            )
        elif mount.kind == "cache":
            _cache(site, state, mount, stage, plan)
        else:
            _bind(site, state, mount, stage, plan)
    return plan


def _target(state: State, text: str) -> str:
    target = posixpath.normpath(posixpath.join("/", state.workdir, text)).replace("//", "/")
    if target == "/":
        raise InvalidInput('invalid mount target "/"', hint="name a directory: target=/PATH")
    return target


def _inside(path: str) -> str:
    return posixpath.normpath("/" + path).lstrip("/")


def _bind(site: Site, state: State, mount: Mount, stage: int, plan: _Plan) -> None:
    origin = site.origin(mount.from_, stage, numbers=False)
    target, inside = _target(state, mount.target), _inside(mount.source)
    if origin.source is not None:
        # What .dockerignore excludes must not show, and what the step writes must not reach the context: it gets a copy.
        copy = CopyPlan("/content" if inside else "/", (take_path(origin.source, inside),))
        plan.inputs |= digest_plan(copy)
        plan.contexts.append((mount, target, copy))
        return
    if inside:
        tree = take_path(origin.as_source(), inside)
        plan.inputs |= digest_plan(CopyPlan("/", (tree,)))
    else:
        plan.inputs[f"from:{mount.from_}"] = origin.key
    plan.ready.append(StepMount("tree", target, mount.read_only, lowers=origin.trees, source=inside, shown=mount.from_))


def _cache(site: Site, state: State, mount: Mount, stage: int, plan: _Plan) -> None:
    origin = site.origin(mount.from_, stage, numbers=False) if mount.from_ else Origin(where="an empty cache")
    target = _target(state, mount.target)
    space = site.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
    owner = None
    if not _inside(mount.source) and any(value is not None for value in (mount.uid, mount.gid, mount.mode)):
        owner = (mount.uid or 0, mount.gid or 0, 0o755 if mount.mode is None else mount.mode)
    identity = f"{space}/{mount.id or posixpath.normpath(mount.target or target)}"
    plan.caches.append((CacheSpec(identity, mount.sharing, origin.key, owner), mount, target, origin))


# --- doing it -------------------------------------------------------------------------------------------


class _Running:
    def __init__(self, site: Site, run: Run, step: StepInfo, plan: _Plan, base: RunStep, state: State) -> None:
        self._site, self._run, self._step, self._plan, self._base, self._state = site, run, step, plan, base, state

    def go(self) -> None:
        site = self._site
        with contextlib.ExitStack() as holding:
            mounts = [*self._plan.ready, *self._contexts(holding), *self._caches(holding)]
            environment = proxy_environment(site.request.build_args, self._state) | self._state.variables
            mounts += self._secrets(environment)
            mounts += self._agents(environment)
            request = replace(
                self._base, mounts=tuple(mounts), env=tuple(f"{name}={value}" for name, value in environment.items())
            )
            last: deque[str] = deque(maxlen=OUTPUT_LINES)

            def tell(stream: Literal["stdout", "stderr"], text: str) -> None:
                last.extend(text.split("\n")[-OUTPUT_LINES:])
                site.emit(StepOutput(self._step.key, stream, text))

            decoder = LineSplitter(tell)
            code = site.runner.run(request, decoder.feed, site.cancel)
            decoder.flush()
            site.cancel.check()
        if code != 0:
            error = BuildFailed(
                f"{self._run.source}: exit code {code}",
                exit_code=code,
                file=str(site.file),
                line=self._run.line,
                hint="the output above is the command's own; `workbench build --shell-on-error` opens a shell where it failed",
            )
            error.excerpt = site.dockerfile.lines[self._run.line - 1 : min(self._run.end_line, self._run.line + 9)]
            error.output = tuple(_shown(line) for line in last)
            raise error

    def _contexts(self, holding: contextlib.ExitStack) -> list[StepMount]:
        found = []
        for mount, target, copy in self._plan.contexts:
            folder = self._site.store.tmp / f"mount-{secrets.token_hex(8)}"
            folder.mkdir(mode=0o755)
            holding.callback(shutil.rmtree, folder, ignore_errors=True)
            write_plan(copy, folder, LayerView([]), self._site.cancel)
            inside = copy.dest.strip("/")
            found.append(StepMount("tree", target, mount.read_only, lowers=(folder,), source=inside, shown="context"))
        return found

    def _caches(self, holding: contextlib.ExitStack) -> list[StepMount]:
        """In the order of their identities, so that two steps never wait for each other."""
        caches = CacheMounts(self._site.store.root / "cache-mounts", self._site.cancel)
        folders: dict[int, Path] = {}
        held: dict[CacheSpec, Path] = {}
        for index in sorted(range(len(self._plan.caches)), key=lambda i: self._plan.caches[i][0].digest(0)):
            spec, _, _, origin = self._plan.caches[index]
            if spec not in held:
                held[spec] = holding.enter_context(caches.use(spec, self._filler(origin)))
            folders[index] = held[spec]
        return [
            StepMount("bind", target, mount.read_only, folder=folders[index], source=_inside(mount.source))
            for index, (_, mount, target, _) in enumerate(self._plan.caches)
        ]

    def _filler(self, origin: Origin) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            if origin.source is not None or origin.trees:
                copy = CopyPlan("/", (take_path(origin.as_source(), ""),))
                write_plan(copy, folder, LayerView([]), self._site.cancel)

        return fill

    def _secrets(self, environment: dict[str, str]) -> list[StepMount]:
        found = []
        for mount, target in self._plan.secrets:
            value = read_secret(self._site.request, mount.secret_id)
            if value is None:
                if mount.required:
                    raise NotFound(
                        f"secret {mount.secret_id}: not found", hint=f"give it: --secret id={mount.secret_id},src=FILE"
                    )
                continue
            if mount.env is not None:
                environment[mount.env or mount.secret_id] = value.decode("utf-8", "surrogateescape")
            if target:
                mode = 0o400 if mount.mode is None else mount.mode
                found.append(StepMount("file", target, data=value, mode=mode, uid=mount.uid or 0, gid=mount.gid or 0))
        return found

    def _agents(self, environment: dict[str, str]) -> list[StepMount]:
        found = []
        for mount, target in self._plan.agents:
            wanted = mount.id or "default"
            agent: SshAgent | None = next((a for a in self._site.request.ssh if a.id == wanted), None)
            if agent is None:
                if mount.required:
                    raise NotFound(f"unset ssh forward key {wanted}", hint=f"forward it: --ssh {wanted}")
                continue
            environment.setdefault("SSH_AUTH_SOCK", target)
            mode = 0o600 if mount.mode is None else mount.mode
            found.append(
                StepMount("ssh", target, False, agent=agent, mode=mode, uid=mount.uid or 0, gid=mount.gid or 0)
            )
        return found


def _shown(line: str) -> str:
    """A line of output in an error: what would act on a terminal is taken out."""
    text = line.rstrip("\r").rsplit("\r", 1)[-1]
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)[:500]


class LineSplitter:
    """Bytes of two streams in, whole decoded lines out. A long line without an end goes out in parts of 64 KiB."""

    def __init__(self, emit: Callable[[Literal["stdout", "stderr"], str], None]) -> None:
        self._emit = emit
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        self._rest = {"stdout": "", "stderr": ""}

    def feed(self, stream: str, data: bytes) -> None:
        text = self._rest[stream] + self._decoders[stream].decode(data)
        whole, newline, rest = text.rpartition("\n")
        if len(rest) > 65536:
            whole, newline, rest = text, "\n", ""
        self._rest[stream] = rest
        if newline:
            self._emit(cast("Literal['stdout', 'stderr']", stream), whole)

    def flush(self) -> None:
        for stream, rest in self._rest.items():
            if rest:
                self._emit(cast("Literal['stdout', 'stderr']", stream), rest)
                self._rest[stream] = ""
