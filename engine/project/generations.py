"""The numbered generations of each service: what ran, made of what, why, and how it was run. One small file a service.

Every accepted build is one. Their images are kept (`Engine.keep_images`) as long as the generation is in the list, so that each can
run again at once; the list is cut at its oldest end, by count and by bytes (`keeping`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.atomic import locked, write_atomic
from engine.errors import Corrupt, NotFound, from_os_error
from engine.model import ContainerSpec


@dataclass(frozen=True, slots=True)
class Generation:
    """`image` is its config digest; `spec` how it was run; `phases` seconds by name; `synced`: its files came into the running
    container by a sync, and the image was built behind it."""

    number: int
    image: str
    created: int = 0  # ns since the epoch
    paths: tuple[str, ...] = ()  # changed files, relative to the project where they lie in it
    step: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    synced: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A service's generations, oldest first, and the number of the one that serves (0: none)."""

    generations: tuple[Generation, ...] = ()
    current: int = 0

    def get(self, number: int) -> Generation:
        """Raises `NotFound`."""
        for generation in self.generations:
            if generation.number == number:
                return generation
        known = ", ".join(str(each.number) for each in self.generations) or "none"
        raise NotFound(f"there is no generation {number}", hint=f"kept are: {known}")

    def before(self, number: int) -> Generation:
        """The one that was accepted before `number`. Raises `NotFound`."""
        older = [each for each in self.generations if each.number < number]
        if not older:
            raise NotFound(f"there is no generation before {number}")
        return older[-1]

    @property
    def next_number(self) -> int:
        return max((each.number for each in self.generations), default=self.current) + 1


class Generations:
    """Of one service of one project; `folder` is the project's in the engine's data root."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder, self.service = folder, service
        self._file = folder / f"{service}.generations.json"
        self._lock = folder / f"{service}.swap.lock"
        self._list_lock = folder / f"{service}.generations.lock"  # for a moment, by who changes the list

    @contextlib.contextmanager
    def swapping(self) -> Iterator[None]:
        """Held by who replaces the service's container: the loop, or a rollback from another process. Blocks."""
        self._folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        with locked(self._lock):
            yield

    def read(self) -> Listed:
        """Raises `Corrupt`."""
        try:
            document = json.loads(self._file.read_bytes())
            found = tuple(_generation(each) for each in document["generations"])
            return Listed(found, int(document["current"]))
        except FileNotFoundError:
            return Listed()
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"{self._file} cannot be read: {error}", hint="remove it: the list begins anew") from error

    def accept(self, generation: Generation, *, kept: int) -> list[Generation]:
        """Adds it as the one that serves; returns those that fell off the list."""
        with self._changing():
            listed = self.read()
            others = [each for each in listed.generations if each.number != generation.number]
            found = sorted([*others, generation], key=lambda each: each.number)
            dropped = found[:-kept] if len(found) > kept else []
            self._write(Listed(tuple(found[len(dropped) :]), generation.number))
        return dropped

    def drop(self, numbers: Collection[int]) -> list[Generation]:
        """Takes them off the list, but for the one that serves; returns those that were on it."""
        if not numbers:
            return []
        with self._changing():
            listed = self.read()
            gone = [each for each in listed.generations if each.number in numbers and each.number != listed.current]
            self._write(Listed(tuple(each for each in listed.generations if each not in gone), listed.current))
        return gone

    def serve(self, number: int) -> None:
        """It is `number` that serves again."""
        with self._changing():
            self._write(dataclasses.replace(self.read(), current=number))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self._folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, f"writing {self._file}") from error
        with locked(self._list_lock):
            yield

    def _write(self, listed: Listed) -> None:
        document = {"current": listed.current, "generations": [dataclasses.asdict(each) for each in listed.generations]}
        try:
            # The containers and images are the truth: after a power cut the list may be one short.
            write_atomic(self._file, json.dumps(document, default=str).encode(), durable=False)
        except OSError as error:
            raise from_os_error(error, f"writing {self._file}") from error


def made(
    number: int,
    image: str,
    spec: ContainerSpec,
    paths: Sequence[str],
    step: str,
    phases: Mapping[str, float],
    *,
    synced: bool = False,
) -> Generation:
    return Generation(number, image, time.time_ns(), tuple(paths), step, dict(phases), dataclasses.asdict(spec), synced)


def _generation(document: Mapping[str, Any]) -> Generation:
    return Generation(**{**document, "paths": tuple(document["paths"])})
