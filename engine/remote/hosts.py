"""Which engine `--host`, `WORKBENCH_HOST` or Docker's own configuration names.

A name is an address (`unix://`, `tcp://`, `ssh://`), the name of a Docker context (`docker context ls`), or `docker`: whatever the
docker command line would use here, which is DOCKER_HOST, DOCKER_CONTEXT, `currentContext` of its config.json, or its socket,
in that order (docker/cli, "docker context": the order in which a context is chosen).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from engine.errors import InvalidInput, NotFound

ENGINES = ("workbench", "docker", "podman")
DOCKER_SOCKET = "/var/run/docker.sock"
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.%]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CONTEXT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")  # docker/cli context/store: restrictedNamePattern


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a client; "" is none. Without `verify` any certificate of the server is taken."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """Where an engine listens. `path`: of a unix socket; of `ssh` an engine's name or the path of its socket over there."""

    kind: Literal["unix", "tcp", "ssh"]
    host: str = ""
    port: int = 0
    user: str = ""
    path: str = ""
    tls: TlsFiles | None = None
    context: str = ""  # the Docker context that it came from

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.kind}://{user}{host}{port}{'/' + self.path.lstrip('/') if self.path else ''}"

    @property
    def slug(self) -> str:
        """A file name for what this machine keeps about that engine."""
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", str(self)).strip("-")[:40]
        return f"{readable}-{hashlib.sha256(str(self).encode()).hexdigest()[:8]}"


def resolve(name: str, tls: TlsFiles | None = None, env: Mapping[str, str] | None = None) -> Target:
    """The engine that `name` means; `tls` are the flags' files, for `tcp://` alone. Raises `InvalidInput`, `NotFound`."""
    env = os.environ if env is None else env
    if "://" in name:
        target = parse_url(name)
        return replace(target, tls=tls or _tls_of_env(env)) if target.kind == "tcp" else target
    if name == "docker":
        return _of_docker(tls, env)
    if name.startswith("/"):
        raise InvalidInput(f"{name!r} is no host", hint=f"a socket is written unix://{name}")
    return _context(name, env)


def parse_url(text: str) -> Target:
    """Raises `InvalidInput`."""
    parts = urlsplit(text)
    if parts.scheme == "unix":
        path = text.removeprefix("unix://")
        if not path.startswith("/"):
            raise InvalidInput(f"{text!r} is no host", hint="an absolute path follows: unix:///var/run/docker.sock")
        return Target("unix", path=path)
    if parts.scheme in ("tcp", "http", "https"):
        return _tcp(text)
    if parts.scheme == "ssh":
        return _ssh(text)
    raise InvalidInput(f"{text!r} is no host", hint="unix://, tcp://, ssh://, a Docker context's name, or docker")


def _endpoint(text: str) -> tuple[str, int, str, str]:
    """Host, port (0: none), user and path of an address."""
    parts = urlsplit(text)
    wrong = InvalidInput(
        f"{text!r} is no host", hint=f"write {parts.scheme}://{'[user@]' * (parts.scheme == 'ssh')}host[:port]"
    )
    try:
        port = parts.port or 0
    except ValueError:
        raise wrong from None
    raw = parts.netloc.rpartition("@")[2]
    name = raw if raw.endswith("]") else raw.rpartition(":")[0] if ":" in raw else raw
    user = parts.username or ""
    # A name that begins with a dash would be an option to ssh.
    if not _HOST.fullmatch(name) or (user and not _USER.fullmatch(user)) or parts.query or parts.fragment:
        raise wrong
    if parts.password is not None:
        raise InvalidInput(f"{parts.hostname}: a password does not belong into a host", hint="ssh asks for it itself")
    return name.strip("[]"), port, user, parts.path


def _tcp(text: str) -> Target:
    host, port, user, path = _endpoint(text)
    if user or path.strip("/"):
        raise InvalidInput(f"{text!r} is no host", hint="write tcp://host[:port]")
    return Target("tcp", host, port)


def _ssh(text: str) -> Target:
    host, port, user, path = _endpoint(text)
    path = path if path != "/" else ""
    if path.strip("/") in ENGINES:
        path = path.strip("/")
    return Target("ssh", host, port, user, path)


# --- Docker's configuration ---------------------------------------------------------------------------


def docker_folder(env: Mapping[str, str]) -> Path:
    return Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or Path.home()) / ".docker")


