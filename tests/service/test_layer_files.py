"""Files of layers: trees with marks, folds and patterns, the way of a path, contents, differences, what is wasted."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from engine.errors import InvalidInput, NotFound, Unsupported
from engine.local import LocalEngine, open_engine
from engine.model import TreeQuery, TreeRow
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.store.store import Store
from engine.store.tree_cache import TreeCache

pytestmark = pytest.mark.root
Entry = tuple[str, bytes | str | None]  # a file's content, "->target" for a link, None for a folder

ONE: list[Entry] = [
    ("etc", None),
    ("etc/conf", b"a=1\nb=2\n"),
    ("etc/old", b"0" * 100),
    ("big", None),
    ("big/data", b"x" * 10_000),
    ("big/more", b"y" * 5_000),
    ("bin", "->usr/bin"),
    ("usr", None),
    ("usr/bin", None),
    ("usr/bin/tool", b"\x7fELF\0\0"),
    ("out", "->/etc/passwd"),
]
TWO: list[Entry] = [("etc/conf", b"a=1\nb=3\n"), ("etc/.wh.old", b""), ("app", None), ("app/main.py", b"print('hi')\n")]
THREE: list[Entry] = [("big", None), ("big/.wh..wh..opq", b""), ("big/small", b"z"), ("app/main.py", b"print('ho')\n")]


def layer(entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content[2:]
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def put(store: Store, tag: str, layers: Sequence[bytes], *, noted: bool = True) -> None:
    """An image of plain tars; between its layers stands a line of history without one."""
    config = ImageConfig.scratch(Platform.host())
    descriptors = []
    with store.using():
        for number, data in enumerate(layers):
            digest = store.blobs.put(data)
            descriptors.append(Descriptor(OCI_LAYER, digest, len(data)))
            config = config.with_step(History("", f"RUN step {number}"), digest, "2020-01-01T00:00:00Z")
            config = config.with_step(History("", "ENV A=1", empty_layer=True), None, "2020-01-01T00:00:00Z")
        if not noted:
            config = ImageConfig({**config.document, "history": []})
        raw = config.to_bytes()
        manifest = build_manifest(Descriptor(OCI_CONFIG, store.blobs.put(raw), len(raw)), descriptors)
        records = store.ensure_layers(manifest.layers, config.diff_ids)
        store.images.put(manifest, config, sum(one.size for one in records), [Reference.parse(tag)])


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[LocalEngine]:
    engine = await open_engine(tmp_path / "root")
    put(engine._store, "shop", [layer(ONE), layer(TWO), layer(THREE)])
    yield engine
    await engine.close()


async def listed(engine: LocalEngine, name: str, query: TreeQuery | None = None) -> dict[str, TreeRow]:
    tree = await engine.open_files(name)
    if query is not None:
        await tree.select(query)
    extent = await tree.fold_all(open=True)
    return {row.path: row for row in await tree.rows(0, extent.rows)}


async def test_a_tree_shows_the_sum_and_marks_what_the_top_layer_did(engine: LocalEngine) -> None:
    shallow = await engine.open_files("shop#2", depth=1)  # before there is an index
    upper = {row.path: row.mark for row in await shallow.rows(0, 100)}
    rows = await listed(engine, "shop#2")
    assert upper == {path: row.mark for path, row in rows.items() if path.count("/") == 1}
    marks = {path: row.mark for path, row in rows.items() if row.mark}
    assert marks == {"/etc/conf": "M", "/etc/old": "D", "/app": "A", "/app/main.py": "A"}
    assert rows["/etc/conf"].layer == 2
    assert rows["/big/data"].layer == 0
    assert rows["/big"].size == 15_000
    assert rows["/etc"].size == 8  # what was removed does not count
    assert rows["/bin"].link == "usr/bin"
    assert rows["/bin"].kind == "link"


async def test_what_one_layer_removed_is_not_in_the_next(engine: LocalEngine) -> None:
    rows = await listed(engine, "shop")
    assert "/etc/old" not in rows
    marks = {path: row.mark for path, row in rows.items() if row.mark}
    assert marks == {"/big/data": "D", "/big/more": "D", "/big/small": "A", "/app/main.py": "M"}
    assert rows["/big"].size == 1


async def test_order_marks_and_pattern_choose_the_rows(engine: LocalEngine) -> None:
    tree = await engine.open_files("shop#0")
    paths = [row.path for row in await tree.rows(0, 100)]
    assert paths[0] == "/big"  # most bytes first
    await tree.select(TreeQuery("name"))
    assert [row.path for row in await tree.rows(0, 100)] == ["/big", "/bin", "/etc", "/out", "/usr"]
    await tree.select(TreeQuery("name", pattern=r"t\w+l$|conf"))
    assert [row.path for row in await tree.rows(0, 100)] == ["/etc", "/etc/conf", "/usr", "/usr/bin", "/usr/bin/tool"]
    assert (await tree.extent()).found == 2
    await tree.select(TreeQuery("name"))
    assert (await tree.extent()).rows == 5  # folded as before the pattern
    rows = await listed(engine, "shop#2", TreeQuery("name", frozenset(("A", "D"))))
    assert list(rows) == ["/app", "/app/main.py", "/etc", "/etc/old"]
    with pytest.raises(InvalidInput):
        await tree.select(TreeQuery(pattern="("))


async def test_folders_open_and_close_one_by_one(engine: LocalEngine) -> None:
    tree = await engine.open_files("shop#0")
    await tree.select(TreeQuery("name"))
    assert (await tree.fold(0, open=True)).rows == 7
    assert [row.path for row in await tree.rows(0, 3)] == ["/big", "/big/data", "/big/more"]
    assert (await tree.rows(0, 1))[0].open
    assert (await tree.fold(1, open=True)).rows == 7  # a file
    row = await tree.row_of("/usr/bin/tool")
    assert row is not None
    assert (await tree.rows(row, 1))[0].path == "/usr/bin/tool"
    assert (await tree.fold(0, open=False)).rows == 7
    assert await tree.row_of("/nowhere") is None
    assert (await tree.fold_all(open=True)).rows == 11
    assert (await tree.fold_all(open=False)).rows == 5


async def test_wasted_bytes_are_those_that_later_layers_hide(engine: LocalEngine) -> None:
    report = await engine.image_waste("shop")
    assert [(layer.index, layer.wasted) for layer in report.layers] == [(0, 8 + 100 + 15_000), (2, 12), (4, 0)]
    assert report.worst[0].path == "/big/data"
    assert report.worst[0].size == 10_000
    assert report.wasted == 15_120
    assert 0 < report.efficiency < 0.01


async def test_a_path_tells_which_layers_it_went_through(engine: LocalEngine) -> None:
    steps = await engine.file_history("shop", "/big/data")
    assert [(step.index, step.mark, step.size) for step in steps] == [(0, "A", 10_000), (4, "D", 0)]
    assert steps[0].instruction == "RUN step 0"
    assert [step.mark for step in await engine.file_history("shop", "/bin/tool")] == ["A"]  # through a link
    assert [step.mark for step in await engine.file_history("shop", "etc")] == ["A"]
    with pytest.raises(NotFound):
        await engine.file_history("shop", "/none")


async def test_content_is_bounded_and_no_link_is_followed_out(engine: LocalEngine) -> None:
    found = await engine.file_content("shop", "/etc/conf")
    assert found.data == b"a=1\nb=3\n"
    assert found.text
    assert (await engine.file_content("shop#0", "/etc/conf")).data == b"a=1\nb=2\n"
    assert (await engine.file_content("shop#2", "/etc/old")).size == 100  # removed there: as it was
    link = await engine.file_content("shop", "/out")
    assert (link.kind, link.link, link.data) == ("link", "/etc/passwd", b"")
    assert not (await engine.file_content("shop", "/usr/bin/tool")).text
    cut = await engine.file_content("shop#0", "/big/data", limit=10)
    assert cut.truncated
    assert len(cut.data) == 10


async def test_differences_of_a_file_and_of_trees(engine: LocalEngine) -> None:
    found = await engine.file_diff("shop#0", "shop", "/etc/conf")
    assert [line for line in found.lines if line[:1] in "+-"][2:] == ["-b=2", "+b=3"]
    assert (await engine.file_diff("shop#0", "shop", "/app/main.py")).what == "added"
    assert (await engine.file_diff("shop#0", "shop", "/out")).what == "same"
    kinds = {one.path: one.kind for one in await engine.image_diff("shop#0", "shop#2")}
    assert kinds == {"/app/": "added", "/app/main.py": "added", "/etc/conf": "changed", "/etc/old": "removed"}
    with pytest.raises(NotFound):
        await engine.file_diff("shop#0", "shop", "/none")
    assert (await engine.file_diff("scratch", "shop#0", "/etc/conf")).what == "added"
    assert len(await engine.image_diff("scratch", "shop#0")) == 11


async def test_a_file_and_a_folder_are_saved(engine: LocalEngine) -> None:
    out = io.BytesIO()
    await engine.save_file("shop", "/etc/conf", out)
    assert out.getvalue() == b"a=1\nb=3\n"
    packed = io.BytesIO()
    await engine.save_file("shop#0", "/usr", packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        assert tar.getnames() == ["usr", "usr/bin", "usr/bin/tool"]
    with pytest.raises(InvalidInput):
        await engine.save_file("shop", "/out", io.BytesIO())


async def test_names_of_layers_are_checked(engine: LocalEngine) -> None:
    for name in ("shop#9", "none"):
        with pytest.raises(NotFound):
            await engine.open_files(name)
    with pytest.raises(InvalidInput):
        await engine.open_files("shop#x")
    assert len(await listed(engine, "shop#1")) == 11  # a line without a layer: what is below it


async def test_an_image_without_history_has_its_layers(engine: LocalEngine) -> None:
    put(engine._store, "bare", [layer(ONE), layer(TWO)], noted=False)
    assert (await listed(engine, "bare"))["/etc/conf"].layer == 1
    assert len(await listed(engine, "bare#0")) == 11


async def test_an_index_is_made_once_and_a_damaged_one_anew(engine: LocalEngine, tmp_path: Path) -> None:
    told: list[int] = []
    before = await listed(engine, "shop")
    await engine.open_files("shop", progress=told.append)
    assert told == []
    folder = tmp_path / "root" / "trees"
    assert len(os.listdir(folder)) == 3
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    assert await listed(engine, "shop") == before
    TreeCache(folder, engine._store.layers, engine._store.tmp, budget=1)._prune(
        keep=engine._layer_files.stack("shop").chains[-1]
    )
    assert len(os.listdir(folder)) == 1


async def test_another_engine_says_that_it_cannot(tmp_path: Path) -> None:
    from engine.remote import RemoteEngine
    from engine.remote.hosts import resolve

    engine = RemoteEngine(resolve(f"unix://{tmp_path}/none.sock"))
    with pytest.raises(Unsupported, match="layers"):
        await engine.open_files("shop")
    await engine.close()
