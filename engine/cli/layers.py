"""`layers` and `files`: what the app's panes of the same names show, as text or JSON."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from engine.base.units import brief_seconds, human_size
from engine.cli.common import clean, read, run
from engine.cli.flags import Flag, Parsed
from engine.cli.tables import table
from engine.errors import InvalidInput, NotFound, Unsupported, from_os_error
from engine.model import FileDifference, ImageDetail, LayerInfo, Mark, TreeQuery, TreeRow, WasteReport

if TYPE_CHECKING:
    from engine.api import Engine, FileTree

SIGNS = {"": " ", "A": "+", "M": "~", "D": "-", "added": "+", "changed": "~", "removed": "-"}
_KINDS = {"dir": stat.S_IFDIR, "link": stat.S_IFLNK, "fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
_BATCH = 5000
_TREE_FLAGS = [
    Flag("layer", "Only what the topmost layer changed", "l"),
    Flag("changes", "Only entries with these marks: A added, M modified, D removed, U unmodified", kind="str", metavar="AMDU"),
    Flag("sort", "Order: size (default) or name", kind="str"),
    Flag("filter", "Only paths that match a regular expression", "f", kind="str", metavar="REGEX"),
    Flag("recursive", "Everything below, not only what is in the folder", "R"),
    Flag("last", "At most n rows", "n", kind="int"),
    Flag("json", "As JSON"),
]  # fmt: skip


def cmd_layers(root: Path, args: list[str]) -> int:
    flags = [
        Flag("waste", "Efficiency, and the paths that waste most"),
        Flag("tree", "The files of layer N with what it changed: as `files IMAGE#N --layer -R`", kind="int", metavar="N"),
        Flag("json", "As JSON"),
    ]  # fmt: skip
    parsed = read(args, "layers [OPTIONS] IMAGE", "List an image's layers: step, line, size, cached or built and why, waste", flags, minimum=1, maximum=1)  # fmt: skip
    if parsed is None:
        return 0
    name, as_json = parsed.args[0], parsed.on("json")
    if parsed.given("tree"):
        more = ["--json"] if as_json else []
        return cmd_files(root, ["--layer", "-R", *more, f"{name}#{parsed.number('tree', 0)}"])

    async def work(engine: Engine) -> int:
        detail = await engine.image(name)
        try:
            report = await engine.image_waste(name)
        except Unsupported:
            report = WasteReport((), ())
            if parsed.on("waste"):  # asked for: so another engine's image is fetched for it
                await engine.open_files(name)
                report = await engine.image_waste(name)
        if as_json:
            print(json.dumps(_layers_document(detail, report), indent=2))
        elif parsed.on("waste"):
            _print_waste(report)
        else:
            wasted = {layer.index: layer.wasted for layer in report.layers}
            titles = ["#", "INSTRUCTION", "LINE", "HOW", "SIZE", "WASTED", "TIME", "WHY"]
            print(table(titles, [_layer_cells(layer, wasted.get(layer.index, 0)) for layer in detail.layers]))
            if report.layers:
                print(
                    f"{human_size(report.shipped)} in the layers, {human_size(report.wasted)} of it wasted: {report.efficiency:.1%} efficient"
                )
        return 0

    return run(root, work)


def _layer_cells(layer: LayerInfo, wasted: int) -> list[str]:
    words = " ".join(layer.instruction.split())
    shown = words if len(words) < 60 else words[:59] + "…"
    line = str(layer.line) if layer.line else ""
    if layer.empty:
        return [str(layer.index), clean(shown), line, "", "", "", "", ""]
    how = "" if layer.cached is None else "cached" if layer.cached else "built"
    took = brief_seconds(layer.seconds) if layer.seconds is not None else ""
    size, waste = human_size(layer.size), human_size(wasted) if wasted else ""
    return [str(layer.index), clean(shown), line, how, size, waste, took, clean(layer.reason)]


def _layers_document(detail: ImageDetail, report: WasteReport) -> dict[str, object]:
    waste = {layer.index: layer for layer in report.layers}
    layers = []
    for layer in detail.layers:
        found = waste.get(layer.index)
        layers.append(
            asdict(layer) | {"shipped": found.shipped if found else 0, "wasted": found.wasted if found else 0}
        )
    return {
        "image": detail.summary.id,
        "tags": list(detail.summary.tags),
        "shipped": report.shipped,
        "wasted": report.wasted,
        "efficiency": round(report.efficiency, 6),
        "layers": layers,
        "worst": [asdict(one) for one in report.worst[:100]],
    }


def _print_waste(report: WasteReport) -> None:
    print(
        f"{human_size(report.shipped)} in the layers, {human_size(report.wasted)} of it do not show: {report.efficiency:.1%}"
    )
    rows = [[human_size(one.size), str(one.times), clean(one.path)] for one in report.worst]
    if rows:
        print(table(["WASTED", "VERSIONS", "PATH"], rows))


# --- files --------------------------------------------------------------------------------------------------------------


def cmd_files(root: Path, args: list[str]) -> int:
    words = {"cat": _cat, "history": _history, "diff": _diff, "save": _save}
    if args and args[0] in words:
        return words[args[0]](root, args[1:])
    usage = "files [OPTIONS] IMAGE[#LAYER] [PATH]"
    summary = "List the files of an image, or of its layers up to one of them. Also: files cat, history, diff, save"
    parsed = read(args, usage, summary, _TREE_FLAGS, minimum=1, maximum=2)
    if parsed is None:
        return 0
    query = _query(parsed)
    path = "/" + parsed.args[1].strip("/") if len(parsed.args) > 1 else "/"
    every = parsed.on("recursive") or bool(query.pattern)
    limit = parsed.number("last", 0)

    async def work(engine: Engine) -> int:
        tree = await engine.open_files(parsed.args[0], progress=_progress())
        await tree.select(query)
        rows = [row async for row in _rows(tree, path, every=every, limit=limit)]
        if parsed.on("json"):
            print(json.dumps([_document(row) for row in rows], indent=2))
            return 0
        for row in rows:
            print(_line(row))
        extent = await tree.extent()
        if path == "/" and not limit:
            print(
                f"{human_size(extent.size)} in {extent.files:,} files, +{extent.added:,} ~{extent.modified:,} -{extent.removed:,}"
            )
        return 0

    return run(root, work)


def _query(parsed: Parsed) -> TreeQuery:
    order = parsed.text("sort", "size")
    if order not in ("size", "name"):
        raise InvalidInput(f"--sort {order}: not an order", hint="size or name")
    letters = parsed.text("changes", "AMD" if parsed.on("layer") else "AMDU").upper()
    if not letters or set(letters) - set("AMDU"):
        raise InvalidInput(f"--changes {letters}: marks are A, M, D and U", hint="for example: --changes AM")
    marks = frozenset(cast("Mark", "" if letter == "U" else letter) for letter in letters)
    return TreeQuery("name" if order == "name" else "size", marks, parsed.text("filter"))


def _progress() -> Callable[[int], None]:
    """On a terminal, how far the first look at an image's files is."""
    if not sys.stderr.isatty():
        return lambda entries: None
    return lambda entries: print(f"\rreading the layers' files: {entries:,}", end="\r", file=sys.stderr, flush=True)