def _of_docker(tls: TlsFiles | None, env: Mapping[str, str]) -> Target:
    if host := env.get("DOCKER_HOST"):
        return resolve(host if "://" in host else f"tcp://{host}", tls, env)
    name = env.get("DOCKER_CONTEXT") or str(_json(docker_folder(env) / "config.json").get("currentContext") or "")
    if name and name != "default":
        return _context(name, env)
    own = (
        Path(env.get("HOME") or Path.home()) / ".docker/run/docker.sock"
    )  # Docker Desktop, without the link in /var/run
    return Target("unix", path=str(own) if own.exists() and not os.path.exists(DOCKER_SOCKET) else DOCKER_SOCKET)


def _context(name: str, env: Mapping[str, str]) -> Target:
    """A context is kept under the SHA-256 of its name (docker/cli, cli/context/store)."""
    if name == "default":
        return _of_docker(
            None, {key: value for key, value in env.items() if key != "DOCKER_CONTEXT"} | {"DOCKER_CONTEXT": "default"}
        )
    identity = hashlib.sha256(name.encode()).hexdigest()
    folder = docker_folder(env) / "contexts"
    document = _json(folder / "meta" / identity / "meta.json") if _CONTEXT.fullmatch(name) else {}
    if not document:
        known = ", ".join(sorted(contexts(env))) or "there is none"
        raise NotFound(
            f"there is no Docker context {name!r}", hint=f"unix://, tcp://, ssh://, docker, or a context: {known}"
        )
    endpoint = (document.get("Endpoints") or {}).get("docker") or {}
    target = parse_url(str(endpoint.get("Host") or f"unix://{DOCKER_SOCKET}"))
    if target.kind == "tcp":
        files = folder / "tls" / identity / "docker"
        found = {
            part: str(files / f"{part}.pem") if (files / f"{part}.pem").exists() else ""
            for part in ("ca", "cert", "key")
        }
        if any(found.values()):
            verify = not endpoint.get("SkipTLSVerify")
            target = replace(target, tls=TlsFiles(found["ca"], found["cert"], found["key"], verify))
    return replace(target, context=name)


def contexts(env: Mapping[str, str] | None = None) -> list[str]:
    """The names of Docker's contexts on this machine."""
    folder = docker_folder(os.environ if env is None else env) / "contexts/meta"
    return [str(found["Name"]) for path in folder.glob("*/meta.json") if (found := _json(path)).get("Name")]


def context_document(name: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `docker context inspect` prints, without the TLS files' names. {} where there is none."""
    env = os.environ if env is None else env
    if name == "default":
        host = env.get("DOCKER_HOST") or f"unix://{DOCKER_SOCKET}"
        metadata = {"Description": "Current DOCKER_HOST based configuration"}
        return {"Name": name, "Metadata": metadata, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    identity = hashlib.sha256(name.encode()).hexdigest()
    return dict(_json(docker_folder(env) / "contexts/meta" / identity / "meta.json"))


def _tls_of_env(env: Mapping[str, str]) -> TlsFiles | None:
    """DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH, as the docker command line reads them; and what the command line's flags
    have left for the processes that it starts (see `export`)."""
    verify = bool(env.get("DOCKER_TLS_VERIFY")) or env.get("WORKBENCH_TLS") == "verify"
    if not (verify or env.get("DOCKER_TLS") or env.get("WORKBENCH_TLS")):
        return None
    folder = env.get("DOCKER_CERT_PATH") or str(docker_folder(env))
    given = [env.get(f"WORKBENCH_TLS{part}", "") for part in ("CACERT", "CERT", "KEY")]
    return tls_files(folder, verify=verify, ca=given[0], certificate=given[1], key=given[2])


def export(host: str, *, tls: str = "", ca: str = "", certificate: str = "", key: str = "") -> None:
    """Makes `--host` and its flags the choice of this process and of those that it starts. `tls`: "", "verify" or "any"."""
    values = {
        "HOST": host,
        "TLS": tls,
        "TLSCACERT": ca and os.path.abspath(ca),
        "TLSCERT": certificate and os.path.abspath(certificate),
        "TLSKEY": key and os.path.abspath(key),
    }
    os.environ.update({f"WORKBENCH_{name}": value for name, value in values.items() if value})


def tls_files(folder: str, *, verify: bool, ca: str = "", certificate: str = "", key: str = "") -> TlsFiles:
    """`ca.pem`, `cert.pem` and `key.pem` of `folder` where they are there, unless others are given."""

    def found(given: str, name: str) -> str:
        path = Path(folder) / name
        return given or (str(path) if path.exists() else "")

    return TlsFiles(found(ca, "ca.pem"), found(certificate, "cert.pem"), found(key, "key.pem"), verify)


def _json(path: Path) -> dict[str, Any]:
    """{} where the file is not there. Raises `InvalidInput` for one that is no JSON."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}", hint="it is Docker's own file; mend or remove it"
        ) from error
    return document if isinstance(document, dict) else {}
