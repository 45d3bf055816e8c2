"""`up`, `down`, `config` and `compose …` as a user meets them: the real command on a real project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.project import detached

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).parents[2]
TRAP = "trap 'exit 0' TERM; echo $$WORD; while :; do sleep 100 & wait $!; done"
COMPOSE = f"""
services:
  web:
    build: .
    command: ["sh", "-c", "{TRAP}"]
    environment: {{WORD: hello}}
    depends_on: {{db: {{condition: service_healthy, restart: true}}}}
    secrets: [{{source: token, uid: "7", mode: 0440}}]
    configs: [{{source: motd, target: /etc/motd}}]
    post_start: [{{command: ["sh", "-c", "echo started by the hook"]}}]
    pre_stop: [{{command: ["sh", "-c", "echo stopped by the hook >&2"]}}]
  db:
    image: workbench/base
    command: ["sh", "-c", "{TRAP}"]
    environment: {{WORD: data}}
    volumes: ["data:/data"]
    healthcheck: {{test: ["CMD", "true"], interval: 1s}}
  worker:
    image: workbench/base
    command: ["sh", "-c", "{TRAP}"]
    environment: {{WORD: tick}}
    deploy: {{replicas: 2}}
  debug: {{image: workbench/base, profiles: [debug]}}
volumes: {{data: {{}}}}
configs: {{motd: {{content: "welcome"}}}}
secrets: {{token: {{environment: SECRET_OF_THE_TEST}}}}
"""


class Project:
    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder

    @property
    def env(self) -> dict[str, str]:
        own = {"WORKBENCH_ROOT": str(self.root), "PYTHONPATH": str(REPOSITORY), "SECRET_OF_THE_TEST": "hush"}
        return {**os.environ, **own}

    def __call__(self, *words: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "engine.cli.main", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.env,
            input=stdin,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done


@pytest.fixture
def project(data_root: Path, tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "verbs"
    folder.mkdir()
    (folder / "compose.yaml").write_text(COMPOSE)
    (folder / "Dockerfile").write_text("FROM workbench/base\nCOPY f /f\n")
    (folder / "f").write_text("f")
    found = Project(data_root, folder)
    yield found
    found("down", "-v", "-t", "1", "--rmi", "local", "--remove-orphans")


def test_a_day_with_a_project(project: Project) -> None:
    project("up", "--once")
    names = project("compose", "ps", "--format", "{{.Name}} {{.Service}}").stdout.splitlines()
    assert names == ["verbs-db-1 db", "verbs-web-1 web", "verbs-worker-1 worker", "verbs-worker-2 worker"]
    found = json.loads(project("inspect", "verbs-worker-2").stdout)[0]["Config"]["Labels"]
    assert found["com.docker.compose.project"] == "verbs"
    assert found["com.docker.compose.container-number"] == "2"
    assert found["com.docker.compose.project.config_files"] == str(project.folder / "compose.yaml")
    secret = "cat /run/secrets/token; stat -c ' %u %a' /run/secrets/token; cat /etc/motd"
    assert project("compose", "exec", "web", "sh", "-c", secret).stdout == "hush 7 440\nwelcome"
    log = project("compose", "logs").stdout
    assert "web-1    | hello\n" in log
    assert "web-1    | started by the hook\n" in log
    assert "worker-2 | tick\n" in log
    ran = project("compose", "run", "--rm", "-T", "web", "sh", "-c", "echo $WORD; exit 3", status=3)
    assert ran.stdout == "hello\n"
    project("compose", "stop", "worker")
    assert "Exited (0)" in project("compose", "ps", "-a", "worker").stdout
    project("compose", "start", "worker")
    project("compose", "restart", "-t", "1", "--no-deps", "db")
    assert "stopped by the hook" not in project("compose", "logs", "web").stdout
    assert "verbs-web-1" in project("compose", "restart", "-t", "1", "db").stderr, "depends_on with restart"
    told = [line.partition("| ")[2] for line in project("compose", "logs", "web").stdout.splitlines()]
    told = [line for line in told if "hook" in line]
    assert told == ["started by the hook", "stopped by the hook", "started by the hook"]
    assert project("compose", "ps", "-q").stdout.count("\n") == 4
    gone = project("down", "-v", "--rmi", "local").stderr
    assert "Container verbs-web-1  Removed" in gone
    assert gone.index("verbs-web-1") < gone.index("verbs-db-1"), "what depends on it stops first"
    assert "Volume verbs_data  Removed" in gone
    assert "Network verbs_default  Removed" in gone
    assert project("compose", "ps", "-aq").stdout == ""
    assert not list((project.root / "projects/verbs/files").iterdir()), "no secret is left on disk"


def test_up_shapes_the_project(project: Project) -> None:
    project("up", "--once", "--scale", "worker=3", "worker")
    assert project("compose", "ps", "--services").stdout == "worker\n"
    assert project("compose", "ps", "-q").stdout.count("\n") == 3
    before = project("compose", "ps", "-q").stdout
    project("up", "--once", "--scale", "worker=3", "worker")
    assert project("compose", "ps", "-q").stdout == before, "nothing changed, nothing is replaced"
    project("up", "--once", "--force-recreate", "worker")
    assert project("compose", "ps", "-q").stdout.count("\n") == 2
    assert not set(project("compose", "ps", "-q").stdout.split()) & set(before.split())
    refused = project("up", "--once", "--no-build", "--no-deps", "web", status=1)
    assert "No such image: verbs-web" in refused.stderr


def test_events_for_scripts(project: Project) -> None:
    lines = [json.loads(line) for line in project("up", "--once", "--json", "worker").stdout.splitlines()]
    assert (lines[0]["event"], lines[0]["version"], lines[0]["services"]) == ("project_found", 1, ["worker"])
    assert {"event", "time", "service", "phase", "container", "image", "generation", "text"} == set(lines[-2])
    assert {line["container"] for line in lines if line.get("phase") == "running"} == {
        "verbs-worker-1",
        "verbs-worker-2",
    }
    assert (lines[-1]["event"], lines[-1]["failed"]) == ("ready", [])


def test_a_watcher_is_left_and_ended(project: Project) -> None:
    once = "image: workbench/base, command: [sh, -c, 'echo done > /done; echo ran']"
    (project.folder / "compose.override.yaml").write_text(f"services: {{once: {{{once}}}}}")
    told = project("up", "-d", "worker", "once").stderr
    found = detached.find(project.root / "projects", "verbs")
    assert found is not None
    assert f"process {found.pid} goes on watching" in told
    with found.log.open() as log:
        seen = ""
        while not ('"worker", "phase": "running"' in seen and '"once", "phase": "exited"' in seen):
            seen += log.read()
            time.sleep(0.01)
    assert project("compose", "logs", "once").stdout == "once-1 | ran\n", "the watcher does not do it again"
    words = [sys.executable, "-m", "engine.cli.main", "up", "--json", "worker"]
    away = project.folder.with_name("away")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=project.folder, env=project.env) as holder:
        assert holder.stdout is not None
        assert any('"running"' in line for line in holder.stdout)
        shutil.copytree(project.folder, away)
        shutil.rmtree(project.folder)  # the folder that it was started in
        assert any("is gone: what runs goes on" in line for line in holder.stdout)
        (away / "compose.yaml").write_text(COMPOSE.replace("tick", "tock"))
        away.rename(project.folder)
        assert any("worker changed" in line for line in holder.stdout)
        assert any('"replaced"' in line for line in holder.stdout)
        assert "not started: another workbench looks after verbs" in project("up", "--once", "db", status=1).stderr
        holder.terminate()
        holder.communicate()
    container = project("compose", "ps", "-aq", "once").stdout
    project("up", "--once", "once")
    assert project("compose", "ps", "-aq", "once").stdout == container, "started again, with the files that it has"
    project("wait", "verbs-once-1")
    assert project("compose", "logs", "once").stdout.count("| ran\n") == 2
    project("up", "-d", "worker")
    found = detached.find(project.root / "projects", "verbs")
    assert found is not None
    assert f"process {found.pid} watches the project" in project("compose", "ps").stderr
    project("up", "--wait", "--no-watch", "db")
    assert detached.find(project.root / "projects", "verbs") is None, "the next up takes its place"
    project("up", "-d", "worker")
    assert "Watcher  Ended" in project("down").stderr
    assert detached.find(project.root / "projects", "verbs") is None


def test_config(project: Project) -> None:
    assert project("config", "--services").stdout == "db\nweb\nworker\n"
    assert project("config", "--services", "--profile", "debug").stdout == "db\ndebug\nweb\nworker\n"
    document = json.loads(project("config", "--format", "json").stdout)
    assert document["name"] == "verbs"
    assert document["services"]["web"]["build"] == {"context": str(project.folder)}
    again = project("config")
    (project.folder / "again.yaml").write_text(again.stdout)
    assert "echo $$WORD" in again.stdout, "what is printed means the same as what was read"
    assert project("config", "-f", "again.yaml").stdout == again.stdout
    for name in ("deploy/app", "app"):
        (project.folder / name).mkdir(parents=True)
        (project.folder / name / "Dockerfile").write_text("FROM workbench/base\n")
    (project.folder / "deploy/c.yaml").write_text("services: {a: {build: ./app}}")
    asked = ("config", "--format", "json", "-f", "deploy/c.yaml")
    found = [json.loads(project(*asked, *more).stdout) for more in ((), ("--project-directory", "."))]
    assert [each["name"] for each in found] == ["deploy", "verbs"]
    contexts = [each["services"]["a"]["build"]["context"] for each in found]
    assert contexts == [f"{project.folder}/deploy/app", f"{project.folder}/app"]
    (project.folder / ".env").write_text("COMPOSE_FILE=deploy/c.yaml\n")
    assert project("config", "--services").stdout == "a\n"
    (project.folder / ".env").unlink()
    typed = project("compose", "-f", "-", "config", stdin="services: {a: {build: ./app}}").stdout
    assert f"context: {project.folder}/app" in typed, "its paths begin here"
    behind = project(
        "compose", "-f", "deploy/c.yaml", "-f", "-", "config", stdin="services: {a: {build: ./app}}"
    ).stdout
    assert f"context: {project.folder}/deploy/app" in behind, "at the first file"
    assert (
        project(
            "compose",
            "-f",
            "compose.yaml",
            "-f",
            "-",
            "config",
            "--images",
            "worker",
            stdin="services: {worker: {image: x}}",
        ).stdout
        == "x\n"
    )
    assert project("config", "--images", "worker").stdout == "workbench/base\n"
    (project.folder / "compose.yaml").write_text("services:\n  a: {imag: x}\n")
    broken = project("config", status=1).stderr
    assert "compose.yaml:2" in broken
    assert "did you mean 'image'?" in broken


def test_what_runs_is_ended_without_its_files(project: Project) -> None:
    project("up", "--once", "worker")
    (project.folder / "compose.yaml").write_text("services: [\n")
    assert "verbs-worker-1" in project("compose", "ps").stdout
    assert "Container verbs-worker-1  Removed" in project("down").stderr


def test_mistakes(project: Project) -> None:
    assert "did you mean `workbench compose logs`?" in project("compose", "lgos", status=1).stderr
    assert "no such service: wbe" in project("up", "--once", "wbe", status=1).stderr
    assert "no such service: nope" in project("compose", "stop", "nope", status=1).stderr
    assert "write SERVICE=NUM" in project("up", "--scale", "web", status=1).stderr
    assert "contradict" in project("up", "--build", "--no-build", status=1).stderr


def test_what_is_removed_paused_and_killed(project: Project) -> None:
    """Without a service's name, each verb takes what it can be for; `rm -f` ends nothing that runs."""
    project("up", "--once")
    assert project("compose", "rm", "-f").stderr == "No stopped containers\n"
    assert project("compose", "ps", "-q").stdout.count("\n") == 4
    assert project("compose", "pause", "worker").stderr.count("Paused") == 2
    assert project("compose", "pause").stderr.count("Paused") == 2  # the others
    assert project("compose", "pause").stderr == "no container to pause\n"
    assert "already paused" in project("compose", "pause", "db", status=1).stderr
    assert project("compose", "unpause").stderr.count("Unpaused") == 4
    assert project("compose", "kill", "-s", "KILL", "worker").stderr.count("Killed") == 2
    asked = project("compose", "rm")  # stdin is at its end: no answer is no
    assert "Going to remove verbs-worker-1, verbs-worker-2\nAre you sure? [yN]" in asked.stderr
    assert project("compose", "rm", "-f").stderr.count("Removed") == 2
    assert project("compose", "rm", "-fs", "web").stderr == " Container verbs-web-1  Removed\n"
    assert project("compose", "ps", "-aq").stdout.count("\n") == 1


