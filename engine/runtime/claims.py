"""Subnets that engines of this host are about to use: between looking which are free and making the bridge lies a start of a container, by
another process; two data roots that look at the same moment would both take the first free one.

A claim is a file under `/run/workbench/subnets`, named by the network, with its subnets; it counts for half a minute, by when the bridge stands
and its routes say the same, or the start has failed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Iterable
from pathlib import Path

from engine.linux.rtnetlink import Network

FOLDER = Path("/run/workbench/subnets")
SECONDS = 30.0


def others(network: str, folder: Path = FOLDER) -> list[Network]:
    """What other networks claim; nothing for an ordinary user, as `claim` says. Asked, and answered by `claim`, under the host's
    lock (`bridges.host_lock`)."""
    found: list[Network] = []
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError, ValueError):
                if abs(time.time() - entry.stat().st_mtime) > SECONDS:
                    os.unlink(entry.path)
                elif entry.name != network:
                    found += [ipaddress.ip_network(line) for line in Path(entry.path).read_text().split()]
    return found


def claim(network: str, subnets: Iterable[Network], folder: Path = FOLDER) -> None:
    """An ordinary user's networks are in a namespace of its own, where nobody else is: nothing is noted."""
    with contextlib.suppress(PermissionError):
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        (folder / network).write_text("\n".join(map(str, subnets)))
