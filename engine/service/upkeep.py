"""What takes space, and what may go: `system df`, `image prune`, `container prune`, `system prune`.

A prune plans first (`…_plan` changes nothing) and then does what the plan says, so that a dry run shows the truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import Conflict, EngineError, NotFound
from engine.model import CacheUsage, ContainerSummary, DiskUsage, ImageSummary, ImageUsage, Pruned, VolumeInfo
from engine.oci.chain import chain_ids
from engine.oci.digest import Digest
from engine.service import filters as rules
from engine.service.containers import ContainerService
from engine.service.images import BASE, ImageService
from engine.service.volumes import VolumeService
from engine.store.images import Image
from engine.store.store import Store
from engine.store.volumes import disk_usage

CONTAINER_KEYS = ("label", "label!", "until")
_ENDED = ("created", "exited", "dead")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row of the build cache."""

    key: str
    chain: Digest
    blob: Digest
    blob_size: int
    used: int


class UpkeepService:
    def __init__(
        self,
        store: Store,
        images: ImageService,
        containers: ContainerService,
        volumes: VolumeService,
        summaries: Callable[[], Sequence[ImageSummary]],
    ) -> None:
        self._store, self._images, self._containers = store, images, containers
        self._volumes, self._summaries = volumes, summaries

    # --- df -------------------------------------------------------------------------------------------

    def disk_usage(self) -> DiskUsage:
        sizes = self._layer_sizes()
        summaries = {summary.digest: summary for summary in self._summaries()}
        chains = {image.digest: self._chains(image) for image in self._store.images.list()}
        users: dict[Digest, int] = {}
        for found in chains.values():
            for chain in found:
                users[chain] = users.get(chain, 0) + 1
        images = tuple(
            ImageUsage(summaries[digest], sum(sizes.get(chain, 0) for chain in found if users[chain] > 1))
            for digest, found in chains.items()
            if digest in summaries
        )
        containers = tuple(
            (one, disk_usage(self._containers.bundle(one.id) / "upper")) for one in self._containers.list(all=True)
        )
        return DiskUsage(
            images,
            sum(sizes.get(chain, 0) for chain in users),
            containers,
            tuple(self._sized_volumes()),
            tuple(
                CacheUsage(entry.key[:25], sizes.get(entry.chain, entry.blob_size), entry.used, entry.chain in users)
                for entry in self._cache()
            ),
        )

    def _sized_volumes(self) -> Iterable[VolumeInfo]:
        for volume in self._volumes.list():
            yield replace(volume, size=disk_usage(Path(volume.mountpoint)))

    def _layer_sizes(self) -> dict[Digest, int]:
        return {
            chain: record.size for chain in self._store.layers.chains() if (record := self._store.layers.peek(chain))
        }

    def _chains(self, image: Image) -> tuple[Digest, ...]:
        try:
            return chain_ids(self._store.images.config(image).diff_ids)
        except EngineError:
            return ()

    def _cache(self) -> list[_Entry]:
        entries = []
        for row in self._store.records.read("SELECT key, document, used FROM cache ORDER BY used DESC"):
            document = json.loads(row["document"])
            layer = document["layer"]
            entries.append(
                _Entry(row["key"], Digest(document["chain"]), Digest(layer["digest"]), layer["size"], row["used"])
            )
        return entries

    # --- prune ----------------------------------------------------------------------------------------

    def prune_images(self, filters: rules.Filters, *, dry_run: bool = False, without: Collection[str] = ()) -> Pruned:
        """Untagged images; with the filter `dangling=false` every image that no container (but `without`) uses."""
        plan = self.images_plan(filters, without)
        before = self.disk_usage().layers_size if not dry_run else 0
        lines: list[str] = []
        for image in plan:
            lines += [f"untagged: {tag}" for tag in image.tags]
            if not dry_run:
                try:
                    self._images.drop(image.digest)
                except (NotFound, Conflict):
                    lines = lines[: len(lines) - len(image.tags)]
                    continue
            lines.append(f"deleted: {image.id}")
        reclaimed = self._would_free(plan) if dry_run else max(0, before - self.disk_usage().layers_size)
        if not dry_run:
            self._store.sweep()
            self._store.records.event("image", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(images=tuple(lines), reclaimed=reclaimed)

    def images_plan(self, filters: rules.Filters, without: Collection[str] = ()) -> list[ImageSummary]:
        """What `prune_images` would remove. Raises `InvalidInput`."""
        rules.check(filters, rules.PRUNE_KEYS)
        only_dangling = "dangling" not in filters or rules.boolean("dangling", filters["dangling"])
        limit = rules.until(filters)
        kept = self._images.kept()
        return [
            image
            for image in self._summaries()
            if (image.dangling or not only_dangling)
            and image.digest not in kept
            and set(image.used_by) <= set(without)
            and not any(tag.rpartition(":")[0] == BASE for tag in image.tags)
            and rules.labelled(image.labels, filters)
            and (limit is None or image.created < limit)
        ]

    def _would_free(self, plan: Sequence[ImageSummary]) -> int:
        gone = {image.digest for image in plan}
        sizes = self._layer_sizes()
        kept: set[Digest] = set()
        lost: set[Digest] = set()
        for image in self._store.images.list():
            (lost if image.digest in gone else kept).update(self._chains(image))
        return sum(sizes.get(chain, 0) for chain in lost - kept)

    def prune_containers(self, filters: rules.Filters, *, dry_run: bool = False) -> Pruned:
        """Containers that do not run."""
        removed, freed = [], 0
        for container in self.containers_plan(filters):
            size = disk_usage(self._containers.bundle(container.id) / "upper")
            if not dry_run:
                try:
                    self._containers.remove(container.id, force=False)
                except (NotFound, Conflict):
                    continue  # started or removed by somebody meanwhile
            removed.append(container.id)
            freed += size
        if not dry_run:
            self._store.records.event("container", "prune", "", {"reclaimed": str(freed)})
        return Pruned(containers=tuple(removed), reclaimed=freed)

    def containers_plan(self, filters: rules.Filters) -> list[ContainerSummary]:
        rules.check(filters, CONTAINER_KEYS)
        limit = rules.until(filters)
        return [
            one
            for one in self._containers.list(all=True)
            if one.status in _ENDED and rules.labelled(one.labels, filters) and (limit is None or one.created < limit)
        ]

    def prune_cache(self, *, everything: bool = False, dry_run: bool = False) -> Pruned:
        """Entries whose layer no image has; with `everything` all of them."""
        named = {chain for image in self._store.images.list() for chain in self._chains(image)}
        sizes = self._layer_sizes()
        doomed = [entry for entry in self._cache() if everything or entry.chain not in named]
        freed = sum({entry.chain: sizes.get(entry.chain, 0) for entry in doomed if entry.chain not in named}.values())
        if not dry_run and doomed:
            with self._store.records.write() as db:
                db.executemany("DELETE FROM cache WHERE key = ?", [(entry.key,) for entry in doomed])
            self._store.sweep()
        if not dry_run:
            self._store.records.event("builder", "prune", "", {"reclaimed": str(freed)})
        return Pruned(cache=tuple(entry.key[:25] for entry in doomed), reclaimed=freed)

    def prune_system(
        self, filters: rules.Filters, *, all: bool = False, volumes: bool = False, dry_run: bool = False
    ) -> Pruned:
        """Ended containers, then images that nothing uses any more, the build cache, and anonymous volumes if asked."""
        moment = {key: values for key, values in filters.items() if key != "until"}
        if "until" in filters:  # one moment for all kinds: a duration must not mean another time for each
            moment["until"] = [f"{(rules.until(filters) or 0) / 1e9:.9f}"]
        # A dry run counts as gone what would go first.
        leaving = [one.name for one in self.containers_plan(moment)] if dry_run else []
        containers = self.prune_containers(moment, dry_run=dry_run)
        chosen = {**moment, **({"dangling": ["false"]} if all else {})}
        images = self.prune_images(chosen, dry_run=dry_run, without=leaving)
        cache = Pruned() if "label" in filters else self.prune_cache(everything=all, dry_run=dry_run)
        names, size = self._prune_volumes(filters, leaving, dry_run) if volumes else ((), 0)
        if not dry_run:
            self._store.sweep()
        total = containers.reclaimed + images.reclaimed + cache.reclaimed + size
        return Pruned(containers.containers, images.images, names, cache.cache, total)

    def _prune_volumes(
        self, filters: rules.Filters, leaving: Collection[str], dry_run: bool
    ) -> tuple[tuple[str, ...], int]:
        wanted = {key: values for key, values in filters.items() if key != "until"}
        if not dry_run:
            removed, size = self._volumes.prune(wanted)
            return tuple(removed), size
        doomed = [
            one
            for one in self._sized_volumes()
            if one.anonymous and set(one.used_by) <= set(leaving) and rules.labelled(one.labels, wanted)
        ]
        return tuple(one.name for one in doomed), sum(one.size for one in doomed)