def test_a_scaled_service_goes_back_as_a_whole(project: Project) -> None:
    project("up", "--once", "worker")
    file = project.folder / "compose.yaml"
    file.write_text(file.read_text().replace("WORD: tick", "WORD: tock"))
    project("up", "--once", "worker")
    project("rollback", "worker")
    for number in (1, 2):
        environment = json.loads(project("inspect", f"verbs-worker-{number}").stdout)[0]["Config"]["Env"]
        assert "WORD=tick" in environment
        assert "rolled back" in project("logs", f"verbs-worker-{number}").stdout
    rows = project("compose", "ps", "--format", "{{.Name}} {{.Image}}").stdout.splitlines()
    assert rows == ["verbs-worker-1 workbench/base", "verbs-worker-2 workbench/base"]
    labels = json.loads(project("inspect", "verbs-worker-2").stdout)[0]["Config"]["Labels"]
    assert labels["com.docker.compose.container-number"] == "2"


ABORT = """
services:
  test: {image: workbench/base, command: ["sh", "-c", "echo testing; exit $CODE"], depends_on: [db]}
  db: {image: workbench/base, command: ["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 100 & wait $$!; done"]}
"""


def test_when_one_ends_all_do(project: Project) -> None:
    file = project.folder / "compose.yaml"
    file.write_text(ABORT.replace("$CODE", "7"))
    done = project("up", "--abort-on-container-exit", status=7)
    assert "test | testing" in done.stdout
    assert "verbs-test-1 exited with code 7: the others stop" in done.stderr
    assert "Container verbs-db-1  Stopped" in done.stderr
    assert project("compose", "ps", "-q").stdout == ""
    again = project("up", "--exit-code-from", "db", status=3)
    assert again.stdout.count("testing") == 1, "what was said before is not said again"
    project("up", "--abort-on-container-failure", status=7)
    for words in (
        ("--exit-code-from", "nosuch"),
        ("--exit-code-from", "db", "-d"),
        ("--abort-on-container-exit", "-w"),
    ):
        project("up", *words, status=1)
