"""What the host and the containers use: a row with small graphs for each, and larger ones of the selected. Only while it shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.events import Resize
from textual.widget import Widget

from engine.errors import EngineError
from workbench import commands, plain_text
from workbench.graphs import HOST_REST, History, Series, graph, nice_top
from workbench.messages import Reading
from workbench.panes.rows import FILTER, RowsPane
from workbench.rows import brief_bytes, brief_percent
from workbench.state import DIM, neutral
from workbench.subjects import Subject
from workbench.table import Column, natural_key
from workbench.widgets.graph_board import Graph, GraphBoard
from workbench.widgets.row_list import RowList

if TYPE_CHECKING:
    from engine.api import HostStats

HOST = "host"
BOARD_FROM = 13  # rows of height from which the selected one's graphs show
_WIDE = 16  # cells of a small graph
STATS = (
    Column(grow=True, title="NAME", key=lambda series: natural_key(series.name)),
    Column(title="", drop=30, styles={"": "accent"}),
    Column(right=True, title="CPU", key=lambda series: last(series.cpu)),
    Column(title="", drop=50, styles={"": "success"}),
    Column(right=True, title="MEMORY", key=lambda series: last(series.memory)),
    Column(right=True, title="IN/S", drop=20, key=lambda series: last(series.received)),
    Column(right=True, title="OUT/S", drop=21, key=lambda series: last(series.sent)),
    Column(right=True, title="READ/S", drop=40, styles={"": DIM}, key=lambda series: last(series.read)),
    Column(right=True, title="WRITE/S", drop=41, styles={"": DIM}, key=lambda series: last(series.written)),
)


class StatsPane(RowsPane):
    NAME, TITLE, KIND = "stats", "stats", "container"
    WANTS_STATS = True
    COLUMNS = STATS
    EMPTY = "Readings are taken every few seconds while this pane shows."
    BINDINGS: ClassVar[list[Binding]] = [*commands.bindings("container"), FILTER]
    DEFAULT_CSS = """
    StatsPane > GraphBoard { display: none; }
    StatsPane.-boarded > RowList { height: auto; max-height: 50%; min-height: 4; }
    StatsPane.-boarded > GraphBoard { display: block; height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._plain = plain_text.wanted() or os.environ.get("TERM") in ("linux", "vt100", "vt220")
        self.board = GraphBoard(plain=self._plain)
        self._history = History()
        self._host: Series | None = None
        self._before: HostStats | None = None
        self._cpus = os.cpu_count() or 1

    def content(self) -> Iterable[Widget]:
        yield self.list
        yield self.board

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.height >= BOARD_FROM, "-boarded")

    def hidden(self) -> None:
        self._before = None  # what was in between is no rate

    def stats_read(self, readings: Mapping[str, Reading]) -> None:
        if not self.on_screen:
            return
        self._history.add(readings)
        self.work(self._read_host, group="host")

    async def _read_host(self) -> None:
        try:
            now = await self.bridge.engine.host_stats()
        except EngineError:  # another engine does not tell of its host
            self._host = None
        else:
            self._host = self._host or Series(HOST, rest=HOST_REST)
            self._host.limit, self._cpus = now.memory_total, now.cpus
            if self._before is not None:
                rates = now.rates(self._before)
                self._host.add(now.cpu_percent(self._before), now.memory_used, *rates)
            self._before = now
        self._draw()

    def _draw(self) -> None:
        rows = []
        if self._host is not None:
            subject = Subject("container", HOST, HOST, self._host)
            rows.append((subject, self._row(self._host, 100.0 * self._cpus)))
        for key, series in sorted(self._history.series.items(), key=lambda item: natural_key(item[1].name)):
            rows.append((Subject("container", key, series.name, series), self._row(series, 100.0)))
        self.put(rows)
        self._draw_board()

    def _row(self, series: Series, least: float) -> tuple[str, ...]:
        def small(values: Sequence[float], top: float) -> str:
            return graph(values, _WIDE, 1, top, plain=self._plain)[0]

        recent = list(series.cpu)[-2 * _WIDE :]
        return (
            neutral(series.name),
            small(recent, nice_top(recent, least)),
            f"{brief_percent(last(series.cpu)):>6}",
            small(series.memory, series.limit or nice_top(series.memory, 1)),
            f"{brief_bytes(last(series.memory)):>6}",
            # Always as wide: columns that come and go would move all others.
            *(
                f"{_rate(last(rates)) or '-':>6}"
                for rates in (series.received, series.sent, series.read, series.written)
            ),
        )

    def _draw_board(self) -> None:
        subject = self.subject
        series = subject.record if subject is not None else None
        if not isinstance(series, Series) or not series.cpu:
            self.board.show(())
            return
        cpu = nice_top(series.cpu, 100.0 * (self._cpus if series is self._host else 1))
        network, disk = nice_top(series.network, 10_000), nice_top(series.disk, 100_000)
        memory = float(series.limit or nice_top(series.memory, 1))
        self.board.show(
            (
                Graph(f"CPU {brief_percent(series.cpu[-1])}, up to {cpu:.0f} %", tuple(series.cpu), cpu),
                Graph(
                    f"memory {brief_bytes(series.memory[-1])} of {brief_bytes(memory)}",
                    tuple(series.memory),
                    memory,
                    "success",
                ),
                Graph(
                    f"network in {_rate(series.received[-1]) or '0'}, out {_rate(series.sent[-1]) or '0'}, up to {brief_bytes(network)}/s",
                    tuple(series.network),
                    network,
                    "warning",
                ),
                Graph(
                    f"disk read {_rate(series.read[-1]) or '0'}, write {_rate(series.written[-1]) or '0'}, up to {brief_bytes(disk)}/s",
                    tuple(series.disk),
                    disk,
                    "dim",
                ),
            )
        )

    @property
    def subjects(self) -> Sequence[Subject]:
        """The host is no container: nothing acts on it."""
        return [subject for subject in super().subjects if subject.id != HOST]

    def selected(self, subject: Subject | None) -> None:
        """The neighbours follow a container, not the host."""
        if subject is None or subject.id != HOST:
            super().selected(subject)

    def _tell(self) -> None:
        """Its records change with every reading: that is nothing for the others."""
        now = self.subject
        if now != self._told:
            self._told = now
            self.selected(now)
            self._draw_board()

    def on_row_list_moved(self, event: RowList.Moved) -> None:
        self._draw_board()


def last(values: Sequence[float]) -> float:
    return values[-1] if values else 0.0


def _rate(value: float) -> str:
    return brief_bytes(value) if value else ""
