"""What a pane is.

A pane is a `Pane` subclass with one widget (or a few) inside. It knows its neighbours by nothing but subjects: it posts
`Selected` when its own cursor moves, and is told by `show` what another pane selected. It never awaits the engine on the
message loop: it calls `self.work(function, *arguments, group="…")`, which runs a worker that cannot end the app and shows an `EngineError`.

    class VolumesPane(Pane):
        NAME, TITLE, KIND = "volumes", "volumes", "volume"
        FOLLOWS = ("container",)
        BINDINGS = [*commands.bindings("volume"), Binding("u", "unused", "Unused", id="volumes.unused", tooltip="…")]

Rules:
- Every binding has a stable `id` "<pane>.<verb>" and a tooltip: help, palette and the user's keymap are made of them. What acts
  on the engine is no binding of a pane but an entry in `workbench.commands.TABLE`; a pane gets those by `commands.bindings(KIND)`.
- `content()` yields the widgets; `main` is the one that gets the focus.
- Hooks, all optional, all called on the message loop and cheap: `listed`, `loop_event`, `engine_event`, `stats_read`, `show`,
  `shown`, `hidden`. A pane that is not `on_screen` must do nothing that costs: it remembers and draws in `shown`.
- `say("busy"|"empty"|"error", text)` shows a sentence instead of the content; `say("")` takes it away.
- Sizes: a pane may get any size from 1x1 on, at any time. From 38 columns on nothing that matters is cut; columns that matter
  less go first (`state.lay_out`). Its title is drawn by the grid; `border_subtitle` is the pane's own (a count, a filter, a flag).
- Text from images, containers, registries and builds goes through `state.neutral` before it is shown.
- Colours only by theme variables in TCSS, or `self.tint(name)`; never a state by colour alone.
- Nothing may change on the screen when nothing happened: no timers while nothing to show, no blinking, no spinners at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.messages import Reading, Selected, Wanted
from workbench.work import beside

if TYPE_CHECKING:
    from engine.api import EngineEvent, LoopEvent
    from workbench.app import WorkbenchApp
    from workbench.bridge import Bridge
    from workbench.subjects import Kind, Lists, Subject


class Pane(Vertical):
    NAME: ClassVar[str]  # also its widget id, and its name in `layout`
    TITLE: ClassVar[str]
    KIND: ClassVar[Kind | None] = None  # of the subjects that it lists
    FOLLOWS: ClassVar[tuple[Kind, ...]] = ()  # kinds whose selection elsewhere `show` is told of
    WANTS_STATS: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__(id=self.NAME, classes="pane")
        self.on_screen = False
        self._focus_wanted = False
        self._said = ("", "")
        self._note = Static(classes="pane-note", markup=False)

    # --- to be written by the subclass --------------------------------------------------------------------------

    def content(self) -> Iterable[Widget]:
        raise NotImplementedError

    @property
    def main(self) -> Widget:
        """Gets the focus."""
        raise NotImplementedError

    @property
    def subject(self) -> Subject | None:
        """Under the cursor."""
        return None

    @property
    def subjects(self) -> Sequence[Subject]:
        """What an action is about: the marked ones, or the one under the cursor."""
        return [self.subject] if self.subject else []

    def show(self, subject: Subject | None) -> None:
        """Another pane selected `subject`, of a kind in FOLLOWS. Called again for the same one when its record has changed."""

    def listed(self, lists: Lists) -> None: ...

    def loop_event(self, event: LoopEvent) -> None: ...

    def engine_event(self, event: EngineEvent) -> None: ...

    def stats_read(self, readings: Mapping[str, Reading]) -> None: ...

    def shown(self) -> None:
        """It came onto the screen, or has another size there."""

    def hidden(self) -> None: ...

    @property
    def wants_stats(self) -> bool:
        """Whether it shows readings now; asked when the panes are arranged."""
        return self.WANTS_STATS

    def choose(self, subject: Subject) -> bool:
        """Puts the cursor on it; False when it is not here."""
        return False

    def scroll_content(self, step: int) -> None:
        """Half a screen down (1) or up (-1), asked for by a list that keeps the focus."""
        self.main.scroll_relative(y=step * max(1, self.main.size.height // 2), animate=False)

    def clear_filter(self) -> bool:
        """Takes a filter or a mark away; False when there was none. `esc` asks this before it leaves anything."""
        return False

    @property
    def rows_wanted(self) -> int | None:
        """Rows without the border that would show all there is; None: as many as there are."""
        return None

    # --- to be used by the subclass -----------------------------------------------------------------------------

    @property
    def app_(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)

    @property
    def bridge(self) -> Bridge:
        return self.app_.bridge

    def work(
        self, function: Callable[..., Coroutine[object, object, object]], *arguments: object, group: str = ""
    ) -> None:
        """Awaits `function(*arguments)` beside the app. A newer one of the same pane and group takes the place of an older."""
        beside(self, f"{self.NAME}.{group}", self.bridge.guarded, function, *arguments, exclusive=True)

    def selected(self, subject: Subject | None) -> None:
        """Tells the others that the cursor stands elsewhere."""
        self.post_message(Selected(self.NAME, subject))

    def want(self, command: str, subjects: Sequence[Subject] | None = None) -> None:
        self.post_message(Wanted(command, self.subjects if subjects is None else subjects))

    def say(self, kind: Literal["", "busy", "empty", "error"], text: str = "") -> None:
        """A sentence in the place of the content."""
        if (kind, text) == self._said:
            return
        self._said = (kind, text)
        self._note.update(text)
        self._note.set_classes(f"pane-note {kind}")
        for child in self.children:
            if child is not self._note:
                child.set_class(bool(kind), "-covered")

    def set_subtitle(self, text: str) -> None:
        """In the border below; not read as markup."""
        if str(self.border_subtitle or "") != text:
            self.border_subtitle = Content(text)

    def tint(self, name: str) -> str:
        """A colour of the theme ("success", "warning", "error", "accent", …) as Rich reads it; "" where there are no colours."""
        return self.app_.tint(name)

    # --- the rest -------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield self._note
        yield from self.content()

    def focus_main(self) -> None:
        self._focus_wanted = not self.main.is_attached  # a key may come before the pane does: then once it is there
        if self._focus_wanted:
            return
        # At once: by `focus` alone a key that is typed right behind this would still go to the pane before.
        if self.main.focusable:
            self.screen.set_focus(self.main)
        else:
            self.main.focus()

    def on_mount(self) -> None:
        if self._focus_wanted:
            self.call_after_refresh(self.focus_main)
