"""One stage, step after step: each is found in the cache, or done and put there."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.base.clock import rfc3339
from engine.build import metadata
from engine.build.delta import Copied, Copies, change, recall
from engine.build.dockerfile.ast import Add, Arg, Copy, Instruction, Run, Workdir
from engine.build.explain import explain, summary
from engine.build.graph import StagePlan, label
from engine.build.phases import Phases
from engine.build.plan_files import plan_copy, plan_workdir
from engine.build.plan_run import plan_run
from engine.build.prepare import Prepared
from engine.build.site import Site, Work
from engine.build.stages import begin_stage
from engine.build.stamped import Layer, make_layer, write_layer
from engine.build.state import State
from engine.build.step_cache import Scope, StepCache, step_key
from engine.build.trees import Trees
from engine.build.variables import apply_arg
from engine.errors import BuildFailed, DockerfileError, EngineError
from engine.model import BuildNotice, StepFinished, StepInfo, StepStarted
from engine.oci.config import History
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.reference import Reference
from engine.store.blobs import BlobWriter

COMMENT = "buildkit.dockerfile.v0"
FAILED = "workbench/failed-step:latest"  # the last one that was kept


@dataclass(slots=True)
class Shop:
    """What the stages of one build share besides the `Site`: the cache, the slots for work, and the uppermost step that ran."""

    cache: StepCache
    trees: Trees
    slots: threading.BoundedSemaphore
    copies: Copies = field(default_factory=Copies)
    phases: Phases = field(default_factory=Phases)
    first: tuple[StepInfo, str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ran(self, step: StepInfo, reason: str) -> None:
        with self.lock:
            if self.first is None or step.line < self.first[0].line:
                self.first = (step, reason)


class StageRun:
    def __init__(
        self, site: Site, prepared: Prepared, plan: StagePlan, steps: Mapping[str, StepInfo], shop: Shop
    ) -> None:
        self._site, self._prepared, self._plan, self._steps, self._shop = site, prepared, plan, steps, shop
        self._seen: Counter[str] = Counter()

    def run(self) -> State:
        """Raises `DockerfileError` for what the Dockerfile has wrong, `BuildFailed`, `Cancelled`."""
        name = label(self._plan.stage)
        state = self._from(self._steps[f"{name}/1"])
        for number, instruction in enumerate(self._plan.instructions, 2):
            self._site.cancel.check()
            try:
                self._step(state, instruction, self._steps[f"{name}/{number}"])
            except DockerfileError:
                raise
            except EngineError as error:
                raise self._located(error, instruction) from error
        return state

    def _located(self, error: EngineError, instruction: Instruction) -> EngineError:
        """A mistake in the Dockerfile, with the line; other errors (a failed RUN, a full disk) as they are."""
        if error.code not in ("invalid", "unsupported", "not-found", "corrupt", "hostile-archive", "access-denied"):
            return error
        return DockerfileError(
            f"{instruction.source}: {error.message}",
            file=str(self._site.file),
            line=instruction.line,
            source=self._site.dockerfile.lines[instruction.line - 1],
            hint=error.hint,
        )

    def _from(self, step: StepInfo) -> State:
        started = time.monotonic()
        self._site.emit(StepStarted(step, ""))
        state, work = begin_stage(self._site, self._plan, self._prepared)
        image = self._prepared.images.get(self._plan.stage.index)
        if image is not None:
            state.bases = {**state.bases, self._plan.base: str(image.config_digest)}
        if work is not None:
            self._layer(state, "FROM", step, work)
        else:
            self._site.emit(StepFinished(step, True, time.monotonic() - started, 0))
        state.begin_stage()
        return state

    def _step(self, state: State, instruction: Instruction, step: StepInfo) -> None:
        site, stage = self._site, self._plan.stage
        work: Work | None = None
        text: str | None = None
        if isinstance(instruction, Run):
            work = plan_run(site, state, instruction, stage.index, step)
        elif isinstance(instruction, Copy | Add):
            work = plan_copy(site, state, instruction, stage.index)
        elif isinstance(instruction, Workdir):
            work = plan_workdir(site, state, instruction)
            text = f"WORKDIR {state.config.working_dir}"
        elif isinstance(instruction, Arg):
            found = apply_arg(state, instruction, site.request.build_args, site.outer, site.escape)
            text = metadata.arg_history(found)
        else:
            text = metadata.apply(state, instruction, site.escape)
        if work is not None:
            self._layer(state, type(instruction).__name__, step, work)
        else:
            self._note(state, step, text, None, 0, cached=True, seconds=0.0, causes=())

    # --- steps that make layers -----------------------------------------------------------------------

    def _layer(self, state: State, kind: str, step: StepInfo, work: Work) -> None:
        """Finds the step in the cache, or has it done in a fresh upper directory and keeps what it made."""
        site, cache = self._site, self._shop.cache
        inputs = dict(work.inputs)
        if site.epoch is not None:
            inputs["SOURCE_DATE_EPOCH"] = str(site.epoch)
        key = step_key(kind, state.chain, inputs)
        scope = self._scope(step)
        facts = {**inputs, "parent": state.chain, "kind": kind}
        facts |= {f"base:{name}": digest for name, digest in state.bases.items()}
        refused = site.request.no_cache or self._plan.stage.name in site.request.no_cache_filter
        document = None if refused else cache.lookup(key)
        if document is not None:
            cache.remember(scope, facts)
            if work.copied is not None:
                self._recall(state, work.copied, Digest(document["chain"]))
            self._advance(state, step, document, work, cached=True, causes=())
            return
        causes = self._causes(scope, facts, refused)
        site.emit(StepStarted(step, summary(causes), causes))
        document, cached = self._obtain(state, key, work, refused, lambda: cache.remember(scope, facts))
        if cached or site.contexts.moved:
            cache.remember(scope, facts)
        if not cached:
            self._shop.ran(step, summary(causes))
            state.ran = True
        self._advance(state, step, document, work, cached=cached, causes=() if cached else causes)

    def _recall(self, state: State, copied: Copied, chain: Digest) -> None:
        """After the build: what the next one, which has a changed file, can begin with."""
        store, copies = self._site.store, self._shop.copies
        if copies.get(copied) is not None or not copies.may_recall(copied, chain):
            return
        below = tuple(self._site.trees(state))

        def job() -> None:
            with store.using():
                whole = recall(store, copied, chain, below)
            if whole is not None:
                copies.keep(copied, whole)

        copied.source.later(job)

    def _scope(self, step: StepInfo) -> Scope:
        occurrence = self._seen[step.instruction]
        self._seen[step.instruction] += 1
        return Scope(self._site.file.resolve(), step.stage, step.key, step.instruction, occurrence)

    def _causes(self, scope: Scope, facts: Mapping[str, str], refused: bool) -> tuple[str, ...]:
        if refused:
            return ("--no-cache" if self._site.request.no_cache else "--no-cache-filter",)
        before, same = self._shop.cache.remembered(scope)
        return explain(before, facts, same=same, listing=self._shop.trees.listing)

    def _obtain(
        self, state: State, key: str, work: Work, refused: bool, remember: Callable[[], None]
    ) -> tuple[dict[str, Any], bool]:
        """The step's document, and whether another build made it while this one waited."""
        site, cache = self._site, self._shop.cache
        if refused:
            return self._do(state, key, replace(work, copied=None), remember), False

        def waiting() -> None:
            site.emit(BuildNotice("another build does the same step: waiting for it"))

        with cache.making(key, site.cancel, waiting):
            document = cache.lookup(key)
            return (document, True) if document is not None else (self._do(state, key, work, remember), False)

    def _do(self, state: State, key: str, work: Work, remember: Callable[[], None]) -> dict[str, Any]:
        with self._slot():
            started = time.monotonic()
            document = self._make(state, work)
            document["seconds"] = time.monotonic() - started
        if not self._site.contexts.moved:
            with self._site.store.records.write(durable=False):
                self._shop.cache.put(key, document)
                remember()
        return document

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """One of the places for work: there are a few times as many as cores."""
        while not self._shop.slots.acquire(timeout=0.05):
            self._site.cancel.check()
        try:
            yield
        finally:
            self._shop.slots.release()

    def _make(self, state: State, work: Work) -> dict[str, Any]:
        folder = self._site.store.tmp / f"step-{secrets.token_hex(8)}"
        upper = folder / "diff"
        try:
            os.mkdir(folder, 0o710)
            os.mkdir(upper, 0o755)
            if work.stream is not None:
                return self._changed(state, folder, work) or self._keep(state, folder, work)
            try:
                with self._shop.phases.during("run"):
                    work.perform(upper, folder / "work")
            except BuildFailed as error:
                if self._site.request.keep_failed:
                    error.image = self._keep_failed(state, folder)
                raise
            self._site.cancel.check()
            return self._keep(state, folder)
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _changed(self, state: State, folder: Path, work: Work) -> dict[str, Any] | None:
        """The layer out of what the same COPY made before; None: it must be copied as a whole."""
        store, copied = self._site.store, work.copied
        whole = self._shop.copies.get(copied) if copied is not None else None
        if copied is None or whole is None:
            return None
        blob = store.blobs.ingest()
        try:
            with self._shop.phases.during("run"):
                trees = self._site.trees(state)
                layer = change(store, whole, copied, trees, folder / "diff", blob, self._site.cancel)
        except BaseException:
            blob.abort()
            raise
        if layer is None:
            blob.abort()
            return None
        return self._publish(state, folder, blob, layer, base=whole.chain)

    def _keep(self, state: State, folder: Path, work: Work | None = None) -> dict[str, Any]:
        """The upper directory `diff` as a blob and as a layer's tree; the cache's document of it. `work` streams into it only now."""
        store, upper = self._site.store, folder / "diff"
        if (folder / "work").exists():
            shutil.rmtree(folder / "work", ignore_errors=True)
        blob = store.blobs.ingest()
        try:
            if work is not None and (stream := work.stream) is not None:
                recorded = work.copied is not None
                with self._shop.phases.during("run"):
                    layer = make_layer(blob, self._site.cancel, lambda out: stream(upper, out), recorded=recorded)
            else:
                with self._shop.phases.during("commit"):
                    layer = write_layer(upper, blob, self._site.view(state), self._site.cancel, epoch=self._site.epoch)
        except BaseException:
            blob.abort()
            raise
        document = self._publish(state, folder, blob, layer)
        if work is not None and work.copied is not None and not self._site.contexts.moved:
            self._shop.copies.put(work.copied, Digest(document["chain"]), layer.written.diff_id, layer)
        return document

    def _publish(
        self, state: State, folder: Path, blob: BlobWriter, layer: Layer, *, base: Digest | None = None
    ) -> dict[str, Any]:
        store, size = self._site.store, blob.size
        with self._shop.phases.during("commit"):
            digest = blob.commit(durable=False)
            chain = state.chain_with(layer.written.diff_id)
            store.layers.adopt(chain, layer.written.diff_id, layer.written.content_size, folder, base=base)
        return {
            "layer": Descriptor(OCI_LAYER, digest, size).to_json(),
            "diff_id": layer.written.diff_id,
            "chain": chain,
            "size": layer.written.content_size,
            "newest": layer.newest,
        }

    def _keep_failed(self, state: State, folder: Path) -> str:
        """An image of what the failed step saw and wrote, with its environment, user and directory. Its name."""
        store, kept = self._site.store, state.fork()
        document = self._keep(state, folder)
        layers = [*state.layers, Descriptor.from_json(document["layer"])]
        environment = [f"{name}={value}" for name, value in state.variables.items()]
        config = kept.config.with_config(Env=environment, Entrypoint=None, Cmd=["/bin/sh"], WorkingDir=state.workdir)
        created = rfc3339(state.created * 10**9)
        history = History(created=created, created_by="the step that failed", comment=COMMENT)
        config = config.with_step(history, Digest(document["diff_id"]), created)
        raw = config.to_bytes()
        manifest = build_manifest(Descriptor(OCI_CONFIG, store.blobs.put(raw), len(raw)), layers)
        store.images.put(manifest, config, state.size + int(document["size"]), [Reference.parse(FAILED)])
        return FAILED

    # --- book-keeping -----------------------------------------------------------------------------------

    def _advance(
        self, state: State, step: StepInfo, document: Mapping[str, Any], work: Work, *, cached: bool,
        causes: tuple[str, ...],
    ) -> None:  # fmt: skip
        size = int(document["size"])
        state.layers.append(Descriptor.from_json(document["layer"]))
        state.size += size
        state.created = max(state.created, int(document["newest"]))
        diff_id, seconds = Digest(document["diff_id"]), float(document["seconds"])
        self._note(state, step, work.created_by, diff_id, size, cached=cached, seconds=seconds, causes=causes)

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
        causes: tuple[str, ...],
    ) -> None:
        """One history entry, one line for the layers pane, one event."""
        reason = summary(causes)
        if created_by is not None:
            # Not the time of the build: equal content shall have an equal config. The newest file says when it came about.
            seconds_created = self._site.epoch if self._site.epoch is not None else state.created
            created = rfc3339(seconds_created * 10**9)
            history = History(created=created, created_by=created_by, comment=COMMENT, empty_layer=diff_id is None)
            state.config = state.config.with_step(history, diff_id, created)
            entry = {"instruction": step.instruction, "line": step.line, "cached": cached, "seconds": seconds}
            state.steps.append({**entry, "reason": reason, "size": size})
        self._site.emit(StepFinished(step, cached, 0.0 if cached else seconds, size, reason, causes))
