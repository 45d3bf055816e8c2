"""Images: tags, who uses them, size, how much of it others share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.rows import IMAGES, image_row
from workbench.subjects import Lists, Subject, image_subjects

if TYPE_CHECKING:
    from engine.api import ImageSummary


class ImagesPane(RowsPane):
    NAME, TITLE, KIND = "images", "images", "image"
    FOLLOWS = ("container",)
    COLUMNS = IMAGES
    EMPTY = "No images yet: b builds one, : pull fetches one."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("image")

    def __init__(self) -> None:
        super().__init__()
        self._images: tuple[ImageSummary, ...] = ()
        self._shared: dict[str, int] = {}
        self._measured: tuple[str, ...] = ()

    def listed(self, lists: Lists) -> None:
        self._images = tuple(lists.images)
        self._draw()
        self._measure()

    def shown(self) -> None:
        self._measure()

    def show(self, subject: Subject | None) -> None:
        """The image of the container that another pane selected."""
        container = self.app_.lists.container(subject.id) if subject else None
        image = self.app_.lists.image(container.image_id) if container else None
        if image is not None:
            name = container.image if container else ""
            subjects = image_subjects([image])
            self.choose(next((one for one in subjects if one.name in (name, f"{name}:latest")), subjects[0]))

    def _draw(self) -> None:
        rows = []
        for subject in image_subjects(self._images):
            one: ImageSummary = subject.record
            rows.append((subject, image_row(one, subject.name, self._shared.get(one.digest))))
        self.put(rows)

    def _measure(self) -> None:
        now = tuple(one.digest for one in self._images)
        if self.on_screen and now != self._measured and len(now) > 1:
            self._measured = now
            self.work(self._read_shared, group="shared")

    async def _read_shared(self) -> None:
        usage = await self.bridge.engine.disk_usage()
        self._shared = {one.image.digest: one.shared for one in usage.images}
        self._draw()

    def opened(self, subject: Subject) -> None:
        """Its layers."""
        self.app_.action_pane("layers")
