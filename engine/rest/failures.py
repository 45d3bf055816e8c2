"""Our errors in a client's words: the message of an error document, and how a RUN step failed (pure)."""

from __future__ import annotations

import re

from engine.errors import EngineError

_COMMAND = re.compile(r"RUN (.*): exit code (\d+)", re.DOTALL)
_FLAGS = re.compile(r"^(--\S+\s+)+")


def document(error: EngineError) -> dict[str, str]:
    """`message` as any client prints it; `hint` for clients that are a workbench as well. A hint that names commands of ours is of
    no use to the user of another client, and stays out of the message."""
    hint = error.hint or ""
    text = str(error) if not hint or "workbench" in hint else f"{error}\n{hint}"
    return {"message": text, "hint": hint} if hint else {"message": text}


def failed_command(message: str) -> tuple[str, str] | None:
    """Command and exit code of a RUN step that failed, from our own sentence for it; the command as Docker's builders print it."""
    found = _COMMAND.fullmatch(message)
    if found is None:
        return None
    text = _FLAGS.sub("", found[1])
    return (text if text.startswith("[") else f"/bin/sh -c {text}"), found[2]
