"""The history's files: what is written is read back, also when the writer was killed; budgets; search; comparing trees."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine.build.compare import compare
from engine.build.history import History
from engine.errors import BuildFailed, Cancelled, NotFound
from engine.model import (
    BuildFinished,
    BuildNotice,
    BuildRequest,
    BuildStarted,
    StepFinished,
    StepInfo,
    StepOutput,
    StepStarted,
)
from engine.store.view import LayerView

STEPS = (StepInfo("a/1", "a", 1, 2, "FROM scratch", 1), StepInfo("a/2", "a", 2, 2, "RUN make", 2))


def one_build(history: History, *, error: BaseException | None = None, output: str = "compiled\n") -> int:
    recorder = history.begin(BuildRequest(Path("/src/shop"), tags=("shop:1",), build_args={"V": "2"}))
    recorder.feed(BuildStarted("/src/shop/Dockerfile", STEPS))
    recorder.feed(StepFinished(STEPS[0], True, 0.0, 0))
    recorder.feed(StepStarted(STEPS[1], "app.py content changed"))
    recorder.feed(StepOutput("a/2", "stdout", output))
    recorder.feed(BuildNotice("a large context"))
    if error is None:
        recorder.feed(StepFinished(STEPS[1], False, 1.5, 4096, "app.py content changed"))
        recorder.feed(BuildFinished("sha256:aa", "sha256:bb", ("shop:1",), 2.0, STEPS[1], "app.py content changed"))
    recorder.finish(error)
    return recorder.number


def test_a_build_is_read_back_as_it_went(tmp_path: Path) -> None:
    history = History(tmp_path / "builds")
    number = one_build(history)
    (record,) = history.records()
    assert (record.number, record.status, record.name, record.image_id) == (1, "done", "shop:1", "sha256:aa")
    assert (record.steps, record.cached, record.cache_share) == (2, 1, 0.5)
    assert record.reason == "app.py content changed"
    detail = history.detail(number)
    assert [(s.state, s.seconds, s.size) for s in detail.steps] == [("cached", 0.0, 0), ("done", 1.5, 4096)]
    assert [(line.key, line.stream, line.text) for line in detail.output] == [
        ("a/2", "stdout", "compiled\n"),
        ("", "note", "a large context"),
    ]
    assert detail.args == {"V": "2"}


@pytest.mark.parametrize(
    ("error", "status"), [(BuildFailed("RUN make: exit code 2", hint="look"), "failed"), (Cancelled("no"), "cancelled")]
)
def test_a_build_that_ends_badly_keeps_what_it_said(tmp_path: Path, error: Exception, status: str) -> None:
    history = History(tmp_path)
    number = one_build(history, error=error)
    detail = history.detail(number)
    assert detail.record.status == status
    assert [s.state for s in detail.steps] == ["cached", "failed"]
    assert detail.output[0].text == "compiled\n"
    assert (detail.record.steps, detail.record.cached) == (1, 1)


def test_a_killed_builder_is_told_from_one_at_work(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys; from pathlib import Path
        from engine.build.history import History
        from engine.model import BuildRequest
        recorder = History(Path(sys.argv[1])).begin(BuildRequest(Path("/x")))
        recorder._file.write('{"at": 1.5, "out": "", "stream": "note", "te'); recorder._file.flush()
        print("ready", flush=True); sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        assert history_status(tmp_path) == "running"
        process.kill()
        process.wait()
    assert history_status(tmp_path) == "interrupted"
    assert History(tmp_path).detail(1).record.status == "interrupted"


def history_status(folder: Path) -> str:
    (record,) = History(folder).records()
    return record.status


def test_search_finds_output_reasons_and_errors_and_nothing_else(tmp_path: Path) -> None:
    history = History(tmp_path)
    one_build(history, output='undefined reference to "main"\n')
    one_build(history, error=BuildFailed("RUN make: exit code 2"))
    assert [r.number for r in history.records(search='REFERENCE to "main"')] == [1]
    assert [r.number for r in history.records(search="exit code 2")] == [2]
    assert [r.number for r in history.records(search="app.py content")] == [2, 1]
    assert history.records(search="nowhere") == []


def test_the_oldest_go_when_the_budget_is_full(tmp_path: Path) -> None:
    history = History(tmp_path, budget=20_000, count=5)
    for _ in range(7):
        one_build(history)
    assert [record.number for record in history.records()] == [7, 6, 5, 4, 3]
    for _ in range(10):
        one_build(history, output="x" * 9000)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) < 20_000 + 2 * 10_000
    assert history.records()[0].number == 17


def test_a_number_is_given_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    number = one_build(history)
    history.remove(number)
    assert one_build(history) == number + 1
    with pytest.raises(NotFound):
        history.remove(number)
    with pytest.raises(NotFound):
        history.detail(number)


def test_compare_names_what_differs(tmp_path: Path) -> None:
    lower, one, two = (tmp_path / name for name in ("lower", "one", "two"))
    for folder in (lower / "usr", one / "app", two / "app", two / "new"):
        folder.mkdir(parents=True)
    (lower / "usr/tool").write_text("same")
    (lower / "app").mkdir()
    (lower / "app/gone").write_text("12345")
    (one / "app/code").write_text("one")
    (two / "app/code").write_text("two!")
    (two / "new/x").write_text("1")
    (one / "app/mode").write_text("m")
    (two / "app/mode").write_text("m")
    os.chmod(two / "app/mode", 0o755)
    os.chmod(one / "app/mode", 0o644)
    os.utime(two / "app/mode", (1, 1))
    os.symlink("a", one / "app/link")
    os.symlink("b", two / "app/link")
    found = list(compare(LayerView([one, lower]), LayerView([two, lower])))
    assert [(d.path, d.kind, d.before, d.after, d.what) for d in found] == [
        ("/app/code", "changed", 3, 4, "content"),
        ("/app/link", "changed", 0, 0, "points to b"),
        ("/app/mode", "changed", 1, 1, "mode 0644→0755"),
        ("/new/", "added", None, 0, "directory"),
        ("/new/x", "added", None, 1, "file"),
    ]
    assert [d.kind for d in compare(LayerView([one]), LayerView([lower])) if d.path == "/app/gone"] == ["added"]
