"""The app: panes over one engine. It composes, routes what happens to the panes, and keeps the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.events import DescendantFocus
from textual.theme import Theme
from textual.widgets import Footer, Static

from engine import api
from workbench import actions, commands
from workbench.bridge import Bridge, LoopHandle
from workbench.messages import (
    EngineHappened,
    EngineListed,
    LoopReported,
    Said,
    Selected,
    StatsRead,
    TroubleMet,
    Wanted,
)
from workbench.panes import ALL
from workbench.panes.base import Pane
from workbench.screens.dialogs import HelpScreen
from workbench.state import neutral, status_line
from workbench.subjects import Lists, Subject
from workbench.widgets.pane_grid import PaneGrid
from workbench.work import beside

THEME = Theme(
    name="workbench",
    primary="#7aa2d6",
    secondary="#8fb8a8",
    accent="#e0a458",
    foreground="#cfd8e3",
    background="#10141a",
    surface="#161c24",
    panel="#1b222c",
    success="#8fbf7f",
    warning="#d9b26a",
    error="#d9746a",
    dark=True,
)


class WorkbenchApp(App[int]):
    CSS_PATH = "styles/workbench.tcss"
    TITLE = "workbench"
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        *(
            Binding(key, f"pane('{name}')", name, show=False, id=f"pane.{name}", tooltip=f"Go to {name}")
            for name, key in commands.NUMBERS.items()
        ),
        Binding("tab", "neighbour(1)", "Next pane", show=False, id="pane.next", tooltip="Go to the next pane"),
        Binding("shift+tab", "neighbour(-1)", "Pane before", show=False, id="pane.before", tooltip="Go to the pane before"),
        Binding("right_square_bracket", "tab(1)", "Next tab", show=False, id="tab.next", tooltip="Next tab of this pane"),
        Binding("left_square_bracket", "tab(-1)", "Tab before", show=False, id="tab.before", tooltip="Tab before this one"),
        Binding("z", "zoom", "Zoom", show=False, id="pane.zoom", tooltip="Give the pane the whole screen"),
        Binding("question_mark", "help", "Help", key_display="?", id="app.help", tooltip="All keys"),
        Binding("escape", "clear", "Back", show=False, id="app.back", tooltip="Clear the filter, else leave the zoom"),
        Binding("q", "leave", "Quit", id="app.quit", tooltip="Clear the filter, else quit; containers go on"),
    ]  # fmt: skip

    def __init__(self, engine: api.Engine, loop: LoopHandle | None = None, *, title: str = "") -> None:
        super().__init__()
        self.bridge: Bridge = Bridge(engine, loop, self)
        self.panes: dict[str, Pane] = {}
        self._project = title
        self._service: api.ServiceState | None = None
        self._step = ""
        self._selection: dict[str, Subject | None] = {}
        self._sampling = False

    # --- composition ------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        panes = [make() for make in ALL]
        self.panes = {pane.NAME: pane for pane in panes}
        yield Static(id="status", markup=False)
        yield Static(id="trouble", markup=False)
        yield PaneGrid(panes, recent=("containers", "logs"))
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.register_theme(THEME)
        self.theme = "workbench"
        self._draw_status()
        self.panes["containers"].focus_main()
        beside(self, "loop", self.bridge.watch_loop)
        beside(self, "engine", self.bridge.watch_engine)

    @property
    def grid(self) -> PaneGrid:
        return self.query_one(PaneGrid)

    @property
    def pane(self) -> Pane:
        """The one that has the focus, or had it last."""
        return self.panes[self.grid.recent[0]]

    def tint(self, name: str) -> str:
        """A colour of the theme for Rich; "" where there are none."""
        return "" if self.no_color else str(self.theme_variables.get(name, ""))

    @on(DescendantFocus)
    def _used(self, event: DescendantFocus) -> None:
        pane = next((each for each in event.widget.ancestors_with_self if isinstance(each, Pane)), None)
        if pane is not None:
            self.grid.used(pane.NAME)

    @on(PaneGrid.Arranged)
    def _arranged(self) -> None:
        """Readings are taken only while somebody shows them."""
        wanted = any(pane.on_screen and pane.wants_stats for pane in self.panes.values())
        if wanted and not self._sampling:
            beside(self, "stats", self.bridge.keep_stats, exclusive=True)
        elif not wanted and self._sampling:
            self.workers.cancel_group(self, "stats")
        self._sampling = wanted

    # --- what the bridge reports ------------------------------------------------------------------------

    @on(LoopReported)
    def _loop_reported(self, message: LoopReported) -> None:
        match message.event:
            case api.ProjectFound(name):
                self._project = name
            case api.ServiceState() as state:
                self._service = state
                if state.phase == "building":
                    self.trouble("")
            case api.ServiceBuild(_, api.StepStarted(step)):
                self._step = f"{step.number}/{step.total} {step.instruction}"
            case api.ServiceBuildFailed(service, text, _, _, _, still_runs):
                after = " — what ran before goes on" if still_runs else ""
                self.trouble(f"✗ {service}: {text.splitlines()[0]}{after}")
            case _:
                pass
        for pane in self.panes.values():
            pane.loop_event(message.event)
        self._draw_status()

    @on(EngineListed)
    def _listed(self, message: EngineListed) -> None:
        for pane in self.panes.values():
            pane.listed(message.lists)

    @on(EngineHappened)
    def _happened(self, message: EngineHappened) -> None:
        for pane in self.panes.values():
            pane.engine_event(message.event)

    @on(StatsRead)
    def _stats_read(self, message: StatsRead) -> None:
        for pane in self.panes.values():
            pane.stats_read(message.readings)

    @on(TroubleMet)
    def _trouble_met(self, message: TroubleMet) -> None:
        self.trouble(message.text)

    @on(Said)
    def _said(self, message: Said) -> None:
        self.notify(message.text, markup=False)

    def trouble(self, text: str) -> None:
        bar = self.query_one("#trouble", Static)
        bar.update(neutral(text))
        bar.display = bool(text)

    def _draw_status(self) -> None:
        line = status_line(self._service, self._project or "workbench", neutral(self._step))
        self.query_one("#status", Static).update(line)

    # --- selection: the neighbours follow ---------------------------------------------------------------

    @on(Selected)
    def _selected(self, message: Selected) -> None:
        source = self.panes[message.pane]
        self._selection[message.pane] = message.subject
        kind = message.subject.kind if message.subject else source.KIND
        if kind is None:
            return
        for pane in self.panes.values():
            if kind in pane.FOLLOWS and pane is not source:
                pane.show(message.subject)

    def selection(self, pane: str) -> Subject | None:
        """What `pane` selected last."""
        return self._selection.get(pane)

    # --- actions ----------------------------------------------------------------------------------------

    @on(Wanted)
    def _wanted(self, message: Wanted) -> None:
        self.perform(commands.BY_ID[message.command], message.subjects)

    def action_act(self, command: str) -> None:
        self.perform(commands.BY_ID[command], self.pane.subjects)

    def perform(self, command: commands.Command, subjects: Sequence[Subject]) -> None:
        self.trouble("")
        beside(self, "act", self.bridge.guarded, actions.perform, self, command, subjects)

    @property
    def lists(self) -> Lists:
        return self.bridge.lists

    # --- keys -------------------------------------------------------------------------------------------

    def action_pane(self, name: str) -> None:
        self.grid.used(name)
        self.panes[name].focus_main()

    def action_neighbour(self, step: int) -> None:
        self.action_pane(self.grid.neighbour(step))

    def action_tab(self, step: int) -> None:
        self.action_pane(self.grid.tab(step))

    def action_zoom(self) -> None:
        self.grid.set_zoom("" if self.grid.zoom == "full" else "full")

    def action_clear(self) -> None:
        if not self.pane.clear_filter() and self.grid.zoom:
            self.grid.set_zoom("")

    def action_leave(self) -> None:
        if not self.pane.clear_filter():
            self.exit()

    def action_help(self) -> None:
        self.push_screen(HelpScreen())
