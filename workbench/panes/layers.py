"""The layers of the selected image, newest first."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from engine.api import ImageDetail
from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.rows import image_name
from workbench.state import LAYERS, layer_row
from workbench.subjects import Subject


class LayersPane(RowsPane):
    NAME, TITLE, KIND = "layers", "layers", "layer"
    FOLLOWS = ("image",)
    COLUMNS = LAYERS
    EMPTY = "No image is selected."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("layer")

    def show(self, subject: Subject | None) -> None:
        if subject is None:
            self.put([])
        else:
            self.work(self._read, subject.id, group="read")

    async def _read(self, image: str) -> None:
        self.draw(await self.bridge.engine.image(image))

    def draw(self, detail: ImageDetail) -> None:
        rows = []
        for layer in reversed(detail.layers):
            subject = Subject("layer", f"{detail.summary.digest}#{layer.index}", layer.instruction, layer)
            rows.append((subject, layer_row(layer)))
        self.put(rows)
        self.set_subtitle(image_name(detail.summary))
