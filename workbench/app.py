"""The app: five panes over one engine. It composes, keeps the keys, and draws what the bridge reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Container, Vertical
from textual.events import DescendantFocus, Resize
from textual.theme import Theme
from textual.widget import Widget
from textual.widgets import DataTable, Footer, Input, Static

from engine import api
from workbench.bridge import Bridge, LoopHandle
from workbench.messages import EngineListed, ImageRead, LogArrived, LoopReported, TroubleMet
from workbench.screens.dialogs import Confirm, HelpScreen
from workbench.state import (
    CONTAINERS,
    IMAGES,
    LAYERS,
    build_line,
    container_row,
    image_row,
    layer_row,
    neutral,
    status_line,
)
from workbench.widgets.log_view import Line, LogView
from workbench.widgets.row_list import RowList

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
SHORT = 34  # rows below which the lists give their room to the one that had the focus last
NARROW = 110  # columns below which the log takes the whole width below the rest


class WorkbenchApp(App[int]):
    CSS_PATH = "styles/workbench.tcss"
    TITLE = "workbench"
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("1", "pane('images')", "Images", show=False, id="pane.images", tooltip="Go to the images"),
        Binding(
            "2",
            "pane('layers')",
            "Layers",
            show=False,
            id="pane.layers",
            tooltip="Go to the layers of the selected image",
        ),
        Binding(
            "3", "pane('containers')", "Containers", show=False, id="pane.containers", tooltip="Go to the containers"
        ),
        Binding("4", "pane('build')", "Build", show=False, id="pane.build", tooltip="Go to the build"),
        Binding("5", "pane('logs')", "Logs", show=False, id="pane.logs", tooltip="Go to the logs"),
        Binding("q", "quit", "Quit", id="app.quit", tooltip="Quit; containers go on"),
        Binding("r", "rebuild", "Rebuild", id="project.rebuild", tooltip="Build and replace now"),
        Binding("s", "stop", "Stop", id="container.stop", tooltip="Stop the selected container"),
        Binding("R", "start", "Start", id="container.start", tooltip="Start the selected container again"),
        Binding("d", "remove", "Remove", id="item.remove", tooltip="Remove the selected container or image"),
        Binding("slash", "filter", "Filter", key_display="/", id="logs.filter", tooltip="Show only matching log lines"),
        Binding("z", "zoom", "Zoom", id="pane.zoom", tooltip="Give the pane the whole screen"),
        Binding("question_mark", "help", "Help", key_display="?", id="app.help", tooltip="All keys"),
        Binding("escape", "clear_filter", "Clear", show=False, id="logs.clear", tooltip="Show all lines"),
    ]

    def __init__(self, engine: api.Engine, loop: LoopHandle | None = None, *, title: str = "") -> None:
        super().__init__()
        self._bridge = Bridge(engine, loop, self)
        self._project = title
        self._service: api.ServiceState | None = None
        self._step = ""
        self._images: Sequence[api.ImageSummary] = ()
        self._containers: Sequence[api.ContainerSummary] = ()
        self._following = ""
        self._offset: dict[str, int] = {}  # by log: a service's generations share one
        self._shown_log = ""
        self._shown_image = ""

    # --- composition ------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Static(id="status", markup=False)
        yield Static(id="trouble", markup=False)
        with Container(id="panes"):
            with Vertical(id="left"):
                yield RowList(id="images", title="1 images", columns=IMAGES)
                yield RowList(id="layers", title="2 layers", columns=LAYERS)
                yield RowList(id="containers", title="3 containers", columns=CONTAINERS)
            yield self._log_pane("build", "4 build", "Nothing was built yet.")
            with Vertical(id="output"):
                yield self._log_pane("logs", "5 logs", "No output yet.")
                yield Input(placeholder="show only lines that match", id="filter")
        yield Footer(show_command_palette=False)

    def _log_pane(self, name: str, title: str, empty: str) -> LogView:
        view = LogView(id=name, empty=empty)
        view.border_title = title
        view.add_class("pane")
        return view

    def on_mount(self) -> None:
        self.register_theme(THEME)
        self.theme = "workbench"
        self._draw_status()
        self._list("layers").focus()
        self.run_worker(self._bridge.watch_loop(), group="loop", exit_on_error=False)
        self.run_worker(self._bridge.watch_engine(), group="engine", exit_on_error=False)
        # Only the words "up 5 minutes" grow old by themselves.
        self.set_interval(10, lambda: self._draw_containers())

    def on_resize(self, event: Resize) -> None:
        self.screen.set_class(event.size.height < SHORT, "short")
        self.screen.set_class(event.size.width < NARROW, "narrow")

    @on(DescendantFocus)
    def _grow(self, event: DescendantFocus) -> None:
        panes = list(self.query("#left .pane"))
        if event.widget in panes:
            for pane in panes:
                pane.set_class(pane is event.widget, "grown")

    def _list(self, name: str) -> RowList:
        return self.query_one(f"#{name}", RowList)

    def _view(self, name: str) -> LogView:
        return self.query_one(f"#{name}", LogView)

    # --- what the bridge reports ------------------------------------------------------------------------

    @on(LoopReported)
    def _loop_reported(self, message: LoopReported) -> None:
        build = self._view("build")
        match message.event:
            case api.ProjectFound(name, _, _, _, notes):
                self._project = name
                build.append(Line(note, "stderr") for note in notes)
            case api.ServiceState() as state:
                self._service = state
                if state.phase == "building":
                    build.clear()
                    self._trouble("")
                if state.phase == "running" and state.container:
                    self._select_container(state.container)
                if state.image and state.phase == "running":
                    self._show_image(state.image)
                    self.run_worker(self._bridge.list(), group="list", exclusive=True, exit_on_error=False)
            case api.ServiceBuild(_, api.StepOutput(_, stream, text)):
                build.append(Line(f"    {line}", stream) for line in text.splitlines())
            case api.ServiceBuild(_, event):
                if isinstance(event, api.StepStarted):
                    self._step = f"{event.step.number}/{event.step.total} {event.step.instruction}"
                line = build_line(event)
                if line:
                    build.append([Line(line)])
            case api.ServiceBuildFailed(service, text, hint, file, line_number, still_runs):
                where = f" ({os.path.basename(file)}:{line_number})" if file and line_number else ""
                build.append(
                    Line(part, "stderr")
                    for part in (f"✗ {service}{where}", *text.splitlines(), *([f"hint: {hint}"] if hint else []))
                )
                after = " — what ran before goes on" if still_runs else ""
                self._trouble(f"✗ {service}: {text.splitlines()[0]}{after}")
            case api.LoopNotice(text, _):
                build.append([Line(f"· {text}")])
            case api.ChangeSeen(_, paths):
                build.append([Line(f"· {', '.join(paths[:3])}{' …' if len(paths) > 3 else ''} changed")])
            case _:
                pass
        self._draw_status()

    @on(EngineListed)
    def _listed(self, message: EngineListed) -> None:
        self._images, self._containers = message.images, message.containers
        self._list("images").show([(image.digest, image_row(image)) for image in self._images])
        self._draw_containers()
        if not self._following and self._containers:
            self._follow(self._containers[0].name)
        if not self._shown_image and self._images:
            self._show_image(self._images[0].id)

    def _draw_containers(self) -> None:
        self._list("containers").show([(c.name, container_row(c)) for c in self._containers])

    @on(ImageRead)
    def _image_read(self, message: ImageRead) -> None:
        layers = self._list("layers")
        layers.show([(str(layer.index), layer_row(layer)) for layer in reversed(message.detail.layers)])
        layers.border_subtitle = image_row(message.detail.summary)[0]

    @on(LogArrived)
    def _log_arrived(self, message: LogArrived) -> None:
        if message.container != self._following:
            return
        last = self._offset.get(self._shown_log, 0)
        fresh = [line for line in message.lines if line.offset > last]
        if fresh:
            self._offset[self._shown_log] = fresh[-1].offset
            self._view("logs").append(Line(line.text, line.stream) for line in fresh)

    @on(TroubleMet)
    def _trouble_met(self, message: TroubleMet) -> None:
        self._trouble(message.text)

    def _trouble(self, text: str) -> None:
        bar = self.query_one("#trouble", Static)
        bar.update(neutral(text))
        bar.display = bool(text)

    def _draw_status(self) -> None:
        self.query_one("#status", Static).update(
            status_line(self._service, self._project or "workbench", neutral(self._step))
        )

    # --- selection --------------------------------------------------------------------------------------

    @on(DataTable.RowHighlighted, "#images")
    def _image_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if event.row_key.value and self.focused is event.data_table:
            self._show_image(event.row_key.value)

    @on(DataTable.RowHighlighted, "#containers")
    def _container_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if event.row_key.value and self.focused is event.data_table:
            self._follow(event.row_key.value)

    def _show_image(self, name: str) -> None:
        self._shown_image = name
        self.run_worker(self._bridge.read_image(name), group="image", exclusive=True, exit_on_error=False)

    def _select_container(self, name: str) -> None:
        self._list("containers").select(name)
        self._follow(name, again=True)

    def _follow(self, name: str, *, again: bool = False) -> None:
        """Shows a container's log. A new generation of the same name continues in the same stream."""
        if name == self._following and not again:
            return
        if name != self._shown_log:
            self._view("logs").clear()
            self._offset.pop(name, None)
            self._shown_log = name
        self._following = name
        self._view("logs").border_subtitle = name
        self.run_worker(self._bridge.follow(name), group="logs", exclusive=True, exit_on_error=False)

    # --- keys -------------------------------------------------------------------------------------------

    def action_pane(self, name: str) -> None:
        self._unzoom()
        self.query_one(f"#{name}").focus()

    def action_rebuild(self) -> None:
        if self._bridge.loop is None:
            self._trouble("there is no project in this folder to rebuild")
            return
        self.run_worker(self._bridge.act(self._bridge.loop.rebuild()), group="act", exit_on_error=False)

    def action_stop(self) -> None:
        if name := self._list("containers").selected:
            self.run_worker(self._bridge.act(self._bridge.engine.stop(name)), group="act", exit_on_error=False)

    def action_start(self) -> None:
        if name := self._list("containers").selected:

            async def start() -> None:
                await self._bridge.engine.start(name)
                self._follow(name, again=True)

            self.run_worker(self._bridge.act(start()), group="act", exit_on_error=False)

    def action_remove(self) -> None:
        engine = self._bridge.engine
        if self.focused is self._list("images") and (digest := self._list("images").selected):
            tag = next(
                (image.tags[0] if image.tags else image.id for image in self._images if image.digest == digest), digest
            )
            self._ask(f"Remove the image {tag}?", f"workbench rmi {tag}", lambda: engine.remove_image(tag))
        elif name := self._list("containers").selected:
            self._ask(
                f"Stop and remove the container {name}?",
                f"workbench rm -f {name}",
                lambda: engine.remove(name, force=True),
            )

    def _ask(self, question: str, command: str, act: object) -> None:
        def answered(yes: bool | None) -> None:
            if yes and callable(act):
                self.run_worker(self._bridge.act(act()), group="act", exit_on_error=False)

        self.push_screen(Confirm(question, command), answered)

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        self._view("logs").filter(event.value)

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        self._view("logs").focus()

    def action_clear_filter(self) -> None:
        box = self.query_one("#filter", Input)
        if box.has_class("open"):
            box.value = ""
            box.remove_class("open")
            self._view("logs").filter("")
            self._view("logs").focus()
        else:
            self._unzoom()

    def action_zoom(self) -> None:
        if self.screen.has_class("zoomed"):
            self._unzoom()
            return
        pane: Widget | None = self.focused
        if pane is not None and pane.has_class("pane"):
            pane.add_class("big")
            self.screen.add_class("zoomed")
            self.screen.set_class(isinstance(pane, RowList), "zoom-left")
            self.screen.set_class(pane.id == "logs", "zoom-output")

    def _unzoom(self) -> None:
        self.screen.remove_class("zoomed", "zoom-left", "zoom-output")
        self.query(".big").remove_class("big")

    def action_help(self) -> None:
        self.push_screen(HelpScreen())
