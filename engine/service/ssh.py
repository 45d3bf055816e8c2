"""Images to and from another host over one SSH connection, with no registry at either end.

The local store is served on a loopback port that the connection forwards to the other side's loopback; there the other engine
(workbench, Docker or Podman) pulls or pushes with its own command, and so moves only the blobs that are missing, resumes as
it always does, and keeps every digest. A password made for this one transfer guards the port.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import shlex
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from engine.base.cancel import CancelToken
from engine.errors import EngineError, InvalidInput, NotFound, Unavailable
from engine.model import Comparison
from engine.oci.reference import Reference
from engine.registry.server import RegistryServer, Serving
from engine.store.images import Image
from engine.store.store import Store

ENGINES = ("workbench", "docker", "podman")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")

# On the other host. Words in capitals are filled in, quoted; port and password come on stdin, never on a command line.
_FIND = """
for engine in ENGINES none; do
  [ "$engine" = none ] && { echo "none of ENGINES is installed here" >&2; exit 127; }
  command -v "$engine" >/dev/null 2>&1 && break
done
"""
_ACCESS = """
umask 077; set -e
read -r port; read -r auth
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$port" "$auth" > "$d/config.json"
there="127.0.0.1:$port/NAME"
DOCKER_CONFIG="$d"; REGISTRY_AUTH_FILE="$d/config.json"; export DOCKER_CONFIG REGISTRY_AUTH_FILE
plain=; [ "$engine" = podman ] && plain=--tls-verify=false
"""
_GIVE = """
"$engine" pull -q $plain "$there" >&2
"$engine" tag "$there" TARGET >&2
"$engine" rmi "$there" >/dev/null
echo "$engine"
"""
_TAKE = """
"$engine" tag SOURCE "$there" >&2
"$engine" push -q $plain "$there" >&2 || { "$engine" rmi "$there" >/dev/null; exit 1; }
"$engine" rmi "$there" >/dev/null
echo "$engine"
"""
_INSPECT = """
echo "$engine"
exec "$engine" image inspect SOURCE
"""


@dataclass(frozen=True, slots=True)
class Host:
    """`ssh://[user@]host[:port][/engine]`. `engine` "" takes the first of workbench, docker and podman that is there."""

    host: str
    user: str = ""
    port: int = 0
    engine: str = ""

    @classmethod
    def parse(cls, url: str) -> Host:
        """Raises `InvalidInput`. Names that ssh would take for an option are refused."""
        parts = urlsplit(url)
        try:
            port = parts.port or 0
        except ValueError:
            port = -1
        raw = parts.netloc.rpartition("@")[2]
        name = raw if raw.endswith("]") else raw.rpartition(":")[0] if ":" in raw else raw
        user, engine = parts.username or "", parts.path.strip("/")
        good = parts.scheme == "ssh" and port >= 0 and parts.password is None and _HOST.fullmatch(name)
        if not good or (user and not _USER.fullmatch(user)) or engine not in ("", *ENGINES):
            raise InvalidInput(
                f"{url!r} is not a host",
                hint=f"write ssh://[user@]host[:port][/ENGINE], ENGINE of {', '.join(ENGINES)}",
            )
        return cls(name.strip("[]"), user, port, engine)

    def __str__(self) -> str:
        return f"ssh://{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"

    def command(self, script: str, *options: str) -> list[str]:
        """The local command that runs `script` there. `WORKBENCH_SSH` replaces `ssh`, as GIT_SSH_COMMAND does for git."""
        words = shlex.split(os.environ.get("WORKBENCH_SSH", "")) or ["ssh"]
        target = f"{self.user}@{self.host}" if self.user else self.host
        port = ["-p", str(self.port)] if self.port else []
        return [*words, "-T", *port, *options, "--", target, f"exec /bin/sh -c {shlex.quote(script)}"]


class SshService:
    def __init__(self, store: Store, unpack: Callable[[Image], None]) -> None:
        self._store, self._unpack = store, unpack

    def push(self, url: str, name: str, cancel: CancelToken) -> str:
        """The image `name` becomes an image of the other host, under the same name. Returns which engine took it."""
        host = Host.parse(url)
        with self._store.using():
            image = self._store.images.get(name)
            target = Reference.parse(
                name if image.tags and not _is_id(image, name) else f"workbench/{image.digest.short}"
            )
            temporary = f"transfer/{secrets.token_hex(8)}:1"
            self._store.images.tag(image, Reference.parse(temporary))
            try:
                script = _script(host, _ACCESS + _GIVE, NAME=temporary, TARGET=target.with_default_tag().familiar)
                return self._transfer(host, script, cancel, read_only=True)
            finally:
                self._store.images.untag(str(Reference.parse(temporary)))

    def pull(self, url: str, name: str, cancel: CancelToken) -> Image:
        """The other host's image `name` becomes an image here, under the same name."""
        host = Host.parse(url)
        reference = Reference.parse(name).with_default_tag()
        temporary = Reference.parse(f"transfer/{secrets.token_hex(8)}:1")
        script = _script(host, _ACCESS + _TAKE, NAME=temporary.familiar, SOURCE=name)
        with self._store.using():
            try:
                self._transfer(host, script, cancel, read_only=False)
                image = self._store.images.find(str(temporary))
                if image is None:
                    raise Unavailable(f"{host} pushed no image that this machine can run")
                self._unpack(image)
                if not reference.digest:
                    self._store.images.tag(image, reference)
            finally:
                self._store.served.forget(temporary.name)
                self._store.images.untag(str(temporary))
            return self._store.images.get(image.digest)

    def inspect(self, url: str, name: str) -> tuple[str, dict[str, Any]]:
        """Which engine answered, and its `image inspect` of `name`. Raises `NotFound`, `Unavailable`."""
        host = Host.parse(url)
        done = subprocess.run(host.command(_script(host, _INSPECT, SOURCE=name)), capture_output=True, check=False)
        if done.returncode:
            raise _failed(host, done.returncode, done.stderr)
        engine, _, text = done.stdout.decode("utf-8", "replace").partition("\n")
        try:
            documents = json.loads(text)
            return engine, documents[0]
        except (ValueError, LookupError, TypeError) as error:
            raise Unavailable(f"{host}: {engine} gives no description of {name}") from error

    def verify(self, url: str, name: str) -> list[Comparison]:
        """The image's config, layers, and (where both sides know one for the same repository) manifest, side by side."""
        image = self._store.images.get(name)
        _, there = self.inspect(url, name)
        config = self._store.images.config(image)
        other = str(there.get("Id", ""))
        other = other if other.startswith("sha256:") else f"sha256:{other}"
        layers = [str(one) for one in (there.get("RootFS") or {}).get("Layers") or ()]
        mine = list(map(str, config.diff_ids))
        rows = [Comparison("config", image.config_digest, other)]
        for index in range(max(len(mine), len(layers))):
            pair = [side[index] if index < len(side) else "none" for side in (mine, layers)]
            rows.append(Comparison(f"layer {index + 1}", *pair))
        theirs = [text.rpartition("@")[2] for text in there.get("RepoDigests") or () if isinstance(text, str)]
        if theirs:
            known = {image.digest, *(text.rpartition("@")[2] for text in self._store.images.repo_digests(image))}
            shared = [digest for digest in theirs if digest in known]
            rows.append(
                Comparison("manifest", shared[0] if shared else image.digest, shared[0] if shared else theirs[0])
            )
        return rows

    def _transfer(self, host: Host, script: str, cancel: CancelToken, *, read_only: bool) -> str:
        password = secrets.token_urlsafe(24)
        serving = Serving("127.0.0.1", 0, read_only=read_only, user="transfer", password=password, every_blob=True)
        server = RegistryServer(self._store, serving)
        thread = threading.Thread(target=server.serve, name="ssh-registry", daemon=True)
        thread.start()
        try:
            auth = base64.b64encode(f"transfer:{password}".encode()).decode()
            return _run(host, script, server.address, auth, cancel)
        finally:
            server.close()
            thread.join()


