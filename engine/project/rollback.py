"""Going back to a generation, comparing two, and finding the first bad one. For front ends, beside a running loop or without one.

keeper = Keeper(engine, project, root / "projects")
await keeper.rollback("api", 12)
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.api import ContainerSpec, Engine, FileDifference, LoopEvent
from engine.base.atomic import write_atomic
from engine.errors import Conflict, EngineError, InvalidInput, NotFound
from engine.project import words
from engine.project.generations import Generation, Generations, Listed
from engine.project.model import Project, Service, container_name, container_spec
from engine.project.replicas import Replicas
from engine.project.swap import Next, Swap, stops_first

Verdict = Literal["good", "bad", "skip"]


@dataclass(frozen=True, slots=True)
class Bisection:
    """Generations that are known to be good and bad, and those that cannot be judged. `trying` runs now; `found` is the first
    bad one, when that is known."""

    good: int = 0
    bad: int = 0
    skipped: tuple[int, ...] = ()
    began: int = 0  # what ran before
    trying: int = 0
    found: int = 0

    def judged(self, verdict: Verdict) -> Bisection:
        """With a word on the one that is being tried."""
        if not self.trying:
            raise Conflict("nothing is being tried", hint="begin with: workbench bisect SERVICE start")
        if verdict == "good":
            return dataclasses.replace(self, good=self.trying, trying=0)
        if verdict == "bad":
            return dataclasses.replace(self, bad=self.trying, trying=0)
        return dataclasses.replace(self, skipped=(*self.skipped, self.trying), trying=0)

    def next(self, numbers: tuple[int, ...]) -> Bisection:
        """The one in the middle of what is left to try; none left: the first bad one is found."""
        left = [n for n in numbers if self.good < n < self.bad and n not in self.skipped]
        if left:
            return dataclasses.replace(self, trying=left[(len(left) - 1) // 2])
        return dataclasses.replace(self, found=self.bad, trying=0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two generations: files of their images, settings that are other ones now, and sizes in bytes."""

    files: tuple[FileDifference, ...]
    settings: tuple[str, ...]
    steps: tuple[str, ...]
    size_before: int
    size_after: int


