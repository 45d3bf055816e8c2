"""Registries to test against: Debian's docker-registry, and one that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import serving
from tests.engine.registry.scripted import Script, Scripted


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port: `host:port`."""
    with serving.docker_registry(tmp_path / "docker-registry") as address:
        yield address


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Makes registries that follow a script; they end with the test."""
    made: list[Scripted] = []

    def make(script: Script | None = None, *, host: str = "127.0.0.1") -> Scripted:
        made.append(Scripted(script, host=host))
        return made[-1]

    yield make
    for one in made:
        one.close()
