"""The whole engine on real containers: build, cache, reasons, run, logs, stop, replace. One data root, one embedded base image."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.api import (
    BuildEvent,
    BuildFinished,
    BuildRequest,
    ContainerSpec,
    ExecSpec,
    LoopEvent,
    LoopNotice,
    Replaced,
    ServiceBuildFailed,
    ServiceState,
    StepFinished,
    Stream,
)
from engine.errors import BuildFailed, Conflict, Corrupt, DockerfileError, InvalidInput, NotFound, StartFailed
from engine.local import LocalEngine, open_engine
from engine.oci.digest import Digest
from engine.project.discovery import discover
from engine.project.loop import InnerLoop
from tests.patience import PATIENCE

pytestmark = pytest.mark.root

DOCKERFILE = """FROM workbench/base AS tools
RUN mkdir /out && echo made > /out/tool
FROM workbench/base AS unused
RUN exit 9
FROM workbench/base
WORKDIR /made-here
COPY --from=tools /out/tool /usr/local/share/tool
COPY --chown=12:34 --chmod=640 *.txt ./
RUN cat a.txt > copied && rm /etc/hosts.none 2>/dev/null; echo "$GREETING"
ENV GREETING=hello
CMD ["sh", "-c", "cat /usr/local/share/tool a.txt; echo $GREETING >&2"]
"""


@pytest.fixture
async def engine(data_root: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(data_root)
    yield opened
    for container in await opened.containers(all=True):
        await opened.remove(container.id, force=True)
    await opened.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / ".dockerignore").write_text("secret*\n")
    (tmp_path / "secret.txt").write_text("not for the image")
    return tmp_path


async def build(engine: LocalEngine, context: Path, tag: str = "t") -> tuple[BuildFinished, list[BuildEvent]]:
    events = [event async for event in engine.build(BuildRequest(context, tags=(tag,)))]
    assert isinstance(events[-1], BuildFinished)
    return events[-1], events


async def run(
    engine: LocalEngine, *command: str, image: str = "workbench/base", **more: object
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    if image == "workbench/base":
        await engine.ensure_base()
    container = await engine.create(ContainerSpec(image, command=command or None, **more))  # type: ignore[arg-type]
    out = await collect(await engine.start_attached(container))
    return await engine.wait(container), out["stdout"], out["stderr"]


async def collect(stream: Stream) -> dict[str, str]:
    out = {"stdout": b"", "stderr": b""}
    await stream.close_stdin()
    while chunk := await stream.read():
        out[chunk[0]] += chunk[1]
    return {name: data.decode() for name, data in out.items()}


def ran(events: list[BuildEvent]) -> list[str]:
    return [
        event.step.instruction.split()[0] for event in events if isinstance(event, StepFinished) and not event.cached
    ]


async def test_build_is_cached_by_content_and_says_why_a_step_runs(engine: LocalEngine, context: Path) -> None:
    first, events = await build(engine, context)
    assert sorted(ran(events)) == ["COPY", "COPY", "RUN", "RUN", "WORKDIR"], "the stage that nothing needs is not built"
    (context / "a.txt").touch()
    (context / "secret.txt").write_text("changed, and ignored")
    again, events = await build(engine, context)
    assert (ran(events), again.image_id) == ([], first.image_id)
    (context / "a.txt").write_text("two\n")
    changed, events = await build(engine, context)
    assert ran(events) == ["COPY", "RUN"]
    assert changed.reason == "a.txt content changed"
    assert [e.reason for e in events if isinstance(e, StepFinished) and not e.cached][1] == "parent step ran"
    assert await run(engine, image="t") == (0, "made\ntwo\n", "hello\n")
    code, listing, _ = await run(engine, "stat", "-c", "%a %u:%g %n", "a.txt", "copied", image="t")
    assert (code, listing.splitlines()) == (0, ["640 12:34 a.txt", "644 0:0 copied"])
    assert (await run(engine, "ls", "/made-here", image="t"))[1].split() == ["a.txt", "copied"]


async def test_image_is_an_oci_layout_that_checks(engine: LocalEngine, context: Path, data_root: Path) -> None:
    finished, _ = await build(engine, context)
    detail = await engine.image("t")
    layers = [layer for layer in detail.layers if layer.diff_id]
    assert [layer.line for layer in detail.layers if layer.instruction.startswith("COPY")] == [7, 8]
    assert len(layers) == 5
    await asyncio.to_thread(engine._store.unsynced.catch_up)
    index = json.loads((data_root / "oci/index.json").read_bytes())
    named = {
        m["annotations"]["org.opencontainers.image.ref.name"]: m["digest"]
        for m in index["manifests"]
        if "annotations" in m
    }
    assert named["t:latest"] == finished.digest
    assert await engine.check() == []


@pytest.mark.peer("skopeo")
async def test_skopeo_reads_the_layout(engine: LocalEngine, context: Path, data_root: Path, tmp_path: Path) -> None:
    await build(engine, context)
    await asyncio.to_thread(engine._store.unsynced.catch_up)
    process = await asyncio.to_thread(
        subprocess.run,
        ["skopeo", "copy", f"oci:{data_root}/oci:t:latest", f"oci:{tmp_path}/copy:t"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "copy/oci-layout").exists()


async def test_damage_is_found_and_named(tmp_path: Path) -> None:
    engine = await open_engine(tmp_path / "root")
    blob = engine._store.blobs.put(b"content")
    assert await engine.check() == []
    engine._store.blobs.path(blob).write_bytes(b"damaged")
    findings = await engine.check()
    assert [finding.kind for finding in findings] == ["blob"]
    with pytest.raises(Corrupt):
        engine._store.blobs.read(blob)
    writer = engine._store.blobs.ingest()
    writer.write(b"other")
    with pytest.raises(Corrupt):
        writer.commit(Digest.of(b"promised"), 5)
    assert list((tmp_path / "root/tmp").iterdir()) == []
    await engine.close()


@pytest.mark.parametrize(
    ("dockerfile", "error", "words"),
    [
        ("FROM workbench/base\nRUN exit 3\n", BuildFailed, "exit code 3"),
        ("FROM workbench/base\nCOPY missing /\n", DockerfileError, "missing"),
        ("FROM workbench/base\nCOPY ../../etc/passwd /x\n", DockerfileError, "passwd"),
        ("FROM workbench/base\nRUNN x\n", DockerfileError, "unknown instruction"),
        ("FROM workbench/base\nRUN --mount=type=cache,target=/ true\n", DockerfileError, "invalid mount target"),
        ("FROM workbench/base\nRUN --network=host true\n", DockerfileError, "not allowed"),
    ],
)
async def test_a_build_that_cannot_be_says_so(
    engine: LocalEngine, tmp_path: Path, dockerfile: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile)
    with pytest.raises(error, match=words) as caught:
        await build(engine, tmp_path)
    assert getattr(caught.value, "line", 2) == 2
    assert await engine.check() == []


async def test_link_out_of_the_context_is_not_followed(engine: LocalEngine, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("host secret")
    context = tmp_path / "context"
    context.mkdir()
    (context / "link").symlink_to(outside)
    (context / "Dockerfile").write_text("FROM workbench/base\nCOPY link /x\n")
    with pytest.raises(DockerfileError, match="link"):
        await build(engine, context)


async def test_isolation_is_dockers(engine: LocalEngine) -> None:
    code, out, _ = await run(
        engine,
        "sh",
        "-c",
        "echo $$; grep -E 'Cap|Seccomp:|NoNew' /proc/self/status; cat /etc/hostname; ls /proc/self/fd | wc -l",
    )
    lines = dict(line.split(":\t") for line in out.splitlines() if ":\t" in line)
    assert code == 0
    assert out.splitlines()[0] == "1"
    assert lines["CapBnd"] == lines["CapEff"] == "00000000a80425fb"
    assert lines["CapInh"] == lines["CapAmb"] == "0" * 16
    assert lines["Seccomp"] == "2"
    for command in (
        "unshare -r true",
        "mount -t tmpfs x /tmp",
        "echo 1 > /proc/sys/kernel/panic",
        "mknod b b 8 0 && cat b",
    ):
        assert (await run(engine, "sh", "-c", command))[0] != 0, command


async def test_exit_codes_are_dockers(engine: LocalEngine) -> None:
    assert (await run(engine, "sh", "-c", "exit 7"))[0] == 7
    assert (await run(engine, "sh", "-c", "sh -c 'kill -9 $$'"))[0] == 137  # pid 1 itself is immune
    for command, code in (("nosuchcommand", 127), ("/etc", 126)):
        with pytest.raises(StartFailed) as caught:
            await run(engine, command)
        assert caught.value.exit_code == code


async def test_life_of_a_container(engine: LocalEngine) -> None:
    await engine.ensure_base()
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    name = await engine.create(ContainerSpec("workbench/base", name="life", command=("sh", "-c", script)))
    with pytest.raises(Conflict, match="already in use"):
        await engine.create(ContainerSpec("workbench/base", name="life", command=("true",)))
    await engine.start("life")
    lines = engine.logs("life", follow=True)
    assert (await asyncio.wait_for(anext(lines), PATIENCE)).text == "ready"
    stream = await engine.exec("life", ExecSpec(("sh", "-c", "echo in; exit 4")))
    assert (await collect(stream))["stdout"] == "in\n"
    assert await stream.wait() == 4
    with pytest.raises(Conflict, match="running"):
        await engine.remove("life")
    await engine.stop("life")
    assert [line.text async for line in lines] == ["bye"]
    summary = (await engine.container("life")).summary
    assert (summary.status, summary.exit_code) == ("exited", 0)
    await engine.remove(name[:12])
    with pytest.raises(NotFound):
        await engine.container("life")


async def test_another_process_finds_the_container_and_its_exit(engine: LocalEngine, data_root: Path) -> None:
    await engine.ensure_base()
    await engine.create(
        ContainerSpec("workbench/base", name="kept", command=("sh", "-c", "echo one; read x; exit 5"), open_stdin=True)
    )
    await engine.start("kept")
    other = await open_engine(data_root)
    assert [c.name for c in await other.containers()] == ["kept"]
    await other.kill("kept", "TERM")
    await other.kill("kept", "KILL")
    assert await other.wait("kept") == 137
    assert [line.text async for line in other.logs("kept")] == ["one"]
    await other.close()


async def next_event(events: AsyncIterator[LoopEvent], kind: type, seen: list[LoopEvent]) -> LoopEvent:
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            seen.append(event)
            if isinstance(event, kind) and not (
                isinstance(event, ServiceState) and event.phase not in ("running", "failed")
            ):
                return event
    raise AssertionError(f"the loop ended without {kind.__name__}: {seen}")


async def test_saving_a_file_replaces_the_container_in_one_log(
    engine: LocalEngine, tmp_path: Path, data_root: Path
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    source = "import signal,sys,time\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(0))\nprint('{}', flush=True)\nwhile True: time.sleep(0.05)\n"
    (folder / "app.py").write_text(source.format("first"))
    (folder / "Dockerfile").write_text('FROM workbench/base\nCOPY app.py /app.py\nCMD ["python3", "/app.py"]\n')
    loop = InnerLoop(engine, discover(folder), data_root / "projects")
    events, seen = loop.events(), []
    state = await next_event(events, ServiceState, seen)
    assert isinstance(state, ServiceState)
    assert (state.phase, state.container, state.generation) == ("running", "shop-app-1", 1)
    async for line in engine.logs("shop-app-1", follow=True):
        if line.text == "first":  # its handler stands: before that, a stop is a kill, and said
            break
    (folder / "app.py").write_text(source.format("second"))
    replaced = await next_event(events, Replaced, seen)
    assert isinstance(replaced, Replaced)
    assert "app.py → step 2/3 COPY app.py /app." in replaced.rule  # 80 columns: the end gives way to a longer time
    (folder / "app.py").touch()  # is no change at all
    with (folder / "Dockerfile").open("a") as file:
        file.write("# a remark changes nothing that is built\n")
    notice = await next_event(events, LoopNotice, seen)
    assert isinstance(notice, LoopNotice)
    assert "content unchanged" in notice.text
    (folder / "Dockerfile").write_text("FROM workbench/base\nRUN false\n")
    failed = await next_event(events, ServiceBuildFailed, seen)
    assert isinstance(failed, ServiceBuildFailed)
    assert (failed.line, failed.still_runs) == (2, True)
    assert (await engine.container("shop-app-1")).summary.running, "a failed build leaves the old container running"
    await loop.close()
    async for line in engine.logs("shop-app-1", follow=True):
        if line.text == "second":
            break
    texts = [(line.stream, line.text) async for line in engine.logs("shop-app-1")]
    assert [text for stream, text in texts if stream == "stdout"] == ["first", "second"]
    rules = [text for stream, text in texts if stream == "workbench"]
    assert [text.split()[1] for text in rules] == ["rebuilt"]
    assert texts.index(("workbench", rules[0])) < texts.index(("stdout", "second"))
    shutil.rmtree(folder)


async def test_the_second_workbench_on_a_project_takes_over_when_the_first_ends(
    engine: LocalEngine, tmp_path: Path, data_root: Path
) -> None:
    folder = tmp_path / "pair"
    folder.mkdir()
    (folder / "Dockerfile").write_text('FROM workbench/base\nCMD ["sleep", "1000"]\n')
    first = InnerLoop(engine, discover(folder), data_root / "projects")
    await next_event(first.events(), ServiceState, [])
    second = InnerLoop(engine, discover(folder), data_root / "projects")
    events, seen = second.events(), []
    notice = await next_event(events, LoopNotice, seen)
    assert isinstance(notice, LoopNotice)
    assert "another workbench looks after pair" in notice.text
    shown = await next_event(events, ServiceState, seen)
    assert isinstance(shown, ServiceState)
    assert shown.container == "pair-app-1"
    await second.rebuild()
    refused = await next_event(events, LoopNotice, seen)
    assert isinstance(refused, LoopNotice)
    assert "not rebuilt" in refused.text
    await first.close()
    taken = await next_event(events, LoopNotice, seen)
    assert isinstance(taken, LoopNotice)
    assert "rebuilds from now on" in taken.text
    await next_event(events, ServiceState, seen)
    (folder / "Dockerfile").write_text('FROM workbench/base\nCMD ["sleep", "1001"]\n')
    await second.rebuild()
    replaced = await next_event(events, Replaced, seen)
    assert isinstance(replaced, Replaced)
    await second.close()


async def test_names_that_cannot_be(engine: LocalEngine) -> None:
    with pytest.raises(InvalidInput, match="on no registry"):
        async for _ in engine.pull("workbench/base"):
            pass
    with pytest.raises(NotFound):
        await engine.create(ContainerSpec("no-such-image"))
