"""Completion: what a word may become, and the shells' own functions asking for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.completion import complete
from engine.cli.main import VERBS, main
from engine.oci.config import ImageConfig
from engine.oci.reference import Reference
from engine.store.store import Store
from tests.engine.registry.scripted import sample

Ask = Callable[..., list[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images and a volume; containers and networks are rows alone."""
    store = Store(tmp_path / "root")
    manifest, blobs = sample(1)
    for data in blobs.values():
        store.blobs.put(data)
    config = ImageConfig.parse(blobs[manifest.config.digest])
    image = store.images.put(manifest, config, 0, [Reference.parse("web:1"), Reference.parse("host:5000/team/db:2")])
    (tmp_path / "root/volumes/data").mkdir(parents=True)
    with store.records.write() as db:
        for name in ("front", "back"):
            db.execute("INSERT INTO containers VALUES (?, ?, ?, 0, '{}')", (name, name, image.digest))
        db.execute("INSERT INTO networks VALUES ('n', 'inner', 0, '{}')")
    store.close()
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["exec", ""], ["back", "front"]),
        (["exec", "-it", "fr"], ["front"]),
        (["exec", "front", ""], [":files"]),
        (["run", "--rm", "w"], ["web:1"]),
        (["run", "-e", "A=b", "ho"], ["host:5000/team/db:2"]),
        (["run", "--network", ""], ["inner"]),
        (["run", "-v", "d"], ["data:"]),
        (["run", "-v", "/"], [":files"]),
        (["run", "web:1", ""], [":files"]),
        (["--root", "ROOT", "rmi", "w"], ["web:1"]),
        (["image", "rm", "we"], ["web:1"]),
        (["container", "stop", "b"], ["back"]),
        (["container", "inspect", "b"], ["back"]),
        (["volume", "rm", ""], ["data"]),
        (["network", "connect", "inner", ""], ["back", "front"]),
        (["network", "connect", ""], ["inner"]),
        (["network", "di"], ["disconnect"]),
        (["builds", "l"], ["ls", "logs"]),
        (["context", "s"], ["show"]),
        (["ps", "--filter", "st"], ["status="]),
        (["image", "prune", "--filter", "l"], ["label=", "label!="]),
        (["ps", "--format", ""], ["json", "table"]),
        (["cp", "f"], ["front:", ":files"]),
        (["rm", "front", ""], ["back", "front"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["nothing", ""], []),
    ],
)
def test_what_a_word_may_become(root: Path, words: list[str], found: list[str]) -> None:
    assert (
        complete(Path("/none") if "ROOT" in words else root, [str(root) if word == "ROOT" else word for word in words])
        == found
    )


def test_verbs_and_flags(root: Path) -> None:
    assert set(VERBS) <= set(complete(root, [""]))
    assert complete(root, ["ru"]) == ["run", ":files"]
    assert "--network" in complete(root, ["run", "--net"])
    assert "--root" in complete(root, ["--"])
    assert {"up", "down"} <= set(complete(root, ["compose", ""]))
    for verb in VERBS:  # every verb's help can be read for its flags, without an engine
        assert isinstance(complete(root, [verb, "--"]), list)
    assert complete(Path("/none"), ["exec", ""]) == []


SHELLS = {
    "bash": 'eval "$(workbench completion bash)"; COMP_LINE="$LINE"; COMP_POINT=${#LINE}; _workbench; printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": "workbench completion fish | source; complete -C $LINE",
}


@pytest.mark.parametrize("shell", ["bash", pytest.param("fish", marks=pytest.mark.peer("fish"))])
@pytest.mark.parametrize(
    ("line", "found"),
    [("workbench exec f", "front"), ("workbench run --rm web:", "1"), ("workbench volume rm ", "data")],
)
def test_in_a_shell(root: Path, tmp_path: Path, shell: str, line: str, found: str) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/workbench"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m engine.cli.main "$@"\n')
    program.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "WORKBENCH_ROOT": str(root),
        "LINE": line,
        "PYTHONPATH": os.getcwd(),
    }
    done = subprocess.run([shell, "-c", SHELLS[shell]], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"web:{found}" if shell == "fish" and "web:" in line else found], done.stderr


def test_the_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "__complete" in capsys.readouterr().out
    assert main(["completion", "tcsh"]) == 1
