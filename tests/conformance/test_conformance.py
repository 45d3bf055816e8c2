"""Every case built here and compared with what a real dockerd made of it: recorded, and live where PEER_DOCKER_HOST names one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from engine.store.store import Store
from tests.build.conftest import BASE, Builder, write_files
from tests.build.conftest import builder as builder  # the fixture
from tests.conformance import observe
from tests.conformance.cases import STAMP, Files
from tests.conformance.cases_more import ALL
from tests.conformance.record import RECORDED, Peer

pytestmark = pytest.mark.root


# Where Docker 20.10's BuildKit did otherwise than the current one, which is what is built here: only the config is compared.
CHANGED_SINCE = {
    "add-tar-chown": "--chown did not reach the files of an archive",
    "arg-of-arg": "the history named an ARG from before FROM without its value",
    "env-over-arg": "the history counted an ARG that is given twice as two",
    "run-hard-links": "a file that was copied up for its link count was in the layer again",
    "run-opaque": "a directory made anew was an opaque marker, not the deletions that it means",
    "run-replace-kinds": "a directory in the place of a file was opaque, too",
    "run-mounts": "mount points were left in the layer",
    "run-recreate": "a directory made anew was an opaque marker, not the deletions that it means",
    "run-user": "a step did not get its user's further groups",
}


def lay_out(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = name.removesuffix("!")
        write_files(folder, {path: content})
        if name.endswith("!"):
            (folder / path).chmod(0o755)
    for here, _, names in os.walk(folder, topdown=False):
        os.chmod(here, 0o755)
        for name in [*names, "."]:
            os.utime(os.path.join(here, name), (STAMP, STAMP))


def observed(builder: Builder, folder: Path, name: str) -> dict[str, Any]:
    text, files = ALL[name]
    lay_out(folder, {**files, "Dockerfile": text.format(base=BASE)})
    built = builder(folder)
    store: Store = built.store
    image = store.images.get(built.digest)
    document = store.images.config(image).document
    scratch = "FROM scratch" in text
    base = store.images.get(BASE)
    layers = store.images.manifest(image).layers[0 if scratch else len(store.images.manifest(base).layers) :]
    entries = 0 if scratch else len(store.images.config(base).history)
    found = []
    for descriptor in layers:
        with store.open_layer(descriptor) as stream:
            found.append(observe.layer(stream))
    return {
        "config": observe.config(dict(document)),
        "history": observe.history(dict(document), entries),
        "layers": found,
    }


def normal(result: dict[str, Any]) -> dict[str, Any]:
    """Without what is known to differ between the recorded BuildKit (of Docker 20.10) and the current one, whose way is taken
    here: a file that is written again as it was is no change, a mount below /etc leaves no /etc behind, and the history
    names flags of COPY and the values of the platform's arguments."""
    result = json.loads(json.dumps(result))
    result["history"] = [[_text(text), layer] for text, layer in result["history"]]
    seen: dict[str, Any] = {}
    for layer in result["layers"]:
        for path in sorted(layer, reverse=True):
            below = any(other.startswith(f"{path}/") for other in layer)
            same = seen.get(path) == layer[path] or path == "etc"
            if same and not below:
                del layer[path]
        seen |= layer
    return dict(result)


def _text(text: str) -> str:
    if text.startswith("HEALTHCHECK"):
        return "HEALTHCHECK"  # printed as a pointer then, and without names
    if text.startswith("EXPOSE "):  # printed as a map then, and so in another order
        ports = text.removeprefix("EXPOSE ").removeprefix("map").strip("[]").replace(":{}", "")
        return f"EXPOSE {sorted(ports.split())}"
    if text.startswith(("COPY", "ADD")):
        return re.sub(r" --(chown|chmod)=\S+", "", text)
    return re.sub(r"^ARG ((?:TARGET|BUILD)[A-Z]+)=\S*$", r"ARG \1", text)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return dict(json.loads(RECORDED.read_text())["cases"])


def test_every_case_is_recorded(recorded: dict[str, Any]) -> None:
    assert set(recorded) == set(ALL)


@pytest.mark.parametrize("name", sorted(ALL))
def test_as_recorded(builder: Builder, tmp_path: Path, recorded: dict[str, Any], name: str) -> None:
    same(normal(observed(builder, tmp_path, name)), normal(recorded[name]), name)


def same(ours: dict[str, Any], theirs: dict[str, Any], name: str) -> None:
    if name in CHANGED_SINCE:
        assert ours["config"] == theirs["config"]
        assert len(ours["layers"]) == len(theirs["layers"])
        assert ours != theirs, f"{name} no longer differs: take it out of CHANGED_SINCE"
    else:
        assert ours == theirs


@pytest.fixture(scope="module")
def peer() -> Peer:
    host = os.environ.get("PEER_DOCKER_HOST", "")
    if not host:
        pytest.skip("PEER_DOCKER_HOST names no dockerd to compare with")
    return Peer(host)


@pytest.mark.parametrize("name", sorted(ALL))
def test_as_a_live_peer(peer: Peer, builder: Builder, tmp_path: Path, name: str) -> None:
    text, files = ALL[name]
    same(normal(observed(builder, tmp_path, name)), normal(peer.observe(text, files)), name)
