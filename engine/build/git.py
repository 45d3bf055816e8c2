"""Git repositories as sources: the system's git, kept on a short leash.

No configuration of the host or of the user, no hooks, no prompts, only the protocols that a Dockerfile may name; refs and
addresses are checked so that none can pass for an option (CVE-2019-13139), and a subdirectory is opened inside the checkout.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from engine.base.cancel import CancelToken
from engine.build.secret_values import read_secret
from engine.build.source import ContextSource, Node
from engine.errors import Cancelled, Corrupt, InvalidInput, NotFound, Unavailable, Unsupported
from engine.model import BuildRequest

PROTOCOLS = ("http", "https", "ssh", "git")
_SCP = re.compile(r"([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):([^#?]+)(\?[^#]*)?(?:#(.*))?", re.DOTALL)
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SWITCH = {"": True, "1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_POLL = 0.05  # seconds between looks at a running git


@dataclass(frozen=True, slots=True)
class GitRef:
    """`remote` without fragment and query; `ref` "" is the remote's HEAD; `checksum` a commit or the beginning of one."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True
    mtime: str = "commit"


def parse_git_ref(text: str) -> GitRef | None:
    """None for what is no git address. Raises `InvalidInput` for one that cannot be used.

    A web address is one only when its path ends with `.git`; `git@host:path`, ssh:// and git:// always are.
    """
    if text.startswith(("./", "../")):
        return None
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme in PROTOCOLS:
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise InvalidInput(f"{text[:100]!r} is not an address: {error}") from None
        if scheme in ("http", "https") and not parts.path.endswith(".git"):
            return None
        host = parts.hostname or ""
        if not host or host.startswith("-") or (parts.username or "").startswith("-"):
            raise InvalidInput(f"{text[:100]!r} names no host that can be used")
        remote = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        return _with_options(GitRef(remote), parts.query, parts.fragment)
    match = _SCP.fullmatch(text)
    if not match or scheme:
        return None
    user, host, path, query, fragment = match.groups()
    if user.startswith("-") or host.startswith("-"):
        raise InvalidInput(f"{text[:100]!r} names no host that can be used")
    return _with_options(GitRef(f"{user}@{host}:{path}"), (query or "").removeprefix("?"), fragment or "")


def _with_options(git: GitRef, query: str, fragment: str) -> GitRef:
    ref, _, subdir = fragment.partition(":")
    values: dict[str, object] = {"ref": ref, "subdir": subdir}
    for key, value in parse_qsl(query, keep_blank_values=True):
        switches = ("submodules", "keep-git-dir", "fetch-by-commit")
        if not value and key not in switches:
            raise InvalidInput(f'query "{key}" has no value')
        if key in switches and value.lower() not in _SWITCH:
            raise InvalidInput(f'invalid {key} value: "{value}"', hint="true or false")
        match key:
            case "ref" | "tag" | "branch":
                prefix = {"tag": "refs/tags/", "branch": "refs/heads/"}.get(key, "")
                full = value if value.startswith(prefix) else prefix + value
                if values["ref"] not in ("", full):
                    raise InvalidInput(f'ref conflicts: "{values["ref"]}" vs "{full}"')
                values["ref"] = full
            case "subdir":
                if values["subdir"] not in ("", value):
                    raise InvalidInput(f'subdir conflicts: "{values["subdir"]}" vs "{value}"')
                values["subdir"] = value
            case "checksum" | "commit":
                values["checksum"] = value
            case "submodules":
                values["submodules"] = _SWITCH[value.lower()]
            case "keep-git-dir":
                values["keep_git_dir"] = _SWITCH[value.lower()]
            case "fetch-by-commit":
                pass  # a commit is always fetched by its name where the server allows it
            case "mtime":
                if value not in ("checkout", "commit"):
                    raise InvalidInput(f'invalid mtime value: "{value}"', hint="checkout or commit")
                values["mtime"] = value
            case _:
                raise InvalidInput(f'unexpected query "{key}"')
    return check(GitRef(git.remote, **values))  # type: ignore[arg-type]


def check(git: GitRef) -> GitRef:
    """Raises `InvalidInput` for what git could take for something else."""
    for what, text in (("address", git.remote), ("ref", git.ref), ("subdirectory", git.subdir)):
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise InvalidInput(f"a control character in the git {what} {text[:80]!r}")
    if git.ref.startswith("-") or ".." in git.ref or any(char in git.ref for char in " ~^:?*[\\"):
        raise InvalidInput(f"{git.ref[:80]!r} is not a git ref", hint="a branch, a tag or a commit")
    if git.remote.startswith("-"):
        raise InvalidInput(f"{git.remote[:80]!r} is not a git address")
    if ".." in git.subdir.split("/"):
        raise InvalidInput(f"the git subdirectory {git.subdir[:80]!r} leads out of the repository")
    if git.checksum and not re.fullmatch(r"[0-9a-f]{7,64}", git.checksum):
        raise InvalidInput(f"{git.checksum[:80]!r} is not a commit", hint="at least 7 hexadecimal digits")
    return git


