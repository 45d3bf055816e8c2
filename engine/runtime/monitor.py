"""The process that stays with one container: starts it, keeps its log, answers for it, restarts it, records its end.

Forked, warm, from the supervisor; it depends on no engine and no supervisor from then on. One thread, one epoll loop,
nothing in it blocks except (before the container runs) the wait for init's report.

Its parts: `launch` (one start), `streams` (output, log, input), `serving` (clients), `restart` and `health` (what to do
when), `monitor_execs` (further processes, health checks), `ending` (what to take away), `journal` (what happened).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from engine.linux import cgroup as cg
from engine.linux import idmap, libc, pseudo
from engine.runtime import bundle_lock, ending, init_namespaces, netconfig, protocol
from engine.runtime import state as states
from engine.runtime.clients import Client
from engine.runtime.journal import Journal
from engine.runtime.jsonlog import Log
from engine.runtime.launch import First, Started, StartError, begin, explain
from engine.runtime.log_choice import open_log
from engine.runtime.loop import READ, Loop, Timer
from engine.runtime.monitor_execs import Execs, HealthChecks
from engine.runtime.native import Launcher, Native
from engine.runtime.netconfig import NetworkError
from engine.runtime.netns import ContainerLink
from engine.runtime.parked import Parked
from engine.runtime.restart import RestartPolicy
from engine.runtime.ringlog import RingLog
from engine.runtime.serving import Clients
from engine.runtime.streams import Streams

_RETRY = 0.25  # seconds between attempts to write to a full disk
_DROPPED = "lines were dropped: the log could not keep up (mode=non-blocking)"


class Monitor:
    """See the module. `run()` is the whole life."""

    starter: Client

    def __init__(self, run_dir: str, boot: str, layout: cg.Layout) -> None:
        self.run_dir = run_dir
        self.layout = layout
        self.parked: Parked | None = None
        self._begun: Callable[[], None] | None = None
        self.first: First | None = None
        self.state = states.State(boot_id=boot, monitor_pid=os.getpid(), monitor_start=states.start_time(os.getpid()))
        self.state.cgroup = str(layout.roots[""]) if layout.delegated else ""
        self.loop = Loop()
        self.clients = Clients(self)
        self.streams = Streams(self.loop, None, self.clients.output)
        self.started: Started | None = None
        self.execs = Execs(self)
        self.launcher: Launcher = Native("")
        self.cgroup: cg.Cgroup | None = None
        self.spec: dict[str, Any] = {}
        self.life: dict[str, Any] = {}  # the engine's wishes for what we do by ourselves (service.life_config)
        self.bundle = self.id = ""
        self.policy = RestartPolicy()
        self.network = ContainerLink(run_dir, netconfig.ContainerNetwork(), self.loop)
        self._log: Log | RingLog | None = None
        self._journal: Journal | None = None
        self.health = HealthChecks(self)
        self._dropped_timer: Timer | None = None
        self._timer: Timer | None = None  # of the next start, or of the kill after a stop's grace
        self._began = 0.0
        self._cancelled = False  # a user means it to stay ended
        self._stopping = False
        self._died: str | None = None  # the exit code that "die" has still to tell
        self._ended = False

    # --- start ---------------------------------------------------------------------------------------

    def run(
        self,
        client: Client,
        request: dict[str, Any],
        fds: list[int],
        parked: Parked | None = None,
        begun: Callable[[], None] | None = None,
    ) -> bool:
        """`parked` becomes the container's first process if it fits it; `begun` is called when that is decided. Returns whether this
        process can be another container's monitor: a life that went as it should has left nothing but what `spares` knows of."""
        self.starter, self.parked, self._begun = client, parked, begun
        try:
            self._begin(request, fds)
        except Exception as error:
            self._start_failed(error)
            return False
        while not self._ended:
            self.loop.turn()
            self.clients.sweep()
        self._farewell()
        os.close(self.lock)
        self.loop.close()
        return isinstance(self.launcher, Native)

    def _begin(self, request: dict[str, Any], fds: list[int]) -> None:
        self.bundle, self.id = str(request["bundle"]), str(request["id"])
        self.lock = self._take_lock()
        self.spec = json.loads(pseudo.read(f"{self.bundle}/config.json"))
        self.cgroup = cg.Cgroup(self.layout, self.spec["linux"]["cgroupsPath"])
        parked, self.parked = self.parked, None
        self.first = begin(self.spec, self.bundle, self.cgroup, fds, parked)
        if self._begun is not None:
            self._begun()
        libc.set_name(f"wb-{self.id[:12]}")
        extra = self.spec["workbench"]
        self.life = extra.get("life") or {}
        self.launcher = self._choose_launcher()
        if extra["stdio"] == "log":
            states.reserve(self.bundle)
            self._journal = Journal(self.bundle)
            self._log = open_log(self.loop, extra["log"], self.life.get("log_config") or {}, self._dropped)
            self.streams = Streams(self.loop, self._log, self.clients.output)
        self.policy = RestartPolicy.from_spec(self.life.get("restart_policy") or {})
        config = netconfig.from_json(extra.get("network"))
        self.network = ContainerLink(self.run_dir, config, self.loop, self._network_note)
        if request.get("attach"):
            self.note("attach")
        self._launch(fds)
        self._began_running()
        self._answer_starter(request)

    def _take_lock(self) -> int:
        try:
            return bundle_lock.take(self.bundle, self.id)
        except StartError:
            self.bundle = ""  # another monitor's: leave its files alone
            raise

    def _choose_launcher(self) -> Launcher:
        if not self.spec["workbench"].get("runtime"):
            return Native(self.bundle)
        from engine.runtime.oci_runtime import OciRuntime  # only here: most monitors have no use for it

        return OciRuntime(self.run_dir, self.bundle, self.id, self.spec, self.layout)

    def _dropped(self, count: int) -> None:
        """Lines of the log. Not saved at once: where lines are dropped there are many."""
        old = [note for note in self.state.notes if _DROPPED not in note]
        self.state.notes = (*old, f"{count} log {_DROPPED}")
        if self._dropped_timer is None:
            self._dropped_timer = self.loop.later(1.0, self._save_dropped)

    def _save_dropped(self) -> None:
        self._dropped_timer = None
        self.save()

    def _launch(self, fds: list[int]) -> None:
        """One start, the first or one by the restart policy."""
        assert self.cgroup is not None
        first, self.first = self.first, None
        self.started = self.launcher.launch(self.spec, self.cgroup, self.network, fds, first, self._prepare)

    def _prepare(self) -> None:
        """While the first process does its last steps."""
        assert self.cgroup is not None
        self.clients.listen(os.path.join(self.run_dir, "c"), f"{self.id[:12]}.sock")
        self.state.notes = (*self.cgroup.notes, *([self.network.trouble] if self.network.trouble else []))
        self.state.network = self.network.report()

    def _began_running(self) -> None:
        started = self.started
        assert started is not None
        self.streams.open(started)
        self.loop.watch(started.pidfd, READ, self._on_exit)
        self._began = time.monotonic()
        self.state.status, self.state.pid = "running", started.pid
        self.state.mounts = max(started.mounts, 0)
        self.state.pid_start = states.start_time(started.pid)
        self.state.started, self.state.finished = time.time_ns(), 0
        self.state.exit_code, self.state.oom_killed, self.state.error = None, False, ""
        self.health.begin(self.life.get("healthcheck"))
        self.note("start")
        self.save()

    def _answer_starter(self, request: dict[str, Any]) -> None:
        client = self.starter
        client.tether = bool(request.get("tether"))
        client.waiting = client.tether
        client.send_line(
            {
                "pid": self.state.pid,
                "started": self.state.started,
                "tty": self.streams.tty,
                "notes": self.state.notes,
            }
        )
        if request.get("attach"):
            client.attach(request)
            self.clients.remover_waits = bool(request.get("removes"))
        elif not client.tether:
            client.finish()
        self.clients.adopt(client)

    def _start_failed(self, error: Exception) -> None:
        message, code, number = explain(error)
        if self.parked is not None:
            self.parked.discard()
        if self.first is not None:
            self.first.abandon()
        if self.started is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.started.pidfd, signal.SIGKILL)
                os.waitpid(self.started.pid, 0)
        self.clients.unlisten()
        if self.bundle:
            self._clean(error)
            self.network.close()
            # As Docker has it: what never ran is still "created", but with the code and the reason.
            before = states.State()
            with contextlib.suppress(OSError, ValueError, TypeError):
                before = states.read(self.bundle)
            self.state.status = "exited" if before.started else "created"
            self.state.started, self.state.finished = before.started, before.finished
            self.state.exit_code, self.state.error = code, message
            with contextlib.suppress(OSError):
                states.write(self.bundle, self.state, durable=False)
        self.starter.sock.setblocking(True)
        with contextlib.suppress(OSError):
            self.starter.sock.sendall(protocol.line({"error": message, "code": code, "errno": number}))
        if self.bundle:
            self._see_to_removal(True)

    def _clean(self, error: Exception | None = None) -> bool:
        report: Any = error if isinstance(error, StartError) else self.first.started if self.first else self.started
        made, copied = (report.stubs, report.copied) if report is not None else ([], {})
        self.network.ended()
        oom_killed = self.cgroup is not None and self.cgroup.oom_killed()
        try:
            self.launcher.delete()
        except OSError as trouble:
            self.state.notes = (*self.state.notes, str(trouble))[-8:]
        ending.clean(self.spec, self.cgroup, made, copied)
        return oom_killed

    # --- end -----------------------------------------------------------------------------------------

    def _on_exit(self, fd: int, _events: int) -> None:
        assert self.started is not None
        self.loop.forget(fd)
        result = os.waitid(os.P_PID, self.started.pid, os.WEXITED)
        assert result is not None
        normal = result.si_code == os.CLD_EXITED
        code = result.si_status if normal else 128 + result.si_status
        self.state.exit_code, self.state.finished = code, time.time_ns()
        ran = time.monotonic() - self._began
        if self.cgroup is not None and init_namespaces.shares_pids(self.spec):
            self.cgroup.kill()
        self.health.stop()
        self.streams.drain()
        self.state.oom_killed = self._clean()
        os.close(fd)
        if self.started.mounts >= 0:
            os.close(self.started.mounts)
        self.started, self.state.pid, self.state.pid_start, self.state.mounts = None, 0, 0, 0
        if self._timer is not None:
            self._timer.cancel()
        if self.state.oom_killed:
            self.note("oom")
        self._died = str(code)
        by_hand = self._cancelled or (self.policy.name == "unless-stopped" and self.state.stopped_by_hand)
        delay = self.policy.after(code, ran, self.state.restart_count, by_hand=by_hand)
        if delay is None:
            self._finish()
            return
        self.state.status = "restarting"
        self.save()
        self._tell_of_death()
        self.clients.tell_exit()
        self._timer = self.loop.later(delay, self._restart)

    def _restart(self) -> None:
        try:
            self.state.restart_count += 1
            with open(os.path.join(self.bundle, "config.json"), "rb") as file:  # `update` may have changed the limits
                self.spec["linux"]["resources"] = json.loads(file.read())["linux"]["resources"]
            self.cgroup = cg.Cgroup(self.layout, self.spec["linux"]["cgroupsPath"])
            self._launch([])
            self._began_running()
        except Exception as error:
            message, code, _number = explain(error)
            self._clean(error)
            self.state.exit_code, self.state.error, self.state.finished = code, message, time.time_ns()
            self._finish()

    def _finish(self) -> None:
        """Log and exit record go to the disk. When it is full: again, and we go on answering meanwhile."""
        self.network.close()
        self.state.network = None
        self.state.status = "exited"
        kept = self.spec["workbench"]["stdio"] == "log"  # else it is a build's step: its engine is told, and waits
        if not self._written() and kept and not (states.release(self.bundle) and self._written()):
            self.loop.later(_RETRY, self._finish)
            return
        states.release(self.bundle)
        self._tell_of_death()
        if self._stopping:
            self.note("stop")
            self._stopping = False
        self._ended = True

    def _tell_of_death(self) -> None:
        """Once the record says so: who hears "die" and finds a container that runs takes it for restarted (Compose's monitor)."""
        if self._died is not None:
            seconds = max(self.state.finished - self.state.started, 0) // 1_000_000_000
            self.note("die", self.state.finished, exitCode=self._died, execDuration=str(seconds))
            self._died = None

    def _written(self) -> bool:
        if self._log is not None and not self._log.settled():
            return False  # the record says "exited" once every line is there
        return self.save(durable=True)

    def save(self, *, durable: bool = False) -> bool:
        try:
            states.write(self.bundle, self.state, durable=durable and self.spec["workbench"]["stdio"] == "log")
        except FileNotFoundError:  # the bundle was removed under us: there is nobody to record for
            pass
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                return False
            raise
        return True

    def _farewell(self) -> None:
        """Tells everyone who waits. The socket's name goes after the record is written: there is always an answer."""
        self.clients.unlisten()
        self.clients.farewell()
        self._see_to_removal(self.clients.remover_waits)

    def _see_to_removal(self, engine_waits: bool) -> None:
        remover = self.life.get("remover")
        if remover and not self.state.kept:
            ending.see_to_removal(self.bundle, [str(word) for word in remover], engine_waits=engine_waits)

    # --- what clients ask for ------------------------------------------------------------------------

    def note(self, action: str, when: int | None = None, /, **attributes: str) -> None:
        if self._journal is not None:
            self._journal.note(action, when, **attributes)

    def _network_note(self, text: str) -> None:
        """Something happened to the network that its owner should know: shown by `inspect`."""
        self.state.notes = (*self.state.notes, text)[-8:]
        self.save()

    def change_network(self, request: dict[str, Any]) -> dict[str, Any]:
        """Connects or disconnects a network while the container runs."""
        if refusal := self.refuses("change networks"):
            return refusal
        try:
            if request["op"] == "connect":
                self.network.connect(request["endpoint"])
                self.network.link(request.get("links") or {})
            elif request["op"] == "names":
                self.network.rename(request["names"])
            else:
                self.network.disconnect(str(request["network"]))
        except (NetworkError, OSError) as error:
            return {"error": str(error)}
        self.state.network = self.network.report()
        self.save()
        return {"ok": True}

    def take_over(self, fds: list[int], request: dict[str, Any]) -> dict[str, Any]:
        """The published ports and the names of another container come here (it lent them)."""
        try:
            self.network.take(fds, request["lent"], request["names"])
        except (NetworkError, OSError) as error:
            return {"error": str(error)}
        self.state.network = self.network.report()
        self.save()
        return {"ok": True}

    def let_go(self) -> dict[str, Any]:
        self.network.let_go()
        self.state.network = self.network.report()
        self.save()
        return {"ok": True}

    def about(self) -> dict[str, Any]:
        return {"ok": True, "pid": self.state.pid, "status": self.state.status, "version": protocol.VERSION}

    def refuses(self, what: str) -> dict[str, Any] | None:
        """The answer when `what` (attach, exec, …) needs a container that runs, and it does not."""
        if self.state.status == "running":
            return None
        hint = {"paused": "is paused, unpause it first", "restarting": "is restarting, wait until it is running"}
        text = hint.get(self.state.status, "is not running")
        return {"error": f"cannot {what}: the container {text}", "errno": errno.ESRCH, "code": 126, "reason": text}

    def kill(self, number: int) -> dict[str, Any]:
        try:
            if self.started is None:
                raise ProcessLookupError(errno.ESRCH, "the container is not running")
            self.launcher.kill(self.started, number)
            if number == signal.SIGKILL and self.state.status == "paused":
                self._thaw()
        except OSError as error:
            return {"error": error.strerror or str(error), "errno": error.errno}
        return {"ok": True}

    def signal(self, number: int) -> dict[str, Any]:
        """A user's signal. KILL, and the container's own stop signal, mean that it is to stay ended."""
        if self.state.status == "restarting":
            return self._give_up()
        ends = number in (signal.SIGKILL, int(self.life.get("stop_signal") or signal.SIGTERM))
        if ends:
            self._cancelled = self.state.stopped_by_hand = True
        answer = self.kill(number)
        if "ok" in answer:
            self.note("kill", signal=str(number))
        return answer

    def stop(self, number: int, grace: float | None, *, keep: bool) -> dict[str, Any]:
        """Signal, grace (seconds, None: for ever), SIGKILL. It goes on when who asked for it goes away. `keep`: no
        auto-remove."""
        self._stopping, self.state.kept = True, keep
        if self.state.status == "restarting":
            return self._give_up()
        answer = self.signal(number)
        self._cancelled = self.state.stopped_by_hand = True
        if self.state.status == "paused":
            self._thaw()
        if self._timer is not None:
            self._timer.cancel()
        if grace is not None:
            self._timer = self.loop.later(grace, lambda: self.signal(signal.SIGKILL))
        return answer

    def _give_up(self) -> dict[str, Any]:
        """No further start."""
        self._cancelled = self.state.stopped_by_hand = True
        if self._timer is not None:
            self._timer.cancel()
        self._finish()
        return {"ok": True}

    def change_policy(self, document: dict[str, Any]) -> dict[str, Any]:
        """Another restart policy. One by which a start that is still to come would not be made gives that up."""
        self.policy.change(document)
        if self.state.status == "restarting" and not self.policy.wants(
            self.state.exit_code or 0, self.state.restart_count
        ):
            if self._timer is not None:
                self._timer.cancel()
            self._finish()
        return {"ok": True}

    def pause(self) -> dict[str, Any]:
        if self.state.status == "paused":
            return {"error": "the container is already paused", "conflict": True}
        if refusal := self.refuses("pause"):
            return refusal
        try:
            self.launcher.pause()
        except OSError as error:
            why = error.strerror or str(error)
            if idmap.inside() and error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
                why += ": there is no control group of its own that could be frozen"
            return {"error": f"cannot pause: {why}", "errno": error.errno}
        self.state.status = "paused"
        self.streams.catch_up()
        self.health.stop()
        self.note("pause")
        self.save()
        return {"ok": True}

    def unpause(self) -> dict[str, Any]:
        if self.state.status != "paused":
            return {"error": f"Container {self.id} is not paused", "conflict": True}
        try:
            self._thaw()
        except OSError as error:
            return {"error": f"cannot unpause: {error.strerror or error}", "errno": error.errno}
        return {"ok": True}

    def _thaw(self) -> None:
        self.launcher.resume()
        self.state.status = "running"
        self.health.go_on()
        self.note("unpause")
        self.save()

    def update(self, resources: dict[str, Any]) -> dict[str, Any]:
        """New limits, by whoever made the container."""
        try:
            self.launcher.update(resources)
        except OSError as error:
            return {"error": error.strerror or str(error), "errno": error.errno}
        return {"ok": True}

    def resize(self, rows: int, columns: int) -> None:
        if self.streams.resize(rows, columns):
            self.note("resize", height=str(rows), width=str(columns))

    def stdin_left(self, others: int) -> None:
        """A client that fed the program has gone, `others` are left: with `stdin_once` that is the end of its input."""
        if not others and self.life.get("stdin_once"):
            self.streams.end_stdin()
