"""`layers` and `files`: what the app's panes show, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.store.store import Store
from tests.service.test_layer_files import ONE, THREE, TWO, layer, put

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = Store(tmp_path / "root")
    put(store, "shop", [layer(ONE), layer(TWO), layer(THREE)])
    store.close()
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path / "root"))
    return tmp_path


def test_layers_as_text_and_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "shop"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["#", "INSTRUCTION", "LINE", "HOW", "SIZE", "WASTED", "TIME", "WHY"]
    assert "RUN step 0" in out
    assert "15.1kB in the layers" in out
    assert main(["layers", "--json", "shop"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["wasted"] for one in document["layers"]] == [15_108, 0, 12, 0, 0, 0]
    assert document["worst"][0] == {"path": "/big/data", "size": 10_000, "times": 1}
    assert main(["layers", "--waste", "shop"]) == 0
    assert "/big/data" in capsys.readouterr().out
    assert main(["layers", "--tree", "2", "shop"]) == 0
    assert "- -rw-r--r-- 0:0             100B #0   /etc/old" in capsys.readouterr().out


def test_files_are_listed_by_folder_mark_and_pattern(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["files", "--json", "--sort", "name", "shop#0", "/big"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["path"], row["size"], row["mode"]) for row in rows] == [
        ("/big/data", 10_000, "0644"),
        ("/big/more", 5_000, "0644"),
    ]
    assert main(["files", "--layer", "-R", "--json", "shop"]) == 0
    marks = {row["path"]: row["mark"] for row in json.loads(capsys.readouterr().out)}
    assert marks == {"/big": "", "/big/data": "D", "/big/more": "D", "/big/small": "A", "/app": "", "/app/main.py": "M"}
    assert main(["files", "-f", "tool$", "-n", "9", "shop"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("/usr/bin/tool")
    for words in (["shop", "/none"], ["--sort", "age", "shop"], ["--changes", "X", "shop"]):
        assert main(["files", *words]) != 0
    assert "no such file: /none" in capsys.readouterr().err


def test_a_file_its_way_its_differences_and_a_copy(root: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["files", "cat", "shop", "/etc/conf"]) == 0
    assert capsysbinary.readouterr().out == b"a=1\nb=3\n"
    assert main(["files", "history", "--json", "shop", "/etc/conf"]) == 0
    assert [one["mark"] for one in json.loads(capsysbinary.readouterr().out)] == ["A", "M"]
    assert main(["files", "diff", "shop#0", "shop", "/etc/conf"]) == 1
    assert b"\n+b=3\n" in capsysbinary.readouterr().out
    assert main(["files", "diff", "shop", "shop"]) == 0
    assert main(["files", "diff", "scratch", "shop#0"]) == 1
    assert b"+ +10kB     /big/data" in capsysbinary.readouterr().out
    assert main(["files", "save", "shop", "/etc/conf", str(root / "copy")]) == 0
    assert (root / "copy").read_bytes() == b"a=1\nb=3\n"
    assert main(["files", "save", "shop", "/etc/conf", str(root / "copy")]) == 1  # not overwritten
    assert main(["files", "save", "shop", "/none", str(root / "none")]) == 1
    assert not (root / "none").exists()
    assert main(["files", "cat", "shop", "/out"]) == 1
