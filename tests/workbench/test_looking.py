"""Processes, changed files and the page of a container, from its row."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from engine.api import Change, PathStat, ProcessList
from engine.errors import InvalidInput
from tests.workbench.fake_engine import FakeEngine, a_container, until
from tests.workbench.test_actions import lines, running, trouble
from workbench.looking import addresses, file_lines, opener, process_lines
from workbench.screens.reading import ReadingScreen


class Files(FakeEngine):
    """One file, `/etc/motd`; everything else is a folder."""

    content = b"hello\n"

    async def top(self, name: str, arguments: Any = ()) -> ProcessList:
        return ProcessList(
            ("PID", "USER", "COMMAND"), (("1", "root", "sh -c 'a  b'"), ("12", "日本", "\x1b[31msleep 1"))
        )

    async def stat_path(self, name: str, path: str) -> PathStat:
        mode = stat.S_IFREG if path == "/etc/motd" else stat.S_IFDIR
        return PathStat(path, len(self.content), mode, 0)

    async def get_archive(self, name: str, path: str, out: Any, **_: Any) -> None:
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo("motd")
            info.size = len(self.content)
            tar.addfile(info, io.BytesIO(self.content))


def an_engine() -> Files:
    engine = Files(containers=[a_container("web")])
    engine.changed = [Change("C", "/etc"), Change("A", "/etc/motd"), Change("D", "/gone")]
    return engine


def shown(app: Any) -> list[str]:
    return [line.text for line in app.screen.view.lines]


async def test_processes_and_changed_files() -> None:
    async with running(an_engine()) as (app, pilot, _):
        await pilot.press("2", "g", "t")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        assert shown(app)[0].split() == ["PID", "USER", "COMMAND"]
        await pilot.press("escape", "f")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen) and "C /etc" in shown(app))
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen) and shown(app) == ["hello"])
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen) and "D /gone" in shown(app))
        assert app.screen.view.cursor == 1, "where it was left"
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ReadingScreen))
        assert "workbench diff web" in lines(app)


async def test_the_page_is_copied_where_nothing_can_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMUX", "DISPLAY", "WAYLAND_DISPLAY", "WORKBENCH_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    engine = an_engine()
    engine.containers_["dark"] = a_container("dark", ports=())
    async with running(engine) as (app, pilot, _):
        await pilot.press("2")
        for name in ("dark", "web"):
            found = app.lists.container(name)
            assert found
            app.go_to("containers", app.panes["containers"]._subjects[found.id])  # type: ignore[attr-defined]
            await pilot.press("w")
            if name == "dark":
                await until(pilot, lambda: "dark publishes no port" in trouble(app))
        await until(pilot, (tmp_path / "workbench/clipboard.txt").exists)
        assert (tmp_path / "workbench/clipboard.txt").read_text() == "http://localhost:8000/"


def test_process_lines_are_aligned_and_drive_no_terminal() -> None:
    found = ProcessList(("PID", "USER", "COMMAND"), (("1", "root", "sh"), ("12", "日本", "\x1b[31msleep 1")))
    assert [line.text for line in process_lines(found)] == [
        "PID  USER  COMMAND",
        "1    root  sh",
        "12   日本  sleep 1",
    ]


def test_addresses_and_who_opens_them() -> None:
    ports = (
        "0.0.0.0:8080->80/tcp",
        "[::]:8080->80/tcp",
        "192.0.2.1:8443->443/tcp",
        "53/udp",
        "0.0.0.0:53->53/udp",
        "80/tcp",
    )
    web = a_container("web", ports=ports)
    assert addresses(web, {}) == ["http://localhost:8080/", "https://192.0.2.1:8443/"]
    assert addresses(web, {"WORKBENCH_HOST": "ssh://me@far.example"})[0] == "http://far.example:8080/"
    assert addresses(a_container("many", ports=("0.0.0.0:8000-8001->80-81/tcp",)), {})[1] == "http://localhost:8001/"
    assert opener({"DISPLAY": ":0"}, "linux") == ["xdg-open"]
    assert opener({"DISPLAY": ":10", "SSH_CONNECTION": "1"}, "linux") == []
    assert opener({}, "darwin") == ["open"]
    assert opener({}, "linux") == []


async def test_what_is_no_text_or_no_file_is_said() -> None:
    engine = an_engine()
    with pytest.raises(InvalidInput, match="/etc is a folder"):
        await file_lines(engine, "web", "/etc")  # type: ignore[arg-type]
    engine.content = b"\x7fELF\0\0"
    with pytest.raises(InvalidInput, match="no text"):
        await file_lines(engine, "web", "/etc/motd")  # type: ignore[arg-type]
    engine.content = b"x" * (2 << 20)
    with pytest.raises(InvalidInput, match="2,097,152 bytes"):
        await file_lines(engine, "web", "/etc/motd")  # type: ignore[arg-type]
