"""Files brought into the running container: what a rule or the Dockerfile says, with owner and mode, and what follows."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.api import ContainerSpec, ExecSpec, LoopNotice, Replaced, ServiceBuildFailed, Synced, SyncEntry
from engine.local import LocalEngine, open_engine, runtime_dir
from engine.project import service_loop
from tests.conftest import end_supervisor
from tests.service.conftest import text_of
from tests.service.looping import PROGRAM, looping

pytestmark = pytest.mark.root

COMPOSE = """services:
  app:
    build: .
    develop:
      watch:
        - {{action: {action}, path: src, target: /app/src, ignore: ["*.tmp"]{more}}}
        - {{action: rebuild, path: requirements.txt}}
"""
DOCKERFILE = 'FROM workbench/base\nWORKDIR /app\nCOPY . .\nCMD ["python3", "-u", "/app/main.py"]\n'


def files(action: str, more: str = "") -> dict[str, str]:
    return {
        "compose.yaml": COMPOSE.format(action=action, more=more),
        "Dockerfile": DOCKERFILE,
        "main.py": PROGRAM.format(word="up"),
        "src/page.html": "one",
        "requirements.txt": "",
    }


async def test_a_rule_syncs_writes_makes_and_removes_without_a_new_container(
    local: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_loop, "BEHIND", 1000)
    async with looping(local, tmp_path / "rule", files("sync")) as it:
        container = (await it.running()).container
        before = (await local.container(container)).summary

        def of(path: str) -> Callable[[Synced], bool]:  # the watching may tell of the folder by itself, later
            return lambda event: path in event.paths

        path = it.save("src/page.html", "two")
        synced = await it.until(Synced)
        assert (synced.paths, synced.then, synced.drift) == (("src/page.html",), "", 1)
        assert await it.inside(container, "cat", "/app/src/page.html") == "two"
        it.save("src/new/deep.txt", "deep")
        await it.until(Synced, of("src/new/deep.txt"))
        assert await it.inside(container, "cat", "/app/src/new/deep.txt") == "deep"
        os.chmod(path, 0o750)
        it.loop.changed([path])
        await it.until(Synced, of("src/page.html"))
        assert await it.inside(container, "stat", "-c", "%a %u", "/app/src/page.html") == "750 0\n"
        it.save("src/page.html", None)
        await it.until(Synced, of("src/page.html"))
        assert "No such file" in await it.inside(container, "cat", "/app/src/page.html")
        it.save("src/x.tmp", "ignored")
        it.save("other.txt", "no rule speaks of it")
        it.save("src/last", "")
        await it.until(Synced)
        assert "No such file" in await it.inside(container, "ls", "/app/src/x.tmp", "/app/other.txt")
        after = (await local.container(container)).summary
        assert (after.id, after.started) == (before.id, before.started)
        drift = {(d.kind, d.path): d.in_image for d in await local.drift(container) if d.path.startswith("/app")}
        assert drift == {
            ("D", "/app/src/page.html"): False,
            ("A", "/app/src/new"): False,
            ("A", "/app/src/new/deep.txt"): False,
            ("A", "/app/src/last"): False,
        }


async def test_a_rule_for_a_folder_that_is_made_later(
    local: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_loop, "BEHIND", 1000)
    outside = tmp_path / "outside"
    given = files("sync")
    given["compose.yaml"] = given["compose.yaml"].replace("path: src", "path: ../outside/made/later")
    async with looping(local, tmp_path / "later", given) as it:
        container = (await it.running()).container
        (outside / "made/later/deep").mkdir(parents=True)
        (outside / "made/later/deep/one.txt").write_text("one")
        while await it.inside(container, "cat", "/app/src/deep/one.txt") != "one":
            await it.until(Synced)
        (outside / "made/later/two.txt").write_text("two")
        await it.until(Synced, lambda e: any(path.endswith("two.txt") for path in e.paths))
        assert await it.inside(container, "cat", "/app/src/two.txt") == "two"


async def test_after_syncs_an_image_is_built_behind(local: LocalEngine, tmp_path: Path) -> None:
    async with looping(local, tmp_path / "behind", files("sync")) as it:
        container = (await it.running()).container
        it.save("src/page.html", "two")
        await it.until(Synced)
        notice = await it.until(LoopNotice)
        assert "generation 2 built behind" in notice.text
        drift = [(d.path, d.in_image) for d in await local.drift(container) if d.path.startswith("/app")]
        assert drift == [("/app/src/page.html", True)]
        # The same content again is no reason to replace the container, another one is.
        it.save("requirements.txt", "")
        assert "content unchanged" in (await it.until(LoopNotice)).text
        it.save("requirements.txt", "more")
        replaced = await it.until(Replaced)
        assert replaced.generation == 3
        assert await it.inside(container, "cat", "/app/src/page.html") == "two"


async def test_sync_and_restart_and_sync_and_exec(local: LocalEngine, tmp_path: Path) -> None:
    async with looping(local, tmp_path / "again", files("sync+restart")) as it:
        container = (await it.running()).container
        first = (await local.container(container)).summary
        it.save("src/page.html", "two")
        assert (await it.until(Synced)).then == "restart"
        second = (await local.container(container)).summary
        assert second.id == first.id
        assert second.started > first.started
        assert await it.inside(container, "cat", "/app/src/page.html") == "two"
    hook = ', exec: {command: ["sh", "-c", "echo $$WORD; id -u; pwd"], user: "65534", working_dir: /tmp, environment: [WORD=hook]}'
    async with looping(local, tmp_path / "hook", files("sync+exec", hook)) as it:
        container = (await it.running()).container
        it.save("src/page.html", "two")
        assert (await it.until(Synced)).then == "exec"
        lines = [text for stream, text in await it.log(container) if stream == "workbench"]
        assert lines[-3:] == ["hook", "65534", "/tmp"]
    async with looping(local, tmp_path / "nohook", files("sync+exec", ", exec: {command: nonesuch -x}")) as it:
        await it.running()
        it.save("src/page.html", "two")
        assert "`nonesuch -x` cannot run in the container" in (await it.until(LoopNotice)).text
        assert (await it.until(Synced)).then == "exec", "what was synced is there, and no reason to try again"


async def test_a_failed_sync_is_not_forgotten(local: LocalEngine, tmp_path: Path) -> None:
    async with looping(local, tmp_path / "fails", files("sync")) as it:
        container = (await it.running()).container
        (tmp_path / "fails/src").mkdir(exist_ok=True)
        os.mkfifo(tmp_path / "fails/src/pipe")
        it.save("src/page.html", "two")
        await it.until(Synced)
        it.loop.changed([tmp_path / "fails/src/pipe"])
        failed = await it.until(ServiceBuildFailed)
        assert "neither a file, a folder nor a link" in failed.message
        assert failed.still_runs
        (tmp_path / "fails/src/pipe").unlink()
        (tmp_path / "fails/src/pipe").write_text("a file now")
        it.save("src/other", "x")  # another path: what failed is judged again with it
        assert set((await it.until(Synced)).paths) == {"src/other", "src/pipe"}
        assert await it.inside(container, "cat", "/app/src/pipe") == "a file now"


async def test_without_rules_a_copied_file_is_synced_when_asked_for_and_a_built_one_is_not(
    local: LocalEngine, tmp_path: Path
) -> None:
    dockerfile = (
        "FROM workbench/base\nWORKDIR /app\nCOPY setup.txt .\nRUN cp setup.txt made.txt\n"
        'COPY --chown=1234:2345 --chmod=u=rwX,go= src/ /srv/\nCOPY main.py .\nCMD ["python3", "-u", "/app/main.py"]\n'
    )
    given = {"Dockerfile": dockerfile, "setup.txt": "a", "src/page.html": "one", "main.py": PROGRAM.format(word="up")}
    async with looping(local, tmp_path / "infer", given, sync="files") as it:
        container = (await it.running()).container
        it.save("src/page.html", "two")
        await it.until(Synced)
        told = await it.inside(container, "stat", "-c", "%u:%g %a", "/srv/page.html")
        assert told == "1234:2345 600\n"
        assert await it.inside(container, "cat", "/srv/page.html") == "two"
        it.save("setup.txt", "b")
        replaced = await it.until(Replaced)
        assert "setup.txt" in replaced.rule
        assert await it.inside(container, "cat", "/app/made.txt", "/srv/page.html") == "btwo"


async def test_a_link_of_the_container_leads_no_sync_out_of_it(local: LocalEngine, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with looping(local, tmp_path / "escape", files("sync")) as it:
        container = (await it.running()).container
        await it.inside(container, "sh", "-c", f"rm -r /app/src && ln -s {outside} /app/src && mkdir -p /proc/nothing")
        it.save("src/page.html", "two")
        await it.until(Synced)
        assert list(outside.iterdir()) == []
        assert await it.inside(container, "cat", f"{outside}/page.html") == "two"
        await it.inside(container, "sh", "-c", "rm /app/src && ln -s /proc/sys/kernel /app/src")
        it.save("src/core_pattern", "|/bin/evil")
        failed = await it.until(ServiceBuildFailed)
        assert "a file system of the kernel" in failed.message or "read-only" in failed.message
        assert "evil" not in Path("/proc/sys/kernel/core_pattern").read_text()
        await it.inside(container, "sh", "-c", "rm /app/src && mkdir /app/src && mknod /app/src/disk b 8 0")
        it.save("src/disk", "a file takes its place, and the device is not opened")
        await it.until(Synced)
        assert stat.S_ISREG(int(await it.inside(container, "stat", "-c", "0x%f", "/app/src/disk"), 16))


async def test_a_sync_into_a_user_namespace_of_its_own_has_the_container_s_owners(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "settings.json").write_text('{"runtime": {"userns-remap": "100000:65536"}}')
    (tmp_path / "file").write_text("inside")
    engine = await open_engine(root)
    await engine.ensure_base()
    container = await engine.create(ContainerSpec("workbench/base", command=("sleep", "1000"), init=True))
    try:
        await engine.start(container)
        entries = [SyncEntry(tmp_path / "file", "/srv/a"), SyncEntry(tmp_path / "file", "/srv/b", owner="1000")]
        await engine.sync(container, entries)
        stream = await engine.exec(container, ExecSpec(("stat", "-c", "%u:%g", "/srv/a", "/srv/b")))
        assert await text_of(stream) == "0:0\n1000:1000\n"
        await stream.wait()
        await stream.close()
    finally:
        await engine.remove(container, force=True)
        await engine.close()
        end_supervisor(runtime_dir(root))
