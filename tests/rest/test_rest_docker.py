"""The real docker command line, unchanged, on our socket."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.patience import PATIENCE
from tests.rest.conftest import BASE, Served

pytestmark = [pytest.mark.root, pytest.mark.peer("docker")]
Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def docker(served: Served) -> Docker:
    return served.docker


def test_run_prints_and_passes_the_exit_code(docker: Docker) -> None:
    done = docker("run", "--rm", BASE, "sh", "-c", "echo out; echo err >&2; exit 3", ok=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


def test_run_reads_stdin_to_its_end(docker: Docker) -> None:
    for number in range(8):  # more than the loop's pool has threads: nothing is left behind in them
        assert docker("run", "--rm", "-i", BASE, "cat", stdin=f"line {number}\n").stdout == f"line {number}\n"
    assert docker("ps", "-aq").stdout == ""


def test_a_command_that_is_not_there(docker: Docker) -> None:
    done = docker("run", "--rm", BASE, "nosuch", ok=False)
    assert done.returncode == 127
    assert "executable file not found in $PATH" in done.stderr


def test_the_life_of_a_container(docker: Docker) -> None:
    identity = docker("run", "-d", "--name", "life", "--label", "a=b", BASE, "sleep", "60").stdout.strip()
    assert docker("ps", "-q", "--no-trunc", "--filter", "label=a=b").stdout.strip() == identity
    assert docker("exec", "life", "echo", "inside").stdout == "inside\n"
    assert docker("exec", "-i", "life", "wc", "-c", stdin="12345").stdout.strip() == "5"
    assert docker("exec", "life", "sh", "-c", "exit 7", ok=False).returncode == 7
    docker("pause", "life")
    assert "(Paused)" in docker("ps", "--format", "{{.Status}}").stdout
    docker("unpause", "life")
    docker("rename", "life", "lives")
    docker("kill", "lives")
    assert docker("wait", "lives").stdout == "137\n"
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "lives").stdout == "exited 137\n"
    docker("rm", "lives")
    assert docker("inspect", "lives", ok=False).returncode == 1


def test_logs_and_an_attached_start(docker: Docker) -> None:
    docker("create", "--name", "logged", BASE, "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo bad >&2")
    assert docker("start", "-a", "logged").stdout == "line 1\nline 2\nline 3\n"
    assert docker("logs", "--tail", "2", "logged").stdout.splitlines()[0] in ("line 2", "line 3")
    assert docker("logs", "logged").stderr == "bad\n"
    assert docker("logs", "-t", "logged").stdout.splitlines()[0].endswith("Z line 1")
    docker("rm", "logged")


def test_build_and_images(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nCOPY f /f\nRUN echo built\nCMD cat /f\n")
    (tmp_path / "f").write_text("content\n")
    assert "built" in docker("build", "-t", "made:1", str(tmp_path)).stdout
    assert "Using cache" in docker("build", "-t", "made:1", str(tmp_path)).stdout
    assert docker("run", "--rm", "made:1").stdout == "content\n"
    assert "made" in docker("images", "--format", "{{.Repository}}", "made:1").stdout
    archive = tmp_path / "made.tar"
    docker("save", "-o", str(archive), "made:1")
    docker("rmi", "made:1")
    assert "Loaded image: made:1" in docker("load", "-i", str(archive)).stdout
    docker("rmi", "made:1")


def test_a_failed_build_names_the_step(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN exit 9\n")
    done = docker("build", str(tmp_path), ok=False)
    assert done.returncode != 0
    assert "RUN exit 9" in done.stdout + done.stderr


def test_volumes(docker: Docker) -> None:
    docker("volume", "create", "kept")
    docker("run", "--rm", "-v", "kept:/data", BASE, "sh", "-c", "echo x > /data/x")
    assert docker("run", "--rm", "-v", "kept:/data:ro", BASE, "cat", "/data/x").stdout == "x\n"
    assert "kept" in docker("volume", "ls", "-q").stdout.split()
    docker("volume", "rm", "kept")


def test_version_info_and_events(docker: Docker) -> None:
    assert "container-workbench" in docker("version").stdout
    assert docker("info", "--format", "{{.OSType}}").stdout == "linux\n"
    begin = f"{time.time():.9f}"
    docker("network", "create", "told")
    docker("run", "-d", "--name", "eventful", "-v", "told:/told", "--network", "told", "-l", "a=b", BASE, "sleep", "60")
    docker("network", "connect", "bridge", "eventful")
    docker("exec", "eventful", "true")
    docker("exec", "eventful", "nosuch", "x", ok=False)
    docker("rename", "eventful", "told")
    docker("update", "--restart", "no", "told")
    docker("top", "told")
    docker("restart", "-t", "0", "told")
    docker("cp", "told:/etc/hostname", "-")
    docker("commit", "-m", "why", "told", "told:1")
    docker("network", "disconnect", "bridge", "told")
    docker("rm", "-f", "told")
    docker("volume", "rm", "told")
    docker("network", "rm", "told")
    docker("rmi", "told:1")

    def told(*filters: str, what: str = "{{.Type}} {{.Action}}") -> str:
        # The client sends durations cut to whole seconds, so the end is given as a time.
        limits = ("--since", begin, "--until", f"{time.time():.9f}")
        return docker("events", *limits, *(f"--filter={each}" for each in filters), "--format", what).stdout

    # As dockerd 28.5 tells of the same commands, but that `stop` and `die` come in any order there and volumes are mounted for
    # `cp` and `commit`, too.
    restarted = "container kill\n" * 2 + (
        "network disconnect\nnetwork disconnect\nvolume unmount\ncontainer die\ncontainer stop\n"
        "volume mount\nnetwork connect\nnetwork connect\ncontainer start\ncontainer restart\n"
    )
    assert told() == (
        "network create\nvolume create\ncontainer create\nvolume mount\nnetwork connect\ncontainer start\n"
        "network connect\ncontainer exec_create: true \ncontainer exec_start: true \ncontainer exec_die\n"
        "container exec_create: nosuch x\ncontainer exec_start: nosuch x\ncontainer rename\ncontainer update\n"
        f"container top\n{restarted}container archive-path\ncontainer pause\ncontainer unpause\n"
        "image create\nimage tag\ncontainer commit\nnetwork disconnect\n"
        "container kill\nnetwork disconnect\nvolume unmount\ncontainer die\ncontainer destroy\n"
        "volume destroy\nnetwork destroy\nimage untag\nimage delete\n"
    )
    assert told("container=eventful", what="{{.Actor.Attributes.a}}").split() == ["b"] * 7
    deaths = told("event=die", what="{{.Actor.Attributes.name}} {{.Actor.Attributes.execDuration}}")
    assert re.fullmatch(r"(told \d+\n){2}", deaths), deaths
    assert set(told("network=bridge").splitlines()) == {"network connect", "network disconnect"}
    names = dict(
        line.split() for line in told("type=image", what="{{.Action}} {{.Actor.Attributes.name}}").splitlines()
    )
    assert names.pop("tag") == "told:1"
    assert re.fullmatch(r"sha256:\w{64}", names["delete"])
    assert set(names.values()) == {names["delete"]}


def test_events_of_what_does_not_start_and_of_pruning(docker: Docker) -> None:
    """As dockerd 28.5: it takes ports and runs the command before it tells of the networks, and lets go of them afterwards."""
    docker("run", "-d", "--name", "holds", "-p", "127.0.0.1::80", BASE, "sleep", "600")
    port = docker("port", "holds", "80").stdout.strip()
    begin = f"{time.time():.9f}"
    docker("create", "--name", "late", "-v", "late:/v", "-p", f"{port}:80", BASE, "true")
    assert "port is already allocated" in docker("start", "late", ok=False).stderr
    docker("rm", "late")
    docker("create", "--name", "late", BASE, "nosuch")
    docker("start", "late", ok=False)
    docker("rm", "late")
    docker("volume", "rm", "late")
    docker("network", "prune", "-f")
    docker("builder", "prune", "-f")
    limits = ("--since", begin, "--until", f"{time.time():.9f}")
    assert docker("events", *limits, "--format", "{{.Type}} {{.Action}}").stdout == (
        "volume create\ncontainer create\nvolume mount\nnetwork disconnect\nvolume unmount\ncontainer destroy\n"
        "container create\nnetwork disconnect\ncontainer destroy\nvolume destroy\nnetwork prune\nbuilder prune\n"
    )
    docker("rm", "-f", "holds")


def test_files_in_and_out(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("copied\n")
    docker("run", "-d", "--name", "files", BASE, "sleep", "60")
    docker("cp", str(tmp_path / "in"), "files:/tmp/in")
    assert docker("exec", "files", "cat", "/tmp/in").stdout == "copied\n"
    docker("cp", "files:/tmp/in", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "copied\n"
    assert "A /tmp/in" in docker("diff", "files").stdout
    docker("commit", "-c", "CMD cat /tmp/in", "files", "committed:1")
    assert docker("run", "--rm", "committed:1").stdout == "copied\n"
    docker("rm", "-f", "files")
    docker("rmi", "committed:1")


def test_what_a_container_uses(docker: Docker) -> None:
    docker("run", "-d", "--name", "used", "-m", "64m", BASE, "sleep", "60")
    assert "used" in docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "used").stdout
    assert "sleep 60" in docker("top", "used").stdout
    docker("update", "--memory", "128m", "--memory-swap", "256m", "--restart", "on-failure:2", "used")
    assert docker("inspect", "-f", "{{.HostConfig.Memory}}", "used").stdout == f"{128 << 20}\n"
    assert docker("inspect", "-f", "{{.HostConfig.RestartPolicy}}", "used").stdout == "{on-failure 2}\n"
    assert "Containers" in docker("system", "df").stdout
    docker("rm", "-f", "used")


def test_ports_on_the_network_of_the_host(docker: Docker) -> None:
    made = docker("create", "--name", "shares", "--network", "host", "-p", "8080:80", BASE, "true")
    assert "WARNING: Published ports are discarded when using host network mode" in made.stderr
    docker("rm", "shares")


def test_networks(docker: Docker) -> None:
    docker("network", "create", "apinet")
    docker("run", "-d", "--name", "served", "--network", "apinet", "--network-alias", "web", BASE, "sleep", "60")
    assert "served" in docker("network", "inspect", "apinet").stdout
    python = "import socket; print(socket.gethostbyname('web'))"
    seen = docker("run", "--rm", "--network", "apinet", BASE, "python3", "-c", python).stdout.strip()
    address = '{{(index .NetworkSettings.Networks "apinet").IPAddress}}'
    assert docker("inspect", "-f", address, "served").stdout.strip() == seen
    docker("tag", BASE, "seen:1")
    assert docker("images", "seen", "--format", "{{.Repository}}:{{.Tag}}").stdout == "seen:1\n", (
        "no row of other names"
    )
    docker("rmi", "seen:1")
    nameless = docker("commit", "served").stdout.strip()
    assert nameless[7:19] in docker("images", "-q").stdout.split(), "images without a name show without --all, too"
    docker("rmi", nameless)
    docker("network", "disconnect", "apinet", "served")
    docker("network", "connect", "apinet", "served")
    docker("rm", "-f", "served")
    docker("network", "rm", "apinet")


@pytest.mark.peer("git")
def test_contexts_from_stdin_and_from_elsewhere(docker: Docker, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "f").write_text("f\n")
    text = f"FROM {BASE}\nCOPY f /f\nRUN cat /f\n"
    (folder / "Dockerfile").write_text(text)
    docker("build", "-q", "-f", "-", str(folder), stdin=text)
    assert "Successfully built" in docker("build", "-", stdin=f"FROM {BASE}\nRUN true\n").stdout
    for args in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "c"), ("update-server-info",)):
        who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "safe.directory=*"]
        subprocess.run(["git", *who, *args], cwd=folder, check=True)
    shutil.copytree(folder / ".git", tmp_path / "repo.git")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        built = {docker("build", "-q", f"{base}/repo.git").stdout, _remote(docker, f"{base}/repo.git")}
        assert built == {docker("build", "-q", str(folder)).stdout}
        assert "404" in _remote(docker, f"{base}/none")
        assert "no URL" in _remote(docker, "/etc")
        server.shutdown()


def test_cache_from_names_images_that_are_here(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo cached-from > /x\n")
    started = time.monotonic()
    said = docker("build", "--cache-from", "registry.invalid/none", str(tmp_path)).stdout
    assert "Successfully built" in said
    assert "Using cache" not in said
    assert time.monotonic() - started < PATIENCE


def _remote(docker: Docker, place: str) -> str:
    """`POST /build?remote=`, which the command line no longer sends: the id, or the error."""
    socket = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").stdout.strip()
    transport = httpx.HTTPTransport(uds=socket.removeprefix("unix://"))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=PATIENCE) as client:
        answer = client.post("/build", params={"remote": place, "q": "1"})
    last = [json.loads(line) for line in answer.text.splitlines()][-1]
    return str(last.get("stream") or last.get("error") or last["message"])


def test_the_build_cache_is_pruned(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN head -c 70000 /dev/zero > /cached\n")
    docker("build", "-q", "-t", "pruned", str(tmp_path))
    docker("builder", "prune", "-f", "--filter", "unused-for=1h")
    docker("rmi", "pruned")
    docker("build", "-q", "-t", "pruned", str(tmp_path))
    docker("image", "rm", "--no-prune", "pruned")
    text = docker("builder", "prune", "-af", "--filter", "type=regular").stdout
    assert "Total" in text, text
    assert "invalid filter 'colour'" in docker("builder", "prune", "-f", "--filter", "colour=red", ok=False).stderr


def test_sizes_comments_and_what_is_not_there(docker: Docker, served: Served) -> None:
    docker("run", "--name", "sized", BASE, "sh", "-c", "head -c 5000 /dev/zero > /five")
    assert docker("ps", "-as", "--filter", "name=sized", "--format", "{{.Size}}").stdout.startswith("5kB (virtual ")
    assert docker("inspect", "-s", "-f", "{{.SizeRw}}", "sized").stdout == "5000\n"
    docker("commit", "-m", "what was done", "sized", "commented:1")
    assert docker("image", "inspect", "-f", "{{.Comment}}", "commented:1").stdout == "what was done\n"
    assert "what was done" in docker("history", "--format", "{{.Comment}}", "commented:1").stdout
    missing = docker("run", "--rm", "--network", "nosuch", BASE, "true", ok=False)
    assert "network nosuch not found" in missing.stderr
    assert "Pulling" not in missing.stdout + missing.stderr
    docker("rm", "sized")
    docker("rmi", "commented:1")


def test_a_failed_run_has_the_classic_builders_sentence_and_stderr_its_colour(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo warned >&2\nRUN exit 4\n")
    done = docker("build", str(tmp_path), ok=False)
    assert "\x1b[91mwarned\n\x1b[0m" in done.stdout
    assert done.returncode == 4
    assert "The command '/bin/sh -c exit 4' returned a non-zero code: 4\n" in done.stderr


def test_names_of_networks_and_log_options_as_docker_takes_them(docker: Docker) -> None:
    docker("network", "create", "with a space")
    assert docker("network", "inspect", "-f", "{{.Name}}", "with a space").stdout == "with a space\n"
    docker("network", "rm", "with a space")
    assert docker("network", "create", "../up", ok=False).returncode == 1
    docker("create", "--name", "opts", "--log-opt", "max-file=3", BASE, "true")
    docker("rm", "opts")
    told = docker("create", "--log-driver", "asdf", BASE, "true", ok=False).stderr
    assert "logger: no log driver named 'asdf' is registered" in told


def test_commit_with_a_config_in_the_body(docker: Docker, served: Served) -> None:
    docker("create", "--name", "configured", "-e", "A=1", BASE, "true")
    config = {
        "Env": ['B=two "words" $HOME \\'],
        "Cmd": ["echo", "x"],
        "Labels": {"k": "v"},
        "ExposedPorts": {"8000/tcp": {}},
        "User": "7",
        "WorkingDir": "/w",
    }
    query = {"container": "configured", "repo": "configured", "changes": "ENV C=3"}
    assert served.call("POST", "/commit", params=query, json=config).status_code == 201
    found = json.loads(docker("image", "inspect", "-f", "{{json .Config}}", "configured").stdout)
    assert {"A=1", 'B=two "words" $HOME \\', "C=3"} <= set(found["Env"])
    assert (found["Cmd"], found["User"], found["WorkingDir"]) == (["echo", "x"], "7", "/w")
    assert (found["Labels"]["k"], list(found["ExposedPorts"])) == ("v", ["8000/tcp"])
    docker("rm", "configured")
    docker("rmi", "configured")


def test_parameters_that_are_asked_for_and_seldom_sent(served: Served) -> None:
    rows = served.call("GET", "/images/json", params={"shared-size": "1"}).json()
    assert rows
    assert all(row["SharedSize"] >= 0 for row in rows)
    refused = served.call("POST", "/build", params={"squash": "1"}, content=b"")
    assert (refused.status_code, "squash" in refused.json()["message"]) == (501, True)
