"""What a prune would remove and how much it would free, before it does: the engine's own dry run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from workbench.subjects import Lists
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

    def __init__(self, engine: Engine, lists: Callable[[], Lists]) -> None:
        super().__init__()
        self._engine, self._lists = engine, lists

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
        shown.update(preview(found, self._lists()))
        button.disabled = not any((found.containers, found.images, found.volumes, found.cache))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(self.choice if event.button.id == "yes" else None)

    def action_leave(self) -> None:
        self.dismiss(None)


def preview(found: Pruned, lists: Lists) -> str:
    """Each object by the name that the user knows, with its size where it has one."""
    lines: list[str] = []
    for title, many, names in (
        ("container", "containers", [_container(name, lists) for name in found.containers]),
        ("image", "images", _images(found.images, lists)),
        ("volume", "volumes", found.volumes),
        ("result of a build step", "results of build steps", found.cache),
    ):
        if names:
            lines.append(f"{len(names)} {title if len(names) == 1 else many}")
            shown = names[:NAMED] if names is not found.cache else ()
            lines += [f"  {neutral(name)}" for name in shown]
            if len(names) > NAMED and shown:
                lines.append(f"  and {len(names) - NAMED} more")
    if not lines:
        return "Nothing is unused."
    return "\n".join([f"frees {human_size(found.reclaimed)}", "", *lines])


def _container(name: str, lists: Lists) -> str:
    found = lists.container(name)
    return f"{found.name}  ({found.image}, {found.status})" if found is not None else name


def _images(said: Sequence[str], lists: Lists) -> list[str]:
    """Of "untagged: NAME" and "deleted: ID", in this order for each image: the names, or the id of one that has none."""
    names: list[str] = []
    untagged = False
    for line in said:
        verb, _, what = line.partition(": ")
        if verb == "deleted" and untagged:  # named already
            untagged = False
            continue
        untagged = verb == "untagged"
        image = lists.image(what)
        shown = what.removeprefix("sha256:")[:12] + ", which has no name" if verb == "deleted" else what
        names.append(f"{shown}  {human_size(image.size)}" if image is not None else shown)
    return names
