"""The life of containers: stop, kill, pause, restarts, health, auto-remove, what outlives what, as Docker has it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, EngineError, InvalidInput
from engine.linux import cgroup
from engine.local import LocalEngine
from engine.model import ContainerSpec, Healthcheck, LogConfig, Resources, RestartPolicy
from engine.runtime import client, deaths, launching, supervisor
from engine.runtime import state as states
from engine.runtime.restart import RestartPolicy as Policy
from engine.service.images import BASE
from engine.service.logs import LogReader
from tests.patience import PATIENCE

pytestmark = pytest.mark.root
Make = Callable[..., str]


@pytest.fixture
def engine(data_root: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(data_root)
    engine._images.ensure_base()
    yield engine
    engine._store.close()


@pytest.fixture
def make(engine: LocalEngine) -> Iterator[Make]:
    made = []

    def create(*command: str, start: bool = True, **fields: Any) -> str:
        made.append(engine._containers.create(ContainerSpec(BASE, command=command, **fields)))
        if start:
            engine._containers.start(made[-1])
        return made[-1]

    yield create
    for one in made:
        with contextlib.suppress(EngineError):
            engine._containers.remove(one, force=True)


def await_that(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def actions(engine: LocalEngine, container_id: str) -> list[str]:
    engine._containers.life.reconcile()
    rows = engine._store.records.read("SELECT action FROM events WHERE id = ? ORDER BY seq", container_id)
    return [row["action"] for row in rows]


LOOP = ("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.02; done")
DEAF = ("sh", "-c", "trap '' TERM; while :; do sleep 0.02; done")


def test_stop_waits_and_then_kills(engine: LocalEngine, make: Make) -> None:
    life = engine._containers.life
    one, two = make(*LOOP), make(*DEAF)
    life.stop(one, 10)
    life.stop(two, 0)
    assert (life.state(one).exit_code, life.state(two).exit_code) == (7, 137)
    assert actions(engine, one) == ["create", "start", "kill", "die", "stop"]
    assert actions(engine, two) == ["create", "start", "kill", "kill", "die", "stop"]
    life.stop(one)  # already stopped is fine
    with pytest.raises(Conflict, match="is not running"):
        life.kill(one, "KILL")
    with pytest.raises(InvalidInput, match="invalid signal"):
        life.kill(one, "NOPE")


def test_a_first_process_without_a_handler_gets_no_grace_in_a_hurry(engine: LocalEngine, make: Make) -> None:
    life = engine._containers.life
    deaf, ready = make("sleep", "100"), make("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done")
    log = Path(engine._containers.detail(ready).log_path)
    await_that(lambda: log.stat().st_size)
    started = time.monotonic()
    assert life.stop(deaf, 600, hurry=True)
    assert time.monotonic() - started < PATIENCE
    assert not life.stop(ready, 60, hurry=True)
    # As tini and the like do: while a signal is waited for, the kernel shows it as if it were not blocked.
    waits = "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, {15}); print('ready', flush=True); s.sigwait({15}); raise SystemExit(7)"
    waiting, small = (
        make("python3", "-c", waits),
        make("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done", init=True),
    )
    for one in (waiting, small):
        log = Path(engine._containers.detail(one).log_path)
        await_that(log.read_bytes)
        assert not life.stop(one, 60, hurry=True)
        assert life.state(one).exit_code == 7
    assert (life.state(deaf).exit_code, life.state(ready).exit_code) == (137, 7)


def test_pause_and_unpause(engine: LocalEngine, make: Make) -> None:
    life = engine._containers.life
    one = make("sh", "-c", "while :; do echo x; sleep 0.01; done")
    log = Path(engine._containers.detail(one).log_path)
    await_that(lambda: log.stat().st_size)
    life.pause(one)
    size = log.stat().st_size
    assert engine._containers.summary(one).status == "paused"
    with pytest.raises(Conflict, match="already paused"):
        life.pause(one)
    with pytest.raises(Conflict, match="paused"):
        engine._containers.start(one)
    time.sleep(0.1)  # that nothing happens takes time
    assert log.stat().st_size == size
    life.unpause(one)
    await_that(lambda: log.stat().st_size > size)
    life.pause(one)
    life.kill(one, "KILL")  # a frozen process would not die of it
    assert life.wait(one) == 137
    assert actions(engine, one)[:5] == ["create", "start", "pause", "unpause", "pause"]


def test_pause_of_what_forks_all_the_time(engine: LocalEngine, make: Make) -> None:
    """One attempt in a dozen leaves a group of cgroup v1 half frozen for good."""
    one = make("sh", "-c", "while :; do /bin/true; done", network_mode="host")
    for _round in range(60):
        engine._containers.life.pause(one)
        assert engine._containers.summary(one).status == "paused"
        engine._containers.life.unpause(one)


def test_back_off_is_dockers() -> None:
    policy = Policy("always")
    delays = [policy.after(1, 0.1, n, by_hand=False) for n in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert policy.after(1, 10.0, 12, by_hand=False) == 0.1
    assert policy.after(1, 0.1, 13, by_hand=True) is None
    bounded = Policy("on-failure", 2)
    assert [bounded.after(code, 0, n, by_hand=False) for code, n in ((0, 0), (1, 1), (1, 2))] == [None, 0.1, None]


def test_restarts_by_the_monitor(engine: LocalEngine, make: Make) -> None:
    one = make("sh", "-c", "echo again; exit 3", restart_policy=RestartPolicy("on-failure", 2))
    await_that(lambda: engine._containers.life.state(one).status == "exited")
    state = engine._containers.life.state(one)
    assert (state.exit_code, state.restart_count) == (3, 2)
    with LogReader(Path(engine._containers.detail(one).log_path)) as reader:
        assert [line.text for line in reader.lines()] == ["again"] * 3
    await_that(lambda: actions(engine, one) == ["create", *["start", "die"] * 3])  # "die" is told after the record
    two = make("sh", "-c", "exit 1", restart_policy=RestartPolicy("always"))
    await_that(lambda: engine._containers.life.state(two).restart_count > 1)
    engine._containers.life.stop(two)
    assert engine._containers.life.state(two).status == "exited"
    for bad in (RestartPolicy("sometimes"), RestartPolicy("always", 3), RestartPolicy("on-failure", -1)):
        with pytest.raises(InvalidInput):
            make("true", restart_policy=bad)
    with pytest.raises(InvalidInput, match="--restart and --rm"):
        make("true", restart_policy=RestartPolicy("always"), auto_remove=True)


def test_health(engine: LocalEngine, make: Make) -> None:
    fast = {"interval": 50_000_000, "timeout": 100_000_000, "retries": 2}
    one = make("sleep", "100", healthcheck=Healthcheck(("CMD-SHELL", "echo fine; test ! -e /ill"), **fast))
    assert engine._containers.summary(one).health == "starting"
    await_that(lambda: engine._containers.summary(one).health == "healthy")
    state = engine._containers.life.state(one).health
    assert state is not None
    assert (state["log"][-1]["output"], state["log"][-1]["exit_code"]) == ("fine\n", 0)
    assert "health_status: healthy" in actions(engine, one)
    two = make("sleep", "100", healthcheck=Healthcheck(("CMD", "sleep", "9"), **fast))
    await_that(lambda: engine._containers.summary(two).health == "unhealthy")
    state = engine._containers.life.state(two).health
    assert state is not None
    assert state["log"][-1]["exit_code"] == -1
    assert "exceeded timeout" in state["log"][-1]["output"]
    assert len(state["log"]) <= 5


def test_auto_remove_needs_no_engine(engine: LocalEngine, make: Make) -> None:
    one = make("true", auto_remove=True)
    bundle = engine._containers.bundle(one)
    await_that(lambda: not bundle.exists())  # nobody of ours has looked
    await_that(lambda: not engine._store.records.read("SELECT id FROM containers WHERE id = ?", one))


def test_a_lost_monitor_is_told_and_its_policy_honoured_once(engine: LocalEngine, make: Make) -> None:
    life = engine._containers.life
    plain, kept = make("sleep", "100"), make("sleep", "100", restart_policy=RestartPolicy("unless-stopped"))
    removed = make("sleep", "100", auto_remove=True)
    pids = {one: life.state(one).monitor_pid for one in (plain, kept, removed)}
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    # Nobody of ours looks after them: the supervisor hears of it.
    bundles = {one: engine._containers.bundle(one) for one in pids}
    await_that(lambda: states.sound(str(bundles[kept])).monitor_pid != pids[kept])
    await_that(lambda: not bundles[removed].exists())
    await_that(lambda: states.sound(str(bundles[kept])).status == "running")
    assert (life.state(plain).exit_code, life.state(plain).error) == (None, states.LOST)
    assert life.state(kept).status == "running"
    assert actions(engine, kept) == ["create", "start", "die", "start"]
    assert actions(engine, plain) == ["create", "start", "die"]


def test_a_list_beside_a_removal(engine: LocalEngine, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record goes first, then the folder: whoever lists in between neither fails nor tells again what is told."""
    containers, life = engine._containers, engine._containers.life
    one = make("true")
    engine._runtime.wait(one, containers.bundle(one), None, removes=False)
    record = containers.resolve(one)[1]
    inter = containers._inter

    def listed_before(*args: Any, **more: Any) -> None:
        other = LocalEngine(engine.root)
        other._containers.life.copy_journal(one, record)  # it saw it just before
        other._store.close()
        monkeypatch.setattr(containers, "_inter", inter)
        rename = os.rename

        def beside(source: Any, target: Any, **more: Any) -> None:
            rename(source, target, **more)  # by the removal
            rename(source, target, **more)  # by the list, a moment later

        monkeypatch.setattr(os, "rename", beside)
        assert one not in [each.id for each in containers.list_settled(all=True)]
        monkeypatch.setattr(os, "rename", rename)
        inter(*args, **more)

    monkeypatch.setattr(containers, "_inter", listed_before)
    containers.remove(one, force=False)
    assert actions(engine, one) == ["create", "start", "die", "destroy"]
    assert engine._store.records.one("SELECT 1 FROM journals WHERE id = ?", one) is None
    assert life.state(one).status == "created"  # nothing is left of it


