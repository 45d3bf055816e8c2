"""`builds`: the history of builds, one build in full, and what two results do not share."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.clock import rfc3339
from engine.base.units import brief_seconds, human_size, parse_size
from engine.cli.common import clean, each, output_lines, read, run
from engine.cli.flags import Flag
from engine.cli.images import short
from engine.cli.tables import render, table
from engine.errors import InvalidInput, NotFound
from engine.model import BuildDetail, BuildRecord, BuildRequest, BuildStepRecord, FileDifference, WhyReport
from engine.service.describe import ago

if TYPE_CHECKING:
    from engine.api import Engine

MARKS = {"waiting": " ", "running": ">", "cached": "=", "done": "+", "failed": "!"}


def cmd_builds(root: Path, args: list[str]) -> int:
    words = {"ls": _list, "show": _show, "inspect": _show, "logs": _logs, "diff": _diff, "rm": _remove}
    if args and args[0] in words:
        return words[args[0]](root, args[1:])
    return _list(root, args)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput(f"{text!r} is not a build's number", hint="`workbench builds` lists them")
    return int(text)


def _list(root: Path, args: list[str]) -> int:
    flags = [
        Flag("search", "Only builds whose steps, reasons, output or errors hold this text", "s", kind="str"),
        Flag("last", "Show the n newest builds (default 30, 0 is all)", "n", kind="int"),
        Flag("quiet", "Only show numbers", "q"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
        Flag("json", "As one JSON document, with nothing cut"),
    ]
    usage = "builds [ls | show N | logs N | diff N [M] | rm N…] [OPTIONS]"
    parsed = read(args, usage, "List the builds that were done here, newest first", flags)
    if parsed is None:
        return 0
    if parsed.args:
        raise InvalidInput(f"unknown word {parsed.args[0]!r} after builds", hint=f"Usage: workbench {usage}")

    async def work(engine: Engine) -> int:
        limit = parsed.number("last", 30) or None
        found = await engine.builds(search=parsed.text("search"), limit=limit)
        rows = [_row(record) for record in found]
        if parsed.on("json"):
            print(json.dumps([asdict(record) for record in found], indent=2))
        elif parsed.on("quiet"):
            print("\n".join(str(record.number) for record in found), end="\n" if found else "")
        elif parsed.given("format"):
            print(render(parsed.text("format"), rows), end="\n" if rows else "")
        else:
            names = ["Number", "Name", "Status", "Steps", "Cached", "Took", "Created", "Reason"]
            titles = ["BUILD", *(name.upper() for name in names[1:])]
            print(table(titles, [[str(row[name]) for name in names] for row in rows]))
        return 0

    return run(root, work)


def _row(record: BuildRecord) -> dict[str, object]:
    why = record.error.splitlines()[0] if record.error else record.reason
    return {
        "Number": record.number,
        "Name": clean(record.name),
        "Status": record.status,
        "Steps": record.steps,
        "Cached": f"{record.cache_share:.0%}" if record.steps else "-",
        "Took": brief_seconds(record.seconds),
        "Created": ago(record.started),
        "CreatedAt": rfc3339(record.started),
        "Reason": clean(why if len(why) < 60 else why[:59] + "…"),
        "ImageID": record.image_id,
        "Tags": list(record.tags),
        "Context": record.context,
        "Dockerfile": record.dockerfile,
        "Target": record.target,
        "Error": record.error,
    }


def _show(root: Path, args: list[str]) -> int:
    flags = [Flag("logs", "Print the full output below the steps"), Flag("json", "As JSON, with the output")]
    parsed = read(args, "builds show [OPTIONS] N", "Show one build: steps, times, reasons", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        detail = await engine.build_detail(_number(parsed.args[0]))
        if parsed.on("json"):
            print(json.dumps(asdict(detail), indent=2))
            return 0
        print("\n".join(_describe(detail)))
        if parsed.on("logs"):
            print()
            _print_output(detail)
        return 0

    return run(root, work)


def _describe(detail: BuildDetail) -> list[str]:
    record = detail.record
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started / 1e9))
    lines = [
        f"build {record.number}: {record.status} in {brief_seconds(record.seconds)}, begun {when}",
        f"  file     {clean(record.dockerfile)}" + (f" (target {clean(record.target)})" if record.target else ""),
        f"  context  {clean(record.context)}",
    ]
    if detail.args:
        lines.append("  args     " + clean(" ".join(f"{name}={value}" for name, value in detail.args.items())))
    if record.image_id:
        lines.append(f"  image    {short(record.image_id)}  {clean(', '.join(record.tags))}".rstrip())
    if record.steps:
        lines.append(f"  cache    {record.cached} of {record.steps} steps ({record.cache_share:.0%})")
    if detail.steps:
        lines += ["", *(_step(step) for step in detail.steps)]
    if record.error:
        lines += ["", clean(record.error), *([f"  hint: {detail.hint}"] if detail.hint else [])]
    return lines


def _step(record: BuildStepRecord) -> str:
    step = record.step
    took = brief_seconds(record.seconds) if record.state in ("done", "failed", "running") else record.state
    size = human_size(record.size) if record.size else ""
    why = f"   ({clean(record.reason)})" if record.reason else ""
    text = clean(" ".join(step.instruction.split()))
    name = f"{step.stage} {step.number}/{step.total}"
    return f" {MARKS[record.state]} {name:<14} {took:>9} {size:>8}  {text if len(text) < 80 else text[:79] + '…'}{why}"


def _logs(root: Path, args: list[str]) -> int:
    parsed = read(args, "builds logs N", "Print the full output of a build", [], minimum=1, maximum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        _print_output(await engine.build_detail(_number(parsed.args[0])))
        return 0

    return run(root, work)


def _print_output(detail: BuildDetail) -> None:
    """Output by step, in the order in which the steps spoke."""
    steps = {record.step.key: record.step for record in detail.steps}
    current = ""
    for line in detail.output:
        step = steps.get(line.key)
        if step and line.key != current:
            current = line.key
            print(f"[{step.stage} {step.number}/{step.total}] {clean(step.instruction)}")
        for text in output_lines(line.text):
            print(f"{'note: ' if line.stream == 'note' else '    '}{text}")
    if detail.truncated:
        print("    … more was written than is kept")


def _diff(root: Path, args: list[str]) -> int:
    flags = [Flag("format", "Format output: json, or a template of {{.Field}}", kind="str")]
    parsed = read(
        args,
        "builds diff [OPTIONS] N [M]",
        "Files and sizes that differ between the results of builds N and M (default M: the one of that name before N)",
        flags,
        minimum=1,
        maximum=2,
    )
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        second = _number(parsed.args[-1])
        first = _number(parsed.args[0]) if len(parsed.args) == 2 else await _before(engine, second)
        found = await engine.build_diff(first, second)
        if parsed.given("format"):
            rows = [_difference_row(item) for item in found]
            print(render(parsed.text("format"), rows), end="\n" if rows else "")
            return 0
        for item in found:
            print(_difference(item))
        grown = sum((item.after or 0) - (item.before or 0) for item in found)
        sign = "-" if grown < 0 else "+"
        counts = ", ".join(
            f"{sum(item.kind == kind for item in found)} {kind}" for kind in ("added", "changed", "removed")
        )
        print(f"build {first} → {second}: {counts}, {sign}{human_size(abs(grown))}")
        return 0

    return run(root, work)


async def _before(engine: Engine, number: int) -> int:
    name = (await engine.build_detail(number)).record.name
    for record in await engine.builds():
        if record.number < number and record.name == name and record.image_id:
            return record.number
    raise NotFound(f"no build of {name} before build {number} has a result", hint="name both: builds diff N M")


def _difference_row(item: FileDifference) -> dict[str, object]:
    return {"Path": item.path, "Kind": item.kind, "Before": item.before, "After": item.after, "What": item.what}


def _difference(item: FileDifference) -> str:
    mark = {"added": "A", "removed": "D", "changed": "C"}[item.kind]
    sizes = (item.before, item.after)
    shown = human_size(next(size for size in sizes if size is not None))
    if item.kind == "changed" and item.before != item.after:
        shown = f"{human_size(item.before or 0)}→{human_size(item.after or 0)}"
    return f"{mark} {clean(item.path)}   {shown}" + (f"   {clean(item.what)}" if item.kind == "changed" else "")


def _remove(root: Path, args: list[str]) -> int:
    parsed = read(args, "builds rm N [N…]", "Remove builds from the history (images stay)", [], minimum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        return await each(parsed.args, lambda name: engine.remove_build(_number(name)))

    return run(root, work)


def cmd_why(root: Path, args: list[str]) -> int:
    flags = [
        Flag("file", "Name of the Dockerfile (default CONTEXT/Dockerfile)", "f", kind="str"),
        Flag("context", "The build context (default: here)", "C", kind="str", metavar="DIR"),
        Flag("target", "The stage that is built", kind="str"),
        Flag("format", "Format output: json", kind="str"),
    ]
    usage = "why [OPTIONS] PATH [PATH…]"
    parsed = read(
        args, usage, "Say what a change of PATH would invalidate, and what that cost last time", flags, minimum=1
    )
    if parsed is None:
        return 0
    context = Path(parsed.text("context", ".")).absolute()
    paths = [os.path.relpath(path, context) for path in parsed.args]
    for path in paths:
        if path.startswith("../") or path == "..":
            raise InvalidInput(f"{path} is not below the context {context}", hint="name the context with -C DIR")
    file = Path(parsed.text("file")).absolute() if parsed.given("file") else None
    request = BuildRequest(context, file, target=parsed.text("target"))

    async def work(engine: Engine) -> int:
        reports = await engine.why(request, paths)
        if parsed.text("format") == "json":
            print(json.dumps([asdict(report) for report in reports], indent=2))
        else:
            print("\n".join(line for report in reports for line in _why(report)))
        return 0

    return run(root, work)


def _why(report: WhyReport) -> list[str]:
    if not report.steps:
        return [f"{clean(report.path)}: nothing ({report.note})"]
    lines = [f"{clean(report.path)}: {len(report.steps)} steps would run, {brief_seconds(report.seconds)} last time"]
    for found in report.steps:
        step = found.step
        took = brief_seconds(found.seconds) if found.seconds is not None else "never ran"
        text = clean(" ".join(step.instruction.split()))
        lines.append(
            f"{step.line:>5}  {step.stage} {step.number}/{step.total}  {took:>9}  {text}   ({clean(found.cause)})"
        )
    for name, values in (("stages", report.stages), ("images", report.images), ("containers", report.containers)):
        if values:
            lines.append(f"  {name}: {clean(', '.join(values))}")
    return lines


# --- the builder's cache ------------------------------------------------------------------------------------


def cmd_builder(root: Path, args: list[str]) -> int:
    verb = args[0] if args else ""
    if verb == "build":
        from engine.cli.build import cmd_build

        return cmd_build(root, args[1:])
    if verb == "prune":
        return _builder_prune(root, args[1:])
    if verb == "du":
        return _builder_du(root, args[1:])
    if verb == "imagetools":
        from engine.cli.imagetools import cmd_imagetools

        return cmd_imagetools(root, args[1:])
    if verb in ("", "-h", "--help"):
        print(
            "Usage:  workbench builder COMMAND\n\nCommands:\n  build   Build an image\n  du      Show the cache\n"
            "  imagetools  Put together and look at images in registries\n  prune   Remove build cache"
        )
        return 0
    raise InvalidInput(f"unknown command: builder {verb}", hint="build, du, imagetools and prune are known")


def _builder_du(root: Path, args: list[str]) -> int:
    parsed = read(args, "builder du", "Show what the builder keeps: results of steps and cache mounts", [], maximum=0)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        entries = await engine.build_cache()
        rows = [[e.id, str(not e.in_use).lower(), human_size(e.size), ago(e.last_used)] for e in entries]
        print(table(["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"], rows))
        print(f"Reclaimable:  {human_size(sum(e.size for e in entries if not e.in_use))}")
        print(f"Total:        {human_size(sum(e.size for e in entries))}")
        return 0

    return run(root, work)


def _builder_prune(root: Path, args: list[str]) -> int:
    from engine.cli.upkeep import agreed

    flags = [
        Flag("all", "Remove all unused build cache, not just what no image has", "a"),
        Flag(
            "filter",
            "Provide filter values: until=24h (or unused-for=24h), type=regular|exec.cachemount, id=PREFIX, inuse, shared, private",
            kind="list",
        ),
        Flag("keep-storage", "Amount of disk space to keep for cache", kind="str", metavar="bytes"),
        Flag("force", "Do not prompt for confirmation", "f"),
        Flag("dry-run", "Show what would be removed, and remove nothing"),
    ]
    parsed = read(args, "builder prune [OPTIONS]", "Remove build cache", flags, maximum=0)
    if parsed is None:
        return 0
    wanted: dict[str, list[str]] = {}
    for text in parsed.items("filter"):
        name, _, value = text.partition("=")
        wanted.setdefault(name, []).append(value)
    keep = parse_size(parsed.text("keep-storage")) if parsed.given("keep-storage") else None
    dry, everything = parsed.on("dry-run"), parsed.on("all")
    question = (
        f"This will remove {'all' if everything else 'unused'} build cache. Are you sure you want to continue? [y/N] "
    )
    if not dry and not agreed(question, parsed.on("force")):
        return 0

    async def work(engine: Engine) -> int:
        pruned = await engine.prune_build_cache(wanted, all=everything, keep_bytes=keep, dry_run=dry)
        print("\n".join(pruned.cache), end="\n\n" if pruned.cache else "")
        print(f"{'Would free' if dry else 'Total'}:  {human_size(pruned.reclaimed)}")
        return 0

    return run(root, work)
