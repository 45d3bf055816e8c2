"""Images: tags, use, size."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.state import IMAGES, image_row
from workbench.subjects import Lists, Subject


class ImagesPane(RowsPane):
    NAME, TITLE, KIND = "images", "images", "image"
    FOLLOWS = ("container",)
    COLUMNS = IMAGES
    EMPTY = "No images. b builds one, : pull fetches one."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("image")  # type: ignore[assignment]

    def listed(self, lists: Lists) -> None:
        rows = []
        for one in lists.images:
            name = one.tags[0] if one.tags else one.id
            rows.append((Subject("image", one.digest, name, one), image_row(one)))
        self.put(rows)
