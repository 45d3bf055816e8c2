"""Runs a Dockerfile: stage after stage, each step either found in the cache or done and put there.

A step's cache key is the chain ID of what it builds on and a digest of what it depends on, so equal content meets equal
keys however it came about, and modification times do not count. A layer enters the cache after it is whole; a step that is
cancelled or crashes leaves nothing that is later trusted. Only what was made here is in the cache: an image that was pulled
never answers for a step (CVE-2024-24557).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.base.cancel import CancelToken
from engine.base.clock import rfc3339
from engine.build import metadata
from engine.build.dockerfile.ast import Add, Arg, Copy, Instruction, Run, Workdir
from engine.build.explain import explain
from engine.build.export import export_all, keeps_image
from engine.build.graph import StagePlan, label, list_steps
from engine.build.interfaces import Emit, ImageSource, Runner
from engine.build.origins import Contexts
from engine.build.plan_files import plan_copy, plan_workdir
from engine.build.plan_run import plan_run
from engine.build.prepare import Prepared, prepare
from engine.build.reading import read_input
from engine.build.result import Result
from engine.build.site import Site, Work
from engine.build.source import WARN_ENTRIES
from engine.build.stages import begin_stage
from engine.build.stamped import write_layer
from engine.build.state import State
from engine.build.variables import apply_arg
from engine.errors import DockerfileError, EngineError, from_os_error
from engine.model import (
    BuildFinished,
    BuildNotice,
    BuildRequest,
    BuildStarted,
    StepFinished,
    StepInfo,
    StepStarted,
)
from engine.oci.config import History
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.reference import Reference
from engine.store.images import Image
from engine.store.store import Store

COMMENT = "buildkit.dockerfile.v0"


class Build:
    """One build. `run` does it on the calling thread and reports through `emit`."""

    def __init__(
        self, store: Store, runner: Runner, images: ImageSource, request: BuildRequest, emit: Emit, cancel: CancelToken
    ):
        self._store, self._runner, self._images = store, runner, images
        self._request, self._emit, self._cancel = request, emit, cancel
        self._first: tuple[StepInfo, str] | None = None
        self._warned = False
        self._site: Site
        self._prepared: Prepared

    def run(self) -> BuildFinished:
        started = time.monotonic()
        given = read_input(self._request)
        contexts = Contexts(self._store, self._images, self._request, given.matcher, self._emit, self._cancel)
        try:
            with self._store.using():
                self._prepared = prepare(self._request, given, contexts, self._store)
                self._site = Site(
                    self._store,
                    self._runner,
                    self._request,
                    given.dockerfile,
                    given.file,
                    contexts,
                    self._emit,
                    self._cancel,
                    self._prepared.outer,
                    self._prepared.epoch,
                )
                result = self._build()
                image = self._keep_image(result)
        except OSError as error:
            raise from_os_error(error, f"building {given.file}") from error
        finally:
            contexts.close()
        config_digest = result.manifest.config.digest
        self._store.records.event("build", "finish", config_digest, {"dockerfile": str(given.file)})
        first, reason = self._first or (None, "")
        tags = image.familiar_tags if image else ()
        seconds = time.monotonic() - started
        finished = BuildFinished(config_digest, result.manifest.digest, tags, seconds, first, reason)
        export_all([result], self._request, self._store, self._cancel)
        self._emit(finished)
        return finished

    def _build(self) -> Result:
        plans = self._prepared.plans
        steps = list_steps(plans)
        self._emit(BuildStarted(str(self._site.file), tuple(steps)))
        for text in self._prepared.notices:
            self._emit(BuildNotice(text))
        by_key = {step.key: step for step in steps}
        for plan in plans:
            self._site.done[plan.stage.index] = self._stage(plan, by_key)
        return self._result(self._site.done[plans[-1].stage.index])

    # --- one stage ----------------------------------------------------------------------------------

    def _stage(self, plan: StagePlan, steps: Mapping[str, StepInfo]) -> State:
        name = label(plan.stage)
        state = self._from(plan, steps[f"{name}/1"])
        for number, instruction in enumerate(plan.instructions, 2):
            self._cancel.check()
            try:
                self._step(state, instruction, steps[f"{name}/{number}"], plan)
            except DockerfileError:
                raise
            except EngineError as error:
                raise self._located(error, instruction) from error
        return state

    def _located(self, error: EngineError, instruction: Instruction) -> EngineError:
        """A mistake in the Dockerfile, with the line; other errors (a failed RUN, a full disk) as they are."""
        if error.code not in ("invalid", "unsupported", "not-found", "corrupt", "hostile-archive", "access-denied"):
            return error
        located = DockerfileError(
            f"{instruction.source}: {error.message}",
            file=str(self._site.file),
            line=instruction.line,
            source=self._site.dockerfile.lines[instruction.line - 1],
            hint=error.hint,
        )
        return located

    def _from(self, plan: StagePlan, step: StepInfo) -> State:
        started = time.monotonic()
        self._emit(StepStarted(step, ""))
        state, work = begin_stage(self._site, plan, self._prepared)
        if work is not None:
            self._layer(state, "FROM", plan.stage.name, step, work)
        else:
            self._emit(StepFinished(step, True, time.monotonic() - started, 0))
        state.begin_stage()
        return state

    def _step(self, state: State, instruction: Instruction, step: StepInfo, plan: StagePlan) -> None:
        site, stage = self._site, plan.stage
        work: Work | None = None
        text: str | None = None
        if isinstance(instruction, Run):
            work = plan_run(site, state, instruction, stage.index, step)
        elif isinstance(instruction, Copy | Add):
            work = plan_copy(site, state, instruction, stage.index)
            self._warn_size()
        elif isinstance(instruction, Workdir):
            work = plan_workdir(site, state, instruction)
            text = f"WORKDIR {state.config.working_dir}"
        elif isinstance(instruction, Arg):
            found = apply_arg(state, instruction, self._request.build_args, site.outer, site.escape)
            text = metadata.arg_history(found)
        else:
            text = metadata.apply(state, instruction, site.escape)
        if work is not None:
            self._layer(state, type(instruction).__name__, stage.name, step, work)
        else:
            self._note(state, step, text, None, 0, cached=True, seconds=0.0, reason="")

    def _warn_size(self) -> None:
        entries = self._site.contexts.entries
        if entries > WARN_ENTRIES and not self._warned:
            self._warned = True
            self._emit(
                BuildNotice(f"the build context has {entries:,} files: a .dockerignore would make each build faster")
            )

    # --- steps that make layers -----------------------------------------------------------------------

    def _layer(self, state: State, kind: str, stage: str, step: StepInfo, work: Work) -> None:
        """Finds the step in the cache, or has it done in a fresh upper directory and keeps what it made."""
        started = time.monotonic()
        inputs = dict(work.inputs)
        if self._site.epoch is not None:
            inputs["SOURCE_DATE_EPOCH"] = str(self._site.epoch)
        key = hashlib.sha256(json.dumps([kind, state.chain, sorted(inputs.items())]).encode()).hexdigest()
        scope = f"{self._site.file.resolve()}#{step.key}"
        refused = self._request.no_cache or stage in self._request.no_cache_filter
        cached = None if refused else self._lookup(key)
        if cached is not None:
            self._remember(scope, inputs, state.chain)
            self._advance(state, step, cached, work, cached=True, seconds=float(cached["seconds"]), reason="")
            return
        reason = "--no-cache" if refused else self._reason(scope, inputs, state)
        if self._first is None:
            self._first = (step, reason)
        self._emit(StepStarted(step, reason))
        document = self._make(state, work)
        document["seconds"] = time.monotonic() - started
        with self._store.records.write() as db:
            db.execute("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", (key, json.dumps(document), time.time_ns()))
        self._remember(scope, inputs, state.chain)
        state.ran = True
        self._advance(state, step, document, work, cached=False, seconds=float(document["seconds"]), reason=reason)

    def _lookup(self, key: str) -> dict[str, Any] | None:
        found = self._store.records.document("cache", "key", key)
        if found is None or not self._store.blobs.has(Digest(found["layer"]["digest"])):
            return None
        return dict(found)

    def _reason(self, scope: str, inputs: Mapping[str, str], state: State) -> str:
        return explain(self._store.records.document("inputs", "scope", scope), {**inputs, "parent": state.chain})

    def _remember(self, scope: str, inputs: Mapping[str, str], chain: str) -> None:
        document = json.dumps({**inputs, "parent": chain})
        known = self._store.records.one("SELECT document FROM inputs WHERE scope = ?", scope)
        if known is None or known["document"] != document:
            with self._store.records.write() as db:
                db.execute("INSERT OR REPLACE INTO inputs VALUES (?, ?)", (scope, document))

    def _make(self, state: State, work: Work) -> dict[str, Any]:
        folder = self._store.tmp / f"step-{secrets.token_hex(8)}"
        upper, scratch = folder / "upper", folder / "work"
        try:
            folder.mkdir(mode=0o700)
            upper.mkdir(mode=0o755)
            scratch.mkdir(mode=0o700)
            work.perform(upper, scratch)
            self._cancel.check()
            return self._keep(state, upper)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, state: State, upper: Path) -> dict[str, Any]:
        """The upper directory as a blob and as a layer's tree; the cache's document of it."""
        blob = self._store.blobs.ingest()
        try:
            layer = write_layer(upper, blob, self._site.view(state), self._cancel, epoch=self._site.epoch)
        except BaseException:
            blob.abort()
            raise
        size = blob.size
        digest = blob.commit()
        chain = state.chain_with(layer.written.diff_id)
        self._store.layers.adopt(chain, layer.written.diff_id, layer.written.content_size, upper)
        return {
            "layer": Descriptor(OCI_LAYER, digest, size).to_json(),
            "diff_id": layer.written.diff_id,
            "chain": chain,
            "size": layer.written.content_size,
            "newest": layer.newest,
        }

    # --- book-keeping -----------------------------------------------------------------------------------

    def _advance(
        self, state: State, step: StepInfo, document: Mapping[str, Any], work: Work, *, cached: bool, seconds: float,
        reason: str,
    ) -> None:  # fmt: skip
        size = int(document["size"])
        state.layers.append(Descriptor.from_json(document["layer"]))
        state.size += size
        state.created = max(state.created, int(document["newest"]))
        diff_id = Digest(document["diff_id"])
        self._note(state, step, work.created_by, diff_id, size, cached=cached, seconds=seconds, reason=reason)

    def _note(
        self,
        state: State,
        step: StepInfo,
        created_by: str | None,
        diff_id: Digest | None,
        size: int,
        *,
        cached: bool,
        seconds: float,
        reason: str,
    ) -> None:
        """One history entry, one line for the layers pane, one event."""
        if created_by is not None:
            # Not the time of the build: equal content shall have an equal config. The newest file says when it came about.
            seconds_created = self._site.epoch if self._site.epoch is not None else state.created
            created = rfc3339(seconds_created * 10**9)
            history = History(created=created, created_by=created_by, comment=COMMENT, empty_layer=diff_id is None)
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
        if self._site.epoch is not None:
            config = config.with_created(rfc3339(self._site.epoch * 10**9))
        raw = config.to_bytes()
        digest = self._store.blobs.put(raw)
        manifest = build_manifest(
            Descriptor(OCI_CONFIG, digest, len(raw)), state.layers, dict(self._request.annotations) or None
        )
        self._store.images.put_steps(digest, state.steps)
        return Result(manifest, config, state.size)

    def _keep_image(self, result: Result) -> Image | None:
        """Records the image, unless it was asked for as files alone."""
        if not keeps_image(self._request.outputs):
            return None
        names = [name for out in self._request.outputs for name in out.options.get("name", "").split(",") if name]
        tags = [Reference.parse(tag) for tag in (*self._request.tags, *names)]
        return self._store.images.put(result.manifest, result.config, result.size, tags)
