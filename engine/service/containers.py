"""Containers: records of what to run, their folders, and the way from an image's config to a process.

The record (SQLite) says what was asked for; the truth about a process is its monitor's state file. `reconcile` writes what
the state file says into the journal, once, whichever process sees it first.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.base.atomic import write_atomic
from engine.base.clock import rfc3339
from engine.base.ids import check_name, new_id, random_name
from engine.errors import Conflict, Corrupt, InvalidInput, NotFound, from_os_error
from engine.model import (
    ContainerDetail,
    ContainerSpec,
    ContainerSummary,
    Device,
    DeviceLimit,
    ExecSpec,
    Mount,
    Ulimit,
    host_config,
)
from engine.oci.config import ImageConfig
from engine.runtime.client import ExecParams, Runtime
from engine.runtime.connections import AttachConnection, ExecConnection
from engine.runtime.spec import BindMount, SpecParams, make_spec
from engine.runtime.spec_namespaces import Join
from engine.service import hostside
from engine.service.logs import rule_record
from engine.service.mount_specs import mount_to_api
from engine.service.mounts import Mounts, Point, in_order, points_of
from engine.service.system import require_root
from engine.store.images import Image
from engine.store.store import Store

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SECONDS = 10
STOP_SIGNAL = "SIGTERM"


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """What the image and the user say together (Docker's merge rules)."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    cwd: str
    stop_signal: str


def merge(spec: ContainerSpec, config: ImageConfig) -> Process:
    """A given entrypoint drops the image's CMD; a given command replaces it; variables of the user win."""
    entrypoint = spec.entrypoint if spec.entrypoint is not None else (config.entrypoint or ())
    image_command = () if spec.entrypoint is not None else (config.cmd or ())
    command = spec.command if spec.command is not None else image_command
    args = (*entrypoint, *command)
    if not args:
        raise InvalidInput(
            f"no command specified for {spec.image}", hint=f"the image names none: workbench run {spec.image} COMMAND"
        )
    env = _merge_env((DEFAULT_PATH,), config.env, ("TERM=xterm",) if spec.tty else (), spec.env)
    for value in (*args, *env, spec.user or "", spec.working_dir or "", spec.hostname):
        if "\0" in value:
            raise InvalidInput("a NUL byte in a command, variable, user or path")
    for value in (spec.user or "", spec.working_dir or "", spec.hostname):
        if "\n" in value or "\r" in value:
            raise InvalidInput("a line break in a user, path or host name")
    return Process(
        args,
        env,
        spec.user if spec.user is not None else config.user,
        spec.working_dir or config.working_dir or "/",
        spec.stop_signal or config.stop_signal or STOP_SIGNAL,
    )


def _merge_env(*sources: Sequence[str]) -> tuple[str, ...]:
    merged: dict[str, str] = {}
    for source in sources:
        for entry in source:
            name, _, value = entry.partition("=")
            if name:
                merged[name] = value
    return tuple(f"{name}={value}" for name, value in merged.items())


class ContainerService:
    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store, self._runtime = store, runtime
        self._mounts = Mounts(store)

    def bundle(self, container_id: str) -> Path:
        return self._store.containers / container_id

    # --- find -----------------------------------------------------------------------------------------

    def resolve(self, name: str) -> tuple[str, dict[str, Any]]:
        """Id and record of a container by name, id or unique id prefix. Raises `NotFound`, `Conflict`."""
        rows = self._store.records.read(
            "SELECT id, name, document FROM containers WHERE id = ?1 OR name = ?1", name.removeprefix("/")
        )
        if not rows and name and all(c in "0123456789abcdef" for c in name):
            rows = self._store.records.read("SELECT id, name, document FROM containers WHERE id GLOB ?", name + "*")
        if not rows:
            raise NotFound(f"No such container: {name}", hint="`workbench ps -a` lists them")
        if len(rows) > 1:
            raise Conflict(f"container id {name!r} is ambiguous", hint="give more digits, or the name")
        return rows[0]["id"], {**json.loads(rows[0]["document"]), "name": rows[0]["name"]}

    def list(self, *, all: bool) -> list[ContainerSummary]:
        rows = self._store.records.read("SELECT id, name, document FROM containers ORDER BY created DESC")
        found = [self._summary(row["id"], {**json.loads(row["document"]), "name": row["name"]}) for row in rows]
        return [summary for summary in found if all or summary.running]

    def summary(self, name: str) -> ContainerSummary:
        return self._summary(*self.resolve(name))

    def detail(self, name: str) -> ContainerDetail:
        container_id, record = self.resolve(name)
        summary = self._summary(container_id, record)
        spec = spec_from_json(record["spec"])
        return ContainerDetail(summary, spec, self._inspect(summary, spec, record), record["log_path"])

    def _summary(self, container_id: str, record: dict[str, Any]) -> ContainerSummary:
        spec = record["spec"]
        state = self._runtime.state(self.bundle(container_id))
        status = state.status if state.status in ("created", "running", "exited", "dead") else "exited"
        return ContainerSummary(
            container_id,
            record["name"],
            spec["image"],
            record["image_id"],
            " ".join(f"'{arg}'" if " " in arg else arg for arg in record["args"]),
            status,
            record["created"],
            state.started,
            state.finished,
            state.exit_code if status in ("exited", "dead") else None,
            state.pid if status == "running" else 0,
            tuple(spec["ports"]),
            spec["labels"],
            state.error,
            state.oom_killed,
        )

    def _inspect(self, summary: ContainerSummary, spec: ContainerSpec, record: dict[str, Any]) -> dict[str, object]:
        state = {
            "Status": summary.status,
            "Running": summary.running,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": summary.oom_killed,
            "Dead": summary.status == "dead",
            "Pid": summary.pid,
            "ExitCode": summary.exit_code or 0,
            "Error": summary.error,
            "StartedAt": rfc3339(summary.started) if summary.started else "0001-01-01T00:00:00Z",
            "FinishedAt": rfc3339(summary.finished) if summary.finished else "0001-01-01T00:00:00Z",
        }
        return {
            "Id": summary.id,
            "Created": rfc3339(summary.created),
            "Path": record["args"][0],
            "Args": record["args"][1:],
            "State": state,
            "Image": record["image_id"],
            "Name": f"/{summary.name}",
            "LogPath": record["log_path"],
            "Driver": "overlay",
            "Platform": "linux",
            "HostConfig": {
                "NetworkMode": "host",
                "Memory": spec.memory,
                "NanoCpus": int(spec.cpus * 1e9),
                "PidsLimit": spec.pids_limit or None,
                "Binds": [m.bind for m in spec.mounts if m.bind] or None,
                "Mounts": [mount_to_api(m) for m in spec.mounts if not m.bind],
                "VolumesFrom": list(spec.volumes_from) or None,
                "VolumeDriver": spec.volume_driver,
                "AutoRemove": spec.auto_remove,
                "Privileged": spec.privileged,
                "ReadonlyRootfs": spec.read_only,
                "CapAdd": list(spec.cap_add) or None,
                "CapDrop": list(spec.cap_drop) or None,
                "LogConfig": {"Type": "json-file", "Config": {}},
                "SecurityOpt": list(spec.security_opt) or None,
            },
            "Config": {
                "Hostname": record["hostname"],
                "User": record["user"],
                "Tty": spec.tty,
                "OpenStdin": spec.open_stdin,
                "Env": record["env"],
                "Cmd": list(spec.command) if spec.command is not None else record["args"],
                "Image": spec.image,
                "WorkingDir": record["cwd"],
                "Labels": dict(spec.labels),
                "StopSignal": record["stop_signal"],
                "ExposedPorts": {port: {} for port in spec.ports},
                "Volumes": {path: {} for path in record.get("volumes", ())} or None,
            },
            "Mounts": [point.inspected() for point in points_of(record)],
        }

    # --- create and start -------------------------------------------------------------------------------

    def create(self, spec: ContainerSpec) -> str:
        require_root()
        image = self._store.images.get(spec.image)
        config = self._store.images.config(image)
        process = merge(spec, config)
        name = check_name(spec.name) if spec.name else random_name()
        container_id = new_id()
        folder = self.bundle(container_id)
        record = {
            "spec": dataclasses.asdict(spec),
            "image_id": image.config_digest,
            "created": time.time_ns(),
            "args": process.args,
            "env": process.env,
            "user": process.user,
            "cwd": process.cwd,
            "stop_signal": process.stop_signal,
            "hostname": spec.hostname or container_id[:12],
            "log_path": spec.log_path or str(folder / f"{container_id}-json.log"),
        }
        points: list[Point] = []
        try:
            with self._store.using(), self._store.volumes.using():
                points = self._mounts.create(spec, image, self._points, spec.tmpfs)
                record["points"] = [dataclasses.asdict(point) for point in points]
                record["volumes"] = [*config.volumes, *spec.volumes]
                folder.mkdir(mode=0o710)
                for part in ("upper", "work", "rootfs"):
                    (folder / part).mkdir(mode=0o755)
                self._insert(container_id, name, image, record, picked=not spec.name)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._mounts.remove_anonymous(points, self._volume_users)
            if isinstance(error, OSError):
                raise from_os_error(error, f"creating container {name}") from error
            raise
        self._event("create", container_id, record)
        return container_id

    def _insert(self, container_id: str, name: str, image: Image, record: dict[str, Any], *, picked: bool) -> None:
        for attempt in range(10):
            try:
                with self._store.records.write() as db:
                    db.execute(
                        "INSERT INTO containers VALUES (?, ?, ?, ?, ?)",
                        (container_id, name, image.digest, record["created"], json.dumps(record)),
                    )
                record["name"] = name
                return
            except Corrupt as error:
                if not isinstance(error.__cause__, sqlite3.IntegrityError):
                    raise
                if not picked:
                    raise self._taken(name) from None
                name = f"{random_name()}{attempt}"
        raise Conflict("no free container name found", hint="give one with --name")

    def _taken(self, name: str) -> Conflict:
        holder = self._store.records.one("SELECT id FROM containers WHERE name = ?", name)
        return Conflict(
            f'Conflict. The container name "/{name}" is already in use by container "{holder["id"] if holder else ""}". '
            "You have to remove (or rename) that container to be able to reuse that name.",
            hint=f"workbench rm -f {name}, or another --name",
        )

    def start(self, name: str, *, attach: bool = False) -> AttachConnection | None:
        """Starts it; with `attach` returns a connection that misses no byte. Running already is fine."""
        container_id, record = self.resolve(name)
        if self._runtime.state(self.bundle(container_id)).status == "running":
            return self._runtime.attach(container_id) if attach else None
        folder = self.bundle(container_id)
        try:
            config = make_spec(self._params(container_id, record))
            os.makedirs(os.path.dirname(record["log_path"]), mode=0o710, exist_ok=True)
            write_atomic(folder / "config.json", json.dumps(config).encode(), durable=False)
            started = self._runtime.start(container_id, folder, attach=attach)
        except OSError as error:
            raise from_os_error(error, f"starting container {record['name']}") from error
        self._event("start", container_id, record)
        self._mounts.started(container_id, points_of(record))
        return started.attach

    def exec(self, name: str, spec: ExecSpec) -> ExecConnection:
        container_id, record = self.resolve(name)
        if self._runtime.state(self.bundle(container_id)).status != "running":
            raise Conflict(
                f"container {record['name']} is not running", hint=f"start it: workbench start {record['name']}"
            )
        if not spec.command:
            raise InvalidInput("no command to execute")
        params = ExecParams(spec.command, spec.env, spec.user, spec.working_dir, spec.tty, spec.stdin, spec.privileged)
        return self._runtime.exec(container_id, params)

    def _params(self, container_id: str, record: dict[str, Any]) -> SpecParams:
        spec = spec_from_json(record["spec"])
        folder = self.bundle(container_id)
        image = self._image_of(container_id)
        files = network_files(folder, record["hostname"])
        return SpecParams(
            container_id=container_id,
            args=tuple(record["args"]),
            env=tuple(record["env"]),
            cwd=record["cwd"],
            user=record["user"],
            hostname=record["hostname"],
            tty=spec.tty,
            open_stdin=spec.open_stdin,
            lowers=tuple(str(path) for path in self._store.lowers(image)),
            upper=str(folder / "upper"),
            work=str(folder / "work"),
            log_path=record["log_path"],
            mounts=in_order((*self._mounts.for_runtime(points_of(record)), *files)),
            **host_config(spec),
            **self._on_this_host(spec),
        )

    def _on_this_host(self, spec: ContainerSpec) -> dict[str, Any]:
        """What only this host can tell: device numbers, and the processes whose namespaces are joined."""
        join = {}
        for kind, mode in (("pid", spec.pid_mode), ("ipc", spec.ipc_mode)):
            if mode.startswith("container:"):
                join[kind] = self._join(mode.removeprefix("container:"), kind)
        return {
            "device_nodes": hostside.device_nodes(spec),
            "device_numbers": hostside.device_numbers(spec),
            "join": join,
        }

    def _join(self, name: str, kind: str) -> Join:
        """The first process of a running container whose namespace is to be shared. Raises Conflict, InvalidInput."""
        container_id, record = self.resolve(name)
        state = self._runtime.state(self.bundle(container_id))
        if state.status != "running":
            raise Conflict(f"cannot join the {kind.upper()} namespace of a non running container: {record['name']}")
        if kind == "ipc" and spec_from_json(record["spec"]).ipc_mode not in ("shareable", "host"):
            raise InvalidInput(
                f"cannot join IPC namespace of container {record['name']}: non-shareable IPC",
                hint="start that one with --ipc shareable",
            )
        return Join(state.pid, state.pid_start)

    def _image_of(self, container_id: str) -> Image:
        row = self._store.records.one("SELECT image FROM containers WHERE id = ?", container_id)
        return self._store.images.get(row["image"] if row else "")

    def _points(self, name: str) -> Sequence[Point]:
        """Another container's mounts (--volumes-from)."""
        return points_of(self.resolve(name)[1])

    def _volume_users(self, volume: str) -> Sequence[str]:
        """The containers that have a volume, running or not."""
        rows = self._store.records.read("SELECT id, document FROM containers")
        return [row["id"] for row in rows if any(volume == p.name for p in points_of(json.loads(row["document"])))]

    def _runs_with(self, volume: str) -> bool:
        ended = ("created", "exited", "dead")
        return any(self._runtime.state(self.bundle(user)).status not in ended for user in self._volume_users(volume))

    # --- stop, kill, remove -----------------------------------------------------------------------------

    def stop(self, name: str, timeout: int | None) -> None:
        """Signal, grace, kill. A client that goes away does not undo it. Already stopped is fine."""
        container_id, record = self.resolve(name)
        bundle = self.bundle(container_id)
        if self._runtime.state(bundle).status != "running":
            return
        wanted = record["spec"].get("stop_timeout")
        grace = timeout if timeout is not None else wanted if wanted is not None else STOP_SECONDS
        self._signal(container_id, signal_number(record["stop_signal"]))
        try:
            self._runtime.wait(container_id, bundle, None if grace < 0 else float(grace))
        except TimeoutError:
            self._signal(container_id, 9)
            self._runtime.wait(container_id, bundle, None)
        self._event("stop", container_id, record)

    def kill(self, name: str, signal: str) -> None:
        container_id, record = self.resolve(name)
        if self._runtime.state(self.bundle(container_id)).status != "running":
            raise Conflict(f"Cannot kill container: {name}: Container {container_id} is not running")
        self._signal(container_id, signal_number(signal))
        self._event("kill", container_id, record, signal=signal)

    def _signal(self, container_id: str, number: int) -> None:
        try:
            self._runtime.signal(container_id, number)
        except Conflict:
            pass  # it ended in between: what was asked for is so

    def wait(self, name: str) -> int:
        container_id, _ = self.resolve(name)
        return self._runtime.wait(container_id, self.bundle(container_id), None)

    def remove(self, name: str, *, force: bool, volumes: bool = False) -> None:
        """`volumes`: with the anonymous volumes that no other container has."""
        container_id, record = self.resolve(name)
        bundle = self.bundle(container_id)
        if self._runtime.state(bundle).status == "running":
            if not force:
                raise Conflict(
                    f"You cannot remove a running container {container_id}. "
                    "Stop the container before attempting removal or force remove",
                    hint=f"workbench stop {record['name']}, or rm --force",
                )
            self._signal(container_id, 9)
            self._runtime.wait(container_id, bundle, None)
        grave = self._store.tmp / f"stale-{container_id[:16]}"
        try:
            if bundle.exists():
                os.rename(bundle, grave)
            with self._store.records.write() as db:
                db.execute("DELETE FROM containers WHERE id = ?", (container_id,))
        except OSError as error:
            raise from_os_error(error, f"removing container {record['name']}") from error
        shutil.rmtree(grave, ignore_errors=True)
        self._remove_log(record)
        self._mounts.release(points_of(record), self._runs_with)
        if volumes:
            self._mounts.remove_anonymous(points_of(record), self._volume_users)
        self._event("destroy", container_id, record)

    def _remove_log(self, record: dict[str, Any]) -> None:
        """A service's log lives on while any of its containers does."""
        shared = record["spec"].get("log_path")
        if shared and not any(
            row["document"].find(json.dumps(shared)) >= 0
            for row in self._store.records.read("SELECT document FROM containers")
        ):
            Path(shared).unlink(missing_ok=True)

    def rename(self, name: str, new_name: str) -> None:
        container_id, record = self.resolve(name)
        check_name(new_name)
        try:
            with self._store.records.write() as db:
                db.execute("UPDATE containers SET name = ? WHERE id = ?", (new_name, container_id))
        except Corrupt as error:
            raise self._taken(new_name) from error
        self._event("rename", container_id, {**record, "name": new_name})

    # --- journal ----------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Records exits that monitors have written down and nobody has journalled; removes what asked to be removed."""
        for row in self._store.records.read("SELECT id, name, document FROM containers"):
            record = {**json.loads(row["document"]), "name": row["name"]}
            state = self._runtime.state(self.bundle(row["id"]))
            mark = f"{state.started}"
            if state.status not in ("exited", "dead") or record.get("die") == mark:
                continue
            document = {key: value for key, value in record.items() if key != "name"} | {"die": mark}
            with self._store.records.write() as db:
                done = db.execute(
                    "UPDATE containers SET document = ? WHERE id = ? AND document = ?",
                    (json.dumps(document), row["id"], row["document"]),
                ).rowcount
            if done:
                self._event("die", row["id"], record, exitCode=str(state.exit_code))
                if state.oom_killed:
                    self._event("oom", row["id"], record)
                self._mounts.ended(row["id"], points_of(record), self._runs_with)
                if record["spec"]["auto_remove"]:
                    self.remove(row["id"], force=False, volumes=True)

    def write_rule(self, log_path: str, text: str) -> None:
        os.makedirs(os.path.dirname(log_path), mode=0o710, exist_ok=True)
        fd = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, rule_record(text, rfc3339()))
        finally:
            os.close(fd)

    def _event(self, action: str, container_id: str, record: dict[str, Any], **more: str) -> None:
        labels = {key: str(value) for key, value in record["spec"]["labels"].items()}
        attributes = {"name": record["name"], "image": record["spec"]["image"], **more, **labels}
        self._store.records.event("container", action, container_id, attributes)


