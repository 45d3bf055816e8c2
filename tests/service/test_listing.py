"""The list of containers is kept, and yet what another engine, a monitor or a kill changes is in the next one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from engine.api import ContainerSpec
from engine.local import LocalEngine
from engine.model import ContainerSummary, ImageSummary, NetworkSpec

pytestmark = pytest.mark.root


async def shown(local: LocalEngine) -> dict[str, ContainerSummary]:
    return {one.name: one for one in await local.containers(all=True)}


async def test_what_has_not_changed_is_the_same_object_and_what_has_is_not(local: LocalEngine, data_root: Path) -> None:
    other = LocalEngine(data_root)
    try:
        for name in ("kept", "renamed", "ran", "gone"):
            await local.create(ContainerSpec("workbench/base", name=name, command=("true",)))
        before = await shown(local)
        assert [one.status for one in before.values()] == ["created"] * 4
        await other.rename("renamed", "other")
        await other.start("ran")
        await other.wait("ran")
        await other.remove("gone")
        after = await shown(local)
        assert sorted(after) == ["kept", "other", "ran"]
        assert after["kept"] is before["kept"]
        assert (after["ran"].status, after["ran"].exit_code) == ("exited", 0)
        assert after["other"].id == before["renamed"].id
        network = await other.create_network(NetworkSpec("wb-listing"))
        await other.connect_network(network, "kept")
        assert "wb-listing" in (await shown(local))["kept"].networks
        await other.disconnect_network(network, "kept")
        await other.remove_network(network)
        assert "wb-listing" not in (await shown(local))["kept"].networks
    finally:
        await other.close()


async def test_one_whose_monitor_was_killed_is_listed_as_ended(local: LocalEngine) -> None:
    one = await local.create(ContainerSpec("workbench/base", name="lost", command=("sleep", "1000")))
    await local.start(one)
    state = local._store.containers / one / "state.json"
    # As if it had run for long: what is listed of it is kept from the first look on.
    os.utime(state, ns=(1_700_000_000_000_000_000,) * 2)
    os.utime(state.with_name("events.jsonl"), ns=(1_700_000_000_000_000_000,) * 2)
    first = (await shown(local))["lost"]
    assert first.status == "running"
    assert (await shown(local))["lost"] is first
    os.kill(json.loads(state.read_text())["monitor_pid"], signal.SIGKILL)
    lost = (await shown(local))["lost"]
    while lost.status == "running":  # the kernel may not be done with it
        lost = (await shown(local))["lost"]
    assert (lost.status, lost.exit_code) == ("exited", None)
    assert "monitor" in lost.error


async def test_images_are_listed_anew_when_a_tag_or_a_container_changes_them(
    local: LocalEngine, data_root: Path
) -> None:
    async def base() -> ImageSummary:
        return next(image for image in await local.images() if "workbench/base:latest" in image.tags)

    other = LocalEngine(data_root)
    try:
        before = await base()
        assert await base() is before
        await other.tag("workbench/base", "listing:1")
        await other.create(ContainerSpec("listing:1", name="user"))
        after = await base()
        assert "listing:1" in after.tags
        assert after.used_by == ("user",)
        await other.remove("user")
        await other.remove_image("listing:1")
        assert await base() == before
    finally:
        await other.close()