class Git:
    """Runs git for one build. `resolve` asks the remote, `checkout` fetches."""

    def __init__(self, tmp: Path, request: BuildRequest, cancel: CancelToken) -> None:
        self._tmp, self._request, self._cancel = tmp, request, cancel
        if shutil.which("git") is None:
            raise Unsupported("git is not installed on this host", hint="install it (Debian: apt-get install git)")

    def resolve(self, git: GitRef) -> str:
        """The commit that the ref means now. Raises `NotFound`, `Unavailable`, `Corrupt` (another than `checksum`)."""
        commit = git.ref if _SHA.fullmatch(git.ref) else self._ask(git)
        if git.checksum and not commit.startswith(git.checksum):
            raise Corrupt(
                f"{_shown(git.remote)}#{git.ref or 'HEAD'} is at {commit}, not at {git.checksum}",
                hint="the ref has moved: check it, then correct the checksum",
            )
        return commit

    def _ask(self, git: GitRef) -> str:
        wanted = git.ref or "HEAD"
        output = self._run(["ls-remote", "--", git.remote, wanted, f"{wanted}^{{}}"], git.remote)
        lines = (line.partition("\t") for line in output.splitlines())
        refs = {name: commit for commit, tab, name in lines if tab}
        for name in (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}", f"refs/{wanted}"):
            if name in refs:
                return refs.get(f"{name}^{{}}", refs[name])
        if re.fullmatch(r"[0-9a-f]{7,63}", git.ref):
            raise InvalidInput(
                f"{_shown(git.remote)} has no ref {git.ref!r}", hint="a commit is given by all its 40 digits"
            )
        raise NotFound(f"{_shown(git.remote)} has no ref {wanted!r}")

    def checkout(self, git: GitRef, commit: str, *, keep_git_dir: bool) -> tuple[Path, int]:
        """A new folder of ours with the files of `commit`, owned by us, times as the commit's (or now); and the commit's time."""
        folder = self._tmp / f"git-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        try:
            self._run(["init", "-q", "--template=", "."], git.remote, cwd=folder)
            self._run(["remote", "add", "--", "origin", _bare(git.remote)], git.remote, cwd=folder)
            self._fetch(git, commit, folder)
            self._run(["checkout", "-q", "--force", "--detach", commit], git.remote, cwd=folder)
            if git.submodules and (folder / ".gitmodules").is_file():
                self._run(
                    ["submodule", "update", "--init", "--recursive", "--depth=1", "--force"], git.remote, cwd=folder
                )
            committed = self._committed(git, folder)
            for name in () if keep_git_dir else _git_dirs(folder):
                shutil.rmtree(name) if name.is_dir() and not name.is_symlink() else name.unlink()
            _settle(folder, int(time.time()) if git.mtime == "checkout" else committed)
            return folder, committed
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _fetch(self, git: GitRef, commit: str, folder: Path) -> None:
        common = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--force"]
        try:
            self._run([*common, "--depth=1", "--", git.remote, commit], git.remote, cwd=folder)
        except Unavailable:
            # The server does not give out a commit by its name, or not a shallow one: take the ref, or all of it.
            spec = [git.ref or "HEAD"] if not _SHA.fullmatch(git.ref) else ["+refs/heads/*:refs/remotes/origin/*"]
            self._run([*common, "--", git.remote, *spec], git.remote, cwd=folder)

    def _committed(self, git: GitRef, folder: Path) -> int:
        text = self._run(["log", "-1", "--format=%ct"], git.remote, cwd=folder).strip()
        return int(text) if text.isdigit() else 0

    # --- the leash --------------------------------------------------------------------------------------

    def _environment(self, remote: str) -> dict[str, str]:
        passed = ("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "HTTP_PROXY", "HTTPS_PROXY")
        proxies = ("NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "ALL_PROXY", "SSH_AUTH_SOCK")
        env = {name: os.environ[name] for name in (*passed, *proxies) if name in os.environ}
        for agent in self._request.ssh:
            if agent.id == "default" and agent.socket is not None:
                env["SSH_AUTH_SOCK"] = str(agent.socket)
        env |= {
            "HOME": str(self._tmp),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": "ssh -F /dev/null -o BatchMode=yes",
        }
        settings = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.autocrlf", "false"),
            ("core.symlinks", "true"),
            ("protocol.file.allow", "never"),
            ("protocol.ext.allow", "never"),
            ("advice.detachedHead", "false"),
            ("init.defaultBranch", "main"),
            ("fetch.fsckObjects", "true"),
            ("credential.helper", ""),
            *self._authorization(remote),
        ]
        env["GIT_CONFIG_COUNT"] = str(len(settings))
        for index, (key, value) in enumerate(settings):
            env[f"GIT_CONFIG_KEY_{index}"], env[f"GIT_CONFIG_VALUE_{index}"] = key, value
        return env

    def _authorization(self, remote: str) -> Iterator[tuple[str, str]]:
        """From the secrets GIT_AUTH_TOKEN[.host] and GIT_AUTH_HEADER[.host], for the repository's own server alone."""
        parts = urlsplit(remote) if "://" in remote else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            return
        from base64 import b64encode

        for suffix in (f".{parts.hostname}", ""):
            token = read_secret(self._request, f"GIT_AUTH_TOKEN{suffix}")
            header = read_secret(self._request, f"GIT_AUTH_HEADER{suffix}")
            value = ""
            if header is not None:
                value = header.decode("latin-1").strip()
            elif token is not None:
                value = "basic " + b64encode(b"x-access-token:" + token.strip()).decode()
            if value:
                host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
                yield (f"http.{host}.extraHeader", f"Authorization: {value}")
                return

    def _run(self, args: Sequence[str], remote: str, cwd: Path | None = None) -> str:
        self._cancel.check()
        process = subprocess.Popen(
            ["git", *args],
            cwd=cwd or self._tmp,
            env=self._environment(remote),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            umask=0o022,
            start_new_session=True,
        )
        while True:
            try:
                out, err = process.communicate(timeout=_POLL)
                break
            except subprocess.TimeoutExpired:
                if self._cancel.cancelled:
                    os.killpg(process.pid, 9)
                    process.communicate()
                    raise Cancelled("cancelled") from None
        if process.returncode:
            text = err.decode(errors="replace").strip().replace(remote, _shown(remote))
            raise Unavailable(f"git {args[0]} {_shown(remote)}: {text[-500:]}", hint="check the address and the access")
        return out.decode(errors="replace")


def _bare(remote: str) -> str:
    """Without user and password: what a kept .git may say."""
    if "://" not in remote:
        return remote
    parts = urlsplit(remote)
    user = "git@" if parts.scheme == "ssh" and parts.username else ""
    return urlunsplit((parts.scheme, user + parts.netloc.rpartition("@")[2], parts.path, "", ""))


_shown = _bare


def _git_dirs(folder: Path) -> list[Path]:
    """`.git` of the repository and of every submodule."""
    found = []
    for here, folders, files in os.walk(folder):
        if ".git" in folders or ".git" in files:
            found.append(Path(here) / ".git")
        folders[:] = [name for name in folders if name != ".git"]
    return found


def _settle(folder: Path, stamp: int) -> None:
    """Modes 0644 or 0755 as git has them, and one time for everything."""
    for here, folders, files in os.walk(folder, topdown=False):
        for name in [*files, *folders]:
            os.utime(os.path.join(here, name), (stamp, stamp), follow_symlinks=False)
    os.chmod(folder, 0o755)
    os.utime(folder, (stamp, stamp))


class GitSource(ContextSource):
    """A repository's files as a source: checked out at once, gone with `close`."""

    def __init__(
        self,
        git: GitRef,
        tmp: Path,
        request: BuildRequest,
        cancel: CancelToken,
        *,
        commit: str = "",
        keep_git_dir: bool = False,
    ) -> None:
        runner = Git(tmp, request, cancel)
        self.commit = commit or runner.resolve(git)
        keep = git.keep_git_dir if git.keep_git_dir is not None else keep_git_dir
        self._checkout, self.committed = runner.checkout(git, self.commit, keep_git_dir=keep)
        where = f"{_shown(git.remote)}#{git.ref}"
        try:
            root = self._inside(git, where, cancel)
            super().__init__(root, where=where, cancel=cancel)
        except BaseException:
            shutil.rmtree(self._checkout, ignore_errors=True)
            raise

    def _inside(self, git: GitRef, where: str, cancel: CancelToken) -> Path:
        """The subdirectory; links in its path are followed inside the checkout."""
        if not git.subdir:
            return self._checkout
        whole = ContextSource(self._checkout, where=where, cancel=cancel)
        try:
            node: Node | None = whole.lookup(git.subdir)
        finally:
            whole.close()
        if node is None or not node.is_dir:
            raise NotFound(f"{where} has no directory {git.subdir!r}")
        return self._checkout / node.path

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._checkout, ignore_errors=True)
