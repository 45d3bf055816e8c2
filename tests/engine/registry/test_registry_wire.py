"""The registry client's HTTP: odd and hostile answers, connections that are kept, addresses, proxies."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.cli.main import main
from engine.errors import InvalidInput
from engine.model import RegistryAuth
from engine.registry.config import RegistryConfig, Retry
from engine.registry.connections import Connections
from engine.registry.errors import Unreachable
from engine.registry.net import Network, chunks
from engine.registry.proxies import exempt, proxy_for
from engine.registry.url import Url, parse_url
from engine.service.images import ImageService
from engine.store.store import Store
from tests.engine.registry.scripted import Reply, Request, Scripted, sample

QUICK = Retry(tries=1, connect_timeout=2.0, read_timeout=2.0)


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[Url, list[bytes]]]:
    """A server that gives each connection one of `answers` for its first request, and closes it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    heard.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Url("http", "127.0.0.1", server.getsockname()[1], "/v2/"), heard
        thread.join()


def told(url: Url, method: str = "GET") -> tuple[int, bytes]:
    stop = CancelToken()
    network = Network(RegistryConfig(retry=QUICK), stop)
    try:
        response = network.send(url, {}, verify=True, method=method)
        try:
            return response.status_code, b"".join(chunks(network, response))
        finally:
            response.close()
    finally:
        stop.cancel()


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.0 200\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nTrailer: z\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\nContent-Length: 1\n\na", b"a"),
    ],
)  # fmt: skip
def test_answers_in_every_framing(answer: bytes, body: bytes) -> None:
    with answering(answer) as (url, heard):
        assert told(url) == (200, body)
    assert heard[0].startswith(b"GET /v2/ HTTP/1.1\r\nhost: 127.0.0.1:")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : spaced\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    with answering(answer) as (url, _), pytest.raises(Unreachable) as caught:
        told(url)
    assert str(caught.value)


def test_an_answer_without_a_body_has_none_whatever_its_head_says() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") as (url, _):
        assert told(url, "HEAD") == (200, b"")
    with answering(b"HTTP/1.1 204 None\r\n\r\n") as (url, _):
        assert told(url) == (204, b"")


def test_a_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with answering(answer, answer) as (url, heard):
        stop = CancelToken()
        network = Network(RegistryConfig(retry=QUICK, connections=Connections()), stop)
        for _ in range(2):
            response = network.send(url, {}, verify=True)
            assert b"".join(chunks(network, response)) == b"{}"
            response.close()
        stop.cancel()
        network.connections.close()
    assert len(heard) == 2


@pytest.mark.root
def test_a_pull_of_what_is_here_is_one_question(tmp_path: Path, scripted: Callable[..., Scripted]) -> None:
    registry, store = scripted(), Store(tmp_path)
    registry.add("a", "1", *sample(2))
    images, name = ImageService(store), f"{registry.address}/a:1"
    auth = RegistryAuth(registry.address, "me", "word")
    first = images.pull(name, lambda event: None, CancelToken())
    asked = len(registry.seen)
    phases: list[str] = []
    again = images.as_user(auth).pull(name, lambda event: phases.append(event.phase), CancelToken())
    assert again == first
    assert [one.method for one in registry.seen[asked:]] == ["HEAD"]
    assert phases == ["resolving", "exists", "done"]
    # Another image under the tag, then a part that is missing here: both are fetched.
    registry.add("a", "1", *sample(2, seed="other"))
    moved = images.pull(name, phases.append, CancelToken())  # type: ignore[arg-type]
    assert moved.digest != first.digest
    store.blobs.remove(store.images.manifest(moved).layers[0].digest)
    assert images.pull(name, lambda event: None, CancelToken()) == moved
    assert store.check() == []
    store.close()