class Keeper:
    """Of one project; `state_dir` is the loop's."""

    def __init__(self, engine: Engine, project: Project, state_dir: Path) -> None:
        self._engine, self._project, self._folder = engine, project, state_dir / project.name

    def generations(self, service: str) -> Listed:
        """Raises `NotFound` for a service that is not in the project."""
        self._project.service(service)
        return Generations(self._folder, service).read()

    async def rollback(
        self, service: str, number: int = 0, say: Callable[[LoopEvent], None] = lambda _: None
    ) -> Generation:
        """Runs generation `number` again (0: the one before the one that serves), as it was run then, and swapped in like any
        new one. A loop that watches goes on with the next change. Raises `NotFound`, `StartFailed`; what ran then runs on."""
        found = self._project.service(service)
        kept = Generations(self._folder, service)
        tasks: set[asyncio.Task[None]] = set()

        def spawn(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
            task = asyncio.get_running_loop().create_task(work)
            tasks.add(task)
            return task

        listed = kept.read()
        wanted = listed.get(number) if number else listed.before(listed.current)
        with kept.swapping():
            try:
                old = (await self._engine.container(container_name(self._project, found))).summary
            except NotFound:
                old = None
            spec, rule = await self._spec(found, wanted), words.rolled_back(wanted.number)
            new = Next(spec, wanted.number, rule, {}, not stops_first(self._project, found))
            await Swap(self._engine, found, say, spawn).run(new, old)
            kept.serve(wanted.number)
            await Replicas(self._engine, self._project, found, self._folder).roll(spec, rule)
        if tasks:  # the old one stops
            await asyncio.wait(tasks)
        return wanted

    async def _image(self, name: str, wanted: str) -> str:
        """The image's name where that still means this one, else its id."""
        with contextlib.suppress(EngineError):
            if name and (await self._engine.image(name)).summary.id == wanted:
                return name
        return wanted.removeprefix("sha256:")[:12]

    async def _spec(self, service: Service, generation: Generation) -> ContainerSpec:
        from engine.service.container_record import spec_from_json

        if generation.spec:
            return dataclasses.replace(
                spec_from_json(dict(generation.spec)),
                image=await self._image(str(generation.spec.get("image", "")), generation.image),
                name=container_name(self._project, service),
            )
        return container_spec(
            self._project,
            service,
            image=generation.image,
            name=container_name(self._project, service),
            generation=generation.number,
            log_path=str(self._folder / f"{service.name}.log"),
        )

    async def compare(self, service: str, first: int, second: int) -> Comparison:
        """Raises `NotFound`: no such generation, or its image is no longer here."""
        listed = self.generations(service)
        before, after = listed.get(first), listed.get(second)
        old, new = await self._engine.image(before.image), await self._engine.image(after.image)
        files = await self._engine.image_diff(before.image, after.image)
        settings = (
            *_changed("image", _settings(old.config), _settings(new.config)),
            *_changed("run", _run(before.spec), _run(after.spec)),
        )
        steps_before, steps_after = ([layer.instruction for layer in each.layers] for each in (old, new))
        steps = [f"- {text}" for text in steps_before if text not in steps_after]
        steps += [f"+ {text}" for text in steps_after if text not in steps_before]
        return Comparison(tuple(files), settings, tuple(steps), old.summary.size, new.summary.size)

    # --- bisect ---------------------------------------------------------------------------------------

    def _bisect_file(self, service: str) -> Path:
        return self._folder / f"{service}.bisect.json"

    def bisection(self, service: str) -> Bisection | None:
        """The one that is under way."""
        try:
            document = json.loads(self._bisect_file(service).read_bytes())
            return Bisection(**{**document, "skipped": tuple(document["skipped"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    async def bisect_start(self, service: str, good: int = 0, bad: int = 0) -> Bisection:
        """Between `good` (0: the oldest kept) and `bad` (0: the one that serves). Runs the one in the middle."""
        listed = self.generations(service)
        if not listed.generations:
            raise NotFound(f"{service} has no generations yet", hint="they begin with `workbench up`")
        good, bad = good or listed.generations[0].number, bad or listed.current
        listed.get(good), listed.get(bad)
        if good >= bad:
            raise InvalidInput(f"the good generation ({good}) must be older than the bad one ({bad})")
        return await self._go_on(service, Bisection(good, bad, began=listed.current))

    async def bisect(self, service: str, verdict: Verdict) -> Bisection:
        """The word on the generation that runs; runs the next one, or has found the first bad one. Raises `Conflict`."""
        now = self.bisection(service)
        if now is None:
            raise Conflict(f"no bisection of {service} is under way", hint=f"workbench bisect {service} start")
        return await self._go_on(service, now.judged(verdict))

    async def _go_on(self, service: str, now: Bisection) -> Bisection:
        numbers = tuple(each.number for each in self.generations(service).generations)
        now = now.next(numbers)
        if now.trying:
            await self.rollback(service, now.trying)
        document = {**dataclasses.asdict(now), "skipped": list(now.skipped)}
        write_atomic(self._bisect_file(service), json.dumps(document).encode(), durable=False)
        return now

    async def bisect_reset(self, service: str) -> Generation:
        """Ends it: what ran before runs again."""
        now = self.bisection(service)
        if now is None:
            raise Conflict(f"no bisection of {service} is under way")
        found = await self.rollback(service, now.began)
        self._bisect_file(service).unlink(missing_ok=True)
        return found


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(config.get("config") or {})


def _run(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    own = ("name", "image", "labels", "log_path")
    return {key: value for key, value in json.loads(json.dumps(spec, default=str)).items() if key not in own}


def _changed(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new and not (not old and not new):
            lines.append(f"{what} {key}: {json.dumps(old, default=str)} → {json.dumps(new, default=str)}")
    return lines
