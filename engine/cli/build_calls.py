"""`build --call`: answers about a Dockerfile that need no build."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from engine.build.dockerfile.parser import parse
from engine.build.lint import BaseConfig, LintInput, lint
from engine.build.outline import Outline, TargetLine, outline, targets
from engine.build.prepare import target_platforms
from engine.build.reading import read_dockerfile, read_input
from engine.build.variables import platform_args
from engine.cli.build_flags import fields
from engine.cli.common import clean
from engine.cli.tables import table
from engine.errors import InvalidInput
from engine.model import BuildRequest
from engine.oci.config import ImageConfig
from engine.oci.platform import Platform
from engine.store.store import Store


def answer(request: BuildRequest, call: str, root: Path) -> int:
    """`call` is a method, with `,format=json` behind it where that is wanted. The exit status: 1 when a check warns."""
    method, _, rest = call.partition(",")
    given = fields(rest, "call") if rest else {}
    form = given.get("format", "text")
    if form not in ("text", "json"):
        raise InvalidInput(f"--call {call}: format={form} is not known", hint="text and json are")
    file = str(request.dockerfile or request.context / "Dockerfile")
    if request.dockerfile_text is not None:
        file, dockerfile = "Dockerfile", parse(request.dockerfile_text, "Dockerfile")
    else:
        dockerfile = read_dockerfile(request.dockerfile or request.context / "Dockerfile")
    if method == "targets":
        lines = targets(dockerfile)
        print(
            json.dumps({"targets": [asdict(line) for line in lines]}, indent=2) if form == "json" else _targets(lines)
        )
        return 0
    if method == "outline":
        found = outline(dockerfile, request.target, request.build_args, file)
        print(json.dumps(asdict(found), indent=2) if form == "json" else _outline(found))
        return 0
    if method == "check":
        return _check(request, form, root)
    raise InvalidInput(f"--call {method} is not known", hint="build, check, outline and targets are")


def _check(request: BuildRequest, form: str, root: Path) -> int:
    """The linter's findings, sorted by line; 1 when there are some."""
    given = read_input(request)
    target = target_platforms(request)[0]
    predefined = platform_args(Platform.host(), target, request.target, request.build_args)
    wanted = LintInput(given.dockerfile, request.build_args, predefined, target, given.matcher, _local_images(root))
    warnings = sorted(lint(wanted), key=lambda warning: warning.line)
    if form == "json":
        found = [
            {
                "ruleName": w.rule,
                "description": w.description,
                "url": w.url,
                "detail": w.message,
                "suggestion": w.suggestion,
                "location": {"ranges": [{"start": {"line": w.line}, "end": {"line": w.end_line}}]},
            }
            for w in warnings
        ]
        print(json.dumps({"warnings": found, "sources": [{"filename": str(given.file)}]}, indent=2))
        return 1 if warnings else 0
    if not warnings:
        print("Check complete, no warnings found.")
        return 0
    print(f"Check complete, {len(warnings)} warning{'s have' if len(warnings) > 1 else ' has'} been found!")
    for warning in warnings:
        print(f"\nWARNING: {warning.rule}" + (f" - {warning.url}" if warning.url else ""))
        print(clean(warning.message))
        print(f"{given.file.name}:{warning.line}")
        print(_excerpt(given.dockerfile.lines, warning.line, warning.end_line))
        print(f"try: {warning.suggestion}")
    return 1


def _excerpt(lines: Sequence[str], first: int, last: int) -> str:
    """The lines with two around them, as Docker shows them."""
    rule = "-" * 20
    shown = range(max(1, first - 2), min(len(lines), last + 2) + 1)
    body = [f"{n:>4} | {'>>>' if first <= n <= last else '   '} {clean(lines[n - 1])}".rstrip() for n in shown]
    return "\n".join([rule, *body, rule])


def _local_images(root: Path) -> BaseConfig:
    """Configs of images that are here. What is not is not fetched for a check: its variables are then taken as known."""
    if not (root / "records.sqlite").exists():
        return lambda name, platform: None
    store = Store(root)

    def find(name: str, platform: Platform) -> ImageConfig | None:
        image = store.images.find(name)
        return store.images.config(image) if image is not None else None

    return find


def _targets(lines: list[TargetLine]) -> str:
    rows = [
        [line.name + (" (default)" if line.default else ""), clean(line.base), clean(line.description)]
        for line in lines
    ]
    return table(["TARGET", "BASE", "DESCRIPTION"], rows)


def _outline(found: Outline) -> str:
    parts = [f"TARGET:      {found.target}"]
    if found.description:
        parts.append(f"DESCRIPTION: {clean(found.description)}")
    if found.args:
        rows = [[arg.name, clean(arg.value or ""), clean(arg.description)] for arg in found.args]
        parts += ["", table(["BUILD ARG", "VALUE", "DESCRIPTION"], rows)]
    for title, known in (("SECRET", found.secrets), ("SSH", found.ssh)):
        if known:
            parts += [
                "",
                table([title, "REQUIRED"], [[clean(name), str(needed).lower()] for name, needed in known.items()]),
            ]
    return "\n".join(parts)
