"""What a prune would remove and how much it would free, before it does: the engine's own dry run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Static

from engine.api import Engine, Pruned
from engine.base.units import human_size
from engine.errors import EngineError
from workbench.state import neutral
from workbench.widgets.tick import Tick
from workbench.work import beside

NAMED = 200  # objects that are listed; the rest is counted


@dataclass(frozen=True, slots=True)
class Choice:
    all: bool = False
    volumes: bool = False

    @property
    def command(self) -> str:
        flags = f"{' --all' if self.all else ''}{' --volumes' if self.volumes else ''}"
        return f"workbench system prune{flags}"


class PruneScreen(ModalScreen[Choice | None]):
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape,n", "leave", "No", id="prune.no", tooltip="Leave everything as it is"),
    ]

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = "prune: remove what nobody uses"
            yield Tick("images with a tag too, if no container uses them", id="all", compact=True)
            yield Tick("volumes without a name too", id="volumes", compact=True)
            with VerticalScroll(classes="preview"):
                yield Static("looking …", id="preview", markup=False)
            yield Static(classes="command", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button("Prune", id="yes", variant="error", compact=True, disabled=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()
        self._look()

    @property
    def choice(self) -> Choice:
        return Choice(self.query_one("#all", Checkbox).value, self.query_one("#volumes", Checkbox).value)

    @on(Checkbox.Changed)
    def _look(self) -> None:
        self.query_one(".command", Static).update(f"$ {self.choice.command}")
        beside(self, "preview", self._preview, self.choice, exclusive=True)

    async def _preview(self, choice: Choice) -> None:
        shown, button = self.query_one("#preview", Static), self.query_one("#yes", Button)
        try:
            found = await self._engine.prune_system(all=choice.all, volumes=choice.volumes, dry_run=True)
        except EngineError as error:
            shown.update(neutral(error.message))
            return
        shown.update(preview(found))
        button.disabled = not any((found.containers, found.images, found.volumes, found.cache))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(self.choice if event.button.id == "yes" else None)

    def action_leave(self) -> None:
        self.dismiss(None)


def preview(found: Pruned) -> str:
    lines: list[str] = []
    for title, names in (
        ("containers", found.containers),
        ("images", found.images),
        ("volumes", found.volumes),
        ("results of build steps", found.cache),
    ):
        if names:
            whole = [name for name in names if not name.startswith("untagged:")]  # an image's names, before the image
            lines.append(f"{len(whole or names)} {title}")
            shown = names[:NAMED] if title != "results of build steps" else ()
            lines += [f"  {neutral(name)}" for name in shown]
            if len(names) > NAMED and shown:
                lines.append(f"  and {len(names) - NAMED} more")
    if not lines:
        return "Nothing is unused."
    return "\n".join([f"frees {human_size(found.reclaimed)}", "", *lines])
