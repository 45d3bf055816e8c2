"""`docker build` as people have it: the real docker command line with buildx, and Compose v2, on our socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.rest.buildkit.conftest import Docker
from tests.rest.conftest import BASE

pytestmark = [pytest.mark.root, pytest.mark.peer("docker"), pytest.mark.peer("buildx")]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "keep").mkdir(parents=True)
    (folder / "keep" / "zwölf.txt").write_text("kept\n")
    (folder / "left out").write_text("never sent\n")
    (folder / ".dockerignore").write_text("*\n!keep\n")
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY . /x\nRUN find /x -type f\n")
    return folder


def test_a_build_takes_the_context_without_what_is_ignored(docker: Docker, context: Path) -> None:
    done = docker("build", "-t", "buildx:1", "--iidfile", str(context / "id"), str(context))
    assert "/x/keep/zwölf.txt" in done.stdout
    assert "left out" not in done.stdout
    assert "[2/3] COPY . /x" in done.stdout
    assert "naming to docker.io/library/buildx:1" in done.stdout
    again = docker("build", "-t", "buildx:1", str(context))
    assert again.stdout.count("CACHED") == 2
    assert docker("run", "--rm", (context / "id").read_text(), "cat", "/x/keep/zwölf.txt").stdout == "kept\n"
    (context / "keep" / "zwölf.txt").write_text("changed\n")
    docker("build", "-t", "buildx:1", str(context))
    assert docker("run", "--rm", "buildx:1", "cat", "/x/keep/zwölf.txt").stdout == "changed\n"
    docker("rmi", "buildx:1")


def test_the_image_is_that_of_our_own_command(docker: Docker, context: Path, data_root: Path) -> None:
    (context / "keep" / "own").write_text("of this test alone: a cached step would have an older file's time\n")
    buildx = docker("build", "-q", str(context)).stdout.strip()
    command = [sys.executable, "-m", "engine.cli.main", "build", "-q", str(context)]
    environment = {**os.environ, "WORKBENCH_ROOT": str(data_root)}
    ours = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ours.stdout.strip() == buildx


def test_a_failing_step_shows_its_place(docker: Docker, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo fine\nRUN echo told; exit 3\n")
    done = docker("build", str(context), ok=False)
    assert done.returncode == 1
    assert "told" in done.stdout
    assert "3 | >>> RUN echo told; exit 3" in done.stdout
    assert (
        'ERROR: failed to solve: process "/bin/sh -c echo told; exit 3" did not complete successfully: exit code: 3'
        in done.stdout
    )


def test_a_dockerfile_that_does_not_parse_or_is_not_there(docker: Docker, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {BASE}\nRUNN x\n")
    done = docker("build", str(context), ok=False)
    assert "2 | >>> RUNN x" in done.stdout
    assert "dockerfile parse error on line 2: unknown instruction: RUNN" in done.stdout
    done = docker("build", "-f", str(context / "No"), str(context), ok=False)
    assert "failed to read dockerfile: open No: no such file or directory" in done.stdout


def test_secrets_of_files_and_of_the_environment(docker: Docker, context: Path) -> None:
    (context / "keep" / "token").write_text("s3cret")
    steps = "RUN --mount=type=secret,id=a cat /run/secrets/a | tr a-z A-Z\nRUN --mount=type=secret,id=b,env=B echo $B | tr a-z A-Z\n"
    (context / "Dockerfile").write_text(f"FROM {BASE}\n{steps}")
    given = ["--secret", f"id=a,src={context / 'keep' / 'token'}", "--secret", "id=b,env=SECRET_VALUE"]
    done = docker("build", "--no-cache", *given, str(context))
    assert "S3CRET" in done.stdout
    assert "FROM THE ENVIRONMENT" in done.stdout
    needed = "RUN --mount=type=secret,id=nobody,required=true true\n"
    (context / "Dockerfile").write_text(f"FROM {BASE}\n{needed}")
    assert "secret nobody: not found" in docker("build", str(context), ok=False).stdout


@pytest.mark.peer("ssh-agent")
def test_the_clients_agent_is_forwarded(docker: Docker, context: Path, environment: dict[str, str]) -> None:
    """What the step says to the socket, the client's agent hears: it lists no keys (RFC draft-miller-ssh-agent, message 11)."""
    path = context.parent / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline()
        environment["SSH_AUTH_SOCK"] = str(path)
        step = "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo forwarded: $SSH_AUTH_SOCK\n"
        (context / "Dockerfile").write_text(f"FROM {BASE}\n{step}")
        assert "forwarded: /run/buildkit/ssh_agent.0" in docker("build", "--ssh", "default", str(context)).stdout
    finally:
        agent.terminate()
        agent.communicate()


