"""Folders for clients' files, kept between builds."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.rest.buildkit.folders import Folders, folder_key


async def test_a_folder_is_found_again_unless_another_build_has_it(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    async with folders.kept("a") as first:
        (first / "f").touch()
        async with folders.kept("a") as beside:
            assert beside != first
        assert not beside.exists()
    async with folders.kept("a") as again:
        assert (again, (again / "f").exists()) == (first, True)
    folders.close()
    assert list(tmp_path.iterdir()) == []


async def test_one_that_was_swept_away_is_made_anew(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    async with folders.kept("a") as first:
        pass
    shutil.rmtree(first)
    async with folders.kept("a") as again:
        assert list(again.iterdir()) == []


async def test_the_least_recently_used_go(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    for number in range(12):
        async with folders.kept(f"key {number}"):
            pass
    assert len(list(tmp_path.iterdir())) == 8


async def test_a_client_that_says_nothing_of_itself_gets_one_of_its_own(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    assert folder_key("", "context") == ""
    assert folder_key("a", "b") != folder_key("ab", "")
    async with folders.kept("") as first:
        pass
    assert not first.exists()
