"""`--host-ca`: RUN steps see the host's bundle and proxies; nothing of it is left in the image, its config or a cache key."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.api import BuildFinished, BuildRequest, StepFinished, StepOutput
from engine.base.settings import build_settings
from engine.build.options import check_hosts, parse_ulimit
from engine.errors import InvalidInput
from engine.local import LocalEngine, open_engine
from engine.model import Ulimit
from engine.service.host_trust import host_bundle, prepare, proxies, scrub
from engine.store.view import LayerView

pytestmark = pytest.mark.root
HOST, IMAGE = "-----HOST BUNDLE-----\n", "-----IMAGE BUNDLE-----\n"
PLACE = "etc/ssl/certs/ca-certificates.crt"


@pytest.fixture
async def engine(data_root: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(data_root)
    yield opened
    await opened.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host.pem").write_text(HOST)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "host.pem"))
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")


async def build(engine: LocalEngine, folder: Path, dockerfile: str, **more: object) -> tuple[BuildFinished, str, int]:
    """The result, everything that steps printed, and how many steps ran."""
    (folder / "Dockerfile").write_text(dockerfile)
    text, ran = "", 0
    async for event in engine.build(BuildRequest(folder, **more)):  # type: ignore[arg-type]
        if isinstance(event, StepOutput):
            text += event.text + "\n"
        elif isinstance(event, StepFinished):
            ran += not event.cached
        elif isinstance(event, BuildFinished):
            return event, text, ran
    raise AssertionError("a build ends with BuildFinished")


@pytest.mark.usefixtures("host")
async def test_steps_trust_the_host_and_the_image_does_not_tell(engine: LocalEngine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "image.pem").write_text(IMAGE)
    dockerfile = (
        f"FROM workbench/base\nCOPY image.pem /{PLACE}\n"
        f"RUN cat /{PLACE} $PIP_CERT; echo $https_proxy; echo more >> /{PLACE}\n"
        f"RUN cat /{PLACE}; printf new > /tmp/n; mv /tmp/n /{PLACE}\n"
        "RUN true\n"
    )
    finished, text, _ = await build(engine, context, dockerfile, host_ca=True)
    assert text == f"{HOST}{HOST}http://proxy.example:3128\n{HOST}"
    view = LayerView(engine._store.lowers(engine._store.images.get(finished.image_id)))
    assert view.read(PLACE) == b"new"
    below = LayerView(engine._store.lowers(engine._store.images.get(finished.image_id))[2:])
    assert below.read(PLACE) == f"{IMAGE}more\n".encode(), "what a step appended is kept, on the image's own bytes"
    assert view.lookup("run/workbench-host-ca") is None
    config = str((await engine.image(finished.image_id)).config)
    assert "proxy.example" not in config
    assert "workbench-host-ca" not in config
    again, text, ran = await build(engine, context, dockerfile, host_ca=False)
    assert (again.image_id, text, ran) == (finished.image_id, "", 0), "the key does not know of it"


@pytest.mark.usefixtures("host")
async def test_an_image_without_a_bundle_gets_variables_alone(engine: LocalEngine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    text = (
        await build(engine, context, "FROM workbench/base\nRUN cat $SSL_CERT_FILE; cat $APT_CONFIG\n", host_ca=True)
    )[1]
    assert text.startswith(HOST)
    assert 'CAInfo "/run/workbench-host-ca/ca-bundle.pem"' in text


@pytest.mark.usefixtures("host")
def test_the_layer_looks_like_the_image_around_it(tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "etc/pki/extracted").mkdir(parents=True)
    (image / "etc/ssl/certs").mkdir(parents=True)
    (image / "etc/pki/extracted/real.pem").write_text(IMAGE)
    os.chmod(image / "etc/pki/extracted/real.pem", 0o444)
    os.chmod(image / "etc/pki", 0o711)
    os.symlink("/etc/pki/extracted/real.pem", image / PLACE)
    work = tmp_path / "work"
    work.mkdir()
    trust = prepare(work, [image])
    assert (trust.layer / "etc/pki/extracted/real.pem").read_text() == HOST, "the link's target, not the link"
    assert not (trust.layer / PLACE).exists()
    assert (trust.layer / "etc/pki").stat().st_mode & 0o777 == 0o711
    assert (trust.layer / "etc/pki/extracted/real.pem").stat().st_mode & 0o777 == 0o444
    upper = tmp_path / "upper"
    (upper / "etc/pki/extracted").mkdir(parents=True)
    (upper / "etc/pki/extracted/real.pem").symlink_to(tmp_path / "host.pem")
    scrub(trust, upper)
    assert (tmp_path / "host.pem").read_text() == HOST, "a link in the upper directory is not followed"


def test_host_bundle_and_proxies(tmp_path: Path) -> None:
    (tmp_path / "b.pem").write_text("x")
    assert host_bundle({"SSL_CERT_FILE": str(tmp_path / "b.pem")}) == tmp_path / "b.pem"
    assert proxies({"http_proxy": "a", "NO_PROXY": "b", "PATH": "c"}) == {
        "HTTP_PROXY": "a",
        "http_proxy": "a",
        "NO_PROXY": "b",
        "no_proxy": "b",
    }


def test_settings(tmp_path: Path) -> None:
    assert build_settings(tmp_path).host_ca is False
    (tmp_path / "settings.json").write_text('{"build": {"host-ca": true, "history-size": "1m"}}')
    assert build_settings(tmp_path).host_ca is True
    assert build_settings(tmp_path).history_size == 1 << 20
    for bad in ('{"build": {"host_ca": true}}', '{"build": {"host-ca": "yes"}}', "{", '{"build": 1}'):
        (tmp_path / "settings.json").write_text(bad)
        with pytest.raises(InvalidInput, match=r"settings\.json"):
            build_settings(tmp_path)


async def test_limits_and_hosts_reach_the_steps(engine: LocalEngine, tmp_path: Path) -> None:
    _, text, _ = await build(
        engine,
        tmp_path,
        "FROM workbench/base\nRUN ulimit -Sn; ulimit -Hn; grep 10.9 /etc/hosts; stat -fc '%b %S' /dev/shm\n",
        add_hosts=("db:10.9.8.7",),
        ulimits=("nofile=100:200",),
        shm_size=1 << 20,
    )
    soft, hard, entry, shm = text.split("\n")[:4]
    assert (soft, hard, entry.split()) == ("100", "200", ["10.9.8.7", "db"])
    blocks, size = map(int, shm.split())
    assert blocks * size == 1 << 20


def test_limits_and_hosts_are_read_as_docker_reads_them() -> None:
    assert parse_ulimit("nofile=1024") == Ulimit("nofile", 1024, 1024)
    assert parse_ulimit("core=0:-1") == Ulimit("core", 0, -1)
    check_hosts(["a:1.2.3.4", "b=::1", "c:[fe80::1]", "d:host-gateway"])
    for bad in ("nofile", "nofile=x", "nofile=2:1", "nofile=-1:5"):
        with pytest.raises(InvalidInput):
            parse_ulimit(bad)
    for bad in ("a", "a:b", ":1.2.3.4", "a b:1.2.3.4"):
        with pytest.raises(InvalidInput):
            check_hosts([bad])