def test_a_reboot_is_recognised(engine: LocalEngine, make: Make) -> None:
    """By the boot id in the state file, which no process of this boot has."""
    life = engine._containers.life
    policies = {"no": "exited", "unless-stopped": "running", "on-failure": "exited"}
    made = {name: make("sleep", "100", restart_policy=RestartPolicy(name)) for name in policies}
    # A reboot would leave no supervisor that hears of their end.
    command = engine._runtime.run_dir / deaths.COMMAND
    hidden = command.rename(command.with_suffix(".hidden"))
    for one in made.values():
        pid, bundle = life.state(one).monitor_pid, str(engine._containers.bundle(one))
        os.kill(pid, signal.SIGKILL)
        await_that(lambda pid=pid: not states.start_time(pid))  # type: ignore[misc]
        state = states.read(bundle)
        state.boot_id = "another"
        states.write(bundle, state, durable=False)
    life.reconcile()
    assert {name: life.state(one).status for name, one in made.items()} == policies
    assert life.state(made["no"]).error == states.REBOOTED
    hidden.rename(command)
    for name in ("no", "on-failure"):  # a real reboot would have taken them away
        group = cgroup.Cgroup(cgroup.here(), f"workbench/{made[name]}")
        group.kill()
        group.remove()


def test_resume_is_dockers_rule_at_the_daemons_start(engine: LocalEngine, make: Make) -> None:
    life = engine._containers.life
    made = {
        name: make("sleep", "100", restart_policy=RestartPolicy(name)) for name in ("always", "unless-stopped", "no")
    }
    for one in made.values():
        life.stop(one, 0)
    assert life.resume() == [engine._containers.summary(made["always"]).name]


