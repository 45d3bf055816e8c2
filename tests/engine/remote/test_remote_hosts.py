"""Which engine a name means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput, NotFound
from engine.remote.hosts import Target, TlsFiles, contexts, parse_url, resolve


def context(folder: Path, name: str, host: str, *, tls: bool = False, skip: bool = False) -> None:
    identity = hashlib.sha256(name.encode()).hexdigest()
    endpoint: dict[str, Any] = {"Host": host, "SkipTLSVerify": skip}
    meta = folder / "contexts/meta" / identity
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if tls:
        files = folder / "contexts/tls" / identity / "docker"
        files.mkdir(parents=True)
        for part in ("ca", "cert", "key"):
            (files / f"{part}.pem").write_text("PEM")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("unix:///run/x.sock", Target("unix", path="/run/x.sock")),
        ("tcp://host:2376", Target("tcp", "host", 2376)),
        ("tcp://[::1]:2375", Target("tcp", "::1", 2375)),
        ("tcp://host", Target("tcp", "host")),
        ("ssh://me@host:22", Target("ssh", "host", 22, "me")),
        ("ssh://host/podman", Target("ssh", "host", path="podman")),
        ("ssh://host/", Target("ssh", "host")),
        ("ssh://host/run/user/1/docker.sock", Target("ssh", "host", path="/run/user/1/docker.sock")),
    ],
)
def test_addresses(text: str, target: Target) -> None:
    assert parse_url(text) == target
    assert parse_url(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "unix://relative",
        "ftp://host",
        "tcp://host/path",
        "tcp://me@host",
        "tcp://host:port",
        "ssh://-oProxyCommand=x",
        "ssh://-me@host",
        "ssh://me:secret@host",
        "ssh://",
        "tcp://a b",
        "/run/x.sock",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput):
        resolve(text, env={})


def test_contexts(tmp_path: Path) -> None:
    env = {"DOCKER_CONFIG": str(tmp_path)}
    context(tmp_path, "far", "ssh://me@host")
    context(tmp_path, "secure", "tcp://host:2376", tls=True, skip=True)
    context(tmp_path, "plain", "tcp://host:2375")
    assert resolve("far", env=env) == Target("ssh", "host", user="me", context="far")
    assert resolve("plain", env=env).tls is None
    secure = resolve("secure", env=env)
    assert secure.tls is not None
    assert Path(secure.tls.ca).read_text() == "PEM"
    assert not secure.tls.verify
    assert sorted(contexts(env)) == ["far", "plain", "secure"]
    with pytest.raises(NotFound, match="no Docker context 'nosuch'") as failure:
        resolve("nosuch", env=env)
    assert "far, plain, secure" in str(failure.value.hint)
    with pytest.raises(NotFound):
        resolve("../far", env=env)


def test_what_docker_would_use(tmp_path: Path) -> None:
    env = {"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    assert resolve("docker", env=env) == Target("unix", path="/var/run/docker.sock")
    context(tmp_path, "current", "unix:///current.sock")
    context(tmp_path, "other", "unix:///other.sock")
    (tmp_path / "config.json").write_text('{"currentContext": "current"}')
    assert resolve("docker", env=env).path == "/current.sock"
    assert resolve("docker", env={**env, "DOCKER_CONTEXT": "other"}).path == "/other.sock"
    assert resolve("docker", env={**env, "DOCKER_CONTEXT": "default"}).path == "/var/run/docker.sock"
    assert resolve("default", env=env).path == "/var/run/docker.sock"
    both = {**env, "DOCKER_CONTEXT": "other", "DOCKER_HOST": "tcp://first:1"}
    assert resolve("docker", env=both) == Target("tcp", "first", 1)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"config\.json cannot be read"):
        resolve("docker", env=env)


def test_tls_files(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").write_text("PEM")
    env = {"DOCKER_CERT_PATH": str(tmp_path), "DOCKER_TLS_VERIFY": "1"}
    found = TlsFiles(f"{tmp_path}/ca.pem", f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem")
    assert resolve("tcp://host", env=env).tls == found
    assert resolve("unix:///x", env=env).tls is None
    assert resolve("tcp://host", env={"DOCKER_CERT_PATH": str(tmp_path)}).tls is None
    own = {"WORKBENCH_TLS": "any", "WORKBENCH_TLSCACERT": "/other.pem", **env, "DOCKER_TLS_VERIFY": ""}
    tls = resolve("tcp://host", env=own).tls
    assert tls is not None
    assert (tls.ca, tls.certificate, tls.verify) == ("/other.pem", f"{tmp_path}/cert.pem", False)


def test_slugs_tell_engines_apart() -> None:
    slugs = {resolve(text, env={}).slug for text in ("ssh://a@host", "ssh://b@host", "unix:///a/b", "unix:///a-b")}
    assert len(slugs) == 4
    assert all("/" not in slug and ":" not in slug for slug in slugs)
