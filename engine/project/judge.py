"""A service's rules as they are now: the ignore file and the Dockerfile read again when they change."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.build.reading import read_dockerfile
from engine.errors import EngineError
from engine.project.infer import Copies
from engine.project.model import Project, Service
from engine.project.plan import Act, Infer, ServiceRules, SyncMode, decide

Stamp = tuple[int, int, int]


class Judge:
    """Says what changes mean to one service. `sync`: how files that the build only copies are treated without rules."""

    def __init__(self, project: Project, service: Service, sync: SyncMode = "") -> None:
        self._project, self._service, self._sync = project, service, sync
        self._stamps: dict[Path, Stamp | None] = {}
        self._rules: ServiceRules | None = None

    def decide(self, changes: Collection[Path], *, running: bool) -> Act:
        return decide(changes, self.rules(), running=running)

    def rules(self) -> ServiceRules:
        stamps = {path: _stamp(path) for path in self._files()}
        if self._rules is None or stamps != self._stamps:
            self._rules, self._stamps = self._read(), stamps
        return self._rules

    def _files(self) -> tuple[Path, ...]:
        build = self._service.build
        if build is None:
            return ()
        return build.dockerfile, *_ignore_files(build.context, build.dockerfile)

    def _read(self) -> ServiceRules:
        service, build = self._service, self._service.build
        always = frozenset(self._files())
        if build is None:
            return ServiceRules(files=always, watch=service.watch)
        infer: Infer | None = None
        if self._sync and not service.watch and build.dockerfile_text is None:
            try:
                infer = Copies(read_dockerfile(build.dockerfile), build.target, build.context, str(build.dockerfile))
            except (EngineError, OSError):
                infer = None  # the build says what is wrong with it
        others = tuple(Path(where) for where in build.contexts.values() if where.startswith("/"))
        return ServiceRules(
            build.context, others, always, service.watch, ignored(build.context, build.dockerfile), self._sync, infer
        )


def _ignore_files(context: Path, dockerfile: Path) -> tuple[Path, Path]:
    return dockerfile.with_name(dockerfile.name + ".dockerignore"), context / ".dockerignore"


def ignored(context: Path, dockerfile: Path) -> Matcher | None:
    """The matcher of the ignore file that counts: the Dockerfile's own, else the context's."""
    for path in _ignore_files(context, dockerfile):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        try:
            return Matcher(read_patterns(text))
        except EngineError:
            return None  # the build says what is wrong with it
    return None


def _stamp(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
