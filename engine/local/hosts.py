"""Other hosts, over SSH: images to and from them, containers of theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from engine import model
from engine.local.base import Services

if TYPE_CHECKING:
    from engine.model import Comparison, ContainerSpec, ImageSummary, PullProgress


class HostsPart(Services):
    async def push_to_host(
        self, url: str, name: str, *, progress: Callable[[PullProgress], None] = lambda event: None
    ) -> str:
        return await self._cancellable(lambda cancel: self._ssh.push(url, name, cancel, progress))

    async def pull_from_host(
        self, url: str, name: str, *, progress: Callable[[PullProgress], None] = lambda event: None
    ) -> ImageSummary:
        image = await self._cancellable(lambda cancel: self._ssh.pull(url, name, cancel, progress))
        return self._images.summary(image, self._images.users())

    async def verify_on_host(self, url: str, name: str, *, files: bool = False) -> Sequence[Comparison]:
        rows = await self._do(self._ssh.verify, url, name)
        if files:
            rows += await self._cancellable(
                lambda cancel: self._ssh.verify_files(url, name, self._export_image, cancel)
            )
        return rows

    def _export_image(self, name: str, out: BinaryIO) -> None:
        """The image's files as a tar, by a container that never starts."""
        made = self._containers.create(
            model.ContainerSpec(name, command=("/none",), entrypoint=(), network_mode="none")
        )
        try:
            self._files.export(made, out)
        finally:
            self._containers.remove(made, force=True, volumes=True)

    async def look_at_host(self, url: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        return await self._do(self._clones.look, url)

    async def clone_from_host(
        self,
        url: str,
        found: Mapping[str, Any],
        spec: ContainerSpec,
        copies: Sequence[tuple[str, bool]] = (),
        *,
        changes: bool = True,
        progress: Callable[[PullProgress], None] = lambda event: None,
    ) -> str:
        return await self._cancellable(
            lambda cancel: self._clones.clone(url, found, spec, copies, changes=changes, cancel=cancel, emit=progress)
        )
