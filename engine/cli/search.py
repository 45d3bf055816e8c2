"""`search`: what a registry has by a word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.cli.nouns import filters, listing
from engine.errors import InvalidInput

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.model import RegistryMatch

_KEYS = ("is-automated", "is-official", "stars")


def cmd_search(root: Path, args: list[str]) -> int:
    flags = [
        Flag("filter", f"Filter output by {', '.join(f'{key}=' for key in _KEYS)}", "f", kind="list"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
        Flag("limit", "Max number of search results", kind="int"),
        Flag("no-trunc", "Don't truncate output"),
    ]
    parsed = read(args, "search [OPTIONS] TERM", "Search a registry for images", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0
    wanted = filters(parsed.items("filter"))
    for key in wanted:
        if key not in _KEYS:
            raise InvalidInput(f"invalid filter '{key}'", hint=f"{', '.join(_KEYS)} are known")

    async def work(engine: Engine) -> int:
        found = await engine.search_images(parsed.args[0], limit=parsed.number("limit", 25))
        rows = [_row(one, full=parsed.on("no-trunc")) for one in found if _keeps(one, wanted)]
        columns = {"NAME": "Name", "DESCRIPTION": "Description", "STARS": "StarCount", "OFFICIAL": "IsOfficial"}
        return listing(parsed, rows, columns, "Name")

    return run(root, work)


def _keeps(one: RegistryMatch, wanted: dict[str, list[str]]) -> bool:
    for key, values in wanted.items():
        try:
            if key == "stars":
                if one.stars < int(values[-1]):
                    return False
                continue
            words = {"true": True, "1": True, "false": False, "0": False}
            if (one.official if key == "is-official" else one.automated) != words[values[-1].lower()]:
                return False
        except (ValueError, KeyError):
            raise InvalidInput(f"invalid filter '{key}={values[-1]}'") from None
    return True


def _row(one: RegistryMatch, *, full: bool) -> dict[str, object]:
    text = clean(one.description.replace("\n", " "))
    return {
        "Name": clean(one.name),
        "Description": text if full or len(text) <= 45 else f"{text[:44]}…",
        "StarCount": str(one.stars),
        "IsOfficial": "[OK]" if one.official else "",
        "IsAutomated": "[OK]" if one.automated else "",
    }