_NESTED: dict[str, Any] = {
    "mounts": Mount,
    "devices": Device,
    "ulimits": Ulimit,
    "blkio_weight_device": DeviceLimit,
    "blkio_device_read_bps": DeviceLimit,
    "blkio_device_write_bps": DeviceLimit,
    "blkio_device_read_iops": DeviceLimit,
    "blkio_device_write_iops": DeviceLimit,
}


def spec_from_json(document: dict[str, Any]) -> ContainerSpec:
    """A recorded spec; fields that a later version does not know are left out."""
    known = {entry.name for entry in dataclasses.fields(ContainerSpec)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document.items() if key in known
    }
    for key, kind in _NESTED.items():
        values[key] = tuple(kind(**entry) for entry in document.get(key, ()))
    return ContainerSpec(**values)


def network_files(folder: Path, hostname: str) -> list[BindMount]:
    """hosts, hostname and resolv.conf of a container on the host's network, to mount."""
    hosts = b""
    try:
        hosts = Path("/etc/hosts").read_bytes()
    except OSError:
        hosts = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n"
    try:
        resolv = Path("/etc/resolv.conf").read_bytes()
    except OSError:
        resolv = b""
    contents = {
        "hosts": hosts.rstrip(b"\n") + f"\n127.0.1.1\t{hostname}\n".encode(),
        "hostname": f"{hostname}\n".encode(),
        "resolv.conf": resolv,
    }
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        path.chmod(0o644)
    return [BindMount(str(folder / name), f"/etc/{name}") for name in contents]


def signal_number(name: str) -> int:
    """`TERM`, `SIGTERM`, `15`, `RTMIN+3`. Raises `InvalidInput`."""
    import signal

    text = name.upper().removeprefix("SIG")
    if text.isascii() and text.isdigit() and 0 < int(text) < 65:
        return int(text)
    base, plus, offset = text.partition("+")
    try:
        number = int(signal.Signals[f"SIG{base}"]) + (int(offset) if plus else 0)
    except (KeyError, ValueError):
        raise InvalidInput(f"{name!r} is not a signal", hint="write TERM, SIGTERM or 15") from None
    return number