def test_results_go_to_the_client(docker: Docker, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    docker("build", "-o", "out", str(context), folder=context.parent)
    assert (context.parent / "out" / "keep" / "zwölf.txt").read_text() == "kept\n"
    docker("build", "-o", "type=tar,dest=out.tar", str(context), folder=context.parent)
    with tarfile.open(context.parent / "out.tar") as archive:
        assert "keep/zwölf.txt" in archive.getnames()
    docker("build", "-o", "type=oci,dest=oci.tar", str(context), folder=context.parent)
    with tarfile.open(context.parent / "oci.tar") as archive:
        assert {"oci-layout", "index.json"} <= set(archive.getnames())


def test_contexts_from_stdin_and_by_name(docker: Docker, context: Path) -> None:
    other = context.parent / "other"
    other.mkdir()
    (other / "f").write_text("of another folder\n")
    text = f"FROM {BASE}\nCOPY --from=named f /f\nRUN cat /f\n"
    done = docker("build", "--build-context", f"named={other}", "-f", "-", str(context), stdin=text)
    assert "of another folder" in done.stdout
    assert "on stdin" in docker("build", "-", stdin=f"FROM {BASE}\nRUN echo on stdin\n").stdout
    packed = subprocess.run(
        ["tar", "-C", str(context), "-c", "."], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    done = docker("build", "--no-cache", "-", stdin=packed)
    assert "/x/keep/zwölf.txt" in done.stdout


def test_a_build_that_is_cancelled_ends_here_as_well(
    docker: Docker, context: Path, environment: dict[str, str]
) -> None:
    (context / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo begun; sleep 1234\n")
    client = subprocess.Popen(
        ["docker", "build", str(context)], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert client.stderr is not None
    for line in client.stderr:
        if line.strip().endswith(" begun"):
            break
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=PATIENCE)
    (context / "Dockerfile").write_text(f"FROM {BASE}\nRUN ! pgrep -f 'sleep 1234'\n")
    docker("build", "--no-cache", str(context))
    done = docker("buildx", "du")
    assert "Total:" in done.stdout


def test_questions_about_a_dockerfile(docker: Docker, context: Path, environment: dict[str, str]) -> None:
    """`--print` of buildx 0.13, which later ones call `--call`."""
    (context / "Dockerfile").write_text(
        "# N is a number\nARG N=1\nFROM scratch AS one\nFROM one AS two\nRUN --mount=type=secret,id=s x\n"
    )
    environment["BUILDX_EXPERIMENTAL"] = "1"
    done = docker("buildx", "build", "--print=targets", str(context))
    assert {"one", "two (default)"} <= {line.strip() for line in done.stdout.splitlines()}
    done = docker("buildx", "build", "--print=outline", str(context))
    assert "TARGET: two" in done.stdout
    assert "SECRET" in done.stdout


def test_bake_builds_on_what_it_built(docker: Docker, context: Path) -> None:
    targets = {
        "one": {"context": str(context), "tags": ["bake:one"]},
        "two": {
            "context": str(context), "contexts": {"base": "target:one"}, "tags": ["bake:two"],
            "dockerfile-inline": "FROM base\nRUN cat /x/keep/zwölf.txt\n",
        },
    }  # fmt: skip
    file = context.parent / "bake.json"
    file.write_text(json.dumps({"group": {"default": {"targets": ["one", "two"]}}, "target": targets}))
    assert "kept" in docker("buildx", "bake", "--no-cache", "-f", str(file)).stdout
    docker("rmi", "bake:one", "bake:two")


@pytest.mark.peer("compose")
def test_compose_builds_runs_and_ends_a_project(docker: Docker, context: Path) -> None:
    web = {
        "build": {"context": str(context)}, "command": ["sleep", "100"], "init": True,
        "depends_on": {"db": {"condition": "service_healthy"}},
    }  # fmt: skip
    db = {
        "image": BASE, "command": ["sleep", "100"], "init": True,
        "healthcheck": {"test": ["CMD", "true"], "interval": "0.1s"},
    }  # fmt: skip
    file = context.parent / "compose.yaml"
    file.write_text(json.dumps({"name": "composed", "services": {"web": web, "db": db}}))
    compose = ("compose", "-f", str(file))
    try:
        docker(*compose, "up", "-d", "--build")
        assert docker(*compose, "exec", "-T", "web", "cat", "/x/keep/zwölf.txt").stdout == "kept\n"
        names = docker(*compose, "ps", "--format", "{{.Service}} {{.Health}}").stdout.split("\n")
        assert {"web ", "db healthy"} <= set(names)
    finally:
        docker(*compose, "down", "-v", "--rmi", "local", "-t", "1")
    assert docker("ps", "-aq").stdout == ""
