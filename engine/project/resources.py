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


async def make_resources(engine: Engine, project: Project) -> list[NotFound]:
    """The networks that services are on and the volumes of the project, where they are missing. Returns what nobody but the user
    may make: external ones that are not there. Raises `EngineError` for one that cannot be made."""
    missing: list[NotFound] = []
    try:
        missing += await _networks(engine, project)
    finally:  # one that cannot be made keeps no other from being there
        missing += await _volumes(engine, project)
    return missing


async def _networks(engine: Engine, project: Project) -> list[NotFound]:
    missing = []
    used = {name for s in project.services if not s.network_mode for name in s.networks or ("default",)}
    for name, network in project.networks.items():
        if name not in used:
            continue
        try:
            await engine.network(network.spec.name)
        except NotFound:
            if network.external:
                missing.append(_external("network", network.spec.name))
            else:
                await _made(engine.create_network(network.spec))
    return missing


async def _volumes(engine: Engine, project: Project) -> list[NotFound]:
    missing = []
    for volume in project.volumes.values():
        try:
            await engine.volume(volume.name)
        except NotFound:
            if volume.external:
                missing.append(_external("volume", volume.name))
                continue
            await engine.create_volume(volume.name, driver=volume.driver, labels=volume.labels, options=volume.options)
    return missing


async def check_volumes(engine: Engine, project: Project, service: Service) -> None:
    """A container would make the volume that it mounts. Raises `NotFound` for an external one that is not there."""
    external = {volume.name for volume in project.volumes.values() if volume.external}
    for mount in service.spec.mounts:
        if mount.type == "volume" and mount.source in external:
            try:
                await engine.volume(mount.source)
            except NotFound:
                raise _external("volume", mount.source) from None


def _external(kind: str, name: str) -> NotFound:
    return NotFound(
        f"{kind} {name} declared as external, but could not be found", hint=f"workbench {kind} create {name}"
    )


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
