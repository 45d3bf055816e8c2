"""What a project's containers need before they start: its networks, its volumes, and the files that the engine keeps for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from engine.api import Engine
from engine.base.atomic import write_atomic
from engine.errors import Conflict, NotFound
from engine.model import Mount
from engine.project.model import Project, Service


async def make_networks(engine: Engine, project: Project) -> None:
    """Those that services are on, where they are missing. All that can be are made; then raises `NotFound` for an external
    one."""
    missing: NotFound | None = None
    used = {name for s in project.services if not s.network_mode for name in s.networks or ("default",)}
    for name, network in project.networks.items():
        if name not in used:
            continue
        try:
            await engine.network(network.spec.name)
        except NotFound:
            if network.external:
                missing = missing or NotFound(
                    f"network {network.spec.name} declared as external, but could not be found",
                    hint=f"workbench network create {network.spec.name}",
                )
                continue
            await _made(engine.create_network(network.spec))
    if missing:
        raise missing


async def make_volumes(engine: Engine, project: Project) -> None:
    """The volumes that services mount, where they are missing. All that can be are made; then raises `NotFound` for an
    external one."""
    missing: NotFound | None = None
    for volume in project.volumes.values():
        try:
            await engine.volume(volume.name)
        except NotFound:
            if volume.external:
                missing = missing or NotFound(
                    f"volume {volume.name} declared as external, but could not be found",
                    hint=f"workbench volume create {volume.name}",
                )
                continue
            await engine.create_volume(volume.name, driver=volume.driver, labels=volume.labels, options=volume.options)
    if missing:
        raise missing


async def _made(work: object) -> None:
    try:
        await work  # type: ignore[misc]
    except Conflict:
        pass  # another process was faster


def given_mounts(service: Service, state: Path) -> tuple[Mount, ...]:
    """Writes the service's given files below `state` (a project's folder) and returns their mounts. One with other content,
    owner or mode is another file: a container that runs keeps what it has."""
    return tuple(
        _mount(file.target, _kept(state, file.content, file.uid, file.gid, file.mode)) for file in service.files
    )


def _kept(state: Path, content: bytes, uid: int, gid: int, mode: int) -> Path:
    folder = state / "files"
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{uid} {gid} {mode:o} ".encode() + content).hexdigest()
    path = folder / digest
    if not path.exists():
        temp = folder / f".{digest}.{os.getpid()}"
        write_atomic(temp, content, 0o600)
        os.chmod(temp, mode)
        os.chown(temp, uid, gid)
        os.rename(temp, path)
    return path


def _mount(target: str, source: Path) -> Mount:
    return Mount(str(source), target, read_only=True)


def forget_files(state: Path) -> None:
    """Removes the kept files of a project that has gone down."""
    folder = state / "files"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            os.unlink(folder / name)
        except OSError:
            continue
