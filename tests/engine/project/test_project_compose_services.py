"""Services as they will run, read from compose files."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import DockerfileError
from engine.model import Healthcheck, PortBinding, RestartPolicy, Ulimit
from engine.project.compose.project import load_compose
from engine.project.discovery import discover
from engine.project.model import Project, container_spec

FULL = """
services:
  web:
    image: app
    command: serve --port 80
    entrypoint: ["/init", "--"]
    environment: {A: 1, B: null, EMPTY: ""}
    ports: ["8080:80", {target: 90, published: "9090", host_ip: 127.0.0.1, protocol: udp}]
    volumes: ["./src:/src:ro", "data:/data", "/anonymous", {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    restart: on-failure:3
    healthcheck: {test: curl localhost, interval: 5s, retries: 2}
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M, pids: 9}}}
    init: true
    mem_reservation: 32m
    stop_grace_period: 1m30s
    secrets: [key]
    networks: {back: {aliases: [w]}}
    sysctls: [net.core.somaxconn=1]
    depends_on: {db: {condition: service_healthy}}
  db: {image: db, networks: [back], tty: "true"}
volumes: {data: {}}
networks: {back: {internal: true}}
secrets: {key: {file: ./key.txt}}
"""


def load(folder: Path, text: str, **env: str) -> Project:
    (folder / "compose.yaml").write_text(text)
    return load_compose([folder / "compose.yaml"], "proj")


def test_a_full_service(tmp_path: Path) -> None:
    project = load(tmp_path, FULL)
    db, web = project.services
    assert (db.name, web.name, web.depends_on) == ("db", "web", {"db": "service_healthy"})
    spec = web.spec
    assert spec.command == ("serve", "--port", "80")
    assert spec.entrypoint == ("/init", "--")
    assert spec.env == ("A=1", "EMPTY=")
    assert spec.port_bindings == {"80/tcp": (PortBinding("", "8080"),), "90/udp": (PortBinding("127.0.0.1", "9090"),)}
    assert spec.restart_policy == RestartPolicy("on-failure", 3)
    assert spec.healthcheck == Healthcheck(("CMD-SHELL", "curl localhost"), 5_000_000_000, retries=2)
    assert spec.ulimits == (Ulimit("nofile", 10, 20), Ulimit("nproc", 5, 5))
    assert (spec.cpus, spec.memory, spec.pids_limit, spec.memory_reservation) == (0.5, 64 << 20, 9, 32 << 20)
    assert (spec.init, spec.stop_timeout, spec.sysctls) == (True, 90, {"net.core.somaxconn": "1"})
    assert spec.volumes == ("/anonymous",)
    mounts = {mount.target: mount for mount in spec.mounts}
    assert (mounts["/src"].source, mounts["/src"].read_only) == (str(tmp_path / "src"), True)
    assert (mounts["/data"].type, mounts["/data"].source) == ("volume", "proj_data")
    assert mounts["/t"].tmpfs_size == 1 << 20
    assert mounts["/run/secrets/key"].source == str(tmp_path / "key.txt")
    assert db.spec.tty is True


def test_the_spec_of_a_generation(tmp_path: Path) -> None:
    project = load(tmp_path, FULL)
    web = project.services[1]
    spec = container_spec(project, web, image="sha256:1", name="n", generation=3, log_path="/log")
    assert (spec.image, spec.name, spec.network_mode) == ("sha256:1", "n", "proj_back")
    assert spec.networks["proj_back"].aliases == ("web", "w")
    assert spec.labels["com.docker.compose.service"] == "web"
    assert spec.labels["workbench.generation"] == "3"


def test_profiles_choose_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "services: {a: {image: a}, b: {image: b, profiles: [debug]}}"
    assert [service.name for service in load(tmp_path, text).services] == ["a"]
    monkeypatch.setenv("COMPOSE_PROFILES", "debug")
    assert [service.name for service in load(tmp_path, text).services] == ["a", "b"]


def test_the_override_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {image: a, environment: {X: 1}}}")
    (tmp_path / "compose.override.yaml").write_text("services: {a: {environment: {X: 2}}}")
    project = discover(tmp_path)
    assert project.services[0].spec.env == ("X=2",)
    assert tmp_path / "compose.override.yaml" in project.env_files


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    project = load(tmp_path, "services:\n  a:\n    image: a\n    provider: {type: x}\n    scale: 3\n")
    assert any("services.a.provider" in note and "compose.yaml:4" in note for note in project.notes)
    assert project.services[0].scale == 3


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("services:\n  a: {}\n", 2, "neither an image nor a build context"),
        ("services:\n  a:\n    image: x\n    volumes: [nope:/x]\n", 4, "undefined volume nope"),
        ("services:\n  a:\n    image: x\n    networks: [nope]\n", 2, "undefined network nope"),
        (
            "services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: x\n    depends_on: [a]\n",
            2,
            "depend on each other",
        ),
        ("services:\n  a:\n    image: x\n    ports: ['99999:1']\n", 4, "ports"),
        ("services:\n  a:\n    image: x\n    mem_limit: lots\n", 4, "'lots' is not a size"),
        ("services:\n  a:\n    image: x\n    secrets: [k]\n", 4, "'k' is not defined"),
        ("services:\n  a:\n    build: ./missing\n", 3, "is not a folder"),
        ("services:\n  a:\n    image: x\n    env_file: none.env\n", 4, "does not exist"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert caught.value.line == line


def test_files_profiles_and_a_name_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("services: {a: {image: a, profiles: [p]}}")
    (tmp_path / "b.yaml").write_text("services: {a: {image: b}}")
    project = discover(
        tmp_path, files=(tmp_path / "a.yaml", tmp_path / "b.yaml"), profiles=frozenset(("p",)), name="mine"
    )
    assert (project.name, [service.image for service in project.services]) == ("mine", ["b"])
