"""The solver on real containers: parallel stages, work done once, cancelling, crashes, BuildKit's invalidation rules, reasons."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.api import (
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildRequest,
    BuildSecret,
    ContainerSpec,
    StepFinished,
    StepOutput,
)
from engine.base.failed_step import commands
from engine.build.compare import compare
from engine.errors import BuildFailed
from engine.local import LocalEngine, open_engine
from engine.store.view import LayerView
from tests.patience import PATIENCE

pytestmark = pytest.mark.root


@pytest.fixture
async def engine(data_root: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(data_root)
    await opened.ensure_base()
    yield opened
    await opened.close()


@dataclass
class Built:
    finished: BuildFinished
    events: list[BuildEvent]

    @property
    def ran(self) -> list[str]:
        """The steps that ran, in the Dockerfile's order."""
        steps = [e.step for e in self.events if isinstance(e, StepFinished) and not e.cached]
        return [step.instruction for step in sorted(steps, key=lambda step: step.line)]

    @property
    def reasons(self) -> dict[str, str]:
        return {e.step.instruction: e.reason for e in self.events if isinstance(e, StepFinished) and not e.cached}

    @property
    def output(self) -> str:
        return "".join(f"{e.text}\n" for e in self.events if isinstance(e, StepOutput))


async def build(engine: LocalEngine, folder: Path, dockerfile: str | None = None, **more: object) -> Built:
    if dockerfile is not None:
        (folder / "Dockerfile").write_text(dockerfile)
    async with asyncio.timeout(PATIENCE):
        events = [event async for event in engine.build(BuildRequest(folder, **more))]  # type: ignore[arg-type]
    assert isinstance(events[-1], BuildFinished)
    return Built(events[-1], events)


def stamp() -> str:
    """Something that no cache has seen."""
    return os.urandom(8).hex()


# --- parallel, once, only what is needed ---------------------------------------------------------------------


async def test_stages_run_beside_each_other(engine: LocalEngine, tmp_path: Path) -> None:
    """Each of the four waits for the other three: one after the other they would never end."""
    meet = "RUN --mount=type=cache,id={id},target=/m touch /m/{n}; until [ $(ls /m | wc -l) -ge 4 ]; do sleep 0.02; done; echo {n} > /n"
    identity = stamp()
    stages = [f"FROM workbench/base AS s{n}\n{meet.format(id=identity, n=n)}\n" for n in range(4)]
    copies = "".join(f"COPY --from=s{n} /n /{n}\n" for n in range(4))
    built = await build(engine, tmp_path, "".join(stages) + "FROM workbench/base\n" + copies + "RUN cat /0 /1 /2 /3\n")
    assert built.output == "0\n1\n2\n3\n"
    assert built.finished.first_changed is not None
    assert built.finished.first_changed.line == 2, "the uppermost step that ran, whichever began first"


async def test_a_stage_that_fails_stops_the_others(engine: LocalEngine, tmp_path: Path) -> None:
    dockerfile = (
        f"FROM workbench/base AS slow\nRUN sleep 300 # {stamp()}\n"
        f"FROM workbench/base AS bad\nRUN echo broken; exit 7 # {stamp()}\n"
        "FROM workbench/base\nCOPY --from=slow / /slow\nCOPY --from=bad / /bad\n"
    )
    started = time.monotonic()
    with pytest.raises(BuildFailed, match="exit code 7") as caught:
        await build(engine, tmp_path, dockerfile)
    assert caught.value.line == 4
    assert time.monotonic() - started < PATIENCE


COUNTING = (
    "FROM workbench/base\nRUN --mount=type=cache,id={id},target=/m echo ran >> /m/count; sleep 1; cp /m/count /count\n"
)


async def count(engine: LocalEngine, folder: Path, identity: str) -> int:
    """How often the step of `COUNTING` ran: asked by a step that is new."""
    folder.mkdir()
    text = f"FROM workbench/base\nRUN --mount=type=cache,id={identity},target=/m cat /m/count # {stamp()}\n"
    return (await build(engine, folder, text)).output.count("ran")


async def test_the_same_step_of_two_builds_at_once_is_done_once(engine: LocalEngine, tmp_path: Path) -> None:
    identity = stamp()
    other = await open_engine(engine.root)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    text = COUNTING.format(id=identity)
    first, second = await asyncio.gather(build(engine, tmp_path / "a", text), build(other, tmp_path / "b", text))
    assert first.finished.image_id == second.finished.image_id
    assert sorted([len(first.ran), len(second.ran)]) == [0, 1]
    notices = [e.text for e in (*first.events, *second.events) if isinstance(e, BuildNotice)]
    assert notices == ["another build does the same step: waiting for it"]
    assert await count(engine, tmp_path / "c", identity) == 1
    await other.close()


