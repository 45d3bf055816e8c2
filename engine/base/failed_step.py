"""A shell in the file system that a failed RUN step left behind, for whoever opens one, and what was typed in it."""

from __future__ import annotations

import io
import tarfile

HISTORY = "/tmp/.workbench-history"
SHELL = "command -v bash >/dev/null 2>&1 && exec bash --norc; exec sh"  # bash keeps a history; the image's own set-up is not run
ENVIRONMENT = (f"HISTFILE={HISTORY}", "HISTCONTROL=ignorespace")
_LEAVE = {"exit", "logout", "history"}


def commands(archive: bytes) -> list[str]:
    """The lines of a shell's history file out of its tar; leaving the shell is none of them."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = next((member for member in tar if member.isfile()), None)
        file = tar.extractfile(member) if member is not None else None
        text = file.read(1 << 20).decode(errors="replace") if file is not None else ""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#") and line.split()[0] not in _LEAVE]


def as_run(lines: list[str]) -> str:
    """What was typed, as an instruction for the Dockerfile."""
    return "RUN " + " && \\\n    ".join(lines)
