"""`diff` and `commit` on real containers: Docker's letters, layers that apply, settings and pauses."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from engine.api import CommitRequest, ContainerSpec
from engine.errors import InvalidInput, NotFound
from engine.local import LocalEngine
from engine.oci.digest import Digest
from engine.service.mount_specs import parse_bind

from .conftest import Image, Sh

pytestmark = pytest.mark.root

TREE = (
    "RUN mkdir -p /d1/sub /d2 /d3/x/y /gone /opq/in /mid && echo a > /d1/f && echo b > /d1/sub/g && echo c > /d2/h"
    " && echo 1 > /opq/in/1 && echo t > /top && ln -s f /d1/l && echo m > /mid/m && echo n > /mid/n\n"
    "RUN rm -rf /mid/m /gone"
)
CHANGE = (
    "echo x >> /d1/f; rm /d2/h; echo new > /d1/sub/new; mkdir /newd; echo q > /newd/q; rm -rf /opq; mkdir /opq;"
    " echo 2 > /opq/2; chmod 700 /d3/x; echo m2 > /mid/m; mv /d1/l /d1/l2; rm /top; mkdir /top; rm -rf /d3/x/y;"
    " echo >> /etc/hosts; mkdir -p /gone/a; touch /root; mkdir /a /a/b; rm -rf /a/b; touch /vol/x; chown 1:1 /etc/group"
)
EXPECTED = """A /a
C /d1
C /d1/f
D /d1/l
A /d1/l2
C /d1/sub
A /d1/sub/new
C /d2
D /d2/h
C /d3
C /d3/x
D /d3/x/y
C /etc
C /etc/group
A /gone
A /gone/a
C /mid
A /mid/m
A /newd
A /newd/q
C /opq
A /opq/2
D /opq/in
C /top
A /vol"""


async def changes(engine: LocalEngine, name: str) -> str:
    return "\n".join(f"{change.kind} {change.path}" for change in await engine.changes(name))


async def test_diff_and_the_layer_of_a_commit(local: LocalEngine, sh: Sh, image: Image) -> None:
    tag = await image(TREE)
    await sh(CHANGE, tag, name="changed", mounts=(parse_bind("v1:/vol"),))
    assert await changes(local, "changed") == EXPECTED
    made = await local.commit("changed", CommitRequest("kept:1", "a message", "A. Uthor"))
    look = (
        "cat /d1/f /d1/sub/new /mid/m /opq/2; ls -A /d1 /d2 /d3/x /opq /top /a /vol; stat -c '%a %n' /d3/x;"
        " stat -c '%u %n' /etc/group; readlink /d1/l2; find /d1 /d2 /d3 /opq /mid -type f | xargs cat"
    )
    assert await sh(look, "kept:1") == await sh(look, made)
    found = await sh(look, made)
    assert found.startswith(
        "a\nx\nnew\nm2\n2\n/a:\n\n/d1:\nf\nl2\nsub\n\n/d2:\n\n/d3/x:\n\n/opq:\n2\n\n/top:\n\n/vol:\n"
    )
    assert "700 /d3/x\n1 /etc/group\nf\n" in found
    detail = await local.image("kept:1")
    last = detail.config["history"][-1]  # type: ignore[index]
    assert (last["comment"], last["author"], last["created_by"]) == ("a message", "A. Uthor", f"sh -c {CHANGE}")
    assert await local.check() == []
    clean = await local.create(ContainerSpec("kept:1", command=("true",)))
    await local.start(clean)
    await local.wait(clean)
    assert await changes(local, clean) == "", "what the engine itself puts into a root is no change"
    with pytest.raises(NotFound):
        await local.changes("nobody")


async def test_commit_keeps_the_containers_settings_and_applies_changes(local: LocalEngine, image: Image) -> None:
    tag = await image('ENV A=image B=image\nLABEL from=image\nWORKDIR /srv\nCMD ["image"]\nVOLUME /data\nONBUILD RUN x')
    spec = ContainerSpec(
        tag,
        name="set",
        command=("sh", "-c", "echo $A"),
        env=("A=container",),
        user="7",
        labels={"own": "1"},
        volumes=("/more",),
    )
    await local.create(spec)
    asked = (
        "ENV C=$A D=d",
        'ENTRYPOINT ["/bin/echo"]',
        "LABEL x=y",
        "EXPOSE 80 90/udp",
        "VOLUME /third",
        "WORKDIR deeper",
        "STOPSIGNAL INT",
        "HEALTHCHECK --interval=5s CMD true",
        "ONBUILD RUN later",
    )
    plain = await local.commit("set", CommitRequest())
    settings = (await local.image(plain)).config["config"]
    assert isinstance(settings, dict)
    assert [e for e in settings["Env"] if not e.startswith("PATH=")] == ["A=container", "B=image"]
    assert (settings["Cmd"], settings["User"], settings["WorkingDir"]) == (["sh", "-c", "echo $A"], "7", "/srv")
    assert settings["Labels"] == {"from": "image", "own": "1"} | {
        key: value for key, value in settings["Labels"].items() if key.startswith("workbench.")
    }
    assert sorted(settings["Volumes"]) == ["/data", "/more"]
    assert "OnBuild" not in settings
    made = await local.commit("set", CommitRequest(changes=asked))
    settings = (await local.image(made)).config["config"]
    assert isinstance(settings, dict)
    assert {"C=container", "D=d"} <= set(settings["Env"])
    assert (settings["Entrypoint"], settings["WorkingDir"]) == (["/bin/echo"], "/srv/deeper")
    assert sorted(settings["ExposedPorts"]) == ["80/tcp", "90/udp"]
    assert "/third" in settings["Volumes"]
    assert (settings["OnBuild"], settings["StopSignal"]) == (["RUN later"], "INT")
    for bad in ("RUN x", "COPY a b", "FOO x", "FROM scratch", 'SHELL ["x"]'):
        with pytest.raises(InvalidInput, match=r"valid change command|unknown instruction"):
            await local.commit("set", CommitRequest(changes=(bad,)))
    for bad in ("UPPER", "a b", "workbench/base"):
        with pytest.raises(InvalidInput):
            await local.commit("set", CommitRequest(bad))


COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /one; echo $i > /two; done"


async def test_a_running_container_stands_still_during_a_commit(local: LocalEngine, inside: Sh, sh: Sh) -> None:
    box = await local.create(ContainerSpec("workbench/base", command=("sh", "-c", f"mkdir /big; {COUNTER}")))
    await local.start(box)
    await inside(
        box,
        "while [ ! -s /two ]; do :; done; for n in 1 2 3 4 5 6 7 8; do head -c 2000000 /dev/urandom > /big/$n; done",
    )
    made = await local.commit(box, CommitRequest())
    before = int((await inside(box, "cat /one")).strip() or 0)
    assert (await local.container(box)).summary.status == "running"
    assert int((await inside(box, "sleep 0.1; cat /one")).strip() or before + 1) > before, "it goes on afterwards"
    one, _, two = (await sh("cat /one; echo ,; cat /two", made)).replace("\n", "").partition(",")
    assert abs(int(one or 0) - int(two or 0)) <= int(one or two)
    assert {f"/big/{n}" for n in range(1, 9)} <= {change.path for change in await local.changes(box)}
    await local.commit(box, CommitRequest("unpaused", pause=False))


async def test_a_hostile_container_cannot_have_host_files_committed(local: LocalEngine, sh: Sh, tmp_path: Path) -> None:
    """A directory exchanged for a link while its layer is written, without a pause."""
    (tmp_path / "secret").write_text("host secret")
    racer = (
        "import ctypes, os\n"
        "exchange = ctypes.CDLL(None).renameat2\n"
        "print('racing', flush=True)\n"
        "while True: exchange(-100, b'/w/dir', -100, b'/w/link', 2)\n"
    )
    prepare = f"mkdir -p /w/dir; echo inside > /w/dir/secret; ln -s {tmp_path} /w/link"
    box = await local.create(
        ContainerSpec("workbench/base", command=("sh", "-c", f'{prepare}; exec python3 -c "{racer}"'))
    )
    stream = await local.start_attached(box)
    while chunk := await stream.read():
        if b"racing" in chunk[1]:
            break
    await stream.close()
    for _ in range(40):
        layer = (await local.image(await local.commit(box, CommitRequest(pause=False)))).manifest["layers"][-1]  # type: ignore[index]
        blob = local._store.blobs.path(Digest(layer["digest"])).read_bytes()
        assert b"host secret" not in blob
        with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
            assert all(name == "w" or name.startswith(("w/", "root", "tmp")) for name in tar.getnames())