async def _rows(tree: FileTree, path: str, *, every: bool, limit: int) -> AsyncIterator[TreeRow]:
    """What is in the folder `path`, or everything below it. Raises `NotFound`."""
    start, depth = 0, -1
    if path != "/":
        at = await tree.row_of(path)
        if at is None:
            raise NotFound(f"no such file: {path}", hint="what --changes and --filter leave out does not count")
        (row,) = await tree.rows(at, 1)
        if row.kind != "dir":
            yield row
            return
        depth = row.depth
    if every:
        await tree.fold_all(open=True)
    if path != "/":
        at = await tree.row_of(path) or 0
        await tree.fold(at, open=True)
        start = at + 1
    told = 0
    while rows := await tree.rows(start, _BATCH):
        for row in rows:
            if row.depth <= depth or (limit and told >= limit):
                return
            if every or row.depth == depth + 1:
                told += 1
                yield row
        start += len(rows)


def _document(row: TreeRow) -> dict[str, object]:
    document = asdict(row)
    del document["depth"], document["open"]
    return document | {"mode": f"{row.mode:04o}"}


def _line(row: TreeRow) -> str:
    mode = stat.filemode(_KINDS.get(row.kind, stat.S_IFREG) | row.mode)
    size = human_size(row.size) if row.kind in ("dir", "file") else ""
    name = row.path + ("/" if row.kind == "dir" else "") + (f" -> {row.link}" if row.link else "")
    return f"{SIGNS[row.mark]} {mode} {f'{row.uid}:{row.gid}':<11} {size:>8} #{row.layer:<3} {clean(name)}"


