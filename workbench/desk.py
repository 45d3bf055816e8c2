"""What the app is given by whoever starts it (`engine.cli.app`): an engine that is opened behind the first frame, the project, and
the command line's own reading of its words, so that a form and the command that it shows mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from engine.api import ContainerSpec, Engine
    from workbench.bridge import LoopHandle


class Desk(Protocol):
    @property
    def title(self) -> str:
        """The project's or folder's name, as far as it is known before anything is read."""

    @property
    def place(self) -> str:
        """What the app's own state is kept under: the folder and the engine."""

    async def open(self, *, read_only: bool = False) -> tuple[Engine, LoopHandle | None]:
        """`read_only`: the project is shown as it is, and neither built nor replaced. Raises `EngineError`: what cannot be opened ends
        the app with its sentence."""

    async def close(self) -> None: ...

    async def document(self, engine: Engine, kind: str, name: str) -> Mapping[str, object]:
        """What `inspect` prints of an image, a container, a network or a volume. Raises `EngineError`."""

    def run_spec(self, words: Sequence[str]) -> ContainerSpec:
        """The words behind `workbench run`. Raises `InvalidInput`."""
