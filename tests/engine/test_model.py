"""The records are loaded when they are asked for, and each of them can be."""

from __future__ import annotations

import subprocess
import sys

import engine.api
from engine import model


def test_every_record_is_where_the_table_says() -> None:
    for name in {*model.__all__, *model._HOMES}:
        found = getattr(model, name)
        assert getattr(engine.api, name) is found
        home = getattr(found, "__module__", "engine.model")
        assert not home.startswith("engine.model.") or home == f"engine.model.{model._HOMES[name]}"


def test_a_record_loads_no_other() -> None:
    code = "import sys; from engine.api import VolumeInfo; print([n for n in sys.modules if n.startswith('engine.model.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "engine.model.files" in out
    assert "engine.model.containers" not in out
