"""The app: panes over one engine. It composes, and hands what happens to the panes.

Where to look: the panes are in `panes/`, one module each; what they are made of in `widgets/`; where they stand in `layout`. What the
engine says comes through `bridge`. Keys and key maps are in `keys`, what a key of a list does in `commands` (the table) and `actions`,
the palette's and the help's entries in `finding`, pulls and builds in `transfers`, where the app was left in `memory`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.dom import DOMNode
from textual.events import DescendantFocus, Event, InputEvent, Key
from textual.widgets import Static
from textual.worker import get_current_worker

from engine import api
from engine.errors import EngineError, Unsupported
from workbench import commands, garbage, no_colour, plain_text, themes
from workbench import panes as all_panes
from workbench.bridge import Bridge, LoopHandle
from workbench.journal import Entry, Job, Journal
from workbench.key_turns import KeyTurns
from workbench.keys import Keys, app_bindings
from workbench.layout import PANES
from workbench.leaving import Leaving
from workbench.memory import Memory
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
from workbench.panes.base import Pane
from workbench.settings import Settings, config_file, read_settings
from workbench.state import neutral, status_line
from workbench.subjects import Lists, Subject
from workbench.terminal import input as _keys  # noqa: F401  # before Textual begins to read keys: see there
from workbench.widgets.jobs_line import JobsLine
from workbench.widgets.key_line import KeyLine
from workbench.widgets.pane_grid import PaneGrid
from workbench.work import beside

if TYPE_CHECKING:
    from workbench.desk import Desk

DAY = 60.0  # seconds between two looks whether the date is another one: "14:02" is then yesterday's

FAILED = "✗ "  # begins the sentence about a build that failed; it goes when the next one begins


class WorkbenchApp(App[int]):
    """`engine` and `loop` are there already (tests), or `desk` opens them behind the first frame."""

    CSS_PATH = "styles/workbench.tcss"
    TITLE = "workbench"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[Binding]] = app_bindings()  # type: ignore[assignment]

    def __init__(
        self,
        engine: api.Engine | None = None,
        loop: LoopHandle | None = None,
        *,
        title: str = "",
        desk: Desk | None = None,
        settings: Settings | None = None,
        read_only: bool = False,
        keymap: str = "",
        theme: str = "",
    ) -> None:
        no_color = os.environ.get("NO_COLOR")
        super().__init__()
        if no_color is not None:  # Textual takes it away; builds and shells that are started here shall have it
            os.environ["NO_COLOR"] = no_color
            # Textual's own filter makes greys of colours, and a grey is a colour.
            self._filters[1:] = [no_colour.NoColours()]
        if plain_text.wanted():
            self._filters.append(plain_text.AsciiOnly())
        self.animation_level = "none"
        self.settings = settings or (read_settings(config_file()) if desk else Settings())
        self.read_only = read_only or self.settings.read_only
        self.failure: EngineError | None = None
        self.bridge: Bridge = Bridge(engine, loop, self)
        self.journal = Journal()
        self.jobs = JobsLine()
        self.panes: dict[str, Pane] = all_panes.Panes()
        self.grid: PaneGrid
        self._status, self._trouble = Static(id="status", markup=False), Static(id="trouble", markup=False)
        self.keys = Keys(self)
        self._turns = KeyTurns(self, super().on_event)
        self.leaving = Leaving(self)
        self._desk = desk
        self.memory = Memory(self, desk.place if desk else "")
        self._wanted_theme = theme or self.memory.left.theme or self.settings.theme
        self._wanted_keymap = keymap or self.settings.keymap
        for each in themes.OWN:
            self.register_theme(each)
        self.use_theme(self._wanted_theme or "workbench")
        self._project = title or (desk.title if desk else "")
        self._services: dict[str, api.ServiceState] = {}
        self._steps: dict[str, str] = {}
        self._sampling = self._mouse_free = False
        self._garbage = garbage.Garbage()

    # --- composition ------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._trouble
        recent = [name for name in self.memory.left.recent if name in PANES] or ["containers", "logs"]
        self.grid = PaneGrid(recent=recent, zoom=self.memory.left.zoom)  # type: ignore[arg-type]
        yield self.grid  # its frames at once; what is in them is made behind the first frame
        yield self.jobs
        yield self.keys.line

    def on_mount(self) -> None:
        self._draw_status()
        self.set_interval(DAY, self._another_minute)
        self.leaving.listen()
        if not self.settings.mouse:
            self.action_mouse()
        self.call_after_refresh(self._go_on)

    async def _go_on(self) -> None:
        """What the first frame did not need: the engine, the panes, the keys."""
        opening = asyncio.create_task(self._desk.open(read_only=self.read_only)) if self._desk else None
        await self.grid.fill([self.panes[name] for name in PANES])
        self.panes = {name: self.grid.panes[name] for name in PANES}
        self.panes[self.grid.recent[0]].focus_main()
        self.keys.learn()
        self.keys.use(self._wanted_keymap)
        beside(self, "open", self._open, opening)

    async def _open(self, opening: asyncio.Task[tuple[api.Engine, LoopHandle | None]] | None) -> None:
        """Takes the engine and the project when they are open, and reads them for as long as the app lives."""
        if opening is not None:
            try:
                engine, loop = await opening
            except EngineError as error:
                self.failure = error
                self.exit(1)
                return
            self.bridge.attach(engine, loop)
        self._garbage.begin()
        self.set_interval(garbage.LOOK, self._garbage.look)
        beside(self, "loop", self.bridge.watch_loop)
        beside(self, "engine", self.bridge.watch_engine)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, InputEvent):
            self._garbage.touched = time.monotonic()
        if isinstance(event, Key) and not event.is_forwarded:
            await self._turns.take(event)
        else:
            await super().on_event(event)

    @on(KeyTurns.Handled)
    def _key_handled(self, message: KeyTurns.Handled) -> None:
        self._turns.followed(message)

    @property
    def pane(self) -> Pane:
        """The one that has the focus, or had it last."""
        return self.panes[self.grid.recent[0]]

    @property
    def services(self) -> Sequence[api.ServiceState]:
        """Of the project, as far as they are known."""
        return list(self._services.values())

    @property
    def lists(self) -> Lists:
        return self.bridge.lists

    @property
    def desk_(self) -> Desk:
        if self._desk is None:
            raise Unsupported("this app was started without a command line to read words by")
        return self._desk

    def tint(self, name: str) -> str:
        """A colour of the theme for Rich; "" where there are none."""
        return "" if self.no_color else str(self.theme_variables.get(name, ""))

    @on(DescendantFocus)
    def _used(self, event: DescendantFocus) -> None:
        pane = next((each for each in event.widget.ancestors_with_self if isinstance(each, Pane)), None)
        if pane is not None:
            self.grid.used(pane.NAME)
            self.keys.draw()

    @on(PaneGrid.Arranged)
    def _arranged(self) -> None:
        self.memory.keep()
        self.call_after_refresh(self._sample)

    def _sample(self) -> None:
        """Readings are taken only while somebody shows them."""
        wanted = self.settings.stats and any(pane.on_screen and pane.wants_stats for pane in self.panes.values())
        if wanted and not self._sampling:
            beside(self, "stats", self.bridge.keep_stats, exclusive=True)
        elif not wanted and self._sampling:
            self.workers.cancel_group(self, "stats")
        self._sampling = wanted

    def _another_minute(self) -> None:
        for pane in self.panes.values():
            pane.listed(self.lists)

    # --- what the bridge reports ------------------------------------------------------------------------

    @on(LoopReported)
    def _loop_reported(self, message: LoopReported) -> None:
        match message.event:
            case api.ProjectFound(name):
                self._project = name
            case api.ServiceState() as state:
                self._services[state.service] = state
                if state.phase == "building" and str(self._trouble.content).startswith(FAILED):
                    self.trouble("")
            case api.ServiceBuild(service, api.StepStarted(step)):
                self._steps[service] = f"{step.number}/{step.total} {step.instruction}"
            case api.ServiceBuildFailed(service, text, _, file, _, still_runs):
                after = " — what ran before goes on" if still_runs else ""
                first = text.splitlines()[0]
                self.trouble(
                    f"{FAILED}{service}: {first.replace(file, os.path.basename(file)) if file else first}{after}"
                )
            case _:
                pass
        for pane in self.panes.values():
            pane.loop_event(message.event)
        self._draw_status()

    @on(EngineListed)
    def _listed(self, message: EngineListed) -> None:
        for pane in self.panes.values():
            pane.listed(message.lists)
        self.memory.restore(self.panes)
        self.grid.place()
        self._sample()

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
        self.say(message.text)

    def say(self, text: str) -> None:
        """A passing line."""
        self.notify(neutral(text), markup=False, timeout=4)

    def trouble(self, text: str) -> None:
        bar = self._trouble
        if bar.display or text:
            bar.update(neutral(text))
            bar.display = bool(text)

    def _draw_status(self) -> None:
        services = list(self._services.values())
        line = status_line(services, self._project or "workbench", self._steps, read_only=self.read_only)
        if str(self._status.content) != line:
            self._status.update(line)

    # --- selection: the neighbours follow ---------------------------------------------------------------

    @on(Selected)
    def _selected(self, message: Selected) -> None:
        source = self.panes[message.pane]
        self.memory.selected[message.pane] = message.subject
        kind = message.subject.kind if message.subject else source.KIND
        if kind is None:
            return
        for pane in self.panes.values():
            if kind in pane.FOLLOWS and pane is not source:
                pane.show(message.subject)
        self.memory.keep()

    def selection(self, pane: str) -> Subject | None:
        """What `pane` selected last."""
        return self.memory.selected.get(pane)

    def go_to(self, pane: str, subject: Subject) -> None:
        """To the pane, with the cursor on the subject: at once, or when the lists say that it is there."""
        self.action_pane(pane)
        if not self.panes[pane].choose(subject):
            self.memory.await_subject(pane, subject.id)

    def container_name(self, subject: Subject) -> str:
        return str(subject.record.container) if subject.kind == "service" else subject.name

    def service_of(self, subject: Subject) -> str:
        """The project's service that it is, or whose container it is; "" when it is none."""
        if subject.kind == "service":
            return subject.name
        return next((one.service for one in self._services.values() if one.container == subject.name), "")

    # --- actions ----------------------------------------------------------------------------------------

    @on(Wanted)
    def _wanted(self, message: Wanted) -> None:
        self.perform(commands.BY_ID[message.command], message.subjects)

    @on(KeyLine.Clicked)
    async def _key_clicked(self, message: KeyLine.Clicked) -> None:
        await self.run_action(message.action, self.pane)

    def action_act(self, command: str) -> None:
        self.perform(commands.BY_ID[command], self.subjects_of(commands.BY_ID[command]))

    def subjects_of(self, command: commands.Command) -> Sequence[Subject]:
        """The marked ones, or the one under the cursor; that one also for what can be done to one alone."""
        pane = self.pane
        return pane.subjects if command.many or pane.subject is None else [pane.subject]

    def perform(self, command: commands.Command, subjects: Sequence[Subject]) -> None:
        self.trouble("")
        if self.read_only and command.writes:
            self.trouble(f"{command.title.lower()} changes something, and this app was started with --read-only")
        elif not self.bridge.ready:
            self.trouble("the engine is not open yet")
        else:
            from workbench.actions import perform

            beside(self, "act", self.bridge.guarded, perform, self, command, subjects)

    def log_line(self, line: str) -> None:
        self.journal.note(line)

    @contextmanager
    def log_command(self, line: str) -> Iterator[Entry]:
        with self.journal.run(line) as entry:
            yield entry

    @contextmanager
    def job(self, name: str) -> Iterator[Job]:
        """A line of progress for long work, while it runs; `ctrl+x` cancels its worker."""
        self.jobs.key = self.keys.of("app.cancel")
        with self.jobs.run(name, get_current_worker().cancel) as job:
            yield job

    async def copy(self, text: str, what: str) -> None:
        """Into the clipboard, and says which way it went."""
        from workbench.clipboard import copy

        await copy(self, text, what)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Inside a terminal every key is the program's, also those that the app would take first."""
        return not getattr(self.focused, "inside", False)

    # --- keys -------------------------------------------------------------------------------------------

    def use_theme(self, name: str) -> None:
        wanted = themes.textual_name(name)
        if wanted not in self.available_themes:
            self.trouble(f"there is no theme {name!r}: {', '.join(themes.NAMES)}")
            wanted = "workbench"
        self.theme = wanted
        self.memory.keep()

    def run_later(self, action: str, node: DOMNode) -> None:
        beside(self, "view", self.run_action, action, node)

    def action_pane(self, name: str) -> None:
        """To the pane; `esc` goes back to the one before."""
        self.grid.go(name)
        self.panes[name].focus_main()

    def scroll_output(self, step: int) -> None:
        """Of the pane of output that was used last, without going there."""
        pane = self.grid.output
        if pane is not None:
            pane.scroll_content(step)

    def action_neighbour(self, step: int) -> None:
        self.action_pane(self.grid.neighbour(step))
        self.grid.forget_way()

    def action_tab(self, step: int) -> None:
        self.action_pane(self.grid.tab(step))

    def action_zoom(self, zoom: str) -> None:
        self.grid.set_zoom("" if self.grid.zoom == zoom else "full")

    def action_larger(self, step: int) -> None:
        self.grid.larger(step)

    def action_clear(self) -> None:
        if self.pane.clear_filter():
            return
        if self.grid.zoom == "full":
            self.grid.set_zoom("")
        elif (name := self.grid.back()) is not None:
            self.panes[name].focus_main()
        else:
            self.trouble("")

    async def action_leave(self) -> None:
        if self.pane.clear_filter():
            return
        self.leaving.ask()

    def action_help(self) -> None:
        from workbench.finding import sections
        from workbench.screens.texts import HelpScreen

        self.push_screen(
            HelpScreen(self.pane.TITLE, sections(self), f"Your own keys, theme and key map: {config_file()}")
        )

    def action_palette(self) -> None:
        from workbench.finding import entries
        from workbench.screens.palette import Entry as Found
        from workbench.screens.palette import Palette

        def chosen(entry: Found | None) -> None:
            if entry is not None:
                entry.run()

        self.push_screen(Palette(entries(self)), chosen)

    def action_command_log(self) -> None:
        from workbench.screens.texts import CommandLog

        self.push_screen(CommandLog(self.journal, os.environ.get("WORKBENCH_HOST", "")))

    def action_mouse(self) -> None:
        from workbench.clipboard import release_mouse

        self._mouse_free = not self._mouse_free
        release_mouse(self, free=self._mouse_free)
        key = self.keys.of("app.mouse")
        self.say(
            f"the mouse is the terminal's: select as ever, {key} takes it back"
            if self._mouse_free
            else "the mouse is the app's"
        )

    def action_redraw(self) -> None:
        self.refresh(layout=True)
        self.screen.refresh(layout=True)

    async def action_refresh_lists(self) -> None:
        if self.bridge.ready:
            await self.bridge.list()

    def action_cancel(self) -> None:
        self.jobs.cancel()

    def on_unmount(self) -> None:
        self._garbage.end()
        if self.panes and not self.failure:
            self.memory.end()
