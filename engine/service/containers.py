"""Containers: records of what to run, their folders, and the way from an image's config to a process.

The record (SQLite) says what was asked for; the truth about a process is its monitor's state file. What happens to a
container once it runs is in `life`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.atomic import write_atomic
from engine.base.clock import rfc3339
from engine.base.ids import check_name, new_id, random_name
from engine.base.lazy import lazy, part
from engine.errors import (
    Conflict,
    Corrupt,
    EngineError,
    InvalidInput,
    NotFound,
    StartFailed,
    StorageFull,
    from_os_error,
)
from engine.service.container_view import ContainerView
from engine.service.graves import Graves
from engine.service.life import Life, signal_number
from engine.service.listing import Entry, Listing
from engine.service.points import points_of
from engine.service.system import require_root
from engine.store.records import add_event

if TYPE_CHECKING:
    import shutil

    from engine.model import ContainerDetail, ContainerSpec, ContainerSummary, EndpointSettings, ExecSpec
    from engine.runtime.client import Runtime, Started
    from engine.runtime.connections import AttachConnection, ExecConnection
    from engine.service.endpoints import EndpointService
    from engine.service.mounts import Mounts
    from engine.service.networks import NetworkService
    from engine.service.points import Point
    from engine.service.start_params import StartParams
    from engine.store.images import Image
    from engine.store.store import Store
else:
    shutil = lazy("shutil")

SUBNET_TRIES = 5


class ContainerService:
    def __init__(self, store: Store, runtime: Runtime, remover: Sequence[str] = ()) -> None:
        """`remover`: the command that a monitor runs when an auto-remove container has ended and no engine waits."""
        self.remover = tuple(remover)
        self._store, self._runtime = store, runtime
        self.life = Life(store, runtime, self)
        self._view = ContainerView(runtime, lambda: self.endpoints, self._network_names, self.bundle, self._trees)
        self.listing = Listing(store, runtime, self._network_names, self._view, self.bundle)
        self.graves = Graves()

    # What `ps` and `rm` do without is loaded when it is first used: they are processes, and theirs is the time it takes.

    @part
    def _mounts(self) -> Mounts:
        from engine.service.mounts import Mounts

        return Mounts(self._store)

    @part
    def networks(self) -> NetworkService:
        from engine.service.networks import NetworkService

        return NetworkService(self._store, self._runtime)

    @part
    def endpoints(self) -> EndpointService:
        from engine.service.endpoints import EndpointService

        return EndpointService(self._store, self._runtime, self.networks)

    @part
    def _start_params(self) -> StartParams:
        from engine.service.start_params import StartParams

        return StartParams(self._store, self._runtime, self._mounts, self)

    def _network_names(self) -> Mapping[str, str]:
        """By id."""
        rows = self._store.records.read("SELECT id, name FROM networks")
        names = {row["id"]: row["name"] for row in rows}
        if not {"bridge", "host", "none"} <= set(names.values()):  # nobody has asked for them yet
            names = {each.id: each.name for each in self.networks.records()}
        return names

    def bundle(self, container_id: str) -> Path:
        return self._store.containers / container_id

    # --- find -----------------------------------------------------------------------------------------

    def resolve(self, name: str) -> tuple[str, dict[str, Any]]:
        """Id and record of a container by name, id or unique id prefix. Raises `NotFound`, `Conflict`."""
        rows = self._store.records.read(
            "SELECT id, name, document FROM containers WHERE id = ? OR name = ?", *[name.removeprefix("/")] * 2
        )
        if not rows and name and all(c in "0123456789abcdef" for c in name):
            rows = self._store.records.read("SELECT id, name, document FROM containers WHERE id GLOB ?", name + "*")
        if not rows:
            raise NotFound(f"No such container: {name}", hint="`workbench ps -a` lists them")
        if len(rows) > 1:
            raise Conflict(f"container id {name!r} is ambiguous", hint="give more digits, or the name")
        return rows[0]["id"], {**json.loads(rows[0]["document"]), "name": rows[0]["name"]}

    def list(self, *, all: bool) -> Sequence[ContainerSummary]:
        return self._listed(self.listing.entries(), all=all)

    def list_settled(self, *, all: bool) -> Sequence[ContainerSummary]:
        """The same, after `Life.reconcile`."""
        entries = self.listing.entries()
        return self._listed(self.listing.entries() if self.life.settle(entries) else entries, all=all)

    def _listed(self, entries: Sequence[Entry], *, all: bool) -> Sequence[ContainerSummary]:
        return [summary for summary in self.listing.summaries(entries) if all or summary.running]

    def summary(self, name: str) -> ContainerSummary:
        return self._view.summary(*self.resolve(name))

    def detail(self, name: str) -> ContainerDetail:
        from engine.model import ContainerDetail

        container_id, record = self.resolve(name)
        summary = self._view.summary(container_id, record)
        spec = self.spec(record)
        return ContainerDetail(summary, spec, self._view.inspect(summary, spec, record), record["log_path"])

    # --- create and start -------------------------------------------------------------------------------

    def create(self, spec: ContainerSpec) -> str:
        from engine.service import life_config
        from engine.service.container_process import merge
        from engine.service.container_record import spec_to_json
        from engine.service.endpoints import exposed
        from engine.service.variants import wanted

        require_root()
        life_config.check(spec)
        image = wanted(self._store, spec.image, spec.platform)
        config = self._store.images.config(image)
        process = merge(spec, config)
        signal_number(process.stop_signal)
        spec = self._start_params.settled(spec)
        self._check_links(spec)
        name = check_name(spec.name) if spec.name else random_name()
        container_id = new_id()
        folder = self.bundle(container_id)
        record = {
            "spec": spec_to_json(spec),
            "image_id": image.config_digest,
            "created": time.time_ns(),
            "args": process.args,
            "entrypoint": process.entrypoint,
            "cmd": process.command,
            "env": process.env,
            "user": process.user,
            "cwd": process.cwd,
            "stop_signal": process.stop_signal,
            "healthcheck": life_config.health_json(life_config.merge_healthcheck(spec.healthcheck, config.healthcheck)),
            "hostname": self._hostname(spec, container_id),
            "networks": self.endpoints.wanted(spec),
            "exposed": exposed(config, spec),
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
        return container_id

    def _check_links(self, spec: ContainerSpec) -> None:
        """On the default network a link is to a container that there is. Raises InvalidInput."""
        from engine.service import links

        if spec.network_mode in ("", "default", "bridge"):
            for other, _ in links.parse(spec.links):
                try:
                    self.resolve(other)
                except NotFound as error:
                    raise InvalidInput(f"could not get container for {other}: {error}", hint=error.hint) from None

    def _hostname(self, spec: ContainerSpec, container_id: str) -> str:
        if spec.uts_mode == "host" or (spec.network_mode == "host" and not spec.hostname):
            return os.uname().nodename
        if spec.network_mode.startswith("container:"):
            return str(self.resolve(spec.network_mode.removeprefix("container:"))[1]["hostname"])
        return spec.hostname or container_id[:12]

    def _insert(self, container_id: str, name: str, image: Image, record: dict[str, Any], *, picked: bool) -> None:
        for attempt in range(10):
            try:
                # The one flush of a container's life: a record lost in a power cut would take its files with it (`Life._sweep`).
                with self._store.records.write() as db:
                    db.execute(
                        "INSERT INTO containers VALUES (?, ?, ?, ?, ?)",
                        (container_id, name, image.digest, record["created"], json.dumps(record)),
                    )
                    attributes = self.event_attributes({**record, "name": name})
                    add_event(db, "container", "create", container_id, attributes)
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

    def start(self, name: str, *, attach: bool = False, standby: bool = False) -> AttachConnection | None:
        """Starts it; with `attach` returns a connection that misses no byte. Running already is fine. `standby`: without its
        published ports and names, which `take_over` gives it."""
        container_id, record = self.resolve(name)
        state = self._runtime.state(self.bundle(container_id))
        if state.status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        if state.status == "running":
            return self._runtime.attach(container_id) if attach else None
        if state.status == "restarting":  # now, not when its policy's delay is over
            self.life.stop(container_id, 0, keep=True)
        removes = bool(record["spec"]["auto_remove"])
        try:
            started = self._start(container_id, record, attach=attach, removes=removes and attach, standby=standby)
        except BaseException as error:
            if isinstance(error, Conflict) and self._runtime.state(self.bundle(container_id)).active:
                return self._runtime.attach(container_id) if attach else None  # another engine was faster: that is fine
            if isinstance(error, EngineError | OSError) and not self._recorded(container_id):
                raise NotFound(f"No such container: {name}", hint="it was removed while it was started") from error
            if removes:  # as Docker: what cannot start has ended
                with contextlib.suppress(EngineError):
                    self.remove(container_id, force=True, volumes=True)
            raise
        return started.attach

    def _recorded(self, container_id: str) -> bool:
        return self._store.records.one("SELECT 1 FROM containers WHERE id = ?", container_id) is not None

    def _start(
        self, container_id: str, record: dict[str, Any], *, attach: bool, removes: bool, standby: bool
    ) -> Started:
        from engine.runtime.spec import make_spec
        from engine.service.inspect_network import SUBNET_TAKEN

        folder = self.bundle(container_id)
        tries = SUBNET_TRIES
        while True:
            try:
                config = make_spec(self._start_params.params(container_id, record))
                if standby and config["workbench"].get("network"):
                    config["workbench"]["network"]["standby"] = True
                if (logs := os.path.dirname(record["log_path"])) != str(
                    folder
                ):  # of a service; its own is there, or it was removed
                    os.makedirs(logs, mode=0o710, exist_ok=True)
                write_atomic(folder / "config.json", json.dumps(config).encode(), durable=False)
                return self._runtime.start(container_id, folder, attach=attach, removes=removes)
            except StartFailed as error:
                # Another data root or program took the subnet between our look and the bridge: we look again.
                tries -= 1
                if not tries or not SUBNET_TAKEN.match(error.message):
                    self.life.start_failed(container_id, record)
                    raise self._explain_start(error, container_id) from error
            except OSError as error:
                raise from_os_error(error, f"starting container {record['name']}") from error

    def _explain_start(self, error: StartFailed, container_id: str) -> StartFailed:
        """With who has the port, when that is what was in the way."""
        from engine.network.ports import join_host
        from engine.runtime.ports import holder
        from engine.service.inspect_network import PORT_DENIED, PORT_TAKEN

        taken = PORT_TAKEN.match(error.message)
        if taken is None:
            if PORT_DENIED.match(error.message):
                hint = "ports below net.ipv4.ip_unprivileged_port_start (sysctl) are root's: publish a higher one"
                return StartFailed(error.message, exit_code=error.exit_code, hint=hint)
            return error
        ip, port, kind = taken[1], int(taken[2]), taken[3]
        ours = [
            summary.name
            for summary in self.list(all=False)
            if summary.id != container_id and any(p.public_port == port and p.type == kind for p in summary.published)
        ]
        who = f"container {ours[0]}" if ours else holder(ip, port, kind)
        return StartFailed(
            f"Bind for {join_host(ip, str(port))} failed: port is already allocated{f': by {who}' if who else ''}",
            exit_code=error.exit_code,
            hint="publish another one (-p), or stop what has it",
        )

    def attach(self, name: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> AttachConnection:
        """Output from now on. Raises Conflict when it does not run, or is paused."""
        container_id, record = self.resolve(name)
        if not self.life.state(container_id).active:
            raise Conflict(
                "you cannot attach to a stopped container, start it first", hint=f"workbench start -ai {record['name']}"
            )
        return self._runtime.attach(container_id, stdin=stdin, stdout=stdout, stderr=stderr)

    def exec(self, name: str, spec: ExecSpec) -> ExecConnection:
        container_id, record = self.resolve(name)
        status = self._runtime.state(self.bundle(container_id)).status
        if status == "paused":
            raise Conflict(f"container {record['name']} is paused, unpause the container before exec")
        if status == "restarting":
            raise Conflict(f"container {record['name']} is restarting, wait until the container is running")
        if status != "running":
            raise Conflict(
                f"container {record['name']} is not running", hint=f"start it: workbench start {record['name']}"
            )
        if not spec.command:
            raise InvalidInput("no command to execute")
        from engine.runtime.exec_client import ExecParams

        params = ExecParams(
            spec.command,
            spec.env,
            spec.user,
            spec.working_dir,
            spec.tty,
            spec.stdin,
            spec.privileged,
            spec.tty_size,
            spec.id,
            spec.detach,
        )
        return self._runtime.exec(container_id, params)

    def spec(self, record: dict[str, Any]) -> ContainerSpec:
        """What was asked for, of a record."""
        from engine.service.container_record import spec_from_json

        return spec_from_json(record["spec"])

    def lowers(self, container_id: str) -> Sequence[Path]:
        """The layer trees that a container's root begins with, topmost first."""
        return self._store.lowers(self.image_of(container_id))

    def _trees(self, container_id: str) -> Sequence[Path]:
        """The same as they are named, whether or not they are there."""
        from engine.oci.chain import chain_ids

        try:
            config = self._store.images.config(self.image_of(container_id))
            return self._store.layers.trees(chain_ids(config.diff_ids))
        except EngineError:
            return ()

    def image_of(self, container_id: str) -> Image:
        row = self._store.records.one("SELECT image FROM containers WHERE id = ?", container_id)
        return self._store.images.get(row["image"] if row else "")

    def _points(self, name: str) -> Sequence[Point]:
        """Another container's mounts (--volumes-from)."""
        return points_of(self.resolve(name)[1])

    def _volume_users(self, volume: str) -> Sequence[str]:
        """The containers that have a volume, running or not."""
        rows = self._store.records.read("SELECT id, document FROM containers")
        return [row["id"] for row in rows if any(volume == p.name for p in points_of(json.loads(row["document"])))]

    def runs_with(self, volume: str) -> bool:
        """Whether a container that has this volume is running."""
        ended = ("created", "exited", "dead")
        return any(self._runtime.state(self.bundle(user)).status not in ended for user in self._volume_users(volume))

    def ended(self, container_id: str, record: dict[str, Any]) -> None:
        """Its end was journalled: what it had of the host goes."""
        self._mounts.release(points_of(record), self.runs_with)

    # --- remove, rename ---------------------------------------------------------------------------------

    def remove(self, name: str, *, force: bool, volumes: bool = False) -> None:
        """`volumes`: with the anonymous volumes that no other container has."""
        container_id, record = self.resolve(name)
        bundle = self.bundle(container_id)
        status = self._runtime.state(bundle).status
        if status in ("running", "paused", "restarting"):
            if not force:
                raise Conflict(
                    f"You cannot remove a {status} container {container_id}. "
                    "Stop the container before attempting removal or force remove",
                    hint=f"workbench stop {record['name']}, or rm --force",
                )
            with contextlib.suppress(Conflict):  # it ended in between
                self._runtime.end(container_id, bundle)
        self.finish_removal(container_id, record, volumes=volumes)

    def finish_removal(self, container_id: str, record: dict[str, Any], *, volumes: bool) -> None:
        """The record first: a folder without one is what `Life` sweeps away if we are killed in between."""
        points = points_of(record)
        if points:  # taking volumes off is no part of the transaction below
            with contextlib.suppress(StorageFull):
                self.life.copy_journal(container_id, record)
        try:
            self._forget(container_id, record)
        except StorageFull:  # removing is what makes room; its last events are less than that
            self._inter(container_id, record, beside=False)
            self._forget(container_id, record)
        self._inter(container_id, record)
        self._remove_log(record)
        self._mounts.release(points, self.runs_with)
        if volumes:
            self._mounts.remove_anonymous(points, self._volume_users)
        self.life.forget(container_id)

    def _forget(self, container_id: str, record: dict[str, Any]) -> None:
        # No flush: what a power cut brings back has no folder, or is a container that has ended; either can be removed.
        with self._store.records.write(durable=False) as db:
            self.life.copy_journal(container_id, record)
            if db.execute("DELETE FROM containers WHERE id = ?", (container_id,)).rowcount:
                db.execute("DELETE FROM journals WHERE id = ?", (container_id,))
                add_event(db, "container", "destroy", container_id, self.event_attributes(record))
            db.execute("DELETE FROM endpoints WHERE container = ?", (container_id,))

    def _inter(self, container_id: str, record: dict[str, Any], *, beside: bool = True) -> None:
        grave = self._store.tmp / f"stale-{container_id[:16]}"
        try:
            os.rename(self.bundle(container_id), grave)
        except FileNotFoundError:  # it is there already, or another engine has taken it away
            pass
        except OSError as error:
            raise from_os_error(error, f"removing container {record['name']}") from error
        self.graves.bury(grave, beside=beside)

    def _remove_log(self, record: dict[str, Any]) -> None:
        """A service's log lives on while any of its containers does."""
        shared = record["spec"].get("log_path")
        if not shared:
            return
        from engine.service.logs import log_files

        if not any(
            row["document"].find(json.dumps(shared)) >= 0
            for row in self._store.records.read("SELECT document FROM containers")
        ):
            for path in log_files(Path(shared)):
                path.unlink(missing_ok=True)

    def rename(self, name: str, new_name: str) -> None:
        container_id, record = self.resolve(name)
        new_name = new_name.removeprefix("/")
        check_name(new_name)
        if new_name == record["name"]:
            raise InvalidInput(
                "renaming a container with the same name as its current name", hint="give it another name"
            )
        self.life.copy_journal(container_id, record)  # with the name that it has had so far
        try:
            with self._store.records.write() as db:
                db.execute("UPDATE containers SET name = ? WHERE id = ?", (new_name, container_id))
        except Corrupt as error:
            if not isinstance(error.__cause__, sqlite3.IntegrityError):
                raise
            raise self._taken(new_name) from error
        record["name"], old = new_name, record["name"]
        with contextlib.suppress(Conflict):  # it has ended just now
            self.endpoints.renamed(container_id, record, self.spec(record))
        self.event("rename", container_id, record, oldName=f"/{old}")

    def take_over(self, name: str, old: str, aside: str) -> None:
        """See `engine.api.Engine.take_over`."""
        new_id, new = self.resolve(name)
        old_id, before = self.resolve(old)
        wanted = before["name"]
        names = self.endpoints.names_of(new_id, {**new, "name": wanted}, self.spec(new))
        self.life.copy_journal(old_id, before)
        self.life.copy_journal(new_id, new)
        self._runtime.hand_over(old_id, new_id, names)
        with self._store.records.write() as db:
            db.execute("UPDATE containers SET name = ? WHERE id = ?", (check_name(aside), old_id))
            db.execute("UPDATE containers SET name = ? WHERE id = ?", (wanted, new_id))
        self.event("rename", old_id, {**before, "name": aside}, oldName=f"/{wanted}")
        self.event("rename", new_id, {**new, "name": wanted}, oldName=f"/{new['name']}")

    def unlink(self, name: str) -> None:
        """Removes a link, "CONTAINER/ALIAS". Raises InvalidInput, NotFound."""
        parent, slash, alias = name.strip("/").rpartition("/")
        if not slash:
            raise InvalidInput(f"Conflict, cannot remove the default link name of the container: {name}")
        container_id, document = self.resolve(parent)
        from engine.service import links

        left = links.without(document["spec"].get("links", ()), alias)
        with self._store.records.write() as db:
            row = db.execute("SELECT document FROM containers WHERE id = ?", (container_id,)).fetchone()
            changed = json.loads(row["document"])
            changed["spec"]["links"] = left
            db.execute("UPDATE containers SET document = ? WHERE id = ?", (json.dumps(changed), container_id))
        self.endpoints.unlinked(container_id, alias)

    # --- networks ---------------------------------------------------------------------------------------

    def connect(self, network: str, name: str, settings: EndpointSettings) -> None:
        """Raises Conflict, InvalidInput, NotFound."""
        record = self.networks.find(network)
        container_id, document = self.resolve(name)
        self.life.copy_journal(container_id, document)  # it began with the networks that it has now
        spec = self.spec(document)
        wishes = self.endpoints.connect(record, container_id, document, spec, settings)
        self._change_networks(container_id, lambda networks: networks.__setitem__(record.id, wishes))

    def disconnect(self, network: str, name: str, *, force: bool = False) -> None:
        """`force`: also a container that is no longer there. Raises Conflict, NotFound."""
        record = self.networks.find(network)
        try:
            container_id, document = self.resolve(name)
        except NotFound:
            if not force:
                raise
            return
        self.life.copy_journal(container_id, document)
        self.endpoints.disconnect(record, container_id, document)
        self._change_networks(container_id, lambda networks: networks.pop(record.id, None))

    def _change_networks(self, container_id: str, change: Callable[[dict[str, Any]], object]) -> None:
        with self._store.records.write() as db:
            row = db.execute("SELECT document FROM containers WHERE id = ?", (container_id,)).fetchone()
            if row is not None:
                document = json.loads(row["document"])
                change(document.setdefault("networks", {}))
                db.execute("UPDATE containers SET document = ? WHERE id = ?", (json.dumps(document), container_id))

    # --- journal ----------------------------------------------------------------------------------------

    def write_rule(self, log_path: str, text: str) -> None:
        from engine.service.logs import rule_record

        record = rule_record(text, rfc3339())
        os.makedirs(os.path.dirname(log_path), mode=0o710, exist_ok=True)
        fd = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, record)
        finally:
            os.close(fd)

    def event(self, action: str, container_id: str, record: dict[str, Any], **more: str) -> None:
        """After what its monitor has noted so far."""
        self.life.copy_journal(container_id, record)
        self._store.records.event("container", action, container_id, {**self.event_attributes(record), **more})

    def event_attributes(self, record: dict[str, Any]) -> dict[str, str]:
        """What Docker tells with every event of a container."""
        labels = {key: str(value) for key, value in record["spec"]["labels"].items()}
        return {**labels, "image": record["spec"]["image"], "name": record["name"]}
