"""Graphs as text, and the pane of what the host and the containers use."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import Unsupported
from engine.model import HostStats
from engine.service.host_stats import disk_bytes, read_host
from tests.workbench.fake_engine import FakeEngine, a_container, until
from workbench.app import WorkbenchApp
from workbench.graphs import graph, nice_top
from workbench.panes.stats import StatsPane


def test_a_graph_has_the_newest_value_at_the_right() -> None:
    assert graph([0, 0, 100, 100], 4, 1, 100) == ["   ⣿"]
    assert graph([100, 50, 25, 0], 2, 1, 100) == ["⣧⡀"]
    assert graph([100, 100], 1, 2, 100) == ["⣿", "⣿"]
    assert graph([50, 50], 1, 2, 100) == [" ", "⣿"]
    assert graph([0.001, 0], 1, 1, 100) == ["⡀"]  # a little is not nothing
    assert graph([0, 50, 100], 3, 1, 100, plain=True) == [" =#"]
    assert graph([], 0, 1, 1) == []


@pytest.mark.parametrize(("value", "top"), [(3, 10), (10, 10), (11, 20), (120, 200), (0, 10), (501, 1000)])
def test_scales_end_at_round_numbers(value: float, top: float) -> None:
    assert nice_top([value], 10) == top


def test_the_host_is_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2\ncpu1 1 2\n")
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n")
    device = "  {}: {} 1 0 0 0 0 0 0 {} 1 0 0 0 0 0 0\n"
    names = [("lo", 7, 7), ("eth0", 10, 20), ("veth12", 5, 5)]
    (tmp_path / "net/dev").write_text("a\nb\n" + "".join(device.format(*one) for one in names))
    (tmp_path / "diskstats").write_text(
        " 8 0 sda 1 0 10 0 1 0 20 0 0 0 0\n 8 1 sda1 1 0 10 0 1 0 20 0 0 0 0\n 253 0 dm-0 1 0 9 0 1 0 9 0 0 0 0\n"
    )
    found = read_host(tmp_path)
    assert found.memory_used == 600 * 1024
    assert (found.received, found.sent, found.read, found.written) == (10, 20, 5120, 10240)
    assert found.cpus == 2
    later = HostStats(found.time + 10**9, found.cpu_busy + 10, found.cpu_all + 20, 2, 0, 0, 110, 20, 5120, 10240)
    assert later.cpu_percent(found) == 100.0
    assert later.rates(found) == (100.0, 0.0, 0.0, 0.0)
    assert disk_bytes("") == (0, 0)
    assert read_host(tmp_path / "none").memory_total == 0


@pytest.mark.parametrize("size", [(80, 24), (160, 45), (30, 8)])
async def test_the_pane_draws_the_host_and_the_containers_while_it_shows(size: tuple[int, int]) -> None:
    engine = FakeEngine(containers=[a_container("web"), a_container("db")])
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        pane = app.panes["stats"]
        assert isinstance(pane, StatsPane)
        await until(pilot, lambda: app.lists.containers)
        assert not engine.called("host_stats")
        await pilot.press("9")
        await until(pilot, lambda: engine.called("host_stats"))
        for _ in range(3):
            await app.bridge.read_stats()
            await pilot.pause()
        await until(pilot, lambda: len(pane.list.keys) == 3)
        assert pane.list.selected == "host"
        assert pane.subjects == []
        assert app.selection("stats") is None
        await pilot.press("j")
        assert [subject.name for subject in pane.subjects] == ["db"]
        if size[1] >= 45:
            assert pane.board.display
            assert "CPU" in pane.board.render_line(0).text


async def test_without_a_host_the_containers_are_there() -> None:
    engine = FakeEngine(containers=[a_container("web")])
    engine.fails["host_stats"] = Unsupported("not possible on another engine")
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.lists.containers)
        await pilot.press("9")
        pane = app.panes["stats"]
        assert isinstance(pane, StatsPane)
        await until(pilot, lambda: pane.list.keys)
        assert pane.list.selected == app.lists.containers[0].id
