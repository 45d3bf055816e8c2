"""The mounts of a RUN step, as the runtime wants them. What is secret lies on a memory file system and goes with the step."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from engine.build.interfaces import StepMount
from engine.errors import Unsupported
from engine.runtime.spec_mounts import BindMount, ImageMount, TmpfsMount, UserMount
from engine.runtime.spec_namespaces import IdMaps, outside
from engine.service.ssh_forward import check_agent, forward

_MEMORY = ("/run", "/dev/shm")
_TMPFS = ("tmpfs", "ramfs")


class StepMounts:
    """Made for one step. `mounts` is what `SpecParams` takes; closing `stack` takes everything away."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, maps: IdMaps | None = None) -> None:
        """`maps`: the user namespace that the step runs in."""
        self.mounts: list[UserMount] = []
        self._folder, self._stack = folder, stack
        self._memory: Path | None = None
        self._maps = maps

    def add(self, mount: StepMount) -> None:
        getattr(self, f"_{mount.kind}")(mount)

    def _tree(self, mount: StepMount) -> None:
        place = self._folder / f"tree-{len(self.mounts)}"
        for name in ("upper", "work", "empty"):
            (place / name).mkdir(parents=True, mode=0o755)
        lowers = [str(lower) for lower in mount.lowers] or [str(place / "empty")]
        written = {} if mount.read_only else {"upper": str(place / "upper"), "work": str(place / "work")}
        self.mounts.append(ImageMount(mount.target, mount.shown, lowers, mount.source, **written))

    def _bind(self, mount: StepMount) -> None:
        assert mount.folder is not None
        folder = str(mount.folder)
        self.mounts.append(
            BindMount(folder, mount.target, mount.read_only, recursive=False, subpath=mount.source, mapped=True)
        )

    def _tmpfs(self, mount: StepMount) -> None:
        options = ["exec", *(["ro"] if mount.read_only else []), *([f"size={mount.size}"] if mount.size else [])]
        self.mounts.append(TmpfsMount(mount.target, options))

    def _file(self, mount: StepMount) -> None:
        path = self._private() / secrets.token_hex(8)
        with open(path, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(mount.data)
            os.fchown(file.fileno(), *self._owner(mount))
            os.fchmod(file.fileno(), mount.mode)
        self.mounts.append(BindMount(str(path), mount.target, True, recursive=False))

    def _ssh(self, mount: StepMount) -> None:
        assert mount.agent is not None
        check_agent(mount.agent)
        name = f"ssh-{len(self.mounts)}"
        context = forward(mount.agent, self._private(), name, self._owner(mount), mount.mode)
        path = self._stack.enter_context(context)
        self.mounts.append(BindMount(str(path), mount.target, mount.read_only, recursive=False))

    def _owner(self, mount: StepMount) -> tuple[int, int]:
        """On the host. Not by a mount with mapped ids: a memory file system can have those since Linux 6.3 only."""
        if self._maps is None:
            return mount.uid, mount.gid
        return outside(self._maps.uids, mount.uid), outside(self._maps.gids, mount.gid)

    def _private(self) -> Path:
        """A folder of this step's own on a memory file system. Raises `Unsupported`."""
        if self._memory is None:
            self._memory = Path(tempfile.mkdtemp(prefix="workbench-", dir=_memory_folder()))
            self._stack.callback(shutil.rmtree, self._memory, ignore_errors=True)
        return self._memory


def _memory_folder() -> str:
    with open("/proc/self/mounts") as file:
        kinds = {fields[1]: fields[2] for fields in (line.split(" ") for line in file)}
    for folder in _MEMORY:
        if kinds.get(folder) in _TMPFS and os.access(folder, os.W_OK):
            return folder
    raise Unsupported(
        "neither /run nor /dev/shm is a memory file system, and a secret must not be written to a disk",
        hint="mount one: mount -t tmpfs tmpfs /run",
    )