def _cat(root: Path, args: list[str]) -> int:
    parsed = read(args, "files cat IMAGE[#LAYER] PATH", "Print a file of an image", [], minimum=2, maximum=2)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        name, path = parsed.args
        found = await engine.file_content(name, path, limit=1)
        if found.kind != "file":
            about = f" to {clean(found.link)}" if found.link else ""
            raise InvalidInput(f"{clean(found.path)} is a {found.kind}{about}, no file")
        await engine.save_file(name, path, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return 0

    return run(root, work)


def _history(root: Path, args: list[str]) -> int:
    usage = "files history [OPTIONS] IMAGE[#LAYER] PATH"
    parsed = read(args, usage, "Which step made a file, and what the others did to it", [Flag("json", "As JSON")], minimum=2, maximum=2)  # fmt: skip
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        steps = await engine.file_history(*parsed.args)
        if parsed.on("json"):
            print(json.dumps([asdict(step) for step in steps], indent=2))
            return 0
        for step in steps:
            words = " ".join(step.instruction.split())
            where = f" (line {step.line})" if step.line else ""
            about = "" if step.mark == "D" else f"{step.mode:04o} {step.uid}:{step.gid} {human_size(step.size)}"
            print(f"{SIGNS[step.mark]} #{step.index:<3} {about:<24} {clean(words)}{where}")
        return 0

    return run(root, work)


def _diff(root: Path, args: list[str]) -> int:
    usage = "files diff [OPTIONS] IMAGE[#LAYER] IMAGE[#LAYER] [PATH]"
    summary = "What two images, layers or generations do not share; of PATH, by lines (`scratch` is no layers at all)"
    parsed = read(args, usage, summary, [Flag("json", "As JSON")], minimum=2, maximum=3)
    if parsed is None:
        return 0
    first, second = parsed.args[:2]

    async def one(engine: Engine, path: str) -> int:
        found = await engine.file_diff(first, second, path)
        if parsed.on("json"):
            print(json.dumps(asdict(found), indent=2))
        else:
            print("\n".join(clean(line) for line in found.lines) or clean(f"{path}: {found.what}"))
        return 0 if found.what == "same" else 1

    async def work(engine: Engine) -> int:
        if len(parsed.args) == 3:
            return await one(engine, parsed.args[2])
        found = await engine.image_diff(first, second)
        if parsed.on("json"):
            print(json.dumps([asdict(each) for each in found], indent=2))
        else:
            print("\n".join(map(_difference, found)), end="\n" if found else "")
        return 1 if found else 0

    return run(root, work)


def _difference(one: FileDifference) -> str:
    grown = (one.after or 0) - (one.before or 0)
    what = f"   {clean(one.what)}" if one.kind == "changed" else ""
    return f"{SIGNS[one.kind]} {'-' if grown < 0 else '+'}{human_size(abs(grown)):<8} {clean(one.path)}{what}"


def _save(root: Path, args: list[str]) -> int:
    usage = "files save IMAGE[#LAYER] PATH FILE|-"
    parsed = read(args, usage, "Save a file of an image; a folder as a tar", [], minimum=3, maximum=3)
    if parsed is None:
        return 0
    name, path, target = parsed.args

    async def work(engine: Engine) -> int:
        if target == "-":
            await engine.save_file(name, path, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return 0
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise from_os_error(error, f"saving to {target}") from error
        try:
            with os.fdopen(fd, "wb") as file:
                await engine.save_file(name, path, file)
        except BaseException:
            os.unlink(target)
            raise
        return 0

    return run(root, work)
