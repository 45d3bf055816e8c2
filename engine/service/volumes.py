"""Volumes as a user knows them: create, list, inspect, remove, prune."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.errors import InvalidInput, NotFound
from engine.model import VolumeInfo
from engine.service.mounts import discard, refuse_in_use
from engine.service.points import points_of
from engine.store.volumes import Volume, disk_usage

if TYPE_CHECKING:
    from engine.store.store import Store

FILTERS = ("dangling", "driver", "label", "name")
PRUNE_FILTERS = ("all", "label", "label!")


class VolumeService:
    def __init__(self, store: Store) -> None:
        self._store = store

    def users(self) -> dict[str, list[tuple[str, str]]]:
        """Volume name to the (id, name) of the containers that have it, running or not."""
        found: dict[str, list[tuple[str, str]]] = {}
        for row in self._store.records.read("SELECT id, name, document FROM containers ORDER BY name"):
            for point in points_of(json.loads(row["document"])):
                if point.type == "volume":
                    found.setdefault(point.name, []).append((row["id"], row["name"]))
        return found

    def create(
        self,
        name: str,
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        volume, new = self._store.volumes.create(name, driver, labels, options)
        if new:
            self._store.records.event("volume", "create", volume.name, {"driver": volume.driver})
        return _info(volume, ())

    def get(self, name: str) -> VolumeInfo:
        volume = self._store.volumes.get(name)
        return _info(volume, [user for _, user in self.users().get(volume.name, ())])

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[VolumeInfo]:
        """Sorted by name. Filters of one kind are alternatives, but for `label`, where all must hold."""
        filters = filters or {}
        _check(filters, FILTERS)
        users = self.users()
        found = [
            _info(volume, [user for _, user in users.get(volume.name, ())]) for volume in self._store.volumes.list()
        ]
        return [volume for volume in found if _matches(volume, filters)]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises `NotFound` (not with `force`) and `Conflict` while a container has it."""
        with self._store.volumes.removing():
            try:
                volume = self._store.volumes.get(name)
            except NotFound:
                if force:
                    return
                raise
            refuse_in_use(name, [user for user, _ in self.users().get(volume.name, ())])
            discard(self._store, volume)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Sequence[str], int]:
        """Removes unused anonymous volumes; with the filter `all=true` named ones too. Names and bytes."""
        filters = filters or {}
        _check(filters, PRUNE_FILTERS)
        everything = bool(filters.get("all")) and _boolean("all", filters["all"])
        removed, freed = [], 0
        with self._store.volumes.removing():
            users = self.users()
            for volume in self._store.volumes.list():
                wanted = (everything or volume.anonymous) and _labelled(volume.labels, filters)
                if wanted and volume.name not in users:
                    freed += disk_usage(volume.data)
                    discard(self._store, volume)
                    removed.append(volume.name)
        self._store.records.event("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed


def _info(volume: Volume, users: Sequence[str]) -> VolumeInfo:
    return VolumeInfo(
        volume.name,
        volume.driver,
        str(volume.data),
        dict(volume.labels),
        dict(volume.options),
        volume.created,
        used_by=tuple(users),
    )


def _check(filters: Mapping[str, Sequence[str]], known: Sequence[str]) -> None:
    for key in filters:
        if key not in known:
            raise InvalidInput(f"invalid filter '{key}'", hint=f"{', '.join(known)} are known")


def _boolean(key: str, values: Sequence[str]) -> bool:
    words = {"1": True, "true": True, "0": False, "false": False}
    if len(values) != 1 or values[0].lower() not in words:
        raise InvalidInput(f"invalid filter '{key}={','.join(values)}'", hint="it is true or false")
    return words[values[0].lower()]


def _labelled(labels: Mapping[str, str], filters: Mapping[str, Sequence[str]]) -> bool:
    def has(text: str) -> bool:
        key, equals, value = text.partition("=")
        return key in labels and (not equals or labels[key] == value)

    return all(map(has, filters.get("label", ()))) and not any(map(has, filters.get("label!", ())))


def _matches(volume: VolumeInfo, filters: Mapping[str, Sequence[str]]) -> bool:
    if "dangling" in filters and _boolean("dangling", filters["dangling"]) == bool(volume.used_by):
        return False
    if "driver" in filters and volume.driver not in filters["driver"]:
        return False
    if "name" in filters and not any(text in volume.name for text in filters["name"]):
        return False
    return _labelled(volume.labels, filters)