def test_an_older_supervisor_is_replaced_and_its_containers_go_on(
    engine: LocalEngine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "program", lambda: "older")
    one = make("sleep", "100")
    first = supervisor_pid(engine)
    monkeypatch.undo()
    two = make("sleep", "100")
    assert supervisor_pid(engine) not in (0, first)
    assert all(engine._containers.life.state(each).status == "running" for each in (one, two))
    engine._containers.life.stop(one, 0)
    assert engine._containers.life.state(one).exit_code == 137


@pytest.mark.parametrize("works", [True, False])
def test_a_scope_of_systemds_and_what_if_there_is_no_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, works: bool
) -> None:
    """With a stand-in for systemd-run, which does not run here: what it is asked, and that its failure is no end, but said once."""
    runner = tmp_path / "systemd-run"
    script = f'echo "$@" > {tmp_path}/asked; while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    runner.write_text(f"#!/bin/sh\n{script if works else 'echo no bus >&2; exit 1'}\n")
    runner.chmod(0o755)
    monkeypatch.setattr(launching.shutil, "which", lambda name, path=None: str(runner))
    assert launching.scope_command(str(tmp_path / "none")) == []
    command = launching.scope_command(str(tmp_path))
    monkeypatch.setattr(launching, "scope_command", lambda: command)
    runtime = client.Runtime(tmp_path / "run")
    with runtime._supervisor() as sock:
        from engine.runtime import protocol

        protocol.send_line(sock, {"op": "ping"})
        answer = protocol.LineReader(sock).read()
    assert answer is not None
    runtime._supervisor().close()
    os.kill(int(answer["pid"]), signal.SIGTERM)
    said = [record.getMessage() for record in caplog.records if "systemd-run made no scope" in record.getMessage()]
    assert len(said) == (0 if works else 1)
    assert works or "(no bus)" in said[0]
    if works:
        assert "--scope --quiet --collect --property=Delegate=yes --" in (tmp_path / "asked").read_text()


