"""Questions: before something is removed, and for what an action needs to know. Each shows the command line that does the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantBlur, DescendantFocus
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input, Label, Static

from engine.errors import EngineError
from workbench.state import neutral
from workbench.table import Column
from workbench.widgets.row_list import Row, RowList
from workbench.widgets.tick import Tick
from workbench.work import beside

NAMED = 8  # objects that a question names; the rest it counts


class Confirm(ModalScreen[bool]):
    """Says what will happen to which objects, and which command does the same. Cancel has the focus."""

    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape,n", "answer(False)", "No", id="confirm.no", tooltip="Leave everything as it is"),
        Binding("y", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it"),
        Binding("right,tab", "app.focus_next", show=False, id="confirm.next"),
        Binding("left,shift+tab", "app.focus_previous", show=False, id="confirm.previous"),
    ]

    def __init__(self, title: str, names: Sequence[str], command: str) -> None:
        super().__init__()
        self._verb, self._names, self._command = title, names, command

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = f"{self._verb.lower()}?"
            shown = [neutral(name) for name in self._names[:NAMED]]
            more = len(self._names) - len(shown)
            lines = [f"  {name}" for name in shown] + ([f"  and {more} more"] if more else [])
            yield Label("\n".join([f"{self._verb}:", *lines]), markup=False, classes="question")
            yield Label(f"$ {neutral(self._command)}", classes="command", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button(self._verb, id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


@dataclass(frozen=True, slots=True)
class Field:
    """A line of a form. `kind` "switch" has the values "" and "yes"."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    kind: Literal["text", "switch"] = "text"
    needed: bool = False


Values = Mapping[str, str]


Act = Callable[[Values], Awaitable[object]]


class Form(ModalScreen[Values | None]):
    """Asks for what an action needs; the command line below changes with what is typed. Enter does it, escape does not.

    With `act` the form does it itself, and stays with all that was typed in it when that fails, for another try.
    """

    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape", "leave", "Cancel", id="form.cancel", tooltip="Leave everything as it is"),
        Binding("down", "app.focus_next", show=False, id="form.next"),
        Binding("up", "app.focus_previous", show=False, id="form.previous"),
    ]

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        command: Callable[[Values], str],
        *,
        verb: str,
        act: Act | None = None,
    ) -> None:
        super().__init__()
        self._heading, self._fields, self._command, self._verb, self._act = title, fields, command, verb, act
        self._acting = False

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as box:
            box.border_title = Content(neutral(self._heading))
            for field in self._fields:
                with Horizontal(classes="field"):
                    if field.kind == "switch":
                        yield Tick(field.label, value=bool(field.value), id=f"f-{field.name}", compact=True)
                    else:
                        yield Label(field.label, markup=False, classes="label")
                        yield Input(field.value, placeholder=field.hint, id=f"f-{field.name}", compact=True)
            yield Static(classes="command", markup=False)
            yield Static(classes="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button(self._verb, id="yes", variant="primary", compact=True)

    def on_mount(self) -> None:
        for box in self.query(Input):
            box.cursor_blink = False
        self._draw()
        first = next((f for f in self._fields if f.kind == "text" and (f.needed or not f.value)), self._fields[0])
        self.query_one(f"#f-{first.name}").focus()

    @on(DescendantFocus)
    @on(DescendantBlur)
    def _mark_field(self) -> None:
        """The one that has the focus, also where a terminal shows neither colours nor a cursor."""
        for row in self.query(".field"):
            row.set_class(self.focused in row.children, "-here")

    @property
    def values(self) -> dict[str, str]:
        found = {box.id[2:]: box.value.strip() for box in self.query(Input) if box.id}
        return found | {box.id[2:]: "yes" if box.value else "" for box in self.query(Checkbox) if box.id}

    @on(Input.Changed)
    @on(Checkbox.Changed)
    def _draw(self) -> None:
        self.query_one(".command", Static).update(f"$ {neutral(self._command(self.values))}")

    @on(Input.Submitted)
    def _submitted(self) -> None:
        values = self.values
        for field in self._fields:
            if field.needed and not values[field.name]:
                self.query_one(f"#f-{field.name}").focus()
                return
        if self._act is None:
            self.dismiss(values)
        elif not self._acting:
            self._acting = True
            beside(self, "act", self._do, self._act, values)

    async def _do(self, act: Act, values: Values) -> None:
        self._say("")
        try:
            await act(values)
        except EngineError as error:
            self._say(f"✗ {error.message}{f' — {error.hint}' if error.hint else ''}")
        else:
            self.dismiss(values)
        finally:
            self._acting = False

    def _say(self, text: str) -> None:
        shown = self.query_one(".problem", Static)
        shown.update(neutral(text))
        shown.display = bool(text)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self._submitted()
        else:
            self.dismiss(None)

    def action_leave(self) -> None:
        self.dismiss(None)


class Choose(ModalScreen[str | None]):
    """One of a few rows: enter takes it."""

    BINDINGS: ClassVar[list[Binding]] = [Binding("escape,q", "leave", "Cancel", id="choose.cancel", tooltip="Leave everything as it is")]  # type: ignore[assignment]  # fmt: skip

    def __init__(self, title: str, columns: Sequence[Column], rows: Sequence[Row], *, start: str = "") -> None:
        super().__init__()
        self._heading, self._rows, self._start = title, rows, start
        self._list = RowList(id="choices", columns=columns)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = Content(neutral(self._heading))
            box.border_subtitle = "enter: do it   esc: leave"
            self._list.styles.height = min(len(self._rows) + 2, 16)
            yield self._list

    def on_mount(self) -> None:
        self._list.show(self._rows)
        self._list.select(self._start)
        self._list.focus()

    @on(RowList.Chosen)
    def _chosen(self) -> None:
        self.dismiss(self._list.selected)

    def action_leave(self) -> None:
        self.dismiss(None)
