"""Calls between two workbenches: what goes over the wire comes back as it was, and nothing else is let in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine import calls
from engine.errors import InvalidInput
from engine.model import (
    BuildDetail,
    BuildOutputLine,
    BuildRecord,
    BuildStepRecord,
    CheckFinding,
    Drift,
    FileContent,
    ImageDetail,
    ImageSummary,
    LayerInfo,
    Port,
    Pruned,
    StepInfo,
)
from engine.model.containers import ContainerSummary

STEP = StepInfo("a/1", "a", 1, 2, "COPY . .", 3)
RECORD = BuildRecord(1, "done", 2, 0.5, "n", "/c", "Dockerfile", tags=("a", "b"))


def over(method: str, result: Any) -> Any:
    return calls.decode(calls.hints(method)["return"], json.loads(json.dumps(calls.encode(result))))


@pytest.mark.parametrize("method", sorted(calls.METHODS))
def test_every_method_can_be_called(method: str) -> None:
    assert "return" in calls.hints(method)


def test_results() -> None:
    for method, result in (
        ("builds", [RECORD]),
        ("build_detail", BuildDetail(RECORD, (BuildStepRecord(STEP, "done"),), (BuildOutputLine("a/1", "stdout", "x"),), {"A": "b"})),
        ("check", [CheckFinding("blob", "p", "gone", True)]),
        ("drift", [Drift("A", "/x", False)]),
        ("listening", frozenset({80, 443})),
        ("prune_system", Pruned(("a",), reclaimed=5)),
        ("image", ImageDetail(ImageSummary("i", "d", ("t",), 1, 2), (LayerInfo(0, "i", "c", "", 1, 2, True, None, 1.5),), {"x": [1, {}]}, {})),
        ("container_summary", ContainerSummary("i", "n", "im", "id", "c", "running", 1, published=(Port(80, "tcp"),))),
        ("file_content", FileContent("/x", "file", 2, b"\xff\0", False, False)),
        ("stop", True),
        ("start", None),
    ):  # fmt: skip
        assert over(method, result) == result


def test_fields_of_other_versions() -> None:
    document = calls.encode(RECORD) | {"later": 1}
    del document["tags"]
    found = calls.decode(BuildRecord, document)
    assert (found.number, found.tags) == (1, ())


def test_arguments() -> None:
    assert calls.arguments_of("builds", {"search": "x", "limit": None}) == {"search": "x", "limit": None}
    assert calls.arguments_of("prune_images", {"filters": {"label": ["a=b"]}})["filters"] == {"label": ["a=b"]}


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("close", {}),
        ("sync", {}),
        ("__init__", {}),
        ("builds", {"return": 1}),
        ("builds", {"search": 1}),
        ("builds", {"limit": True}),
        ("builds", {"limit": "1"}),
        ("build_detail", {"number": 1.5}),
        ("prune_images", {"filters": {"label": "a=b"}}),
        ("keep_images", {"owner": "x", "images": "abc"}),
    ],
)
def test_what_is_not_let_in(method: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        calls.arguments_of(method, arguments)
