"""`docker build --check` and `--call`: answers about a Dockerfile instead of a build (pure).

Documents are those of BuildKit's subrequests (moby/buildkit `frontend/subrequests`), which the client prints.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from engine.build.dockerfile.ast import Dockerfile
from engine.build.lint import LintInput, lint
from engine.build.outline import outline, targets
from engine.build.prepare import target_platforms
from engine.build.reading import Input, read_input
from engine.build.variables import platform_args
from engine.errors import Unsupported
from engine.model import BuildRequest
from engine.oci.platform import Platform

_CALLS = {
    "outline": "List all parameters current build target supports",
    "targets": "List all targets current build supports",
    "lint": "Lint a Dockerfile",
    "subrequests.describe": "List available subrequest types",
}


def answer(call: str, request: BuildRequest, text: str, name: str) -> dict[str, bytes]:
    """The result's metadata for a call. `text` is the Dockerfile's, `name` what it is called. Raises `EngineError`."""
    if call not in _CALLS:
        raise Unsupported(
            f"--call={call} is not supported", hint="check, outline, targets and subrequests.describe are"
        )
    found = read_input(request)
    document: Any
    status = 0
    if call == "lint":
        warnings = _warnings(request, found)
        document, status = {"warnings": warnings, "sources": [_source(text, name)]}, 1 if warnings else 0
    elif call == "targets":
        document = {"targets": _targets(found.dockerfile), "sources": [_encoded(text)]}
    elif call == "outline":
        document = _outline(found.dockerfile, request, name) | {"sources": [_encoded(text)]}
    else:
        document = [_described(kind, what) for kind, what in _CALLS.items()]
    result = {"result.json": json.dumps(document), "version": "1.0.0"}
    if status:
        result["result.statuscode"] = str(status)
    return {key: value.encode() for key, value in result.items()}


def _described(kind: str, what: str) -> Mapping[str, Any]:
    return {
        "name": f"frontend.{kind}",
        "version": "1.0.0",
        "type": "rpc",
        "description": what,
        "opts": None,
        "metadata": None,
    }


def _warnings(request: BuildRequest, given: Input) -> list[dict[str, Any]]:
    target = target_platforms(request)[0]
    predefined = platform_args(Platform.host(), target, request.target, request.build_args)
    # Images are not asked for: what a base sets is taken as known.
    wanted = LintInput(
        given.dockerfile, request.build_args, predefined, target, given.matcher, lambda name, platform: None
    )
    return [
        {
            "ruleName": found.rule,
            "description": found.description,
            "url": found.url,
            "detail": found.message,
            "location": _location(found.line, found.end_line),
        }
        for found in sorted(lint(wanted), key=lambda found: found.line)
    ]


def _targets(dockerfile: Dockerfile) -> list[dict[str, Any]]:
    return [
        {
            "name": "" if line.name.isdecimal() else line.name,
            "default": line.default,
            "description": line.description,
            "base": line.base,
            "platform": "",
            "location": _location(line.line, line.line),
        }
        for line in targets(dockerfile)
    ]


def _outline(dockerfile: Dockerfile, request: BuildRequest, name: str) -> dict[str, Any]:
    found = outline(dockerfile, request.target, request.build_args, name)
    return {
        "name": found.target,
        "description": found.description,
        "args": [{"name": arg.name, "value": arg.value or "", "description": arg.description} for arg in found.args],
        "secrets": [{"name": key, "required": needed} for key, needed in found.secrets.items()],
        "ssh": [{"name": key, "required": needed} for key, needed in found.ssh.items()],
    }


def _location(first: int, last: int) -> dict[str, Any]:
    return {"sourceIndex": 0, "ranges": [{"start": {"line": first}, "end": {"line": last}}]}


def _source(text: str, name: str) -> dict[str, Any]:
    return {"filename": name, "language": "Dockerfile", "data": _encoded(text)}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
