"""An image's labels are its own words: none of them makes the engine do anything (US-12, CVE-2026-53488)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api import ContainerSpec
from engine.local import LocalEngine
from engine.project.control import project_containers

from .conftest import Image

pytestmark = pytest.mark.root

# What this engine, Compose and other engines keep in labels, or have kept.
LABELS = {
    "com.docker.compose.project": "victim", "com.docker.compose.service": "web", "com.docker.compose.container-number": "1",
    "com.docker.compose.depends_on": "db:service_started:true", "com.docker.compose.config-hash": "0",
    "com.docker.compose.oneoff": "False", "com.docker.compose.volume": "data", "com.docker.compose.network": "default",
    "com.docker.compose.project.working_dir": "/", "com.docker.compose.project.config_files": "/etc/passwd",
    "workbench.config-hash": "0", "workbench.generation": "7", "workbench.service": "web", "workbench.project": "victim",
    "workbench.restart": "always", "workbench.log-path": "/tmp/elsewhere", "workbench.remover": "touch /tmp/run",
    "io.containerd.image.config.stop-signal": "SIGKILL", "containerd.io/restart.logpath": "binary:///bin/sh",
    "containerd.io/restart.status": "running", "io.containerd.runc.v2.group": "x", "nerdctl/log-uri": "binary:///bin/sh",
    "io.podman.annotations.privileged": "TRUE", "io.kubernetes.cri-o.userns-mode": "host", "PODMAN_SYSTEMD_UNIT": "x.service",
}  # fmt: skip


async def test_us12_labels_of_an_image_change_nothing(local: LocalEngine, image: Image) -> None:
    lines = " ".join(f'"{name}"="{value}"' for name, value in LABELS.items())
    tag = await image(f'LABEL {lines}\nCMD ["sleep", "1000"]', "labelled")
    plain = await image('CMD ["sleep", "1000"]', "plain")
    seen: list[Any] = []
    for name in (tag, plain):
        container = await local.create(ContainerSpec(name, stop_timeout=0))
        await local.start(container)
        detail = await local.container(container)
        assert detail.log_path == str(local.root / "containers" / container / f"{container}-json.log")
        assert not await project_containers(local, "victim", oneoff=True)
        seen.append(
            {
                "host": detail.config["HostConfig"],
                "mounts": detail.config["Mounts"],
                "path": detail.config["Path"],
                "health": detail.summary.health,
                "networks": sorted(detail.summary.networks),
            }
        )
        config: Any = detail.config["Config"]
        seen[-1]["stop"] = config.get("StopSignal")
        await local.kill(container)
        assert await local.wait(container) == 137
        after = (await local.container(container)).summary
        assert (after.status, after.restart_count) == ("exited", 0)
    assert seen[0] == seen[1]
    assert {
        name for name, value in (await local.image(tag)).config["config"]["Labels"].items() if LABELS.get(name) == value
    } == set(LABELS)  # type: ignore[index]
