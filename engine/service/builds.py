"""Joins the builder with the images and the runtime: a RUN step is a container whose writes become a layer."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.base.atomic import write_atomic
from engine.base.cancel import CancelToken
from engine.build.compare import compare
from engine.build.history import History
from engine.build.solver import Build, RunStep
from engine.errors import NotFound, Unsupported
from engine.model import BuildEvent, BuildFinished, BuildRequest, BuildStarted, FileDifference
from engine.runtime.client import Runtime
from engine.runtime.spec import SpecParams, make_spec
from engine.service.containers import network_files
from engine.service.images import ImageService
from engine.service.system import require_root
from engine.store.store import Store
from engine.store.view import LayerView


class BuildService:
    def __init__(self, store: Store, runtime: Runtime, images: ImageService) -> None:
        self._store, self._runtime, self._images = store, runtime, images
        self.history = History(store.root / "builds")

    def build(self, request: BuildRequest, emit: Callable[[BuildEvent], None], cancel: CancelToken) -> BuildFinished:
        require_root()
        with self.history.recording(request) as recorder:

            def tell(event: BuildEvent) -> None:
                recorder.feed(event)
                emit(replace(event, number=recorder.number) if isinstance(event, BuildStarted) else event)

            runner = StepRunner(self._store, self._runtime)
            return Build(self._store, runner, self._images, request, tell, cancel).run()

    def diff(self, first: int, second: int) -> list[FileDifference]:
        """Raises `NotFound` when a build has no result, or its image is no longer here."""
        return list(compare(self._result(first), self._result(second)))

    def _result(self, number: int) -> LayerView:
        record = self.history.detail(number).record
        if not record.image_id:
            raise NotFound(f"build {number} ({record.status}) has no result", hint="compare builds that are done")
        image = self._store.images.find(record.image_id)
        if image is None:
            raise NotFound(f"the image of build {number}, {record.image_id}, is no longer here", hint="build it again")
        return LayerView(self._store.lowers(image))


class StepRunner:
    """`engine.build.solver.Runner` over the runtime. The container is tethered: it ends when this process does."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store, self._runtime = store, runtime

    def run(self, step: RunStep, output: Callable[[str, bytes], None], cancel: CancelToken) -> int:
        if step.network not in ("", "default", "host", "none"):
            raise Unsupported(f"RUN --network={step.network} is not known", hint="default, none and host are")
        container_id = secrets.token_hex(32)
        folder = self._store.tmp / f"run-{container_id[:16]}"
        folder.mkdir(mode=0o710)
        try:
            (folder / "rootfs").mkdir(mode=0o755)
            write_atomic(
                folder / "config.json",
                json.dumps(make_spec(self._params(container_id, step, folder))).encode(),
                durable=False,
            )
            return self._run(container_id, folder, output, cancel)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _params(self, container_id: str, step: RunStep, folder: Path) -> SpecParams:
        return SpecParams(
            container_id=container_id,
            args=step.args,
            env=step.env,
            cwd=step.cwd,
            user=step.user,
            hostname="buildkitsandbox",
            lowers=tuple(map(str, step.lowers)),
            upper=str(step.upper),
            work=str(step.work),
            mounts=network_files(folder, "buildkitsandbox"),
            stdio="fds",
            volatile=True,
            network="none" if step.network == "none" else "host",
            clean_stubs=True,
        )

    def _run(self, container_id: str, folder: Path, output: Callable[[str, bytes], None], cancel: CancelToken) -> int:
        stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                self._runtime.start(container_id, folder, stdio=(stdin, out_write, err_write))
            finally:
                for fd in (stdin, out_write, err_write):
                    os.close(fd)

            def stop() -> None:
                self._runtime.release(container_id)
                os.write(wake_write, b"x")

            cancel.on_cancel(stop)
            _pump({out_read: "stdout", err_read: "stderr"}, wake_read, output)
            if cancel.cancelled:
                return 137
            return self._runtime.wait(container_id, folder)
        finally:
            self._runtime.release(container_id)
            for fd in (out_read, err_read):
                os.close(fd)


def _pump(pipes: dict[int, str], wake: int, output: Callable[[str, bytes], None]) -> None:
    with selectors.DefaultSelector() as selector:
        for fd in pipes:
            selector.register(fd, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        open_pipes = len(pipes)
        while open_pipes:
            for key, _ in selector.select():
                if key.fd == wake:
                    return
                data = os.read(key.fd, 65536)
                if data:
                    output(pipes[key.fd], data)
                else:
                    selector.unregister(key.fd)
                    open_pipes -= 1