def _script(host: Host, body: str, **words: str) -> str:
    """The shell text, with `words` quoted into it."""
    engines = host.engine or " ".join(ENGINES)
    text = _FIND.replace("ENGINES", engines) + body
    for key, value in words.items():
        quoted = value if key == "NAME" else shlex.quote(value)  # NAME is ours, and stands inside quotes
        text = text.replace(key, quoted)
    return text


def _run(host: Host, script: str, address: str, auth: str, cancel: CancelToken) -> str:
    options = ["-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=INFO", "-R", f"127.0.0.1:0:{address}"]
    process = subprocess.Popen(
        host.command(script, *options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    cancel.on_cancel(process.terminate)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []
    try:
        for line in process.stderr:
            said.append(line)
            if match := _ALLOCATED.search(line):
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(match[1] + b"\n" + auth.encode() + b"\n")
                    process.stdin.close()
        out = process.stdout.read()
        status = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
    cancel.check()
    if status:
        raise _failed(host, status, b"".join(said))
    return out.decode().strip()


def _failed(host: Host, status: int, said: bytes) -> EngineError:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    lines = [line for line in lines if "Allocated port" not in line and "Permanently added" not in line]
    text = "".join(char if char.isprintable() else " " for char in (lines[-1] if lines else f"exit status {status}"))
    if "forwarding" in text.lower():
        return Unavailable(
            f"{host} does not forward ports: {text}",
            hint="its sshd needs AllowTcpForwarding yes (or remote) for this user",
        )
    if re.search(r"no such (image|object)|not known|not found", text, re.IGNORECASE) and status != 127:
        return NotFound(f"{host}: {text}", hint="check the image's name there")
    return Unavailable(f"{host}: {text}", hint=f"try `ssh {host.user + '@' if host.user else ''}{host.host}` by hand")


def _is_id(image: Image, name: str) -> bool:
    bare = name.removeprefix("sha256:")
    return image.config_digest.hex.startswith(bare) or image.digest.hex.startswith(bare)
