"""Runs a Dockerfile: stage after stage, each step either found in the cache or done and put there.

A step's cache key is the chain ID of what it builds on and a digest of what it depends on, so equal content meets equal
keys however it came about, and modification times do not count. A layer enters the cache after it is whole; a step that is
cancelled or crashes leaves nothing that is later trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engine.archive.diff import write_upper
from engine.archive.writer import LayerWriter
from engine.base.cancel import CancelToken
from engine.base.clock import rfc3339
from engine.build import metadata
from engine.build.copy import Ownership, digest_items, parse_mode, plan_copy, resolve_owner, write_items
from engine.build.dockerfile.ast import Add, Arg, Copy, Dockerfile, Instruction, Run, Workdir
from engine.build.dockerfile.parser import parse
from engine.build.dockerfile.words import expand
from engine.build.explain import explain
from engine.build.export import export_all, keeps_image
from engine.build.graph import StagePlan, label, list_steps, plan_stages, stage_index
from engine.build.result import Result
from engine.build.source import ContextSource, Source, StatCache, ViewSource
from engine.errors import BuildFailed, DockerfileError, InvalidInput, Unsupported, from_os_error
from engine.model import (
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildRequest,
    BuildStarted,
    StepFinished,
    StepInfo,
    StepOutput,
    StepStarted,
)
from engine.oci.chain import chain_ids
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.store.images import Image
from engine.store.store import Store
from engine.store.view import LayerView

Emit = Callable[[BuildEvent], None]


@dataclass(frozen=True, slots=True)
class RunStep:
    """One RUN: `upper` receives what it writes over `lowers` (topmost first)."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    network: str


class Runner(Protocol):
    """Runs a command in a container. The service gives the builder one; it does not import the runtime."""

    def run(self, step: RunStep, output: Callable[[str, bytes], None], cancel: CancelToken) -> int:
        """The exit code. Raises `StartFailed`, `Cancelled`."""


class ImageSource(Protocol):
    def base(self, name: str, *, pull: bool, emit: Emit, cancel: CancelToken) -> Image:
        """The image that a FROM names, pulled when it is not here."""


@dataclass(slots=True)
class State:
    """Where a stage stands after a step."""

    config: ImageConfig
    layers: list[Descriptor] = field(default_factory=list)
    size: int = 0
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    ran: bool = False  # a step of this line ran: what follows says "parent step ran"
    steps: list[dict[str, object]] = field(default_factory=list)
    workdir: str = "/"
    own_cmd: bool = False  # CMD came from this Dockerfile, not from the base

    def fork(self) -> State:
        return State(
            self.config, list(self.layers), self.size, dict(self.env), {}, self.ran, list(self.steps), self.workdir
        )

    @property
    def chain(self) -> str:
        chains = chain_ids(self.config.diff_ids)
        return chains[-1] if chains else ""

    def scope(self) -> dict[str, str]:
        """Variables that a word may name: ENV wins over ARG."""
        return {**self.args, **self.env}


