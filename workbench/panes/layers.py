"""The layers of the selected image, newest first: what each step made, what it cost, and what later ones waste of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from engine.base.units import human_size
from engine.errors import EngineError
from workbench import commands
from workbench.layer_rows import LAYERS, layer_row, waste_words
from workbench.panes.rows import RowsPane
from workbench.rows import image_name
from workbench.subjects import Subject

if TYPE_CHECKING:
    from engine.api import ImageDetail, LayerWaste

SETTLE = 0.4  # seconds that an image stays selected before its files are looked at


class LayersPane(RowsPane):
    NAME, TITLE, KIND = "layers", "layers", "layer"
    FOLLOWS = ("image",)
    COLUMNS = LAYERS
    EMPTY = "No image is selected."
    BINDINGS: ClassVar[list[Binding]] = [*commands.bindings("layer")]

    def __init__(self) -> None:
        super().__init__()
        self._image = ""
        self._detail: ImageDetail | None = None
        self._waste: dict[int, LayerWaste] = {}
        self._summary = ""

    def show(self, subject: Subject | None) -> None:
        self._image = subject.id if subject is not None else ""
        if subject is None:
            self._detail = None
            self.put([])
        else:
            self.work(self._read, subject.id, group="read")

    def shown(self) -> None:
        if self._detail is not None and not self._summary:
            self.work(self._measure, self._detail, group="waste")

    async def _read(self, image: str) -> None:
        detail = await self.bridge.engine.image(image)
        if self._detail is None or self._detail.summary.digest != detail.summary.digest:
            self._waste, self._summary = {}, ""
        self._detail = detail
        self._draw()
        if self.on_screen and not self._summary:
            self.work(self._measure, detail, group="waste")

    async def _measure(self, detail: ImageDetail) -> None:
        """What the layers waste: their files are looked at for it, the first time all of them."""
        await asyncio.sleep(SETTLE)
        try:
            report = await self.bridge.engine.image_waste(detail.summary.digest)
        except EngineError:  # another engine does not give layers away, or the image has just gone
            self._summary = human_size(detail.summary.size)
        else:
            self._waste = {layer.index: layer for layer in report.layers}
            self._summary = waste_words(report)
        self._draw()

    def _draw(self) -> None:
        detail = self._detail
        if detail is None:
            return
        rows = []
        for layer in reversed(detail.layers):
            subject = Subject("layer", f"{detail.summary.digest}#{layer.index}", layer.instruction, layer)
            rows.append((subject, layer_row(layer, self._waste.get(layer.index))))
        self.put(rows)

    def subtitle(self, counts: str) -> str:
        if self._detail is None:
            return counts
        return " · ".join(part for part in (image_name(self._detail.summary), counts, self._summary) if part)

    def opened(self, subject: Subject) -> None:
        """Enter on a layer: its files."""
        self.app_.action_pane("files")
