"""The docker command line with its plugins: buildx and Compose."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PLUGINS
from tests.patience import PATIENCE
from tests.rest.conftest import Served, served  # noqa: F401 — the fixture

Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(served: Served, tmp_path: Path) -> dict[str, str]:  # noqa: F811
    plugins = tmp_path / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    for name in ("docker-buildx", "docker-compose"):
        found = shutil.which(name, path=PLUGINS)
        if found:
            (plugins / name).symlink_to(found)
    return {
        **os.environ,
        "DOCKER_HOST": f"unix://{served.socket}",
        "DOCKER_CONFIG": str(plugins.parent),
        "BUILDKIT_PROGRESS": "plain",
        "TMPDIR": str(tmp_path),  # buildx leaves Dockerfiles there
        "SECRET_VALUE": "from the environment",
    }


@pytest.fixture
def docker(environment: dict[str, str]) -> Docker:
    """`docker ARGS`, whose `build` is buildx'; both streams in one."""

    def run(
        *args: str, stdin: str = "", ok: bool = True, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *args],
            env=environment, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
            cwd=folder,
        )  # fmt: skip
        assert not ok or done.returncode == 0, done.stdout
        return done

    return run
