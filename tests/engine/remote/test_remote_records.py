"""What an engine answers, taken apart: frames, JSON in pieces, rows, histories, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import (
    BuildFailed,
    Conflict,
    EngineError,
    InvalidInput,
    NotFound,
    StartFailed,
    Unauthorized,
    Unavailable,
)
from engine.model import BuildFinished, BuildStarted, PullProgress, StepFinished, StepInfo
from engine.remote import read
from engine.remote.client import objects
from engine.remote.errors import failed_in_stream, refused, start_failed
from engine.remote.image_records import detail
from engine.remote.streams import Frames
from engine.service import build_wire
from engine.service.describe import status_text


def frame(number: int, data: bytes) -> bytes:
    return bytes((number, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@given(st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=40)), max_size=8), st.integers(1, 30))
def test_frames_in_pieces(frames: list[tuple[int, bytes]], size: int) -> None:
    whole = b"".join(frame(*each) for each in frames)
    reader, found = Frames(), []
    for at in range(0, len(whole), size):
        found += reader.feed(whole[at : at + size])
    assert found == [("stdout" if number == 1 else "stderr", data) for number, data in frames]


def test_what_is_no_frame() -> None:
    with pytest.raises(Unavailable):
        Frames().feed(b"HTTP/1.1 500")
    with pytest.raises(Unavailable):
        Frames().feed(b"\1\0\0\0\xff\xff\xff\xff")


async def test_json_in_pieces() -> None:
    text = '{"a": "é\\n"}\r\n{"b": 1}{"c": {"d": [2]}}\n\n{"e": 3}'.encode()
    for size in (1, 2, 5, 1000):

        async def parts(size: int = size) -> AsyncIterator[bytes]:
            for at in range(0, len(text), size):
                yield text[at : at + size]

        found = [document async for document in objects(parts())]
        assert found == [{"a": "é\n"}, {"b": 1}, {"c": {"d": [2]}}, {"e": 3}]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("running", "Up 5 minutes"),
        ("running", "Up About a minute (healthy)"),
        ("running", "Up 2 hours (health: starting)"),
        ("running", "Up Less than a second"),
        ("paused", "Up 3 days (Paused)"),
        ("exited", "Exited (137) 2 weeks ago"),
        ("restarting", "Restarting (1) 3 seconds ago"),
        ("created", "Created"),
        ("removing", "Removal In Progress"),
        ("dead", "Dead"),
    ],
)
def test_a_row_says_what_the_engine_said(state: str, status: str) -> None:
    row = read.list_row({"Id": "1", "Names": ["/other/alias", "/name"], "State": state, "Status": status})
    assert status_text(row) == status
    assert row.name == "name"


def test_histories() -> None:
    history = [
        {"CreatedBy": '/bin/sh -c #(nop)  CMD ["x"]', "Size": 0, "Created": 3},
        {"CreatedBy": "COPY . . # buildkit", "Size": 0, "Created": 2},
        {"CreatedBy": "rootfs", "Size": 10, "Created": 1},
    ]
    found = detail({"Id": "ab", "RootFS": {"Layers": ["sha256:1", "sha256:2"]}, "RepoTags": ["a:1"]}, history)
    assert [(layer.instruction, layer.diff_id, layer.empty) for layer in found.layers] == [
        ("rootfs", "sha256:1", False),
        ("COPY . .", "sha256:2", False),
        ('CMD ["x"]', "", True),
    ]
    assert found.summary.id == "sha256:ab"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b'{"message": "No such container: x"}', NotFound),
        (409, b'{"message": "in use"}', Conflict),
        (400, b'{"message": "bad"}', InvalidInput),
        (401, b"plain", Unauthorized),
        (500, b'{"cause": "podman", "message": ""}', EngineError),
        (404, b"", NotFound),
    ],
)
def test_refusals(status: int, body: bytes, kind: type[EngineError]) -> None:
    error = refused(status, body, "GET /x")
    assert type(error) is kind
    assert error.message


def test_starts_that_fail_have_dockers_codes() -> None:
    def code(message: str) -> int:
        error = start_failed(refused(400, f'{{"message": "{message}"}}'.encode(), ""))
        assert isinstance(error, StartFailed)
        return error.exit_code

    assert code("exec: nosuch: executable file not found in $PATH: unknown") == 127
    assert code("exec: /etc: permission denied: unknown") == 126
    assert code("driver failed programming external connectivity") == 125
    assert isinstance(start_failed(NotFound("No such container")), NotFound)


def test_errors_in_streams() -> None:
    failed = failed_in_stream({"errorDetail": {"code": 9, "message": "returned 9"}, "error": "returned 9"}, build=True)
    assert isinstance(failed, BuildFailed)
    assert failed.exit_code == 9
    assert isinstance(failed_in_stream({"error": "manifest for x not found: manifest unknown"}), NotFound)
    assert isinstance(failed_in_stream({"error": "unauthorized: authentication required"}), Unauthorized)
    assert failed_in_stream({"status": "Pulling"}) is None


def test_build_events_come_back_as_they_were() -> None:
    step = StepInfo("a/1", "a", 1, 2, "COPY . .", 3)
    for event in (
        BuildStarted("/Dockerfile", (step,), 4),
        StepFinished(step, False, 0.5, 10, "f changed", ("f changed",)),
        PullProgress("x", "ab", "downloading", 1, 2),
        BuildFinished("sha256:1", "sha256:2", ("a:1",), 1.5, step, "why", {"run": 1.0}),
    ):
        assert build_wire.decode(build_wire.encode(event)) == event
    assert build_wire.decode({"workbench": {"kind": "Later"}}) is None
    assert build_wire.decode({"workbench": {"kind": "StepFinished"}}) is None
    newer = build_wire.encode(PullProgress("x", "", "done"))
    newer["workbench"]["more"] = 1
    assert build_wire.decode(newer) == PullProgress("x", "", "done")