@pytest.mark.root
def test_all_tags_page_by_page(
    tmp_path: Path, scripted: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {"": ('{"tags": ["1", "2"]}', "</v2/a/tags/list?last=2>; rel=next"), "last=2": ('{"tags": ["3"]}', "")}

    def script(request: Request) -> Reply | None:
        if not request.url.path.endswith("/tags/list"):
            return None
        body, link = pages[request.url.query]
        return Reply(200, body.encode(), {"Link": link} if link else {})

    registry = scripted(script)
    for tag in "123":
        registry.add("a", tag, *sample(1, seed=tag))
    assert main(["--root", str(tmp_path), "pull", "-a", f"{registry.address}/a"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "Pulling from" in line] == [f"{tag}: Pulling from a" for tag in "123"]
    assert f"Status: Downloaded newer image for {registry.address}/a\n" in said
    assert main(["--root", str(tmp_path), "pull", "-a", f"{registry.address}/a"]) == 0
    assert "Image is up to date" in capsys.readouterr().out
    assert main(["--root", str(tmp_path), "pull", "-a", f"{registry.address}/a:1"]) == 1
    pages[""] = ('{"tags": [1]}', "")
    assert main(["--root", str(tmp_path), "pull", "-a", f"{registry.address}/a"]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://Host:80/a?b=c#d", "http://host/a?b=c"),
        ("https://user:pw@host:444", "https://host:444/"),
        ("/v2/x?digest=sha256%3Aa", "https://base:5000/v2/x?digest=sha256%3Aa"),
        ("?n=1", "https://base:5000/v2/?n=1"),
        ("//other/x", "https://other/x"),
        ("http://[::1]:5000/ü", "http://[::1]:5000/%C3%BC"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    found = parse_url(text, Url("https", "base", 5000, "/v2/"))
    assert str(found) == shown


@pytest.mark.parametrize(
    "text",
    ["ftp://host/", "http://", "http://a b/", "http://a\tb/", "http://host:x/", "http://host:99999/", "http://h\\@g/",
     "http://[::1/", "http://::1/", "http://a%2eb/", "http://h/\r\nX: y", "file:///etc", "http://münchen.de/"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert parse_url(text, Url("https", "base", 5000, "/v2/")) is None


def test_parameters_take_the_place_of_those_of_their_name() -> None:
    url = Url("http", "h", 80, "/u?state=a%2Fb&digest=old&x")
    assert url.with_query([("digest", "sha256:a b")]).target == "/u?state=a%2Fb&x&digest=sha256%3Aa%20b"


@pytest.mark.parametrize(
    ("listed", "host", "port", "direct"),
    [
        ("*", "any.org", 443, True),
        ("example.org", "example.org", 443, True),
        ("example.org", "r.example.org", 443, True),
        ("example.org", "notexample.org", 443, False),
        (".example.org", "example.org", 443, False),
        ("*.example.org", "r.example.org", 443, True),
        ("r.org:5000", "r.org", 5000, True),
        ("r.org:5000", "r.org", 443, False),
        ("10.0.0.0/8, 192.0.2.7", "10.1.2.3", 443, True),
        ("10.0.0.0/8, 192.0.2.7", "192.0.2.7", 443, True),
        ("10.0.0.0/8", "11.0.0.1", 443, False),
        ("[fd00::1]:5000", "fd00::1", 5000, True),
        ("", "r.org", 443, False),
    ],
)
def test_who_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch, listed: str, host: str, port: int, direct: bool
) -> None:
    monkeypatch.setenv("NO_PROXY", listed)
    assert exempt(host, port) is direct


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    there = Url("https", "r.org", 443, "/")
    assert proxy_for(there) is None
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ss@proxy:3128")
    found = proxy_for(there)
    assert found is not None
    assert (found.host, found.port, found.authorization) == ("proxy", 3128, "Basic bWU6cEBzcw==")
    assert "bWU6" not in repr(found)
    assert proxy_for(Url("https", "127.0.0.1", 443, "/")) is None
    assert proxy_for(Url("http", "r.org", 80, "/")) is None
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:secret@proxy")
    with pytest.raises(InvalidInput, match="socks5://proxy") as caught:
        proxy_for(there)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    monkeypatch.setenv("REQUEST_METHOD", "GET")  # a CGI program: HTTP_PROXY is what a client sent (httpoxy)
    assert proxy_for(Url("http", "r.org", 80, "/")) is None


def test_https_goes_through_a_proxy_as_a_tunnel(
    scripted: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    monkeypatch.delenv("NO_PROXY", raising=False)
    with answering(refusing) as (url, heard):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:word@127.0.0.1:{url.port}")
        with pytest.raises(Unreachable, match="407") as caught:
            told(Url("https", "registry.example", 443, "/v2/"))
    assert caught.value.connecting
    assert heard[0].startswith(b"CONNECT registry.example:443 HTTP/1.1\r\nHost: registry.example:443\r\n")
    assert b"Proxy-Authorization: Basic bWU6d29yZA==" in heard[0]
    assert b"GET" not in heard[0]
