"""A RUN step is a container whose writes become a layer: `engine.build.solver.Runner` over the runtime."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.base.atomic import write_atomic
from engine.base.cancel import CancelToken
from engine.build.interfaces import RunStep
from engine.build.options import check_hosts, parse_ulimit
from engine.errors import InvalidInput
from engine.model import BuildRequest, host_config
from engine.runtime.client import Runtime
from engine.runtime.spec import BindMount, SpecParams, make_spec
from engine.runtime.spec_mounts import UserMount
from engine.runtime.spec_namespaces import IdMaps
from engine.service.endpoints import EndpointService
from engine.service.host_trust import INSIDE, HostTrust, prepare, scrub
from engine.service.network_modes import mode_of
from engine.service.networks import NetworkService
from engine.service.step_mounts import StepMounts
from engine.service.userns import id_maps
from engine.store.store import Store


class StepRunner:
    """Runs the steps of one build. A container is tethered: it ends when this process does."""

    def __init__(
        self, store: Store, runtime: Runtime, request: BuildRequest, *, host_ca: bool, block_metadata: bool
    ) -> None:
        self._store, self._runtime, self._request, self._host_ca = store, runtime, request, host_ca
        self._block_metadata = block_metadata
        networks = NetworkService(store, runtime)
        self._endpoints = EndpointService(store, runtime, networks)
        if mode_of(request.network) == "bridge":
            networks.find(request.network or "default")  # raises NotFound before anything is built
        check_hosts(request.add_hosts)
        self._ulimits = tuple(parse_ulimit(text) for text in request.ulimits)

    def run(self, step: RunStep, output: Callable[[str, bytes], None], cancel: CancelToken) -> int:
        container_id = secrets.token_hex(32)
        folder = self._store.tmp / f"run-{container_id[:16]}"
        folder.mkdir(mode=0o710)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(self._endpoints.release, container_id)
            (folder / "rootfs").mkdir(mode=0o755)
            trust = prepare(folder, step.lowers) if self._host_ca else None
            maps = self._id_maps(step)
            mounts = StepMounts(folder, stack, maps)
            for mount in step.mounts:
                mounts.add(mount)
            spec = make_spec(self._params(container_id, step, folder, trust, mounts.mounts, maps))
            write_atomic(folder / "config.json", json.dumps(spec).encode(), durable=False)
            code = self._run(container_id, folder, output, cancel)
            if trust is not None:
                scrub(trust, step.upper)
            return code

    def _id_maps(self, step: RunStep) -> IdMaps | None:
        """The user namespace of a step, by the settings; a privileged one has none. Raises InvalidInput."""
        maps = id_maps(self._store.root)
        if maps is None or step.privileged:
            return None
        if step.network == "host":
            raise InvalidInput(
                "cannot share the host's network namespace when user namespaces are enabled",
                hint="leave --network=host out, or runtime.userns-remap out of the settings",
            )
        return maps

    def _params(
        self,
        container_id: str,
        step: RunStep,
        folder: Path,
        trust: HostTrust | None,
        asked: Sequence[UserMount],
        maps: IdMaps | None,
    ) -> SpecParams:
        lowers, env = list(step.lowers), list(step.env)
        block = self._block_metadata and not self._request.allow_metadata
        prepared = self._endpoints.build_step(
            container_id, step.network, folder, step.hostname, self._request.add_hosts, block=block
        )
        mounts: list[UserMount] = [*prepared.files, *asked]
        if trust is not None:
            given = {entry.partition("=")[0] for entry in env}
            env += [f"{name}={value}" for name, value in trust.env.items() if name not in given]
            lowers.insert(0, trust.layer)
            mounts.append(BindMount(str(trust.mounted), INSIDE, read_only=True, mapped=True))
        return SpecParams(
            container_id=container_id,
            args=step.args,
            env=env,
            cwd=step.cwd,
            user=step.user,
            lowers=tuple(map(str, lowers)),
            upper=str(step.upper),
            work=str(step.work),
            mounts=mounts,
            id_maps=maps,
            stdio="fds",
            volatile=True,
            **prepared.params(),
            clean_stubs=True,
            **self._limits(step),
        )

    def _limits(self, step: RunStep) -> dict[str, Any]:
        request = self._request
        return {
            **host_config(request.limits),
            "privileged": step.privileged,
            "memory": request.memory,
            "shm_size": request.shm_size,
            "ulimits": self._ulimits,
        }

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

            with cancel.calling(stop):
                _pump({out_read: "stdout", err_read: "stderr"}, wake_read, output)
                return 137 if cancel.cancelled else self._runtime.wait(container_id, folder)
        finally:
            self._runtime.release(container_id)
            for fd in (out_read, err_read, wake_read, wake_write):
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
