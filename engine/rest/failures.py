"""How a RUN step failed, for clients that look for the sentences of Docker's builders (pure)."""

from __future__ import annotations

import re

_COMMAND = re.compile(r"RUN (.*): exit code (\d+)", re.DOTALL)
_FLAGS = re.compile(r"^(--\S+\s+)+")


def failed_command(message: str) -> tuple[str, str] | None:
    """Command and exit code of a RUN step that failed, from our own sentence for it; the command as Docker's builders print it."""
    found = _COMMAND.fullmatch(message)
    if found is None:
        return None
    text = _FLAGS.sub("", found[1])
    return (text if text.startswith("[") else f"/bin/sh -c {text}"), found[2]
