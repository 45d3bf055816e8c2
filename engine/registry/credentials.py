"""Whose name to give to which registry: Docker's `config.json`, credential helpers, and AWS where its SDK is installed.

The rules are the Docker command line's (docker/cli, config files; docker/docker-credential-helpers, README): a helper for the
host under `credHelpers`, else the one for all hosts under `credsStore`, else `auths` in the file. A helper that fails is an
error about that host; it never makes another host's credentials be used (CVE-2021-41092).
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.atomic import write_atomic
from engine.errors import InvalidInput, Unauthorized, from_os_error

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
_HUB_ALIASES = {HUB, "index.docker.io", HUB_HOST}
_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HELPER_SECONDS = 120  # a helper may ask the user something
_HELPER_LIMIT = 1 << 20
_ECR = re.compile(r"(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")
_TOKEN_USER = "<token>"  # what helpers give as the name when the secret is an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or an identity token (OAuth2 refresh token) in the password's place."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def canonical(host: str) -> str:
    """`host[:port]` in lower case; every name of Docker Hub is `docker.io`."""
    host = host.lower()
    return HUB if host in _HUB_ALIASES else host


class Keychain:
    """Credentials by host. Files are read, and helpers asked, when a host is first asked for."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = os.environ if env is None else env
        folder = self._env.get("DOCKER_CONFIG") or os.path.join(
            self._env.get("HOME") or os.path.expanduser("~"), ".docker"
        )
        self.path = Path(folder) / "config.json"
        self._known: dict[str, Credentials | None] = {}
        self._lock = threading.Lock()

    def get(self, host: str) -> Credentials | None:
        """None is "anonymous". Raises `InvalidInput` for a damaged file, `Unauthorized` for a helper that fails."""
        name = canonical(host)
        with self._lock:
            if name not in self._known:
                self._known[name] = self._find(name)
            return self._known[name]

    def _find(self, name: str) -> Credentials | None:
        document = read_json(self.path)
        helper = self._helper(document, name)
        found = _Helper(helper, self._env).get(_key(name)) if helper else self._filed(document, name)
        return found or _from_aws(name)

    @staticmethod
    def _helper(document: Mapping[str, Any], name: str) -> str:
        helpers = document.get("credHelpers")
        for key, value in helpers.items() if isinstance(helpers, dict) else ():
            if _host_of(key) == name and isinstance(value, str):
                return value
        store = document.get("credsStore")
        return store if isinstance(store, str) else ""

    def _filed(self, document: Mapping[str, Any], name: str) -> Credentials | None:
        auths = document.get("auths")
        for key, entry in auths.items() if isinstance(auths, dict) else ():
            # Docker writes bare hosts, older versions whole addresses ("https://index.docker.io/v1/").
            if _host_of(key) == name and isinstance(entry, dict):
                return _entry(entry, f"{self.path}: auths[{name!r}]")
        return None

    # --- login and logout -----------------------------------------------------------------------------

    def store(self, host: str, credentials: Credentials) -> str:
        """Keeps `credentials` where Docker's configuration says. Returns the helper's name, or "" for the file itself."""
        name = canonical(host)
        document = read_json(self.path)
        self._known.pop(name, None)
        helper = self._helper(document, name)
        if helper:
            _Helper(helper, self._env).store(_key(name), credentials)
            return helper
        entry: dict[str, str] = {}
        if credentials.username:
            pair = f"{credentials.username}:{credentials.password}".encode()
            entry["auth"] = base64.b64encode(pair).decode()
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        auths = document.get("auths") if isinstance(document.get("auths"), dict) else {}
        self._write({**document, "auths": {**self._without(auths or {}, name), _key(name): entry}})
        return ""

    def erase(self, host: str) -> bool:
        """Forgets a host's credentials. False when there were none."""
        name = canonical(host)
        document = read_json(self.path)
        self._known.pop(name, None)
        helper = self._helper(document, name)
        had = False
        if helper:
            had = _Helper(helper, self._env).get(_key(name)) is not None
            if had:
                _Helper(helper, self._env).erase(_key(name))
        auths = document.get("auths")
        if isinstance(auths, dict):
            kept = self._without(auths, name)
            if len(kept) != len(auths):
                had = True
                self._write({**document, "auths": kept})
        return had

    @staticmethod
    def _without(auths: Mapping[str, Any], name: str) -> dict[str, Any]:
        return {key: value for key, value in auths.items() if _host_of(key) != name}

    def _write(self, document: Mapping[str, Any]) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Where the file is a link (dotfiles kept elsewhere), what it points at is written.
            target = Path(os.path.realpath(self.path))
            write_atomic(target, json.dumps(document, indent="\t").encode(), 0o600)
        except OSError as error:
            raise from_os_error(error, "storing credentials") from error


