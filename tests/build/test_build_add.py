"""ADD: archives by their content, URLs with checksums, git repositories; and what none of them may do."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import http.server
import io
import lzma
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.archive.compression import compressor
from engine.build.git import parse_git_ref
from engine.errors import DockerfileError, EngineError, InvalidInput
from engine.model import BuildSecret
from tests.build.conftest import Built, write_files

pytestmark = pytest.mark.root
Make = Callable[..., Built]


def tar(*members: tuple[str, str | bytes | None, dict[str, object]]) -> bytes:
    """(name, content; None for a directory, attributes of the header)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            data = content.encode() if isinstance(content, str) else content or b""
            info.size = len(data)
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.mode, info.mtime = (0o755 if content is None else 0o640), 1_500_000_000
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    out = io.BytesIO()
    sink = compressor(out, "zstd")
    sink.write(data)
    sink.close()
    return out.getvalue()


PLAIN = tar(
    ("d", None, {"mode": 0o750}),
    ("d/f", "content", {"uid": 5, "gid": 6}),
    ("l", "", {"type": tarfile.SYMTYPE, "linkname": "d/f"}),
)


@pytest.mark.parametrize(
    "pack", [lambda d: d, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gzip", "bzip2", "xz"]
)
def test_an_archive_is_known_by_its_content(make: Make, pack: Callable[[bytes], bytes]) -> None:
    built = make("ADD file.bin /x/", {"file.bin": pack(PLAIN)})
    layer = built.layers[-1]
    assert layer["x/d/f"].content == b"content"
    assert (layer["x/d/f"].uid, layer["x/d/f"].gid, layer["x/d/f"].mode, layer["x/d/f"].mtime) == (
        5,
        6,
        0o640,
        1_500_000_000,
    )
    assert layer["x/d"].mode == 0o750
    assert layer["x/l"].link == "d/f"
    assert "x/file.bin" not in layer


def test_what_is_no_archive_is_copied(make: Make) -> None:
    files = {
        "text.tar": "no tar",
        "empty.tar.gz": gzip.compress(b""),
        "text.gz": gzip.compress(b"text"),
        "cut.tar": PLAIN[:100],
    }
    built = make("ADD text.tar empty.tar.gz text.gz cut.tar /x/", files)
    assert sorted(built.layers[-1]) == ["x", "x/cut.tar", "x/empty.tar.gz", "x/text.gz", "x/text.tar"]


def test_unpack_off_chown_and_exclude(make: Make) -> None:
    built = make("ADD --unpack=false a.tar /x/\nADD --chown=app a.tar /y/", {"a.tar": PLAIN})
    assert built.file("x/a.tar").content == PLAIN
    assert (built.file("y/d/f").uid, built.file("y/d/f").gid) == (1000, 1001)


def test_an_archive_merges_and_replaces(make: Make) -> None:
    archive = tar(
        ("keep/new", "new", {}),
        ("file", None, {}),
        ("file/inside", "now a directory", {}),
        ("dir", "now a file", {}),
        ("link/x", "through the image's own link", {}),
    )
    built = make(
        "RUN mkdir -p /keep /dir/sub && echo old > /keep/old && echo f > /file\n"
        "ADD a.tar /\nRUN find /keep /file /dir /var/lib -type f | sort > /found",
        {"a.tar": archive},
    )
    assert built.text("found").split() == ["/dir", "/file/inside", "/keep/new", "/keep/old", "/var/lib/x"]


HOSTILE: dict[str, bytes] = {
    "climbs": tar(("../../../../tmp/canary-add", "x", {})),
    "absolute": tar(("/../../tmp/canary-add", "x", {})),
    "hard link out": tar(("h", "", {"type": tarfile.LNKTYPE, "linkname": "../../../../etc/passwd"})),
    "whiteout device": tar(("w", "", {"type": tarfile.CHRTYPE, "devmajor": 0, "devminor": 0})),
    "whiteout name": tar((".wh.etc", "", {})),
    "deep": tar(("d/" * 600 + "f", "x", {})),
    "long name": tar(("n" * 300, "x", {})),
    "huge": tar(
        (
            "f",
            "",
            {
                "pax_headers": {
                    "GNU.sparse.major": "1",
                    "GNU.sparse.minor": "0",
                    "GNU.sparse.name": "f",
                    "GNU.sparse.realsize": str(1 << 60),
                }
            },
        )
    ),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_archives(make: Make, name: str) -> None:
    """Table 1.4: contained or refused; nothing outside the layer changes."""
    before = os.stat("/etc/passwd")
    built = None
    with contextlib.suppress(EngineError):
        built = make("ADD a.tar /in/", {"a.tar": HOSTILE[name]})
    if built is not None:
        assert all(path == "in" or path.startswith("in/") for path in built.paths())
        if name == "hard link out":
            assert b"root" not in built.file("in/h").content
    assert not Path("/tmp/canary-add").exists()
    after = os.stat("/etc/passwd")
    assert (before.st_nlink, before.st_mtime_ns) == (after.st_nlink, after.st_mtime_ns)


def test_links_in_an_archive_stay_in_the_destination(make: Make, tmp_path: Path) -> None:
    archive = tar(
        ("out", "", {"type": tarfile.SYMTYPE, "linkname": str(tmp_path)}),
        ("out/canary", "x", {}),
        ("up", "", {"type": tarfile.SYMTYPE, "linkname": "../../../.."}),
        ("up/top", "x", {}),
    )
    built = make("ADD a.tar /dest/", {"a.tar": archive})
    assert not (tmp_path / "canary").exists()
    assert built.file(f"dest{tmp_path}/canary").content == b"x"
    assert built.file("dest/top").content == b"x"


def test_attributes_that_would_forge_an_overlay(make: Make) -> None:
    header = {"pax_headers": {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.note": "kept"}}
    built = make("ADD a.tar /x/", {"a.tar": tar(("d", None, header), ("d/f", "x", {}))})
    assert dict(built.file("x/d").xattrs) == {"user.note": b"kept"}


def test_files_that_would_delete_others(make: Make) -> None:
    with pytest.raises(DockerfileError, match=r"\.wh\. means a deletion"):
        make("COPY d /d/", {"d/.wh.passwd": "x"})


# --- URLs -----------------------------------------------------------------------------------------------


class Server:
    """Answers by a table of paths; notes what was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                code, headers, body = outer.pages.get(self.path.partition("?")[0], (404, {}, b""))
                if headers.get("ETag") and self.headers.get("If-None-Match") == headers["ETag"]:
                    code, body = 304, b""
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                if code != 304 and "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


LAST_MODIFIED = {"Last-Modified": "Fri, 02 Jan 2015 03:04:05 GMT"}


def test_a_url(make: Make, server: Server) -> None:
    server.pages["/a/f.txt"] = (200, LAST_MODIFIED, b"body")
    built = make(f"ADD {server.url}/a/f.txt?x=1 /d/\nADD --chmod=644 --chown=1:2 {server.url}/a/f.txt /named")
    entry = built.file("d/f.txt")
    assert (entry.content, entry.mode, entry.uid, entry.gid, entry.mtime) == (b"body", 0o600, 0, 0, 1_420_167_845)
    named = built.file("named")
    assert (named.content, named.mode, named.uid, named.gid) == (b"body", 0o644, 1, 2)
    assert built.history[-1][0] == f"ADD --chown=1:2 --chmod=644 {server.url}/a/f.txt /named # buildkit"


def test_a_url_is_asked_for_again_and_cached_by_content(make: Make, server: Server) -> None:
    server.pages["/f"] = (200, {"ETag": '"1"'}, b"one")
    text = f"ADD {server.url}/f /f"
    assert make(text).cached[-1] is False
    assert make(text).cached[-1] is True
    assert server.asked[-1][1]["if-none-match"] == '"1"'
    server.pages["/f"] = (200, {"ETag": '"2"'}, b"two")
    built = make(text)
    assert (built.cached[-1], built.text("f")) == (False, "two")


def test_checksums(make: Make, server: Server) -> None:
    server.pages["/f"] = (200, {}, b"right")
    digest = hashlib.sha256(b"right").hexdigest()
    make(f"ADD --checksum=sha256:{digest} {server.url}/f /f")
    count = len(server.asked)
    make(f"ADD --checksum=sha256:{digest} {server.url}/f /g")
    assert len(server.asked) == count  # what is known by its digest is not asked for
    with pytest.raises(DockerfileError, match="hashes to"):
        make(f"ADD --checksum=sha256:{'0' * 64} {server.url}/f /f")
    for bad in ("sha512:" + "0" * 128, "sha256:xyz", "md5:1"):
        with pytest.raises(DockerfileError, match="not a checksum"):
            make(f"ADD --checksum={bad} {server.url}/f /f")
    with pytest.raises(DockerfileError, match="requires HTTP"):
        make(f"ADD --checksum=sha256:{digest} f /f", {"f": "x"})
    with pytest.raises(DockerfileError, match="multiple sources"):
        make(f"ADD --checksum=sha256:{digest} {server.url}/f {server.url}/g /d/")


def test_unpack_of_a_url(make: Make, server: Server) -> None:
    server.pages["/a.tgz"] = (200, {}, gzip.compress(PLAIN))
    built = make(f"ADD {server.url}/a.tgz /packed/\nADD --unpack {server.url}/a.tgz /open/")
    assert sorted(built.layers[-2]) == ["packed", "packed/a.tgz"]
    assert built.file("open/d/f").content == b"content"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Location": "http://169.254.169.254/latest"}, "link-local"),
        ({"Location": "file:///etc/passwd"}, "no web address"),
        ({"Location": "/loop"}, "redirects"),
    ],
)
def test_redirects_that_are_not_followed(make: Make, server: Server, headers: dict[str, str], message: str) -> None:
    """BD-14."""
    server.pages["/loop"] = (302, headers, b"")
    with pytest.raises(EngineError, match=message):
        make(f"ADD {server.url}/loop /f")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"]
)
def test_addresses_that_a_build_may_not_read(make: Make, host: str) -> None:
    """BD-14."""
    with pytest.raises(EngineError, match="link-local address"):
        make(f"ADD http://{host}/ /f")


def test_names_from_a_server(make: Make, server: Server) -> None:
    """BD-14: a server's Content-Disposition names nothing, and an escaped path is one component."""
    for path in ("/x", "/%2e%2e%2f%2e%2e%2fetc%2fcron"):
        server.pages[path] = (200, {"Content-Disposition": 'attachment; filename="../../evil"'}, b"x")
        built = make(f"ADD {server.url}{path} /d/")
        assert sorted(built.layers[-1]) in (["d", "d/x"], ["d", "d/cron"])


def test_broken_downloads(make: Make, server: Server) -> None:
    server.pages["/short"] = (200, {"Content-Length": "10"}, b"12345")
    server.pages["/gone"] = (500, {}, b"")
    for path, message in (("/short", "broke off"), ("/gone", "answers 500"), ("/none", "not there")):
        with pytest.raises(EngineError, match=message):
            make(f"ADD {server.url}{path} /f")
    with pytest.raises(DockerfileError, match="can't be a URL for COPY"):
        make(f"COPY {server.url}/f /f")


def test_a_secret_authorizes_a_download_and_goes_nowhere_else(make: Make, server: Server) -> None:
    other = Server()
    server.pages["/f"] = (302, {"Location": f"{other.url}/f"}, b"")
    other.pages["/f"] = (200, {}, b"x")
    make(f"ADD {server.url}/f /f", secrets=(BuildSecret("HTTP_AUTH_TOKEN_127.0.0.1", value=b"t0k3n"),))
    assert server.asked[0][1]["authorization"] == "Bearer t0k3n"
    assert "authorization" not in other.asked[0][1]
    other.close()


# --- git ------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, server: Server) -> Callable[..., str]:
    """`repository({…})` commits files and serves the repository over plain HTTP. Returns the commit."""
    work = tmp_path / "work"
    env = {
        **os.environ,
        "GIT_AUTHOR_DATE": "2020-01-02T03:04:05Z",
        "GIT_COMMITTER_DATE": "2020-01-02T03:04:05Z",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }

    def git(*args: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
        done = subprocess.run(["git", *identity, *args], cwd=work, env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(files: dict[str, str], links: dict[str, str] | None = None, tag: str = "") -> str:
        if not work.exists():
            work.mkdir()
            git("init", "-q")
        write_files(work, files)
        for name, target in (links or {}).items():
            os.symlink(target, work / name)
        git("add", "-A")
        git("commit", "-qm", "c")
        if tag:
            git("tag", "-a", "-m", tag, tag)
        git("update-server-info")
        for folder, _, names in os.walk(work / ".git"):
            for name in names:
                path = Path(folder) / name
                server.pages[f"/r.git/{path.relative_to(work / '.git')}"] = (200, {}, path.read_bytes())
        return git("rev-parse", "HEAD")

    return commit


@pytest.mark.peer("git")
def test_a_repository(make: Make, server: Server, repository: Callable[..., str]) -> None:
    first = repository({"f": "one", "sub/g": "sub"}, tag="v1")
    repository({"f": "second"})
    built = make(
        f"ADD {server.url}/r.git /whole\nADD {server.url}/r.git#v1:sub /part\nADD {server.url}/r.git?ref={first} /old/"
    )
    assert built.text("whole/f") == "second"
    assert sorted(built.layers[-2]) == ["part", "part/g"]
    assert built.text("old/f") == "one"
    entry = built.file("whole/f")
    assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (0o644, 0, 0, 1_577_934_245)
    assert built.file("whole/sub").mode == 0o755


@pytest.mark.peer("git")
def test_a_repository_is_cached_by_its_commit(make: Make, server: Server, repository: Callable[..., str]) -> None:
    repository({"f": "one"})
    text = f"ADD {server.url}/r.git#main /r"
    assert make(text).cached[-1] is False
    assert make(text).cached[-1] is True
    repository({"f": "second"})
    assert make(text).text("r/f") == "second"


@pytest.mark.peer("git")
def test_keep_git_dir_and_checksum(make: Make, server: Server, repository: Callable[..., str]) -> None:
    commit = repository({"f": "one"}, tag="v1")
    built = make(f"ADD --keep-git-dir=true --checksum={commit[:12]} {server.url}/r.git#v1 /r")
    assert built.file("r/.git/HEAD").content.decode().strip() == commit
    assert f"url = {server.url}/r.git" in built.text("r/.git/config")
    with pytest.raises(DockerfileError, match="is at"):
        make(f"ADD --checksum={'0' * 40} {server.url}/r.git#v1 /r")
    with pytest.raises(DockerfileError, match="has no ref"):
        make(f"ADD {server.url}/r.git#nowhere /r")


@pytest.mark.peer("git")
def test_a_subdirectory_never_leads_out(make: Make, server: Server, repository: Callable[..., str]) -> None:
    """BD-11."""
    repository({"f": "x", "d/g": "y"}, {"etc": "/etc", "up": "../../..", "ok": "d"})
    for subdir in ("etc", "nowhere", "f"):
        with pytest.raises(EngineError, match="has no directory"):
            make(f"ADD {server.url}/r.git#main:{subdir} /r")
    for subdir in ("../..", "d/../../.."):
        with pytest.raises(EngineError, match="leads out"):
            make(f"ADD {server.url}/r.git#main:{subdir} /r")
    assert make(f"ADD {server.url}/r.git#main:ok /r").text("r/g") == "y"


@pytest.mark.parametrize(
    "address",
    [
        "https://h/r.git#--upload-pack=touch",
        "https://h/r.git#-x",
        "https://h/r.git?ref=a..b",
        "ssh://-oProxyCommand=touch/r.git",
        "ssh://-x@h/r.git",
        "https://h/r.git#main\x01",
        "https://h/r.git?surprise=1",
        "https://h/r.git?submodules=perhaps",
        "https://h/r.git?ref=",
        "https://h/r.git?branch=a&tag=b",
        "https://h/r.git?mtime=never",
        "https://h/r.git?checksum=xyz",
    ],
)
def test_addresses_that_git_could_misread(address: str) -> None:
    """BD-11: nothing that begins like an option, or names what is not there."""
    with pytest.raises(InvalidInput):
        parse_git_ref(address)


@pytest.mark.parametrize(
    "text",
    ["file:///etc.git", "ext::sh -c x.git", "/srv/r.git", "./r.git", "../r.git", "r.git", "https://h/x", "C:/x.git"],
)
def test_what_is_no_git_address(text: str) -> None:
    assert parse_git_ref(text) is None


@pytest.mark.parametrize(
    ("text", "remote", "ref", "subdir"),
    [
        ("https://h/o/r.git", "https://h/o/r.git", "", ""),
        ("https://h/o/r.git#b:s/t", "https://h/o/r.git", "b", "s/t"),
        ("https://h/o/r.git?branch=b&subdir=s", "https://h/o/r.git", "refs/heads/b", "s"),
        ("https://h/o/r.git?tag=t", "https://h/o/r.git", "refs/tags/t", ""),
        ("git@h:o/r", "git@h:o/r", "", ""),
        ("git@h:o/r.git#v1", "git@h:o/r.git", "v1", ""),
        ("ssh://git@h:22/o/r#:s", "ssh://git@h:22/o/r", "", "s"),
        ("git://h/r", "git://h/r", "", ""),
    ],
)
def test_git_addresses(text: str, remote: str, ref: str, subdir: str) -> None:
    found = parse_git_ref(text)
    assert found is not None
    assert (found.remote, found.ref, found.subdir) == (remote, ref, subdir)


@pytest.mark.peer("git")
def test_no_configuration_or_hook_of_the_host_is_used(
    make: Make, server: Server, repository: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BD-11: a host's git configuration could run a program on every checkout."""
    repository({"f": "x"})
    hooks = tmp_path / "hooks"
    write_files(hooks, {"post-checkout": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (hooks / "post-checkout").chmod(0o755)
    (tmp_path / ".gitconfig").write_text(f"[core]\n\thooksPath = {hooks}\n[init]\n\ttemplateDir = {tmp_path}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.hooksPath={hooks}'")
    make(f"ADD {server.url}/r.git /r")
    assert not (tmp_path / "ran").exists()
