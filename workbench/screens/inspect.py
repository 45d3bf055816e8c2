"""All that is known of one thing: as a tree, or as the JSON that the command line prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from workbench.state import neutral
from workbench.subjects import Subject
from workbench.widgets.log_view import Line, LogView

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

OPEN = 2  # levels of the tree that are open at first


async def document(app: WorkbenchApp, subject: Subject) -> Mapping[str, Any]:
    """What `inspect` prints of it; of a service how it is, and what `inspect` prints of its container. Raises `EngineError`."""
    engine = app.bridge.engine
    if subject.kind != "service":
        return await app.desk_.document(engine, subject.kind, subject.id)
    container = app.lists.container(str(subject.record.container))
    config = await app.desk_.document(engine, "container", container.id) if container else None
    return {"Service": _plain(subject.record), "Container": config}


def _plain(record: Any) -> dict[str, Any]:
    return dataclasses.asdict(record) if dataclasses.is_dataclass(record) and not isinstance(record, type) else {}


class Inspect(ModalScreen[None]):
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape,q,i", "close", "Close", id="inspect.close", tooltip="Back"),
        Binding("r", "raw", "JSON or tree", id="inspect.raw", tooltip="The raw JSON, or the tree"),
        Binding("y", "copy", "Copy", id="inspect.copy", tooltip="Copy the value under the cursor, or the whole JSON"),
        Binding("j", "move(1)", show=False, id="inspect.down", tooltip="Down"),
        Binding("k", "move(-1)", show=False, id="inspect.up", tooltip="Up"),
    ]

    def __init__(self, subject: Subject, found: Mapping[str, Any]) -> None:
        super().__init__()
        self._subject, self._found = subject, found
        self._json = json.dumps(found, indent=2, default=str, ensure_ascii=False)
        self._tree: Tree[Any] = Tree(Text(neutral(subject.name)), id="tree")
        self._raw = LogView(id="raw", empty="")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog full") as box:
            box.border_title = Content(f"{self._subject.kind} {neutral(self._subject.name)}")
            box.border_subtitle = "r: JSON or tree   y: copy   esc: back"
            yield self._tree
            yield self._raw

    def on_mount(self) -> None:
        self._raw.display = False
        self._raw.append(Line(neutral(line)) for line in self._json.splitlines())
        self._raw.following = False
        _grow(self._tree.root, self._found, OPEN)
        self._tree.root.expand()
        self._tree.show_root = False
        self._tree.guide_depth = 3
        self._tree.focus()

    def action_raw(self) -> None:
        raw = not self._raw.display
        self._raw.display, self._tree.display = raw, not raw
        (self._raw if raw else self._tree).focus()
        if raw:
            self._raw.action_top()

    def action_move(self, step: int) -> None:
        if self._tree.display:
            (self._tree.action_cursor_down if step > 0 else self._tree.action_cursor_up)()
        else:
            (self._raw.action_scroll_down if step > 0 else self._raw.action_scroll_up)()

    async def action_copy(self) -> None:
        node = self._tree.cursor_node
        if self._tree.display and node is not None:
            value = node.data
            text = value if isinstance(value, str) else json.dumps(value, indent=2, default=str, ensure_ascii=False)
            await self.app.copy(text, "the value")  # type: ignore[attr-defined]
        else:
            await self.app.copy(self._json, "the JSON")  # type: ignore[attr-defined]

    def action_close(self) -> None:
        self.dismiss(None)


def _grow(node: TreeNode[Any], value: Any, depth: int) -> None:
    node.data = value
    items: Sequence[tuple[str, Any]]
    if isinstance(value, Mapping):
        items = [(str(key), each) for key, each in value.items()]
    else:
        items = [(str(index), each) for index, each in enumerate(value)]
    for key, each in items:
        nested = isinstance(each, Mapping) or (isinstance(each, Sequence) and not isinstance(each, str | bytes))
        if nested and each:
            many = f"  ({len(each)})" if not isinstance(each, Mapping) else ""
            _grow(node.add(Text(f"{neutral(key)}{many}"), expand=depth > 1), each, depth - 1)
        else:
            shown = each if isinstance(each, str) else json.dumps(each, default=str)
            label = Text.assemble((f"{neutral(key)}  ", "dim"), neutral(shown))
            node.add_leaf(label, data=each)
