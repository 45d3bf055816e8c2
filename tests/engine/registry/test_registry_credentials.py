"""Credentials: where they come from, and that they go nowhere else."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.errors import EngineError, InvalidInput, Unauthorized, Unavailable
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.config import Credentials, RegistryConfig, Retry
from engine.registry.credentials import Keychain
from engine.registry.login import try_login
from engine.registry.pull import pull
from engine.store.blobs import BlobStore
from tests.engine.registry.scripted import Reply, Request, Script, Scripted, sample

FAST = Retry(tries=2, base=0.001, cap=0.01)
HELPER = """#!/bin/sh
echo "$1" >> {log}
case "$1" in
get) read -r server; grep -q "^$server " {db} && sed -n "s|^$server ||p" {db} || {{ echo "credentials not found in native keychain"; exit 1; }};;
store) read -r line; echo "$line" > {stored};;
erase) read -r server; sed -i "\\|^$server |d" {db};;
esac
"""


class Home:
    """A user's folder with Docker's configuration and credential helpers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {"HOME": str(path), "PATH": f"{path}/bin:{os.environ['PATH']}"}
        (path / "bin").mkdir()
        (path / ".docker").mkdir()

    def config(self, document: object) -> Keychain:
        (self.path / ".docker/config.json").write_text(json.dumps(document))
        return Keychain(self.env)

    def program(self, name: str, text: str) -> None:
        path = self.path / "bin" / f"docker-credential-{name}"
        path.write_text(text)
        path.chmod(0o755)

    def helper(self, name: str, entries: dict[str, dict[str, str]]) -> None:
        database = self.path / f"{name}.db"
        database.write_text("".join(f"{key} {json.dumps(value)}\n" for key, value in entries.items()))
        log, stored = self.path / f"{name}.log", self.path / f"{name}.stored"
        self.program(name, HELPER.format(db=database, log=log, stored=stored))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_files_helpers_and_their_order(home: Home) -> None:
    home.helper("one", {"one.example": {"Username": "u1", "Secret": "s1"}})
    home.helper(
        "all",
        {
            "https://index.docker.io/v1/": {"Username": "hub", "Secret": "h"},
            "token.example": {"Username": "<token>", "Secret": "t"},
        },
    )
    filed = {"auths": {"https://file.example/v1/": {"auth": packed("a:b:c")}, "odd.example": {"identitytoken": "t"}}}
    keychain = home.config({**filed, "credHelpers": {"one.example": "one"}})
    assert keychain.get("one.example") == Credentials("u1", "s1")
    assert keychain.get("file.example") == Credentials("a", "b:c")
    assert keychain.get("odd.example") == Credentials(identity_token="t")
    assert keychain.get("nobody.example") is None
    keychain = home.config({**filed, "credHelpers": {"one.example": "one"}, "credsStore": "all"})
    assert keychain.get("registry-1.docker.io") == keychain.get("docker.io") == Credentials("hub", "h")
    assert keychain.get("token.example") == Credentials(identity_token="t")
    assert keychain.get("file.example") is None  # with a store, the file's own entries do not count
    assert keychain.get("one.example") == Credentials("u1", "s1")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "not installed"),
        ("#!/bin/sh\nexit 3\n", "it says ''"),
        ("#!/bin/sh\nprintf '\\033[2Jboom'; exit 1\n", r"it says ' \[2Jboom'"),
        ("#!/bin/sh\necho junk\n", "not answer in the form"),
        ("#!/bin/sh\necho '[1]'\n", "not answer in the form"),
        ("#!/bin/sh\necho '{\"Secret\": 3}'\n", "not answer in the form"),
    ],
)
def test_a_helper_that_fails_is_an_error_and_no_fallback(
    home: Home, scripted: Callable[..., Scripted], program: str | None, message: str
) -> None:
    """RG-10 (CVE-2021-41092): no request carries anybody's credentials."""
    registry = scripted(lambda request: Reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'}))
    if program:
        home.program("broken", program)
    keychain = home.config(
        {
            "credHelpers": {registry.address: "broken"},
            "auths": {
                "https://index.docker.io/v1/": {"auth": packed("hub:secret")},
                registry.address: {"auth": packed("a:b")},
            },
        }
    )
    with pytest.raises(Unauthorized, match=message):
        fetch(registry, RegistryConfig(retry=FAST, keychain=keychain), home.path)
    assert registry.credentials_seen() == []


@pytest.mark.parametrize("name", ["../evil", "-x", "", "a/b", "a b"])
def test_helper_names_are_names(home: Home, name: str) -> None:
    keychain = home.config({"credHelpers": {"h.example": name}})
    if name:
        with pytest.raises(InvalidInput, match="not the name"):
            keychain.get("h.example")
    else:
        assert keychain.get("h.example") is None


def fetch(registry: Scripted, config: RegistryConfig, folder: Path, name: str = "a:1") -> None:
    fetch_from(registry.address, config, folder, name)


def fetch_from(address: str, config: RegistryConfig, folder: Path, name: str = "a:1") -> None:
    folder.joinpath("tmp").mkdir(exist_ok=True)
    store = BlobStore(folder / "oci", folder / "tmp")
    pull(
        Reference.parse(f"{address}/{name}"),
        store,
        config,
        platform=Platform.host(),
        progress=lambda one: None,
    )


def guarded(other: dict[str, str], *, tokens: list[str] | None = None, lifetime: int = 300) -> Script:
    """A registry that wants a bearer token of its own token server, which wants `me:secret` or an identity token."""
    given: list[str] = tokens if tokens is not None else []

    def script(request: Request) -> Reply | None:
        if request.url.path == "/token":
            basic = request.headers.get("Authorization") == f"Basic {packed('me:secret')}"
            form = request._body().decode() if request.command == "POST" else ""
            if not basic and "refresh_token=identity" not in form:
                return Reply(401, b'{"errors": [{"message": "who are you"}]}')
            other.update(request.query, form=form)
            given.append(f"t{len(given)}")
            return Reply(200, json.dumps({"token": given[-1], "expires_in": lifetime}).encode())
        if not given or request.headers.get("Authorization") != f"Bearer {given[-1]}":
            realm = f'Bearer realm="http://{request.headers["Host"]}/token",service="s",scope="repository:a:pull"'
            return Reply(401, headers={"WWW-Authenticate": realm})
        return None

    return script


@pytest.mark.parametrize("credentials", [Credentials("me", "secret"), Credentials(identity_token="identity")])
def test_bearer_tokens_by_password_and_by_identity_token(
    tmp_path: Path, scripted: Callable[..., Scripted], credentials: Credentials
) -> None:
    asked: dict[str, str] = {}
    tokens: list[str] = []
    registry = scripted(guarded(asked, tokens=tokens))
    registry.add("a", "1", *sample(3))
    fetch(registry, RegistryConfig(credentials={registry.address: credentials}, retry=FAST), tmp_path)
    assert len(tokens) == 1  # one token serves all threads
    if credentials.username:
        assert (asked["scope"], asked["service"], asked["account"]) == ("repository:a:pull", "s", "me")
    else:
        assert "grant_type=refresh_token" in asked["form"]
    with pytest.raises(Unauthorized, match="who are you"):
        fetch(
            registry,
            RegistryConfig(credentials={registry.address: Credentials("me", "wrong")}, retry=FAST),
            tmp_path / "x" if (tmp_path / "x").mkdir() is None else tmp_path,
        )


def test_an_expired_token_is_renewed_on_the_way(tmp_path: Path, scripted: Callable[..., Scripted]) -> None:
    tokens: list[str] = []
    inner = guarded({}, tokens=tokens)

    def script(request: Request) -> Reply | None:
        if "/blobs/" in request.path and len(tokens) == 1:
            tokens.append("moved on")  # the first token is no longer the one that the registry takes
        return inner(request)

    registry = scripted(script)
    registry.add("a", "1", *sample(2))
    config = RegistryConfig(credentials={registry.address: Credentials("me", "secret")}, retry=FAST)
    fetch(registry, config, tmp_path)
    assert len(tokens) >= 3


def test_login_keeps_what_works_and_logout_forgets(
    home: Home, scripted: Callable[..., Scripted], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = scripted(guarded({}))
    for key, value in home.env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("WORKBENCH_ROOT", str(home.path / "root"))
    home.config({"auths": {"other.example": {"auth": packed("x:y")}}, "HttpHeaders": {"A": "b"}})

    def login(password: str) -> int:
        monkeypatch.setattr("sys.stdin", __import__("io").StringIO(password + "\n"))
        return main(["login", "-u", "me", "--password-stdin", registry.address])

    assert login("wrong") == 1
    assert "does not accept the name and password" in capsys.readouterr().err
    assert login("secret") == 0
    written = capsys.readouterr()
    assert written.out == "Login Succeeded\n"
    assert "unencrypted" in written.err
    path = home.path / ".docker/config.json"
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(path.read_text())
    assert document["HttpHeaders"] == {"A": "b"}
    assert document["auths"] == {
        "other.example": {"auth": packed("x:y")},
        registry.address: {"auth": packed("me:secret")},
    }
    assert main(["logout", registry.address]) == 0
    assert list(json.loads(path.read_text())["auths"]) == ["other.example"]
    home.helper("keep", {})
    home.config({"credsStore": "keep"})
    assert login("secret") == 0
    assert json.loads((home.path / "keep.stored").read_text()) == {
        "ServerURL": registry.address,
        "Username": "me",
        "Secret": "secret",
    }
    assert "auths" not in json.loads(path.read_text())
    assert "secret" not in capsys.readouterr().out


def test_amazons_registry_through_the_sdk(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    asked: list[object] = []

    class Client:
        def get_authorization_token(self, **kwargs: object) -> object:
            asked.append(kwargs)
            return {"authorizationData": [{"authorizationToken": packed("AWS:short-lived")}]}

    sdk = types.ModuleType("boto3")
    sdk.client = lambda name, region_name: asked.append((name, region_name)) or Client()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boto3", sdk)
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    assert home.config({}).get(host) == Credentials("AWS", "short-lived")
    assert asked == [("ecr", "eu-west-1"), {"registryIds": ["123456789012"]}]
    assert home.config({}).get("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example") is None
    assert home.config({"auths": {host: {"auth": packed("by:hand")}}}).get(host) == Credentials("by", "hand")
    sdk.client = lambda name, region_name: (_ for _ in ()).throw(RuntimeError("no role"))  # type: ignore[attr-defined]
    with pytest.raises(Unauthorized, match="no role"):
        home.config({}).get(host)


# --- TLS ---------------------------------------------------------------------------------------------------


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


class Authority:
    """A certificate authority with one server's and one client's certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        openssl(
            "req",
            "-x509",
            *key,
            "-subj",
            "/CN=test authority",
            "-keyout",
            f"{folder}/ca.key",
            "-out",
            f"{folder}/ca.crt",
        )
        for name, subject in (("server", "127.0.0.1"), ("client", "someone")):
            openssl(
                "req", *key[:4], "-nodes", "-subj", f"/CN={subject}", "-addext", "subjectAltName=IP:127.0.0.1",
                "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr",
            )  # fmt: skip
            openssl(
                "x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key",
                "-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", f"{folder}/{name}.pem",
            )  # fmt: skip

    def serve(self, registry: Scripted, *, ask_client: bool = False) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.folder / "ca.crt")
        registry.server.socket = context.wrap_socket(registry.server.socket, server_side=True)


@pytest.mark.peer("openssl")
def test_certs_d_gives_authorities_and_client_certificates(tmp_path: Path, scripted: Callable[..., Scripted]) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    registry = scripted()
    ours.serve(registry, ask_client=True)
    registry.add("a", "1", *sample(1))
    folder = tmp_path / "certs.d" / registry.address
    folder.mkdir(parents=True)
    config = RegistryConfig(retry=FAST, certs=(tmp_path / "certs.d",))
    (folder / "ca.crt").write_bytes((ours.folder / "ca.crt").read_bytes())
    with pytest.raises(Unavailable):
        fetch(registry, config, tmp_path)  # without a client's certificate
    for source, target in (("client.pem", "client.cert"), ("client.key", "client.key")):
        (folder / target).write_bytes((ours.folder / source).read_bytes())
    fetch(registry, config, tmp_path)
    (folder / "ca.crt").write_bytes((other.folder / "ca.crt").read_bytes())
    before = len(registry.seen)
    with pytest.raises(Unavailable, match="cannot be trusted"):
        fetch(registry, config, tmp_path)  # and no plain HTTP in its stead
    assert len(registry.seen) == before
    (folder / "client.key").unlink()
    with pytest.raises(InvalidInput, match=r"certificates in .* cannot be used"):
        fetch(registry, config, tmp_path)


@pytest.mark.peer("openssl")
def test_rg04_a_refused_certificate_is_not_answered_by_plain_http(tmp_path: Path) -> None:
    """Also where plain HTTP could be spoken (loopback), and at a port that understands both."""
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.folder / "server.pem", ours.folder / "server.key")
    first: list[bytes] = []

    class Both(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            first.append(self.request.recv(1, socket.MSG_PEEK))
            if first[-1] == b"\x16":  # a TLS handshake (RFC 8446, 5.1)
                with contextlib.suppress(OSError):
                    context.wrap_socket(self.request, server_side=True).close()
            elif first[-1]:
                self.request.recv(65536)
                self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Both) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        folder = tmp_path / "certs.d" / address
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes((other.folder / "ca.crt").read_bytes())
        config = RegistryConfig(retry=FAST, certs=(tmp_path / "certs.d",))
        with pytest.raises(Unavailable, match="cannot be trusted"):
            fetch_from(address, config, tmp_path)
        server.shutdown()
    assert set(first) == {b"\x16"}


# --- mirrors and proxies -----------------------------------------------------------------------------------


def test_mirrors_fall_through_and_get_no_credentials_of_the_registry(
    tmp_path: Path, scripted: Callable[..., Scripted]
) -> None:
    manifest, blobs = sample(2)
    down = scripted(lambda request: Reply(503))
    lacking = scripted()
    lacking.add("a", "1", manifest, {})
    registry = scripted(
        lambda request: (
            None
            if request.headers.get("Authorization")
            else Reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        )
    )
    registry.add("a", "1", manifest, blobs)
    config = RegistryConfig(
        mirrors={registry.address: ("http://127.0.0.1:1", f"http://{down.address}", f"http://{lacking.address}")},
        credentials={registry.address: Credentials("me", "secret")},
        retry=FAST,
    )
    fetch(registry, config, tmp_path)
    assert down.seen
    assert lacking.requests("GET", "/blobs/")
    assert down.credentials_seen() + lacking.credentials_seen() == []


def test_a_proxy_is_asked_unless_the_host_is_exempt(
    tmp_path: Path, scripted: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = scripted(lambda request: Reply(404))
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{proxy.address}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    config = RegistryConfig(insecure=frozenset({"192.0.2.1:80"}), retry=Retry(tries=1, connect_timeout=0.2))
    with pytest.raises(EngineError):
        try_login("192.0.2.1:80", Credentials("a", "b"), config)
    asked = [(one.method, one.path) for one in proxy.seen]
    assert ("GET", "http://192.0.2.1/v2/") in asked
    assert proxy.credentials_seen() == []
    monkeypatch.setenv("NO_PROXY", "192.0.2.0/24")
    with pytest.raises(EngineError):
        try_login("192.0.2.1:80", Credentials("a", "b"), config)
    assert len(proxy.seen) == len(asked)