def command(root: Path, *words: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "WORKBENCH_ROOT": str(root), "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [sys.executable, "-m", "engine.cli.main", *words]
    return subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


async def test_and_of_two_processes(engine: LocalEngine, tmp_path: Path) -> None:
    identity = stamp()
    (tmp_path / "Dockerfile").write_text(COUNTING.format(id=identity))
    both = [command(engine.root, "build", str(tmp_path)) for _ in range(2)]
    for process in both:
        _, text = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == 0, text
    assert await count(engine, tmp_path / "c", identity) == 1


async def test_a_builder_that_is_killed_leaves_its_step_to_the_next(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM workbench/base\nRUN echo begun; sleep 300 # {stamp()}\n")
    process = command(engine.root, "build", "--progress=plain", str(tmp_path))
    assert process.stderr is not None
    while b"begun\n" not in await asyncio.to_thread(process.stderr.readline):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait)
    events = engine.build(BuildRequest(tmp_path))
    async for event in events:
        if isinstance(event, StepOutput):
            break  # it runs: the dead one's lock does not hold it up
    await events.aclose()  # type: ignore[attr-defined]
    process.stderr.close()


# --- cancelling and crashing ----------------------------------------------------------------------------------


async def test_cancelled_work_stops_at_once_and_what_was_done_is_kept(engine: LocalEngine, tmp_path: Path) -> None:
    times = []
    for _ in range(3):
        (tmp_path / "Dockerfile").write_text(
            f"FROM workbench/base\nRUN echo first > /first # {stamp()}\nRUN echo ready; sleep 300 # {stamp()}\n"
        )
        events = engine.build(BuildRequest(tmp_path))
        async for event in events:
            if isinstance(event, StepOutput) and event.text == "ready":
                break
        started = time.monotonic()
        await events.aclose()  # type: ignore[attr-defined]
        times.append(time.monotonic() - started)
    assert min(times) < PATIENCE, times
    text = (tmp_path / "Dockerfile").read_text().replace("sleep 300", "true")
    assert (await build(engine, tmp_path, text)).ran == [text.splitlines()[2]]
    record = (await engine.builds(limit=2))[1]
    assert record.status == "cancelled"


@pytest.mark.parametrize("after", [0.05, 2.0])
async def test_hashing_copying_and_packing_stop_when_cancelled(
    engine: LocalEngine, tmp_path: Path, after: float
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY big /\n")
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 2 << 30)
    events = engine.build(BuildRequest(tmp_path))
    async for event in events:
        if isinstance(event, StepFinished):
            break
    await asyncio.sleep(after)
    started = time.monotonic()
    await events.aclose()  # type: ignore[attr-defined]
    assert time.monotonic() - started < PATIENCE, "gone at once, also in the middle of a large file"


async def test_a_crash_at_any_point_leaves_nothing_that_is_wrong(data_root: Path, tmp_path: Path) -> None:
    root, context = tmp_path / "root", tmp_path / "context"
    context.mkdir()
    for number in range(60):
        (context / f"f{number}").write_bytes(os.urandom(3000 + number))
    (context / "Dockerfile").write_text(
        "FROM workbench/base AS a\nCOPY . /src\nRUN cp -r /src /copy && rm /copy/f1 && echo a > /a\n"
        "FROM workbench/base\nWORKDIR /w\nCOPY --from=a /copy /copy\nRUN cat /copy/f2* > sum && chmod 600 sum\n"
    )
    reference = await open_engine(tmp_path / "reference")
    wanted = (await build(reference, context)).finished.image_id
    expected = LayerView(reference._store.lowers(reference._store.images.get(wanted)))
    engine = await open_engine(root)
    await engine.ensure_base()
    random_ = random.Random(4)
    for _ in range(7):
        process = command(root, "build", str(context))
        await asyncio.sleep(random_.uniform(0.15, 0.9))
        process.kill()
        await asyncio.to_thread(process.communicate)
        assert await engine.check() == []
    built = await build(engine, context)
    found = LayerView(engine._store.lowers(engine._store.images.get(built.finished.image_id)))
    assert list(compare(expected, found)) == []
    assert await engine.check() == []
    for one in (engine, reference):
        await one.close()


# --- BuildKit's invalidation rules (a row each) -----------------------------------------------------------------

DOCKERFILE = """FROM workbench/base AS tool
COPY tool /tool
FROM workbench/base
ARG FLAVOUR=plain
LABEL note=one
COPY --exclude=*.md src /src
RUN --mount=type=bind,source=bound,target=/b --mount=type=secret,id=s,target=/s --mount=type=cache,target=/c cat /b /proc/sys/kernel/random/uuid > /bound; date > /c/x
COPY --from=tool /tool /tool
RUN echo $FLAVOUR
CMD ["true"]
"""
COPY_SRC, RUN_BIND, COPY_TOOL, RUN_ARG = (line for line in DOCKERFILE.splitlines()[5:9])
TOOL = "COPY tool /tool"
EVERYTHING = [COPY_SRC, RUN_BIND, COPY_TOOL, RUN_ARG]


def edit(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / "Dockerfile").write_text(DOCKERFILE.replace(old, new))


ROWS: list[tuple[str, Callable[[Path], object], dict[str, object], list[str]]] = [
    ("nothing", lambda root: None, {}, []),
    ("content", lambda root: (root / "src/a").write_text("other"), {}, EVERYTHING),
    ("mode", lambda root: os.chmod(root / "src/a", 0o755), {}, EVERYTHING),
    ("times", lambda root: os.utime(root / "src/a", (9, 9)), {}, []),
    ("ignored", lambda root: (root / "src/x.log").write_text("other"), {}, []),
    ("excluded", lambda root: (root / "src/readme.md").write_text("other"), {}, []),
    ("new file", lambda root: (root / "src/new").write_text("n"), {}, EVERYTHING),
    ("deleted", lambda root: os.unlink(root / "src/a"), {}, EVERYTHING),
    ("renamed", lambda root: os.rename(root / "src/a", root / "src/z"), {}, EVERYTHING),
    ("beside the copied", lambda root: (root / "other").write_text("x"), {}, []),
    ("bound", lambda root: (root / "bound").write_text("other"), {}, [RUN_BIND, COPY_TOOL, RUN_ARG]),
    ("another stage's", lambda root: (root / "tool").write_text("other"), {}, [TOOL, COPY_TOOL, RUN_ARG]),
    ("another stage, same result", lambda root: os.utime(root / "tool", (5, 5)), {}, []),
    ("secret", lambda root: None, {"secrets": (BuildSecret("s", value=b"other"),)}, []),
    ("ARG", lambda root: None, {"build_args": {"FLAVOUR": "rich"}}, [RUN_BIND, COPY_TOOL, RUN_ARG]),
    ("ARG nobody declares", lambda root: None, {"build_args": {"OTHER": "1"}}, []),
    ("proxy ARG", lambda root: None, {"build_args": {"HTTP_PROXY": "http://p"}}, []),
    ("comment and spaces", edit("COPY --from", "# why\nCOPY   --from"), {}, []),
    ("LABEL", edit("note=one", "note=two"), {}, []),
    ("later metadata", edit('["true"]', '["false"]'), {}, []),
    ("ENV", edit("LABEL note=one", "ENV X=1"), {}, [RUN_BIND, COPY_TOOL, RUN_ARG]),
    ("command", edit("echo $FLAVOUR", "echo  $FLAVOUR"), {}, [RUN_ARG]),
    ("--no-cache", lambda root: None, {"no_cache": True}, [TOOL, *EVERYTHING]),
    ("--no-cache-filter", lambda root: None, {"no_cache_filter": ("tool",)}, [TOOL]),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    for name in ("src/a", "src/b", "src/readme.md", "bound", "tool", "other"):
        (root / name).write_text(f"{name} {stamp()}")
    (root / ".dockerignore").write_text("**/*.log\n")
    (root / "Dockerfile").write_text(DOCKERFILE)
    return root


@pytest.mark.parametrize(("change", "more", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
async def test_what_a_change_invalidates(
    engine: LocalEngine, project: Path, change: Callable[[Path], object], more: dict[str, object], expected: list[str]
) -> None:
    options: dict[str, object] = {"secrets": (BuildSecret("s", value=b"hush"),), **more}
    await build(engine, project, secrets=(BuildSecret("s", value=b"hush"),))
    change(project)
    built = await build(engine, project, **options)
    assert sorted(built.ran) == sorted(expected)  # steps that do not need each other run in any order


# --- reasons ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "more", "step", "reason"),
    [
        (ROWS[1][1], {}, COPY_SRC, "src/a content changed"),
        (ROWS[2][1], {}, COPY_SRC, "src/a mode 0644→0755"),
        (ROWS[6][1], {}, COPY_SRC, "src/new added"),
        (ROWS[7][1], {}, COPY_SRC, "src/a removed"),
        (ROWS[8][1], {}, COPY_SRC, "src/a removed, src/z added"),
        (ROWS[1][1], {}, RUN_ARG, "parent step ran"),
        (ROWS[10][1], {}, RUN_BIND, "bound content changed"),
        (ROWS[11][1], {}, COPY_TOOL, "tool content changed"),
        (lambda root: None, {"build_args": {"FLAVOUR": "rich"}}, RUN_ARG, "ARG FLAVOUR plain→rich"),
        (edit("LABEL note=one", "ENV X=1"), {}, RUN_ARG, "ENV X set"),
        (edit("echo $FLAVOUR", "echo more"), {}, "RUN echo more", "instruction changed"),
        (lambda root: None, {"no_cache": True}, RUN_ARG, "--no-cache"),
    ],
)
async def test_each_step_names_its_reason(
    engine: LocalEngine,
    project: Path,
    change: Callable[[Path], object],
    more: dict[str, object],
    step: str,
    reason: str,
) -> None:
    await build(engine, project)
    change(project)
    built = await build(engine, project, **more)
    assert built.reasons[step] == reason


async def test_a_line_put_in_above_does_not_confuse_the_reasons(engine: LocalEngine, project: Path) -> None:
    await build(engine, project)
    (project / "src/a").write_text("changed")
    text = DOCKERFILE.replace("LABEL note=one", "LABEL note=one\nLABEL more=1\nRUN true\n")
    built = await build(engine, project, text)
    assert built.reasons["RUN true"] == "instruction changed"
    assert built.reasons[COPY_SRC] == "src/a content changed"


async def test_a_base_that_moved_is_named(engine: LocalEngine, tmp_path: Path) -> None:
    name = f"base-{stamp()}"
    await build(engine, tmp_path, f"FROM workbench/base\nRUN echo one > /f # {stamp()}\n", tags=(name,))
    first = (await engine.image(name)).summary.id
    folder = tmp_path / "app"
    folder.mkdir()
    text = f"FROM {name}\nRUN echo app\n"
    await build(engine, folder, text)
    await build(engine, tmp_path, f"FROM workbench/base\nRUN echo two > /f # {stamp()}\n", tags=(name,))
    second = (await engine.image(name)).summary.id
    built = await build(engine, folder, text)
    moved = f"base {name} moved {first.removeprefix('sha256:')[:4]}→{second.removeprefix('sha256:')[:4]}"
    assert built.reasons == {"RUN echo app": moved}


# --- why ----------------------------------------------------------------------------------------------------------


async def test_why_says_before_a_build_what_the_build_then_does(engine: LocalEngine, project: Path) -> None:
    name = f"why-{stamp()}"
    request = BuildRequest(project)
    (before,) = await engine.why(request, ["src/a"])
    assert [found.step.instruction for found in before.steps] == EVERYTHING, "also when it was never built"
    assert {found.seconds for found in before.steps} == {None}
    await build(engine, project, tags=(name,))
    for path, expected in {
        "src/a": EVERYTHING,
        "src/new": EVERYTHING,
        "bound": [RUN_BIND, COPY_TOOL, RUN_ARG],
        "tool": [TOOL, COPY_TOOL, RUN_ARG],
    }.items():
        (report,) = await engine.why(request, [path])
        assert [found.step.instruction for found in report.steps] == expected, path
        assert report.images == (f"{name}:latest",)
        assert all(found.seconds is not None for found in report.steps)
        (project / path).write_text(stamp())
        assert (await build(engine, project, tags=(name,))).ran == expected, path
    for path, note in {"src/x.log": "excludes it", "src/readme.md": "no step", "other": "no step"}.items():
        (report,) = await engine.why(request, [path])
        assert (report.steps, note in report.note) == ((), True), path


# --- failure ------------------------------------------------------------------------------------------------------


async def test_a_failure_shows_the_line_and_the_last_output_and_keeps_the_place(
    engine: LocalEngine, tmp_path: Path
) -> None:
    text = (
        "FROM workbench/base\nRUN mkdir /w && chown 12:34 /w\nARG SECRETLESS=yes\nENV LASTING=1\nUSER 12:34\nWORKDIR /w\n"
        f"RUN echo half > half && \\\n    echo 'it broke \x1b[2J here' && exit 5 # {stamp()}\n"
    )
    with pytest.raises(BuildFailed) as caught:
        await build(engine, tmp_path, text, keep_failed=True)
    error = caught.value
    assert (error.exit_code, error.line) == (5, 7)
    shown = str(error)
    assert "    7 | RUN echo half > half && \\\n    8 |     echo 'it broke" in shown
    assert "      > it broke ?[2J here" in shown
    assert error.image == "workbench/failed-step:latest"
    script = "echo $PWD $(id -u):$(id -g) $SECRETLESS $LASTING; cat half"
    container = await engine.create(ContainerSpec(error.image, command=("sh", "-c", script)))
    stream = await engine.start_attached(container)
    out = b""
    while chunk := await stream.read():
        out += chunk[1]
    await engine.remove(container, force=True)
    assert out.decode() == "/w 12:34 yes 1\nhalf\n"
    assert await engine.check() == []


def test_what_was_typed_becomes_a_run_line() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        data = b"apt-get update\n#1700000000\n  ls\nexit\n\ncp a b\n"
        info = tarfile.TarInfo(".workbench-history")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    assert commands(out.getvalue()) == ["apt-get update", "ls", "cp a b"]