class _Helper:
    """`docker-credential-NAME`: a verb as its argument, JSON (or a host) on stdin, JSON on stdout."""

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        if not _HELPER_NAME.fullmatch(name):
            raise InvalidInput(
                f"{name[:60]!r} is not the name of a credential helper", hint="mend Docker's config.json"
            )
        self._program, self._env = f"docker-credential-{name}", dict(env)

    def get(self, key: str) -> Credentials | None:
        status, out = self._run("get", key.encode())
        if status:
            if b"credentials not found" in out:
                return None
            raise self._failed(f"it says {_line(out)!r}")
        try:
            document = json.loads(out)
            username, secret = document.get("Username", ""), document["Secret"]
            if not isinstance(username, str) or not isinstance(secret, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._failed("it does not answer in the form of a credential helper") from None
        if username == _TOKEN_USER:
            return Credentials(identity_token=secret)
        return Credentials(username, secret) if username or secret else None

    def store(self, key: str, credentials: Credentials) -> None:
        token = credentials.identity_token
        document = {
            "ServerURL": key,
            "Username": _TOKEN_USER if token else credentials.username,
            "Secret": token or credentials.password,
        }
        status, out = self._run("store", json.dumps(document).encode())
        if status:
            raise self._failed(f"it does not store them: {_line(out)!r}")

    def erase(self, key: str) -> None:
        status, out = self._run("erase", key.encode())
        if status:
            raise self._failed(f"it does not erase them: {_line(out)!r}")

    def _run(self, verb: str, data: bytes) -> tuple[int, bytes]:
        try:
            done = subprocess.run(
                [self._program, verb],
                input=data,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._env,
                timeout=_HELPER_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise self._failed("it is not installed") from None
        except OSError as error:
            # A folder of PATH that may not be searched gives EACCES, also where the program is nowhere.
            found = shutil.which(self._program, path=self._env.get("PATH"))
            raise self._failed(error.strerror or str(error) if found else "it is not installed") from None
        except subprocess.TimeoutExpired:
            raise self._failed(f"it gave no answer within {_HELPER_SECONDS} seconds") from None
        return done.returncode, done.stdout[:_HELPER_LIMIT]

    def _failed(self, why: str) -> Unauthorized:
        return Unauthorized(
            f"no credentials from {self._program}: {why}",
            hint=f"install {self._program}, or take it out of credsStore and credHelpers in Docker's config.json",
        )


def _line(out: bytes) -> str:
    text = out[:200].decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() else " " for char in text)


def _key(name: str) -> str:
    """What Docker calls the host in its file and to its helpers."""
    return _HUB_KEY if name == HUB else name


def _host_of(key: str) -> str:
    return canonical(key.split("://")[-1].split("/")[0])


def _entry(entry: Mapping[str, object], where: str) -> Credentials | None:
    username, password = entry.get("username"), entry.get("password")
    packed, token = entry.get("auth"), entry.get("identitytoken")
    if isinstance(packed, str) and packed:
        try:
            # Docker pads the decoded text with NULs in old files.
            text = base64.b64decode(packed, validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            text = ""
        username, colon, password = text.partition(":")
        if not colon:
            raise InvalidInput(f"{where}: auth is not base64 of user:password", hint="run `workbench login` again")
    token = token if isinstance(token, str) else ""
    username = username if isinstance(username, str) else ""
    password = password if isinstance(password, str) else ""
    return Credentials(username, password, token) if token or username else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a configuration file; an empty one where there is no file. Raises `InvalidInput` naming it."""
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise from_os_error(error, "reading the registry configuration") from error
    try:
        document = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}", hint="mend or remove the file") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} is not a JSON object", hint="mend or remove the file")
    return document


def _from_aws(name: str) -> Credentials | None:
    """A token for Amazon's registry from the AWS SDK, if both are there: valid for 12 hours (ECR, GetAuthorizationToken)."""
    match = _ECR.fullmatch(name)
    if match is None:
        return None
    try:
        sdk = importlib.import_module("boto3")
    except ImportError:
        return None
    account, region = match.groups()
    try:
        answer = sdk.client("ecr", region_name=region).get_authorization_token(registryIds=[account])
        packed = answer["authorizationData"][0]["authorizationToken"]
        username, _, password = base64.b64decode(packed).decode().partition(":")
    except Exception as error:  # the SDK's errors have no common base, and any of them means "not logged in"
        raise Unauthorized(
            f"the AWS SDK gives no token for {name}: {_line(str(error).encode())}",
            hint="check the role or keys of this machine (`aws sts get-caller-identity`), or `workbench login` by hand",
        ) from error
    return Credentials(username, password)