def test_an_ordinary_user_asks_its_own_manager_for_the_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its namespace it looks like root; the system's manager would refuse it, and its session would take all with it."""
    monkeypatch.setattr(launching.shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    assert "--user" not in launching.scope_command(str(tmp_path))
    monkeypatch.setenv("WORKBENCH_USERNS", "1000")
    monkeypatch.setattr("engine.linux.userns.inside", lambda: True)
    assert launching.scope_command(str(tmp_path))[:2] == ["/usr/bin/systemd-run", "--user"]


def supervisor_pid(engine: LocalEngine) -> int:
    from engine.runtime import protocol

    with protocol.connect(str(engine._runtime.run_dir), supervisor.SOCKET) as sock:
        protocol.send_line(sock, {"op": "ping"})
        answer = protocol.LineReader(sock).read()
    return int(answer["pid"]) if answer else 0


def test_a_log_is_put_aside_compressed_and_read_as_one(engine: LocalEngine, make: Make) -> None:
    options = {"max-size": "8k", "max-file": "90", "compress": "true", "tag": "{{.Name}}", "labels": "a"}
    script = "i=0; while [ $i -lt 40 ]; do seq $((i * 50 + 1)) $((i * 50 + 50)); i=$((i + 1)); sleep 0.02; done"
    one = make("sh", "-c", script, log_config=LogConfig("json-file", options), labels={"a": "b"}, start=False)
    log = Path(engine._containers.detail(one).log_path)
    log.touch()
    with LogReader(log) as follower:
        engine._containers.start(one)
        seen: list[str] = []

        def all_seen() -> bool:
            seen.extend(line.text for line in follower.lines())
            return len(seen) >= 2000

        await_that(all_seen)
    numbers = [str(number) for number in range(1, 2001)]
    assert seen == numbers
    assert engine._containers.life.wait(one) == 0
    packed = list(log.parent.glob(f"{log.name}.*.gz"))
    assert packed
    with gzip.open(packed[0]) as file:
        record = json.loads(file.readline())
    assert record["attrs"] == {"a": "b", "tag": engine._containers.summary(one).name}
    with LogReader(log) as reader:
        assert [line.text for line in reader.lines()] == numbers
    for count in (0, 1, 70, 1500, 5000):
        with LogReader(log, tail=count) as reader:
            assert [line.text for line in reader.lines()] == numbers[len(numbers) - min(count, 2000) :]


def test_wait_has_dockers_conditions(engine: LocalEngine, make: Make) -> None:
    from concurrent.futures import ThreadPoolExecutor

    life = engine._containers.life
    one = make("sh", "-c", "exit 5", start=False)
    assert life.wait(one) == 0
    with ThreadPoolExecutor() as pool:
        next_exit = pool.submit(life.wait, one, "next-exit")
        removed = pool.submit(life.wait, one, "removed")
        await_that(lambda: life.state(one).status == "created")
        engine._containers.start(one)
        assert next_exit.result(20) == 5
        engine._containers.remove(one, force=True)
        removed.result(20)


def test_rename_is_told(engine: LocalEngine, make: Make) -> None:
    one = make("true", start=False)
    before = engine._containers.summary(one).name
    engine._containers.rename(one, f"{before}-new")
    (row,) = engine._store.records.read("SELECT attributes FROM events WHERE id = ? AND action = 'rename'", one)
    assert json.loads(row["attributes"]) == {"image": BASE, "name": f"{before}-new", "oldName": f"/{before}"}
    with pytest.raises(InvalidInput, match="same name"):
        engine._containers.rename(one, f"{before}-new")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"foo": "1"}, "unknown log opt"),
        ({"max-size": "1k", "compress": "true"}, "max-file is less than 2"),
        ({"mode": "sometimes"}, "logging mode not supported"),
        ({"max-buffer-size": "1k"}, "only supported with"),
        ({"tag": "{{.Nope}}"}, "not known"),
    ],
)
def test_log_options_that_cannot_be(make: Make, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        make("true", log_config=LogConfig("", options))


# --- update --restart -------------------------------------------------------------------------------


def update(engine: LocalEngine, container_id: str, policy: RestartPolicy) -> None:
    engine._usage.update(container_id, Resources(), policy)


def test_update_of_the_policy_of_a_running_container(engine: LocalEngine, make: Make) -> None:
    life = engine._containers.life
    one = make("sh", "-c", "sleep 1000")
    update(engine, one, RestartPolicy("on-failure", 3))
    host_config: Any = engine._containers.detail(one).config["HostConfig"]
    assert host_config["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    os.kill(life.state(one).pid, signal.SIGKILL)
    await_that(lambda: life.state(one).restart_count == 1 and life.state(one).status == "running")
    update(engine, one, RestartPolicy("no"))
    os.kill(life.state(one).pid, signal.SIGKILL)
    assert life.wait(one) == 137
    await_that(lambda: life.state(one).status == "exited")
    assert life.state(one).restart_count == 1


def test_update_of_the_policy_gives_up_a_start_to_come(engine: LocalEngine, make: Make) -> None:
    life = engine._containers.life
    one = make("false", restart_policy=RestartPolicy("always"))
    await_that(lambda: life.state(one).restart_count >= 4)  # the next one is more than a second away
    await_that(lambda: life.state(one).status == "restarting")
    update(engine, one, RestartPolicy("no"))
    await_that(lambda: life.state(one).status == "exited")
    assert not life.state(one).stopped_by_hand
    update(engine, one, RestartPolicy("always"))
    assert engine._containers.life.resume() != [], "an ended one with the new policy comes back with the host"


def test_update_of_the_policy_is_refused_where_it_makes_no_sense(engine: LocalEngine, make: Make) -> None:
    one = make("sleep", "1000", auto_remove=True)
    with pytest.raises(Conflict, match="AutoRemove is enabled"):
        update(engine, one, RestartPolicy("always"))
    with pytest.raises(InvalidInput, match="invalid restart policy 'foo'"):
        update(engine, make("true", start=False), RestartPolicy("foo"))


def test_whoever_hears_of_a_death_finds_it_recorded(engine: LocalEngine, make: Make) -> None:
    """Compose looks at a container when it hears "die": one that runs then was restarted, to its mind, and is waited for."""
    for _ in range(6):
        name = make("sh", "-c", "read line; seq 20000", tty=False, open_stdin=True)
        bundle = engine._containers.bundle(engine._containers.resolve(name)[0])
        engine._containers.life.kill(name, "KILL")
        end = time.monotonic() + PATIENCE
        while (
            b'"die"' not in (bundle / "events.jsonl").read_bytes()
        ):  # at once: what matters is less than a millisecond
            assert time.monotonic() < end
        assert states.read(str(bundle)).status == "exited"
        ended = [json.loads(line)["action"] for line in (bundle / "events.jsonl").read_text().splitlines()]
        assert ended[-1] == "die"
