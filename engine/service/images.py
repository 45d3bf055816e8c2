"""Images as a user knows them: pull, list, layers, tag, remove; and the base image that needs no registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Conflict, EngineError, InvalidInput, NotFound, from_os_error
from engine.model import ImageSummary, PullProgress
from engine.oci.chain import chain_ids
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.service import filters as rules
from engine.service.meter import Meter
from engine.service.points import points_of
from engine.service.system import require_root
from engine.service.variants import fits, variant

if TYPE_CHECKING:
    from engine.base.cancel import CancelToken
    from engine.model import BuildEvent, RegistryAuth
    from engine.oci.digest import Digest
    from engine.oci.manifest import Manifest
    from engine.store.images import Image
    from engine.store.store import Store

BASE = "workbench/base"
FINGERPRINT = "workbench.base.fingerprint"


def is_base(reference: Reference) -> bool:
    """The embedded base image's name is this engine's own: it is never asked of a registry."""
    return reference.familiar_name == BASE


class ImageService:
    """`auths`: who its pulls go to registries as; for other registries it is as this host's files say."""

    def __init__(self, store: Store, auths: Sequence[RegistryAuth] = ()) -> None:
        self._store, self._auths = store, auths
        self._listed: tuple[int | None, list[ImageSummary]] = (None, [])

    def as_user(self, *auths: RegistryAuth | None) -> ImageService:
        """The same images, pulled with these credentials."""
        given = [auth for auth in auths if auth is not None]
        return ImageService(self._store, given) if given else self

    # --- pull -----------------------------------------------------------------------------------------

    def pull(
        self,
        name: str,
        progress: Callable[[PullProgress], None],
        cancel: CancelToken,
        platform: Platform | None = None,
    ) -> Image:
        """Fetches an image: its blobs in parallel, then its layers unpacked, bottom first."""
        require_root()
        reference = Reference.parse(name).with_default_tag()
        if is_base(reference):
            raise InvalidInput(
                f"{BASE} is made on this host and is on no registry",
                hint=f"write FROM {BASE}; it is made when it is needed",
            )
        shown = reference.familiar
        wanted, meter = platform or Platform.host(), Meter(shown, progress)
        before = self._store.images.find(str(reference))
        if before is None:  # else when the registry has answered: waking who listens costs as much as the question
            meter.begun()
        try:
            with self._store.using():
                image, digest = self._fetched(reference, wanted, before, meter, cancel)
        except OSError as error:
            raise from_os_error(error, f"pulling {shown}") from error
        self._store.records.event("image", "pull", image.config_digest, {"name": shown}, durable=False)
        meter.begun()
        if before is not None and before.digest == image.digest:
            progress(PullProgress(shown, "", "exists"))
        progress(PullProgress(shown, "", "done", text=f"Digest: {digest}"))
        return image

    def pull_all(
        self,
        name: str,
        progress: Callable[[PullProgress], None],
        cancel: CancelToken,
        platform: Platform | None = None,
    ) -> None:
        """Every tag of a repository, one after the other. Raises `InvalidInput` when `name` has a tag or a digest."""
        from engine.registry.artifact import Artifact
        from engine.service.registries import registry_config

        reference = Reference.parse(name)
        if reference.tag or reference.digest:
            raise InvalidInput("tag can't be used with --all-tags/-a", hint=f"name {reference.familiar_name} alone")
        config = registry_config(self._store, self._auths)
        artifact = Artifact(reference, self._store.blobs, config, progress=lambda event: None, cancel=cancel)
        try:
            tags = artifact.tags()
        finally:
            artifact.close()
        if not tags:
            raise NotFound(f"repository {reference.familiar_name} has no tags")
        for tag in tags:
            cancel.check()
            self.pull(f"{reference.familiar_name}:{tag}", progress, cancel, platform)

    def _fetched(
        self, reference: Reference, platform: Platform, before: Image | None, meter: Meter, cancel: CancelToken
    ) -> tuple[Image, str]:
        """The image, and the digest that its name stands for in the registry. `before`: what the name means here."""
        from engine.registry.pull import Pulled, pull
        from engine.service.registries import registry_config
        from engine.service.unpacking import Unpacking

        def found(manifest: Manifest, config: ImageConfig) -> None:
            meter.begun()
            unpacking.image(manifest, config)

        unpacking = Unpacking(self._store, lambda layer, done: meter.unpacked(layer, done), cancel)
        try:
            pulled = pull(
                reference,
                self._store.blobs,
                registry_config(self._store, self._auths),
                platform=platform,
                progress=meter.blob,
                on_image=found,
                on_layer=unpacking.layer,
                here=(lambda: self._whole(before, reference, platform)) if before is not None else None,
                cancel=cancel,
            )
            if not isinstance(pulled, Pulled):
                assert before is not None  # or nobody would have said that it is here
                return before, pulled
            records = unpacking.records()
        finally:
            unpacking.close()
        tags = [reference] if not reference.digest else []
        size = sum(record.size for record in records)
        image = self._store.images.put(pulled.manifest, pulled.config, size, tags, pulled.repo_digest)
        self._store.layers.settle([record.chain for record in records])
        return image, pulled.repo_digest.rpartition("@")[2]

    def _whole(self, image: Image, reference: Reference, platform: Platform) -> Collection[Digest]:
        """What the registry has it as, if it is for `platform` and every part of it is here.
        Nothing is claimed: what has a name is not swept."""
        try:
            blobs, config = self._store.images.manifest(image), self._store.images.config(image)
            parts = (blobs.digest, blobs.config.digest, *(layer.digest for layer in blobs.layers))
            whole = (
                fits(self._store, image, platform)
                and all(self._store.blobs.stamp(part) for part in parts)
                and all(self._store.layers.whole(chain) for chain in chain_ids(config.diff_ids))
            )
        except EngineError:
            return ()  # damaged: it is pulled again
        return self._store.images.known_in(image, reference.name) if whole else ()

    def base(
        self,
        name: str,
        *,
        pull: bool,
        emit: Callable[[BuildEvent], None],
        cancel: CancelToken,
        platform: Platform | None = None,
    ) -> Image:
        """The image a FROM names (an `ImageSource` for the builder)."""
        reference = Reference.parse(name)
        if is_base(reference):
            return self.ensure_base()
        found = None if pull else self._store.images.find(name)
        if found is not None and (platform is None or fits(self._store, found, platform)):
            return found
        return (None if pull else variant(self._store, name, platform)) or self.pull(name, emit, cancel, platform)

    def layout(self, path: Path, reference: str, *, cancel: CancelToken, platform: Platform | None = None) -> Image:
        """An image of an OCI layout on this host (`--build-context NAME=oci-layout://PATH`)."""
        from engine.service.layouts import import_layout

        return import_layout(self._store, path, reference, platform or Platform.host(), cancel)

    # --- the embedded base ------------------------------------------------------------------------------

    def ensure_base(self) -> Image:
        """`workbench/base` from this host's files: found, or made when it is missing or the host has changed."""
        require_root()
        from engine.service.base_image import base_config, base_fingerprint, write_base_layer

        fingerprint = base_fingerprint()
        found = self._store.images.find(BASE)
        if found and self._store.images.config(found).labels.get(FINGERPRINT) == fingerprint:
            return found
        with self._store.using():
            blob = self._store.blobs.ingest()
            try:
                written = write_base_layer(blob)
            except OSError as error:
                blob.abort()
                raise from_os_error(error, f"making {BASE}") from error
            except BaseException:
                blob.abort()
                raise
            size, digest = blob.size, blob.commit()
            layer = Descriptor(OCI_LAYER, digest, size)
            settings = base_config()
            config = ImageConfig.scratch(Platform.host()).with_config(
                **{**settings, "Labels": {FINGERPRINT: fingerprint}}
            )
            history = History(
                "1970-01-01T00:00:00Z", "workbench base: this host's interpreter, shell and core utilities"
            )
            config = config.with_step(history, written.diff_id, history.created)
            raw = config.to_bytes()
            manifest = build_manifest(Descriptor(OCI_CONFIG, self._store.blobs.put(raw), len(raw)), [layer])
            records = self._store.ensure_layers([layer], config.diff_ids)
            return self._store.images.put(manifest, config, sum(r.size for r in records), [Reference.parse(BASE)])

    # --- tag and remove ---------------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> None:
        reference = Reference.parse(target)
        if reference.digest:
            raise InvalidInput(f"{target}: a tag cannot hold a digest", hint="write NAME:TAG")
        if is_base(reference):
            raise Conflict(f"{BASE} is the embedded base image's own name", hint="choose another name")
        image = self._store.images.get(source)
        self._store.images.tag(image, reference)
        if index := self._store.indexes.find(source):
            self._store.indexes.put(str(reference.with_default_tag()), index, image.digest)
        tell(self._store, "tag", image, reference.with_default_tag().familiar)

    def remove(self, name: str, used_by: list[str], *, force: bool) -> list[str]:
        """Untags; deletes with the last tag. An image that a container uses is kept unless `force` untags it."""
        image = self._store.images.get(name)
        doomed, by_id = self._named(image, name)
        if by_id and len(image.tags) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {name} (must be forced) - image is referenced in multiple repositories: "
                f"{', '.join(image.familiar_tags)}",
                hint="remove the tags one by one, or use --force",
            )
        last = set(doomed) >= set(image.tags)
        if last and used_by:
            raise Conflict(
                f"conflict: unable to remove image {name} (must force) - used by container{'s' if len(used_by) > 1 else ''} "
                f"{', '.join(used_by)}",
                hint=f"remove them first: workbench rm -f {' '.join(used_by)}",
            )
        lines = []
        for tag in doomed:
            if tag in image.tags:
                self._store.images.untag(tag)
                lines.append(f"Untagged: {Reference.parse(tag).familiar}")
                tell(self._store, "untag", image)
        if last:
            lines += [f"Untagged: {digest}" for digest in self._store.images.repo_digests(image)]
            self._delete(image)
            self._delete_twins(image)
            lines.append(f"Deleted: {image.config_digest}")
            self._store.sweep()
        return lines

    @staticmethod
    def _named(image: Image, name: str) -> tuple[list[str], bool]:
        """The tags that go, and whether the image was named by an id (then all of them do)."""
        bare = name.removeprefix("sha256:")
        if any(digest.hex.startswith(bare) for digest in (image.config_digest, image.digest)):
            return list(image.tags), True
        reference = Reference.parse(name)
        if reference.digest is not None:
            # A digest in one repository: what that repository calls the image goes.
            return [tag for tag in image.tags if Reference.parse(tag).name == reference.name], False
        return [str(reference.with_default_tag())], False

    def drop(self, digest: str) -> None:
        """Deletes an image with all its tags, unless a container uses it (`Conflict`). The bytes go with the next sweep."""
        image = self._store.images.get(digest)
        self._delete(image)

    def _delete_twins(self, image: Image) -> None:
        """The same image in other compressions, which no list shows beside it: nobody could name them any more."""
        users = self.users()
        for other in self._store.images.list():
            if other.config_digest == image.config_digest and not other.tags and not users.get(other.digest):
                self._store.images.forget(other)

    def _delete(self, image: Image) -> None:
        gone = self._chains_of(image)
        self._store.images.forget(image)
        self._forget_cache(gone)
        tell(self._store, "delete", image)

    def _chains_of(self, image: Image) -> set[Digest]:
        try:
            return set(chain_ids(self._store.images.config(image).diff_ids))
        except EngineError:
            return set()

    def _forget_cache(self, gone: set[Digest]) -> None:
        """Cache entries whose layer only the deleted image used go with it."""
        for other in self._store.images.list():
            gone -= self._chains_of(other)
        keys = [
            row["key"]
            for row in self._store.records.read("SELECT key, document FROM cache")
            if json.loads(row["document"])["chain"] in gone
        ]
        with self._store.records.write() as db:
            db.executemany("DELETE FROM cache WHERE key = ?", [(key,) for key in keys])

    def keep(self, owner: str, images: Sequence[str]) -> None:
        """See `engine.api.Engine.keep_images`."""
        digests = [found.digest for name in images if (found := self._store.images.find(name))]
        with self._store.records.write(durable=False) as db:
            db.execute("DELETE FROM kept WHERE owner = ?", (owner,))
            db.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?)", [(owner, digest) for digest in digests])

    def kept(self) -> set[str]:
        """Digests of the images that somebody keeps."""
        return {row["image"] for row in self._store.records.read("SELECT DISTINCT image FROM kept")}

    # --- summaries --------------------------------------------------------------------------------------

    def users(self) -> dict[str, list[str]]:
        """Names of the containers of each image, by its digest."""
        users: dict[str, list[str]] = {}
        for row in self._store.records.read("SELECT name, image, document FROM containers ORDER BY name"):
            mounted = {point.image for point in points_of(json.loads(row["document"])) if point.image}
            for image in {row["image"], *mounted}:
                users.setdefault(image, []).append(row["name"])
        return users

    def summaries(self) -> list[ImageSummary]:
        """Every image, the one that came last first. Made again when any record can have changed."""
        version = self._store.records.version()  # before the reading: what comes in between counts as new
        known, found = self._listed
        if known == version:
            return list(found)
        users, names = self.users(), self._store.images.all_repo_digests()
        old = {image.digest: image for image in found}
        each = [self.summary(image, users, names.get(str(image.digest), ())) for image in self._store.images.list()]
        fresh = rules.by_id(each)
        found = [same if (same := old.get(image.digest)) == image else image for image in fresh]
        self._listed = version, found
        return list(found)

    def summary(
        self, image: Image, users: Mapping[str, Sequence[str]], names: Sequence[str] | None = None
    ) -> ImageSummary:
        """`names`: its repository digests, if they are known already."""
        try:
            labels = self._store.images.config(image).labels
        except EngineError:
            labels = {}  # `check` names the damage; a list of images must not fail for it
        return ImageSummary(
            image.config_digest,
            image.digest,
            image.familiar_tags,
            image.created,
            image.size,
            tuple(users.get(image.digest, ())),
            not image.tags,
            labels,
            tuple(self._store.images.repo_digests(image) if names is None else names),
        )

    def filtered(self, filters: Mapping[str, Sequence[str]]) -> list[ImageSummary]:
        """`docker images --filter`. Raises `InvalidInput`, `NotFound`."""
        return rules.images(self.summaries(), filters, lambda name: self._store.images.get(name).created)


def tell(store: Store, action: str, image: Image, name: str = "") -> None:
    """An event of an image. Docker names the image by its id, but where it got that name."""
    store.records.event("image", action, image.config_digest, {"name": name or str(image.config_digest)})
