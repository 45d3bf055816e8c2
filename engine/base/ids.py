"""Identifiers of containers and builds, and the names that containers get when the user gives none."""

from __future__ import annotations

import os
import re

from engine.errors import InvalidInput

# Docker's rule for container names (daemon/names): first character alphanumeric.
_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")

_LEFT = (
    "amber brave brisk calm clear clever crisp deft eager fair fleet fresh gentle glad keen kind lively lucid "
    "mellow merry neat nimble plucky proud quick quiet ready sharp sleek smart solid spry steady sunny swift "
    "tidy vivid warm wise zesty"
).split()
_RIGHT = (
    "anvil auger bevel brace chisel clamp compass drill easel file forge gauge gimlet hammer jig jointer kiln "
    "lathe level loom mallet mitre needle pincers plane plumb press pulley rasp router ruler saw scraper "
    "shears spanner square tongs trowel vise wrench"
).split()


def new_id() -> str:
    """64 random hex digits, as Docker's container ids."""
    return os.urandom(32).hex()


def random_name() -> str:
    import secrets

    return f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"


def check_name(name: str) -> str:
    """`name` itself, or `InvalidInput`."""
    if len(name) < 2 or not _NAME.match(name):
        raise InvalidInput(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="use two or more of a-z A-Z 0-9 _ . - and start with a letter or digit",
        )
    return name
