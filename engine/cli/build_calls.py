"""`build --call`: answers about a Dockerfile that need no build."""

from __future__ import annotations

import json
from dataclasses import asdict

from engine.build.dockerfile.parser import parse
from engine.build.outline import Outline, TargetLine, outline, targets
from engine.build.reading import read_dockerfile
from engine.cli.build_flags import fields
from engine.cli.common import clean
from engine.cli.tables import table
from engine.errors import InvalidInput, Unsupported
from engine.model import BuildRequest


def answer(request: BuildRequest, call: str) -> int:
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
        raise Unsupported("--check is not here yet", hint="it comes with the Dockerfile rules")
    raise InvalidInput(f"--call {method} is not known", hint="build, check, outline and targets are")


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
