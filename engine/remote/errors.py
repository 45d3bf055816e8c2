"""An engine's refusals as errors of this one, and what another engine cannot be asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from engine.errors import (
    AccessDenied,
    BuildFailed,
    Conflict,
    EngineError,
    InvalidInput,
    NotFound,
    StartFailed,
    StorageFull,
    Unauthorized,
    Unavailable,
    Unsupported,
)

_BY_STATUS: Mapping[int, type[EngineError]] = {
    400: InvalidInput,
    401: Unauthorized,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    501: Unsupported,
    503: Unavailable,
    507: StorageFull,
}
# docker/cli, cli/command/container/run.go: toStatusError
_NOT_FOUND = re.compile(r"executable file not found|no such file or directory|system cannot find", re.IGNORECASE)
_NOT_EXECUTABLE = re.compile(r"permission denied|not a directory|is a directory", re.IGNORECASE)


def refused(status: int, body: bytes, what: str) -> EngineError:
    """The error for an answer with `status`; `what` ("GET /info") stands in for a body that says nothing."""
    text = said = ""
    try:
        document = json.loads(body)
        if isinstance(document, dict):
            # Podman says more in "cause" alone at times.
            text = str(document.get("message") or document.get("cause") or "")
            said = str(document.get("hint") or "")  # a workbench's
    except ValueError:
        text = body.decode("utf-8", "replace").strip()[:500]
    if not text and status == 404:
        text = f"{what}: this engine has no such thing"
    message, _, hint = (text or f"{what}: the engine answered with status {status}").partition("\n")
    if "HTTP request to an HTTPS server" in message:
        return Unavailable("the engine speaks TLS at that port", hint="add --tlsverify, or DOCKER_TLS_VERIFY=1")
    return _BY_STATUS.get(status, EngineError)(message, hint=said or hint.strip() or None)


def start_failed(error: EngineError) -> EngineError:
    """A refusal of `start` or `exec` with the exit code that the docker command line gives it."""
    if isinstance(error, NotFound | Conflict | Unavailable | Unauthorized):
        return error
    code = 127 if _NOT_FOUND.search(error.message) else 126 if _NOT_EXECUTABLE.search(error.message) else 125
    return StartFailed(error.message, exit_code=code, hint=error.hint)


def failed_in_stream(document: Mapping[str, object], *, build: bool = False) -> EngineError | None:
    """The error that a line of a progress stream tells of."""
    detail = document.get("errorDetail")
    text = str((detail.get("message") if isinstance(detail, dict) else "") or document.get("error") or "")
    if not text:
        return None
    code = detail.get("code") if isinstance(detail, dict) else None
    message, _, hint = text.partition("\n")
    hint = str(detail.get("hint") or hint) if isinstance(detail, dict) else hint
    if build:
        return BuildFailed(message, exit_code=code if isinstance(code, int) else 0, hint=hint or None)
    lower = message.lower()
    if "unauthorized" in lower or "authentication required" in lower or "access denied" in lower:
        return Unauthorized(message, hint=hint or "`workbench login` at that registry, and check the name")
    if "not found" in lower or "manifest unknown" in lower:
        return NotFound(message, hint=hint or None)
    return EngineError(message, hint=hint or None)


def beyond(what: str, hint: str = "") -> Unsupported:
    """For what an engine behind Docker's API has no words for."""
    return Unsupported(
        f"{what}: not possible on another engine (--host)",
        hint=hint or "run it on that host with `workbench` itself, or here without --host",
    )
