"""The files of the selected layer, or of the sum of the layers up to it: a tree, with what the layer changed marked.

Compared is with the layers below, or with what the reader chose (`b`): another layer, image or generation.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Static

from engine import api
from engine.base.units import human_size
from engine.errors import EngineError, Unsupported, from_os_error
from workbench import clipboard
from workbench.files_words import (
    comparison_lines,
    content_lines,
    difference_lines,
    history_words,
    step_lines,
    waste_lines,
)
from workbench.messages import Said
from workbench.panes.base import Pane
from workbench.screens.reading import ReadingScreen
from workbench.state import neutral
from workbench.subjects import Subject
from workbench.widgets.file_view import FileView
from workbench.widgets.prompt import Prompt

if TYPE_CHECKING:
    from engine.api import FileTree, ImageDetail, Mark, TreeExtent, TreeQuery, TreeRow

SETTLE = 0.12  # seconds that the cursor rests before what it stands on is asked for
FEW = 500  # changed files up to which all folders of a layer are opened
SLOW = 0.3  # seconds after which is said what takes so long
UPPER = (1, 2)  # levels of folders that show while the rest is read: first, and then
_TOGGLES: dict[Mark, tuple[str, str]] = {"A": ("A", "added"), "M": ("M", "modified"), "D": ("D", "removed"), "": ("U", "unmodified")}  # fmt: skip


class ExplorerPane(Pane):
    NAME, TITLE = "files", "files"
    FOLLOWS = ("layer",)
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("enter", "open", "Open", id="files.open", tooltip="Open or close the folder; view the file"),
        Binding("right,l", "unfold(True)", "Unfold", show=False, id="files.unfold", tooltip="Open the folder"),
        Binding("left,h", "unfold(False)", "Fold", show=False, id="files.fold", tooltip="Close the folder, or go to the one above"),
        Binding("e", "fold_all(True)", "Open all", show=False, id="files.open_all", tooltip="Open all folders"),
        Binding("c", "fold_all(False)", "Close all", show=False, id="files.close_all", tooltip="Close all folders"),
        Binding("t", "alone", "Layer/sum", id="files.alone", tooltip="Only what the layer changed, or the sum of the layers up to it"),
        Binding("A", "mark('A')", "Added", show=False, id="files.added", tooltip="Show or hide what the layer added"),
        Binding("M", "mark('M')", "Modified", show=False, id="files.modified", tooltip="Show or hide what the layer modified"),
        Binding("D", "mark('D')", "Removed", show=False, id="files.removed", tooltip="Show or hide what the layer removed"),
        Binding("U", "mark('')", "Unmodified", show=False, id="files.unmodified", tooltip="Show or hide what is as it was below"),
        Binding("o", "order", "Order", show=False, id="files.order", tooltip="By size, or by name"),
        Binding("slash", "filter", "Filter", key_display="/", id="files.filter", tooltip="Only paths that match a regular expression"),
        Binding("d", "diff", "Diff", id="files.diff", tooltip="The file (or what is in the folder) against the layers below, or what was chosen"),
        Binding("b", "base", "Compare with", show=False, id="files.base", tooltip="Choose what d compares with: an image, IMAGE#LAYER"),
        Binding("B", "base_here", "Compare with this", show=False, id="files.base_here", tooltip="Compare other layers and images with this one from now on"),
        Binding("i", "history", "History", id="files.history", tooltip="Which step made it, and what the others did to it"),
        Binding("w", "waste", "Waste", id="files.waste", tooltip="Efficiency, and the paths that waste most"),
        Binding("s", "save", "Save", show=False, id="files.save", tooltip="Save the file; a folder as a tar"),
        Binding("y", "copy", "Copy path", show=False, id="files.copy", tooltip="Copy the path"),
    ]  # fmt: skip
    DEFAULT_CSS = """
    ExplorerPane > .files-detail { height: auto; max-height: 2; padding: 0 1; color: $foreground 60%; background: $panel; }
    ExplorerPane > .-covered { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.view = FileView(id="files-view")
        self.prompt = Prompt()
        self.detail = Static(classes="files-detail", markup=False)
        self._wanted: Subject | None = None
        self._place = self._label = ""  # "IMAGE#LINE" as the engine knows it, and as people call it
        self._tree: FileTree | None = None
        self._extent: TreeExtent | None = None
        self._so_far: int | None = None  # entries that are read, while only the upper folders show
        self._upper = 0  # of UPPER, how many have shown
        self._query = api.TreeQuery()
        self._base = ""
        self._images: dict[str, ImageDetail] = {}

    def content(self) -> Iterable[Widget]:
        yield self.view
        yield self.detail
        yield self.prompt

    @property
    def main(self) -> Widget:
        return self.view

    # --- which layer ----------------------------------------------------------------------------------------------

    def show(self, subject: Subject | None) -> None:
        self._wanted = subject
        if self.on_screen:
            self.work(self._open, group="open")

    def shown(self) -> None:
        if self._wanted is None:
            if self._tree is None:
                self.say("empty", "No layer is selected: enter on a layer shows its files.")
        elif self._wanted.id != self._place or self._so_far is not None:
            self.work(self._open, group="open")

    async def _open(self) -> None:
        wanted = self._wanted
        if wanted is None:
            self._place, self._tree = "", None
            self.say("empty", "No layer is selected.")
            return
        if wanted.id == self._place and self._so_far is None:
            return
        self._so_far, self._upper = None, 0
        if self._tree is not None:
            await asyncio.sleep(SETTLE)
        kept = self.view.selected
        try:
            image = await self._image(wanted.id.partition("#")[0])
            self._label = self._label_of(image, wanted.id)
            tree = await self._opened(wanted.id)
            kept = self.view.selected or kept
            extent = await tree.select(self._query)
            at = await tree.row_of(kept.path) if kept is not None else None
        except EngineError as error:
            self._place, self._tree = wanted.id, None
            self.say("error", f"{error.message}{f' — {error.hint}' if error.hint else ''}")
            return
        self._place, self._tree, self._so_far = wanted.id, tree, None
        self.say("")
        await self._show(extent, at or 0)

    @staticmethod
    def _label_of(image: ImageDetail, place: str) -> str:
        tags = image.summary.tags
        name = neutral(tags[0]).removesuffix(":latest") if tags else image.summary.id[7:19]
        return f"{name}#{place.partition('#')[2]}"

    async def _image(self, name: str) -> ImageDetail:
        if name not in self._images:
            self._images = {name: await self.bridge.engine.image(name)}
        return self._images[name]

    async def _opened(self, name: str) -> FileTree:
        """The tree, which may have to be made first: then its upper folders show at once, and it is said how far it is."""
        seen = [0]
        job = asyncio.ensure_future(
            self.bridge.engine.open_files(name, progress=lambda entries: seen.__setitem__(0, entries))
        )
        try:
            while not job.done():
                await asyncio.wait([job], timeout=SLOW)
                if not job.done():
                    try:
                        await self._show_upper(name, seen[0])
                    except Unsupported as error:  # another engine's, on its way to be looked into
                        self.say("busy", f"{error.message[:1].upper()}{error.message[1:]} …")
            return job.result()
        except asyncio.CancelledError:
            job.cancel()
            raise

    async def _show_upper(self, name: str, so_far: int) -> None:
        """What is at the top of a tree that is still being read."""
        if self._upper < len(UPPER):
            kept = self.view.selected if self._upper else None
            self._place, self._tree = name, await self.bridge.engine.open_files(name, depth=UPPER[self._upper])
            self._upper += 1
            self._so_far = so_far
            extent = await self._tree.select(self._query)
            at = await self._tree.row_of(kept.path) if kept is not None else None
            self.say("")
            await self._show(extent, at or 0)
        self._so_far = so_far
        self._subtitle()

    async def _show(self, extent: TreeExtent, cursor: int) -> None:
        """Rows are other ones: those that will be on the screen first, so that nothing flickers."""
        assert self._tree is not None  # asked only while there is one
        cursor = max(0, min(cursor, extent.rows - 1))
        first, count = self.view.window
        first = min(first, max(0, cursor - count // 2)) if not first <= cursor < first + count else first
        rows = await self._tree.rows(first, count)
        self._extent = extent
        self.view.show(extent.rows, first, rows, cursor=cursor)
        self._subtitle()

    @on(FileView.Wanted)
    def _rows_wanted(self, message: FileView.Wanted) -> None:
        message.stop()
        self.work(self._supply, *self.view.window, group="rows")

    async def _supply(self, first: int, count: int) -> None:
        if self._tree is not None:
            self.view.supply(first, await self._tree.rows(first, count))

    def _subtitle(self) -> None:
        extent = self._extent
        if extent is None:
            return
        shown = "".join(
            letter if mark in self._query.marks else letter.lower() for mark, (letter, _) in _TOGGLES.items()
        )
        parts = [
            self._label,
            "layer" if self._query.marks == {"A", "M", "D"} else "sum",
            shown,
            f"by {self._query.order}",
        ]
        if self._query.pattern:
            parts.append(f"{extent.found} match {self._query.pattern!r}")
        parts.append(
            f"{human_size(extent.size)} in {extent.files:,}, +{extent.added:,} ~{extent.modified:,} -{extent.removed:,}"
        )
        if self._so_far is not None:
            parts[-1] = f"reading the rest: {self._so_far:,} so far …"
        if self._base:
            parts.append(f"against {self._base}")
        self.set_subtitle(" · ".join(parts))

    # --- what the tree shows --------------------------------------------------------------------------------------

    async def _select(self, query: TreeQuery) -> None:
        if self._tree is None:
            return
        kept = self.view.selected
        extent = await self._tree.select(query)
        self._query = query
        at = await self._tree.row_of(kept.path) if kept is not None else None
        await self._show(await self._tree.extent() if at is not None else extent, at or 0)

    def _ask(self, query: TreeQuery) -> None:
        self.work(self._select, query, group="select")

    def action_mark(self, mark: Mark) -> None:
        marks = self._query.marks ^ {mark}
        self._ask(replace(self._query, marks=marks or frozenset(("A", "M", "D", ""))))

    def action_alone(self) -> None:
        everything: frozenset[Mark] = frozenset(("", "A", "M", "D"))
        alone = self._query.marks == everything
        self.work(
            self._alone, replace(self._query, marks=everything - {""} if alone else everything), alone, group="select"
        )

    async def _alone(self, query: TreeQuery, alone: bool) -> None:
        """The few files that a layer changed show at once."""
        await self._select(query)
        extent = self._extent
        if alone and extent is not None and extent.added + extent.modified + extent.removed <= FEW:
            await self._fold_all(True)

    def action_order(self) -> None:
        self._ask(replace(self._query, order="name" if self._query.order == "size" else "size"))

    def action_unfold(self, open: bool) -> None:
        self.work(self._fold, open, group="fold")

    async def _fold(self, open: bool) -> None:
        tree, row, at = self._tree, self.view.selected, self.view.cursor
        if tree is None or row is None:
            return
        if row.kind == "dir" and row.open != open:
            await self._show(await tree.fold(at, open=open), at)
        elif not open and row.depth:
            above = await tree.row_of(row.path.rpartition("/")[0])
            if above is not None:
                self.view.go_to(above)
        elif open and row.kind == "dir":
            self.view.go_to(at + 1)

    def action_fold_all(self, open: bool) -> None:
        self.work(self._fold_all, open, group="select")

    async def _fold_all(self, open: bool) -> None:
        if self._tree is None:
            return
        kept = self.view.selected
        extent = await self._tree.fold_all(open=open)
        at = await self._tree.row_of(kept.path) if kept is not None and open else 0
        await self._show(extent, at or 0)

    # --- one row ----------------------------------------------------------------------------------------------------

    @on(FileView.Moved)
    def _moved(self, message: FileView.Moved) -> None:
        message.stop()
        self.work(self._describe, group="detail")

    async def _describe(self) -> None:
        """Below the tree: what made the row under the cursor."""
        row, name = self.view.selected, self._place
        if row is None or not name:
            self.detail.update("")
            return
        await asyncio.sleep(SETTLE)
        try:
            steps = await self.bridge.engine.file_history(name, row.path)
        except EngineError:
            steps = ()
        self.detail.update(f"{neutral(row.path)}  {history_words(steps)}")

    @on(FileView.Clicked)
    def action_open(self) -> None:
        row = self.view.selected
        if row is None:
            return
        if row.kind == "dir":
            self.work(self._fold, not row.open, group="fold")
        else:
            self.work(self._view, row, group="read")

    async def _view(self, row: TreeRow) -> None:
        found = await self.bridge.engine.file_content(self._place, row.path)
        lines, note = content_lines(found)
        self.app.push_screen(ReadingScreen(f"{self._label} {neutral(row.path)}", lines, note=note))

    def action_history(self) -> None:
        self.work(self._history, group="read")

    async def _history(self) -> None:
        if (row := self.view.selected) is not None:
            steps = await self.bridge.engine.file_history(self._place, row.path)
            self.app.push_screen(ReadingScreen(f"{self._label} {neutral(row.path)}", step_lines(steps), note="history"))

    def action_waste(self) -> None:
        self.work(self._waste, group="read")

    async def _waste(self) -> None:
        if self._place:
            image = self._place.partition("#")[0]
            report = await self.bridge.engine.image_waste(image)
            lines = waste_lines(report, (await self._image(image)).layers)
            self.app.push_screen(ReadingScreen(f"waste in {self._label.partition('#')[0]}", lines))

    # --- comparing --------------------------------------------------------------------------------------------------

    def action_base(self) -> None:
        self.prompt.open("base", "compare with", self._base, hint="IMAGE or IMAGE#LAYER; nothing: the layers below")

    def action_base_here(self) -> None:
        self._base = self._label
        self._subtitle()
        self.post_message(Said(f"d compares with {self._base} from now on"))

    def _compared(self) -> str:
        """What `d` compares with: what was chosen, else the layers below the one that is marked here."""
        if self._base:
            return self._base
        image, _, index = self._place.partition("#")
        layers = self._images[image].layers if image in self._images else ()
        below = [layer.index for layer in layers if not layer.empty and layer.index <= int(index or 0)][:-1]
        return f"{image}#{below[-1]}" if below else "scratch"

    def action_diff(self) -> None:
        self.work(self._diff, group="read")

    async def _diff(self) -> None:
        row, base = self.view.selected, self._compared()
        if row is None:
            return
        label = self._base or "the layers below"
        title = f"{label} → {self._label} {neutral(row.path)}"
        if row.kind != "dir":
            found = await self.bridge.engine.file_diff(base, self._place, row.path)
            self.app.push_screen(ReadingScreen(title, comparison_lines(found), note=neutral(found.what)))
            return
        every = await self.bridge.engine.image_diff(base, self._place)
        inside = [one for one in every if one.path.startswith(row.path + "/")]
        path = await self.app.push_screen_wait(
            ReadingScreen(title, difference_lines(inside), note=f"{len(inside)} differ, enter shows one", choices=True)
        )
        if path:
            one = await self.bridge.engine.file_diff(base, self._place, path)
            self.app.push_screen(ReadingScreen(f"{label} → {self._label} {neutral(path)}", comparison_lines(one)))

    # --- prompts ----------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        self.prompt.open("filter", "/", self._query.pattern, hint="a regular expression over paths")

    def action_save(self) -> None:
        row = self.view.selected
        if row is not None:
            name = (row.name or "root") + (".tar" if row.kind == "dir" else "")
            self.prompt.open("save", "save to", os.path.join("~", neutral(name)))

    def action_copy(self) -> None:
        if (row := self.view.selected) is not None:
            self.work(clipboard.copy, self.app, row.path, "the path", group="copy")

    @on(Prompt.Done)
    def _typed(self, message: Prompt.Done) -> None:
        message.stop()
        self.prompt.shut()
        self.view.focus()
        if message.purpose == "filter":
            self._ask(replace(self._query, pattern=message.text))
        elif message.purpose == "base":
            self._base = message.text.strip()
            self._subtitle()
        elif message.purpose == "save" and message.text:
            self.work(self._save, message.text, group="save")

    async def _save(self, name: str) -> None:
        row, path = self.view.selected, Path(name).expanduser()
        if row is None:
            return
        try:
            file = await asyncio.to_thread(open, path, "xb")
        except OSError as error:
            raise from_os_error(error, f"saving to {path}") from error
        with file:
            await self.bridge.engine.save_file(self._place, row.path, cast("object", file))  # type: ignore[arg-type]
        if row.kind == "file":
            os.chmod(path, 0o600 | stat.S_IMODE(row.mode) & 0o111)
        self.post_message(Said(f"saved {row.path} to {path}"))

    def clear_filter(self) -> bool:
        if self.prompt.is_open:
            self.prompt.shut()
            self.view.focus()
            return True
        if self._query.pattern:
            self._ask(replace(self._query, pattern=""))
            return True
        if self._base:
            self._base = ""
            self._subtitle()
            return True
        return False
