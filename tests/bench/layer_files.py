"""A layer of a million files: making its index, opening it, its first screen, scrolling, a pattern, a small layer above it.

    .venv/bin/python -m tests.bench.layer_files [ENTRIES [FOLDER]]

FOLDER keeps the files for the next run: making a million takes longer than all the rest. Prints seconds, and the longest time that another coroutine waited for the loop while the index was made.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.local.layers import LocalFileTree
from engine.model import TreeQuery
from engine.oci.digest import Digest
from engine.store.layers import LayerStore
from engine.store.tree_cache import TreeCache
from engine.store.tree_rows import TreeRows

SCREEN = 45


def make(folder: Path, entries: int) -> None:
    """Folders of a hundred, and one with a tenth of all."""
    if folder.exists():
        return
    flat = entries // 10
    os.makedirs(folder / "flat")
    for number in range(flat):
        os.close(os.open(folder / "flat" / f"file-{number:07}", os.O_CREAT | os.O_WRONLY))
    for group in range((entries - flat) // 100):
        where = folder / f"src/{group // 100:03}/{group % 100:02}"
        os.makedirs(where)
        for number in range(99):
            os.close(os.open(where / f"module_{number}.py", os.O_CREAT | os.O_WRONLY))


async def stall(work: Awaitable[object]) -> float:
    """The longest that the loop was not there for others while `work` ran."""
    task = asyncio.ensure_future(work)
    longest, last = 0.0, time.perf_counter()
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last - 0.001), now
    task.result()
    return longest


async def measure(root: Path, entries: int) -> None:
    chains = [Digest(f"sha256:{number:064x}") for number in (1, 2)]
    layers = LayerStore(root / "layers", root)
    tree = layers.root / chains[0].hex / "diff"
    make(tree, entries)
    top = layers.root / chains[1].hex / "diff"
    os.makedirs(top / "src/000/00", exist_ok=True)
    (top / "src/000/00/module_1.py").write_text("changed\n")
    shutil.rmtree(root / "trees", ignore_errors=True)
    cache = TreeCache(root / "trees", layers, root)

    async def timed(name: str, work: Awaitable[object]) -> None:
        start = time.perf_counter()
        longest = await stall(work)
        print(f"{name:<44}{time.perf_counter() - start:8.3f} s   loop held up {longest * 1000:5.1f} ms", flush=True)

    def index(count: int) -> object:
        return cache.index(chains[:count], cancel=CancelToken())

    def upper() -> object:
        return TreeRows(cache.shallow(chains[:1], 1), [0]).rows(0, SCREEN)

    await timed("its first folder, before there is an index", asyncio.to_thread(upper))
    await timed(f"index of {entries:,} entries", asyncio.to_thread(index, 1))
    await timed("index of a small layer above it", asyncio.to_thread(index, 2))
    opened: list[LocalFileTree] = []

    async def first_screen() -> None:
        found = await asyncio.to_thread(lambda: cache.index(chains))
        opened.append(LocalFileTree(TreeRows(found, [0, 1])))
        await opened[0].rows(0, SCREEN)

    await timed("open, and the first screen", first_screen())
    await timed("all folders open, by size", opened[0].fold_all(open=True))
    extent = await opened[0].extent()

    async def scroll() -> None:
        for step in range(1000):
            await opened[0].rows(step * 997 % extent.rows, SCREEN)

    await timed(f"a thousand screens of {extent.rows:,} rows", scroll())
    await timed("a pattern over all paths", opened[0].select(TreeQuery(pattern=r"module_7\d\.py$")))
    await timed("what the layer changed alone", opened[0].select(TreeQuery(marks=frozenset(("A", "M", "D")))))


def main() -> None:
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if len(sys.argv) > 2:
        Path(sys.argv[2]).mkdir(exist_ok=True)
        asyncio.run(measure(Path(sys.argv[2]), entries))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), entries))


if __name__ == "__main__":
    main()
