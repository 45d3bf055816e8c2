"""Our errors as gRPC's, with the place in the Dockerfile that docker shows under them."""

from __future__ import annotations

import base64
import json
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from engine.errors import BuildFailed, Cancelled, DockerfileError, EngineError
from engine.rest.buildkit.messages import AnyMessage, RpcStatus
from engine.rest.buildkit.progress import failure

_PREFIX = "github.com/moby/buildkit/errdefs."


def sentence(error: EngineError) -> str:
    """What the client prints. The lines of the Dockerfile it shows by itself, from `rpc_error`'s details."""
    if isinstance(error, BuildFailed):
        return failure(error.message)  # its hints are for our own command line
    text = error.message
    if isinstance(error, DockerfileError):
        text = f"dockerfile parse error on line {error.line}: {error.message}"
    return f"{text}\n{error.hint}" if error.hint else text


def rpc_error(error: EngineError, *, file: str = "", source: str = "", vertex: str = "") -> GRPCError:
    """`source` is the Dockerfile's text, `vertex` the digest of what failed (moby/buildkit `solver/errdefs`, `util/grpcerrors`)."""
    details = []
    if vertex:
        details.append(_detail("Vertex+json", {"digest": vertex}))
    line = error.line if isinstance(error, BuildFailed | DockerfileError) else 0
    if line and source:
        last = line + len(error.excerpt) - 1 if isinstance(error, BuildFailed) and error.excerpt else line
        where = {"start": {"line": line}, "end": {"line": last}}
        info = {"filename": file, "data": base64.b64encode(source.encode("utf-8", "surrogateescape")).decode()}
        details.append(_detail("Source+json", {"info": info, "ranges": [where]}))
    # Go's clients print any other code before the sentence.
    status = Status.CANCELLED if isinstance(error, Cancelled) else Status.UNKNOWN
    return GRPCError(status, sentence(error), details)


def _detail(kind: str, document: dict[str, Any]) -> AnyMessage:
    return AnyMessage(_PREFIX + kind, json.dumps(document).encode())


def returned(status: RpcStatus) -> GRPCError:
    """What the client's own build function ended with, back to it."""
    try:
        code = Status(status.code)
    except ValueError:
        code = Status.UNKNOWN
    return GRPCError(code, status.message, status.details)