class Build:
    """One build. `run` does it on the calling thread and reports through `emit`."""

    def __init__(
        self, store: Store, runner: Runner, images: ImageSource, request: BuildRequest, emit: Emit, cancel: CancelToken
    ):
        self._store, self._runner, self._images = store, runner, images
        self._request, self._emit, self._cancel = request, emit, cancel
        self._file = request.dockerfile or request.context / "Dockerfile"
        self._done: dict[int, State] = {}
        self._first: tuple[StepInfo, str] | None = None
        self._dockerfile: Dockerfile
        self._context: ContextSource | None = None
        self._warned = False

    def run(self) -> BuildFinished:
        started = time.monotonic()
        text = self._request.dockerfile_text
        self._dockerfile = metadata.read_dockerfile(self._file) if text is None else parse(text, "Dockerfile")
        plans = plan_stages(self._dockerfile, self._request.target, self._bases(), str(self._file))
        steps = list_steps(plans)
        self._emit(BuildStarted(str(self._file), tuple(steps)))
        by_key = {step.key: step for step in steps}
        cache = StatCache(self._stat_cache_path())
        try:
            with self._store.using():
                for plan in plans:
                    self._done[plan.stage.index] = self._stage(plan, by_key, cache)
                result = self._result(self._done[plans[-1].stage.index])
                image = self._keep(result)
        except OSError as error:
            raise from_os_error(error, f"building {self._file}") from error
        finally:
            cache.save()
            if self._context:
                self._context.close()
        config_digest = result.manifest.config.digest
        self._store.records.event("build", "finish", config_digest, {"dockerfile": str(self._file)})
        first, reason = self._first or (None, "")
        tags = image.familiar_tags if image else ()
        seconds = time.monotonic() - started
        finished = BuildFinished(config_digest, result.manifest.digest, tags, seconds, first, reason)
        export_all([result], self._request, self._store, self._cancel)
        self._emit(finished)
        return finished

    def _stat_cache_path(self) -> Path:
        folder = self._store.root / "stat"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{hashlib.sha256(str(self._request.context.resolve()).encode()).hexdigest()[:32]}.json"

    def _bases(self) -> dict[int, str]:
        """FROM words, with the ARGs before the first FROM and the platform arguments expanded."""
        scope = metadata.platform_args(Platform.host())
        for arg in self._dockerfile.meta_args:
            for name, default in arg.pairs:
                given = self._request.build_args.get(name)
                value = given if given is not None else expand(default, scope) if default is not None else None
                if value is not None:
                    scope[name] = value
        self._meta = scope
        bases = {}
        for stage in self._dockerfile.stages:
            base = expand(stage.base, scope, self._dockerfile.escape)
            if not base:
                raise DockerfileError(
                    f"FROM {stage.base}: the base name is empty",
                    file=str(self._file),
                    line=stage.line,
                    hint="give the ARG a default before FROM, or pass --build-arg",
                )
            bases[stage.index] = base
        return bases

    # --- one stage ----------------------------------------------------------------------------------

    def _stage(self, plan: StagePlan, steps: Mapping[str, StepInfo], cache: StatCache) -> State:
        name = label(plan.stage)
        state = self._from(plan, steps[f"{name}/1"])
        for number, instruction in enumerate(plan.stage.instructions, 2):
            self._cancel.check()
            step = steps[f"{name}/{number}"]
            try:
                self._step(state, instruction, step, plan, cache)
            except DockerfileError:
                raise
            except (InvalidInput, Unsupported) as error:
                raise DockerfileError(
                    f"{instruction.source}: {error.message}",
                    file=str(self._file),
                    line=instruction.line,
                    source=self._dockerfile.lines[instruction.line - 1],
                    hint=error.hint,
                ) from error
        return state

    def _from(self, plan: StagePlan, step: StepInfo) -> State:
        started = time.monotonic()
        self._emit(StepStarted(step, ""))
        if plan.base_stage is not None:
            state = self._done[plan.base_stage].fork()
        elif plan.base == "scratch":
            state = State(ImageConfig.scratch(Platform.host()))
        else:
            state = self._from_image(plan.base)
        self._emit(StepFinished(step, True, time.monotonic() - started, 0))
        if not any(name == "PATH" for name in state.env):
            state.env["PATH"] = metadata.DEFAULT_PATH
            state.config = state.config.with_config(Env=[f"{k}={v}" for k, v in state.env.items()])
        return state

    def _from_image(self, name: str) -> State:
        image = self._images.base(name, pull=self._request.pull, emit=self._emit, cancel=self._cancel)
        config, manifest = self._store.images.config(image), self._store.images.manifest(image)
        self._store.ensure_layers(manifest.layers, config.diff_ids, cancel=self._cancel)
        state = State(config, list(manifest.layers), image.size, metadata.env_map(config.env))
        state.workdir = config.working_dir or "/"
        state.steps = list(self._store.images.steps(image))
        state.steps += [{} for _ in range(len(config.history) - len(state.steps))]
        if config.on_build:
            raise Unsupported(
                f"the base image {name} has ONBUILD triggers",
                hint="they come with the builder issue; copy them into the Dockerfile",
            )
        return state

    def _step(self, state: State, instruction: Instruction, step: StepInfo, plan: StagePlan, cache: StatCache) -> None:
        if isinstance(instruction, Arg):
            self._arg(state, instruction)
        if isinstance(instruction, Run):
            self._layer(state, instruction, step, *self._plan_run(state, instruction))
        elif isinstance(instruction, Copy | Add):
            self._layer(state, instruction, step, *self._plan_copy(state, instruction, plan, cache))
        elif isinstance(instruction, Workdir):
            self._workdir(state, instruction, step)
        else:
            started = time.monotonic()
            state.config = metadata.apply(state, instruction, self._dockerfile.escape)
            self._note(
                state,
                step,
                f"{instruction.source}",
                None,
                0,
                cached=True,
                seconds=time.monotonic() - started,
                reason="",
            )

    def _arg(self, state: State, instruction: Arg) -> None:
        for name, default in instruction.pairs:
            given = self._request.build_args.get(name)
            if given is not None:
                state.args[name] = given
            elif default is not None:
                state.args[name] = expand(default, state.scope(), self._dockerfile.escape)
            elif name in self._meta:
                state.args[name] = self._meta[name]

    # --- steps that make layers -----------------------------------------------------------------------

    def _plan_run(self, state: State, run: Run) -> tuple[dict[str, str], str, Callable[[Path, Path], None]]:
        if run.mounts:
            raise Unsupported(
                "RUN --mount is not supported yet", hint="leave the mount out; it comes with the builder issue"
            )
        args = metadata.run_args(state, run)
        env = {**state.args, **state.env}
        inputs = {
            "instruction": json.dumps(args),
            "user": state.config.user,
            "workdir": state.workdir,
            "network": run.network,
        }
        inputs |= {f"env:{k}": v for k, v in state.env.items()} | {f"arg:{k}": v for k, v in state.args.items()}
        created_by = metadata.run_history(state, args)

        def work(upper: Path, scratch: Path) -> None:
            self._run(state, run, args, env, upper, scratch)

        return inputs, created_by, work

    def _run(
        self, state: State, run: Run, args: tuple[str, ...], env: Mapping[str, str], upper: Path, work: Path
    ) -> None:
        step = self._current
        decoder = metadata.LineSplitter(lambda stream, text: self._emit(StepOutput(step.key, stream, text)))
        lowers = tuple(self._trees(state))
        request = RunStep(
            lowers,
            upper,
            work,
            args,
            tuple(f"{k}={v}" for k, v in env.items()),
            state.workdir,
            state.config.user,
            run.network,
        )
        code = self._runner.run(request, decoder.feed, self._cancel)
        decoder.flush()
        self._cancel.check()
        if code != 0:
            raise BuildFailed(
                f"{run.source}: exit code {code}",
                exit_code=code,
                file=str(self._file),
                line=run.line,
                hint="the output above is the command's own",
            )

    def _plan_copy(
        self, state: State, copy: Copy | Add, plan: StagePlan, cache: StatCache
    ) -> tuple[dict[str, str], str, Callable[[Path, Path], None]]:
        metadata.refuse_unsupported_copy(copy)
        scope, escape = state.scope(), self._dockerfile.escape
        view = LayerView(self._trees(state))
        source, where = self._source(copy, plan, cache)
        sources = [expand(word, scope, escape) for word in copy.sources]
        dest = expand(copy.dest, scope, escape)
        absolute = dest if dest.startswith("/") else os.path.join(state.workdir, dest)
        chown = expand(copy.chown, scope, escape) if copy.chown else ""
        uid, gid = resolve_owner(chown, view) if chown else (0, 0)
        owner = Ownership(uid, gid, parse_mode(copy.chmod))
        items = plan_copy(source, sources, absolute, view, where)
        if isinstance(copy, Add):
            metadata.refuse_archives(source, items)
        files = digest_items(source, items)
        self._warn_size(source)
        inputs = {"instruction": f"{absolute} {uid}:{gid} {copy.chmod}"}
        inputs |= {f"file:{path}": text for path, text in files.items()}

        def work(upper: Path, scratch: Path) -> None:
            write_items(source, items, upper, view, owner, self._cancel)

        return inputs, f"{copy.source} # buildkit", work

    def _source(self, copy: Copy | Add, plan: StagePlan, cache: StatCache) -> tuple[Source, str]:
        name = getattr(copy, "from_", "")
        if not name:
            if self._context is None:
                self._context = ContextSource(self._request.context, self._file, cache, self._cancel)
            return self._context, f"the build context {self._request.context}"
        index = stage_index(self._dockerfile, name, plan.stage.index)
        if index is not None:
            return ViewSource(LayerView(self._trees(self._done[index]))), f"stage {name}"
        image = self._images.base(name, pull=False, emit=self._emit, cancel=self._cancel)
        return ViewSource(LayerView(self._store.lowers(image))), f"image {name}"

    def _warn_size(self, source: Source) -> None:
        from engine.build.source import WARN_ENTRIES

        if isinstance(source, ContextSource) and source.entries > WARN_ENTRIES and not self._warned:
            self._warned = True
            self._emit(
                BuildNotice(
                    f"the build context has {source.entries:,} files: a .dockerignore would make each build faster"
                )
            )

    def _workdir(self, state: State, instruction: Workdir, step: StepInfo) -> None:
        path = expand(instruction.path, state.scope(), self._dockerfile.escape)
        state.workdir = os.path.normpath(os.path.join(state.workdir, path))
        state.config = state.config.with_config(WorkingDir=state.workdir)
        view = LayerView(self._trees(state))
        existing = view.lookup(state.workdir)
        if existing is not None and existing.is_dir:
            self._note(state, step, f"{instruction.source}", None, 0, cached=True, seconds=0.0, reason="")
            return
        user = state.config.user
        uid, gid = resolve_owner(user, view) if user else (0, 0)
        owner = Ownership(uid, gid)
        target = view.resolve(state.workdir)

        def work(upper: Path, scratch: Path) -> None:
            from engine.build.copy import UpperWriter

            writer = UpperWriter(upper, view, owner)
            writer.parents(f"{target}/x")

        self._layer(state, instruction, step, {"instruction": f"{target} {uid}:{gid}"}, instruction.source, work)

    def _trees(self, state: State) -> list[Path]:
        self._store.ensure_layers(state.layers, state.config.diff_ids)
        return [self._store.layers.tree(chain) for chain in reversed(chain_ids(state.config.diff_ids))]

    def _layer(
        self,
        state: State,
        instruction: Instruction,
        step: StepInfo,
        inputs: dict[str, str],
        created_by: str,
        work: Callable[[Path, Path], None],
    ) -> None:
        """Finds the step in the cache, or does `work` in a fresh upper directory and keeps what it made."""
        self._current = step
        started = time.monotonic()
        kind = type(instruction).__name__
        key = hashlib.sha256(json.dumps([kind, state.chain, sorted(inputs.items())]).encode()).hexdigest()
        scope = f"{self._file.resolve()}#{step.key}"
        cached = None if self._request.no_cache else self._lookup(key)
        if cached is not None:
            self._remember(scope, inputs, state.chain)
            layer, created = Descriptor.from_json(cached["layer"]), str(cached["created"])
            self._advance(
                state,
                step,
                layer,
                str(cached["diff_id"]),
                int(cached["size"]),
                created,
                created_by,
                True,
                float(cached["seconds"]),
                "",
            )
            return
        reason = self._reason(scope, inputs, state)
        if self._first is None:
            self._first = (step, reason)
        self._emit(StepStarted(step, reason))
        layer, diff_id, size = self._make(state, work)
        seconds = time.monotonic() - started
        created = rfc3339()
        document = {
            "layer": layer.to_json(),
            "diff_id": diff_id,
            "chain": chain_ids([*state.config.diff_ids, diff_id])[-1],
            "size": size,
            "created": created,
            "seconds": seconds,
        }
        with self._store.records.write() as db:
            db.execute("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", (key, json.dumps(document), time.time_ns()))
        self._remember(scope, inputs, state.chain)
        state.ran = True
        self._advance(state, step, layer, diff_id, size, created, created_by, False, seconds, reason)

    def _lookup(self, key: str) -> dict[str, Any] | None:
        found = self._store.records.document("cache", "key", key)
        if found is None or not self._store.blobs.has(Digest(found["layer"]["digest"])):
            return None
        return dict(found)

    def _reason(self, scope: str, inputs: Mapping[str, str], state: State) -> str:
        if self._request.no_cache:
            return "--no-cache"
        return explain(self._store.records.document("inputs", "scope", scope), {**inputs, "parent": state.chain})

    def _remember(self, scope: str, inputs: Mapping[str, str], chain: str) -> None:
        document = json.dumps({**inputs, "parent": chain})
        known = self._store.records.one("SELECT document FROM inputs WHERE scope = ?", scope)
        if known is None or known["document"] != document:
            with self._store.records.write() as db:
                db.execute("INSERT OR REPLACE INTO inputs VALUES (?, ?)", (scope, document))

    def _make(self, state: State, work: Callable[[Path, Path], None]) -> tuple[Descriptor, Digest, int]:
        folder = self._store.tmp / f"step-{secrets.token_hex(8)}"
        upper, scratch = folder / "upper", folder / "work"
        try:
            folder.mkdir(mode=0o700)
            upper.mkdir(mode=0o755)
            scratch.mkdir(mode=0o700)
            work(upper, scratch)
            self._cancel.check()
            blob = self._store.blobs.ingest()
            try:
                writer = LayerWriter(blob)
                write_upper(upper, writer, cancel=self._cancel)
                written = writer.finish()
            except BaseException:
                blob.abort()
                raise
            size = blob.size
            digest = blob.commit()
            chain = chain_ids([*state.config.diff_ids, written.diff_id])[-1]
            self._store.layers.adopt(chain, written.diff_id, written.content_size, upper)
            return Descriptor(OCI_LAYER, digest, size), written.diff_id, written.content_size
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # --- book-keeping -----------------------------------------------------------------------------------

    def _advance(
        self,
        state: State,
        step: StepInfo,
        layer: Descriptor,
        diff_id: str,
        size: int,
        created: str,
        created_by: str,
        cached: bool,
        seconds: float,
        reason: str,
    ) -> None:
        state.layers.append(layer)
        state.size += size
        self._note(
            state,
            step,
            created_by,
            Digest(diff_id),
            size,
            cached=cached,
            seconds=seconds,
            reason=reason,
            created=created,
        )

    def _note(
        self,
        state: State,
        step: StepInfo,
        created_by: str,
        diff_id: Digest | None,
        size: int,
        *,
        cached: bool,
        seconds: float,
        reason: str,
        created: str = "",
    ) -> None:
        """One history entry, one line for the layers pane, one event."""
        created = created or state.config.created or "1970-01-01T00:00:00Z"
        history = History(
            created=created, created_by=created_by, comment="buildkit.dockerfile.v0", empty_layer=diff_id is None
        )
        state.config = state.config.with_step(history, diff_id, created)
        state.steps.append(
            {
                "instruction": step.instruction,
                "line": step.line,
                "cached": cached,
                "seconds": seconds,
                "reason": reason,
                "size": size,
            }
        )
        self._emit(StepFinished(step, cached, 0.0 if cached else seconds, size, reason))

    def _result(self, state: State) -> Result:
        config = state.config
        if self._request.labels:
            config = config.with_config(Labels={**config.labels, **self._request.labels})
        raw = config.to_bytes()
        digest = self._store.blobs.put(raw)
        manifest = build_manifest(
            Descriptor(OCI_CONFIG, digest, len(raw)), state.layers, dict(self._request.annotations) or None
        )
        self._store.images.put_steps(digest, state.steps)
        return Result(manifest, config, state.size)

    def _keep(self, result: Result) -> Image | None:
        """Records the image, unless it was asked for as files alone."""
        if not keeps_image(self._request.outputs):
            return None
        names = [name for out in self._request.outputs for name in out.options.get("name", "").split(",") if name]
        tags = [Reference.parse(tag) for tag in (*self._request.tags, *names)]
        return self._store.images.put(result.manifest, result.config, result.size, tags)
