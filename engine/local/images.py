"""Images and builds of the in-process engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from engine import model
from engine.base.cancel import CancelToken
from engine.base.clock import parse_rfc3339
from engine.local.base import Services
from engine.service.streams import on_thread, stream

if TYPE_CHECKING:
    from engine.api import Sink
    from engine.model import (
        BuildDetail,
        BuildEvent,
        BuildRecord,
        BuildRequest,
        Distribution,
        FileDifference,
        ImageDetail,
        ImageImport,
        ImageManifest,
        ImageSummary,
        LayerInfo,
        LoadedImage,
        PullProgress,
        RegistryAuth,
        RegistryDocument,
        RegistryMatch,
        WhyReport,
    )
    from engine.store.images import Image


class ImagesPart(Services):
    """Images, archives, builds and their history."""

    async def images(
        self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None
    ) -> Sequence[ImageSummary]:
        found = await self._do(self._images.filtered, filters or {})
        return [image for image in found if all or not image.dangling or "dangling" in (filters or {})]

    async def image(self, name: str) -> ImageDetail:
        return await self._do(self._image_detail, name)

    def _image_detail(self, name: str) -> ImageDetail:
        image = self._store.images.get(name)
        config, manifest = self._store.images.config(image), self._store.images.manifest(image)
        return model.ImageDetail(
            self._images.summary(image, self._images.users()),
            tuple(self._layers(image)),
            config.document,
            manifest.document,
            tuple(self._store.images.repo_digests(image)),
            str((self._store.images.steps(image) or [{}])[-1].get("parent") or ""),
        )

    def _layers(self, image: Image) -> list[LayerInfo]:
        config = self._store.images.config(image)
        from engine.oci.chain import chain_ids

        chains = iter(zip(config.diff_ids, chain_ids(config.diff_ids), strict=True))
        steps = self._store.images.steps(image)
        layers = []
        for index, history in enumerate(config.history):
            step = steps[index] if index < len(steps) else {}
            diff_id, chain = ("", None) if history.empty_layer else next(chains, ("", None))
            record = self._store.layers.get(chain) if chain else None
            with contextlib.suppress(ValueError):
                created = parse_rfc3339(history.created) if history.created else 0
            layers.append(
                _layer(
                    index,
                    history.created_by,
                    str(diff_id),
                    record.size if record else 0,
                    created,
                    history.empty_layer,
                    step,
                    history.comment,
                )
            )
        return layers

    async def tag(self, source: str, target: str) -> None:
        await self._do(self._images.tag, source, target)

    async def image_manifests(self) -> Mapping[str, Sequence[ImageManifest]]:
        from engine.service import image_manifests

        return await self._do(lambda: image_manifests.every(self._store, self._images.users()))

    async def keep_images(self, owner: str, images: Sequence[str]) -> None:
        await self._do(self._images.keep, owner, images)

    async def remove_image(self, name: str, *, force: bool = False) -> Sequence[str]:
        image = await self._do(self._store.images.get, name)
        return await self._do(self._images.remove, name, self._images.users().get(image.digest, []), force=force)

    def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, all_tags: bool = False
    ) -> AsyncIterator[PullProgress]:
        if self._aside and auth is None:
            from engine.local.aside import transfer

            return transfer(self.root, "pull", reference, platform=platform)
        from engine.oci.platform import Platform

        wanted = Platform.parse(platform) if platform else None
        images = self._images.as_user(auth)
        pull = images.pull_all if all_tags else images.pull
        return stream(lambda emit, cancel: pull(reference, emit, cancel, wanted))

    def push(
        self, reference: str, *, target: str = "", auth: RegistryAuth | None = None
    ) -> AsyncIterator[PullProgress]:
        if self._aside and auth is None:
            from engine.local.aside import transfer

            return transfer(self.root, "push", reference, target=target)
        return stream(lambda emit, cancel: self._transfers.push(reference, emit, cancel, target=target, auth=auth))

    async def login(self, auth: RegistryAuth) -> None:
        from engine.service import registries

        await self._do(registries.login, self._store, auth)

    async def search_images(
        self, term: str, *, limit: int = 25, auth: RegistryAuth | None = None
    ) -> Sequence[RegistryMatch]:
        from engine.service import registries

        return await self._cancellable(lambda cancel: registries.search(self._store, term, limit, auth, cancel))

    async def distribution(self, reference: str, *, auth: RegistryAuth | None = None) -> Distribution:
        from engine.service import registries

        return await self._cancellable(lambda cancel: registries.distribution(self._store, reference, auth, cancel))

    async def manifests(
        self, reference: str, *, children: bool = False, insecure: bool = False
    ) -> Sequence[RegistryDocument]:
        from engine.service import artifacts

        return await self._cancellable(
            lambda cancel: artifacts.manifests(
                self._store, reference, children=children, insecure=insecure, cancel=cancel
            )
        )

    async def push_index(
        self, target: str, document: bytes, sources: Mapping[str, str], *, insecure: bool = False
    ) -> str:
        from engine.service import composing

        return await self._cancellable(
            lambda cancel: composing.push_index(
                self._store, target, document, sources, insecure=insecure, cancel=cancel
            )
        )

    async def referrers(
        self, reference: str, *, artifact_type: str = "", platform: str = "", insecure: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        from engine.service import artifacts

        return await self._cancellable(
            lambda cancel: artifacts.referrers(
                self._store, reference, artifact_type=artifact_type, platform=platform, insecure=insecure, cancel=cancel
            )
        )

    def save(
        self, names: Sequence[str], out: Sink, *, format: Literal["docker-archive", "oci-archive"] = "docker-archive"
    ) -> AsyncIterator[PullProgress]:
        return stream(lambda emit, cancel: self._archives.save(names, out, emit, cancel, format=format))

    def load(self, source: BinaryIO) -> AsyncIterator[PullProgress | LoadedImage]:
        return stream(lambda emit, cancel: self._archives.load(source, emit, cancel))

    async def import_image(self, source: BinaryIO, request: ImageImport) -> ImageSummary:
        image = await on_thread(lambda: self._archives.import_(source, request, lambda event: None, CancelToken()))
        return self._images.summary(image, {})

    def build(self, request: BuildRequest) -> AsyncIterator[BuildEvent]:
        return stream(lambda emit, cancel: self._builds.build(request, emit, cancel))

    async def builds(self, *, search: str = "", limit: int | None = None) -> Sequence[BuildRecord]:
        return await self._do(self._builds.history.records, search=search, limit=limit)

    async def build_detail(self, number: int) -> BuildDetail:
        return await self._do(self._builds.history.detail, number)

    async def build_diff(self, first: int, second: int) -> Sequence[FileDifference]:
        return await self._do(self._builds.diff, first, second)

    async def remove_build(self, number: int) -> None:
        await self._do(self._builds.history.remove, number)

    async def why(self, request: BuildRequest, paths: Sequence[str]) -> Sequence[WhyReport]:
        return await self._do(lambda: [self._builds.why(request, path) for path in paths])

    async def ensure_base(self) -> str:
        await self._do(self._images.ensure_base)
        from engine.service.images import BASE

        return BASE


def _layer(
    index: int,
    created_by: str,
    diff_id: str,
    size: int,
    created: int,
    empty: bool,
    step: Mapping[str, object],
    comment: str,
) -> LayerInfo:
    shown = str(
        step.get("instruction") or created_by.removeprefix("/bin/sh -c #(nop) ").removesuffix(" # buildkit")
    ).strip()
    seconds = step.get("seconds")
    cached = step.get("cached")
    line = step.get("line")
    return model.LayerInfo(
        index,
        shown,
        created_by,
        diff_id,
        size,
        created,
        empty,
        bool(cached) if cached is not None else None,
        float(seconds) if isinstance(seconds, int | float) else None,
        str(step.get("reason") or ""),
        int(line) if isinstance(line, int) else 0,
        comment,
    )
