"""Images in and out of files: save, load, import."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO

from engine.archive.wrapping import unwrap
from engine.archive.writer import CHUNK, Sink
from engine.base.cancel import CancelToken
from engine.base.clock import rfc3339
from engine.build.changes import apply_changes
from engine.errors import Corrupt, InvalidInput, from_os_error
from engine.model import ImageImport, LoadedImage, PullProgress
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.service.images import is_base, tell
from engine.service.system import require_root
from engine.store.archive_load import Found, read_archive
from engine.store.archive_save import Format, choose, save
from engine.store.images import Image
from engine.store.store import Store


class ArchiveService:
    def __init__(self, store: Store) -> None:
        self._store = store

    def save(
        self,
        names: Sequence[str],
        out: Sink,
        progress: Callable[[PullProgress], None],
        cancel: CancelToken,
        *,
        format: Format = "docker-archive",
    ) -> None:
        """Writes the images that `names` mean into `out` as one tar."""
        with self._store.using():
            chosen = choose(self._store, names)
            save(
                self._store,
                chosen,
                out,
                format=format,
                cancel=cancel,
                progress=lambda digest, size: progress(PullProgress("", digest.short, "done", size, size)),
            )
        for one in chosen:
            tell(self._store, "save", one.image)

    def load(self, source: BinaryIO, emit: Callable[[PullProgress | LoadedImage], None], cancel: CancelToken) -> None:
        """Records every image of an archive; each is told as a `LoadedImage` when it is here and whole."""
        require_root()
        try:
            with self._store.using():
                found = read_archive(
                    source,
                    self._store.blobs,
                    platform=Platform.host(),
                    cancel=cancel,
                    progress=lambda name, done, size: emit(PullProgress("", name[-12:], "loading", done, size)),
                )
                for one in found:
                    emit(self._record(one, emit, cancel))
        except OSError as error:
            raise from_os_error(error, "loading images") from error

    def _record(self, found: Found, emit: Callable[[PullProgress], None], cancel: CancelToken) -> LoadedImage:
        tags = [tag for tag in found.tags if not is_base(tag)]
        records = self._store.ensure_layers(
            found.manifest.layers,
            found.config.diff_ids,
            cancel=cancel,
            progress=lambda layer, done: emit(PullProgress("", layer.digest.short, "extracting", done)),
        )
        self._store.layers.settle([record.chain for record in records])
        # A tag that means another image here moves only with a word to the user.
        displaced = [(tag, self._store.images.find(str(tag))) for tag in tags]
        moved = tuple(
            f"The image {tag.familiar} already exists, renaming the old one with ID {old.config_digest} to empty string"
            for tag, old in displaced
            if old is not None and old.config_digest != found.manifest.config.digest
        )
        same = self._store.images.by_config(found.manifest.config.digest)
        if same is not None and not found.original:
            # The image is here with the manifest that it came with: that one is worth more than one made up.
            for tag in tags:
                self._store.images.tag(same, tag)
            image = same
        else:
            image = self._store.images.put(found.manifest, found.config, sum(record.size for record in records), tags)
        for tag in tags if found.index is not None and image.digest == found.manifest.digest else ():
            assert found.index is not None
            self._store.indexes.put(str(tag), found.index, image.digest)
        names = tuple(tag.familiar for tag in tags)
        tell(self._store, "load", image)
        return LoadedImage(image.config_digest, image.digest, names, moved)

    def unpack(self, image: Image) -> None:
        """The layers of an image that came through the registry server, and their true size."""
        require_root()
        manifest, config = self._store.images.manifest(image), self._store.images.config(image)
        records = self._store.ensure_layers(manifest.layers, config.diff_ids)
        self._store.images.set_size(image, sum(record.size for record in records))

    def import_(
        self,
        source: BinaryIO,
        request: ImageImport,
        progress: Callable[[PullProgress], None],
        cancel: CancelToken,
    ) -> Image:
        """An image of one layer from a file system's tar."""
        require_root()
        tag = Reference.parse(request.reference).with_default_tag() if request.reference else None
        if tag is not None and (tag.digest or is_base(tag)):
            raise InvalidInput(f"{request.reference} cannot name an imported image", hint="write NAME:TAG")
        platform = Platform.parse(request.platform) if request.platform else Platform.host()
        config = apply_changes(ImageConfig.scratch(platform), request.changes)
        try:
            with self._store.using():
                layer = self._layer(source, progress, cancel)
                now = rfc3339(time.time_ns())
                history = replace(History(now), comment=request.message or "Imported from -")
                config = config.with_step(history, layer.digest, now)
                raw = config.to_bytes()
                manifest = build_manifest(Descriptor(OCI_CONFIG, self._store.blobs.put(raw), len(raw)), [layer])
                records = self._store.ensure_layers([layer], config.diff_ids, cancel=cancel)
                self._store.layers.settle([record.chain for record in records])
                image = self._store.images.put(manifest, config, sum(r.size for r in records), [tag] if tag else [])
        except OSError as error:
            raise from_os_error(error, "importing an image") from error
        if tag:
            tell(self._store, "tag", image, tag.familiar)
        tell(self._store, "import", image)
        return image

    def _layer(self, source: BinaryIO, progress: Callable[[PullProgress], None], cancel: CancelToken) -> Descriptor:
        """The plain tar as a blob: its digest is the diff ID."""
        plain = unwrap(source)
        writer = self._store.blobs.ingest()
        try:
            while data := plain.read(CHUNK):
                cancel.check()
                writer.write(data)
                progress(PullProgress("", "", "loading", writer.size))
            if not writer.size:
                raise Corrupt("there is nothing to import: the archive is empty")
            size, digest = writer.size, writer.commit()
        except BaseException:
            writer.abort()
            raise
        return Descriptor(OCI_LAYER, Digest(digest), size)
