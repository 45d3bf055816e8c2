"""Docker's columns and `--format`: a table, a template for each row, or JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine.errors import harmless


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, minimum: int = 10) -> str:
    """Columns as Docker's tabwriter sets them: at least `minimum` wide, three spaces apart, the last one as it comes."""
    rows = [[harmless(cell) for cell in row] for row in rows]  # labels and commands are an image's words
    widths = [max(minimum, 3 + max([len(header), *(len(row[i]) for row in rows)])) for i, header in enumerate(headers)]
    lines = [headers, *rows]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)) + line[-1] for line in lines
    )


def documents(template: str, found: Sequence[Mapping[str, object]]) -> str:
    """`--format` of an `inspect`: "json" is the whole list in one line; anything else a template for each document."""
    if template == "json":
        from engine.cli.template_functions import to_json

        return to_json(list(found))
    return render(template, found, escapes=False)


def render(
    template: str,
    rows: Sequence[Mapping[str, object]],
    titles: Mapping[str, str] | None = None,
    *,
    escapes: bool = True,
) -> str:
    """`--format`: "json", "table {{.A}}\\t{{.B}}" or a Go template (see `engine.cli.template`), written for each row.

    `titles` are headings that a field's own name does not give; without `escapes`, `\\n` is what it says (`inspect`).
    """
    from engine.cli.template import Template
    from engine.cli.template_functions import HEADER_FUNCTIONS

    if template == "json":
        template = "{{json .}}"
    with_header = template.startswith("table ")
    template = template.removeprefix("table ") if with_header else template
    parsed = Template(template, escapes=escapes)
    lines = [parsed.write(_ordered(row)) for row in rows]
    if not with_header:
        return "\n".join(lines)
    known = {key: _title(key) for row in rows[:1] for key in row} | {**TITLES, **(titles or {})}
    heading = parsed.write(_Headings(known), HEADER_FUNCTIONS)
    return table(heading.split("\t"), [line.split("\t") for line in lines])


class Alias(dict[str, object]):
    """A document whose fields a template also reaches by other names; as JSON it is the document."""

    def __init__(self, document: Mapping[str, object], names: Mapping[str, object]) -> None:
        super().__init__(document)
        self._names = names

    def __contains__(self, key: object) -> bool:
        return key in self._names or super().__contains__(key)

    def __missing__(self, key: str) -> object:
        return self._names[key]


# What Docker calls these columns everywhere; what "ID" and "Name" are depends on the list.
TITLES = {
    "RunningFor": "CREATED",
    "CreatedSince": "CREATED",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
    "TotalCount": "TOTAL",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IPv6": "IPV6",
}


class _Headings(dict[str, str]):
    """A row of headings: any field has one."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> str:
        return _title(key)


def _title(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).upper()


def _ordered(row: Mapping[str, object]) -> Mapping[str, object]:
    """A list's rows print their fields in the order of the alphabet, as Docker's do; a document keeps its own."""
    flat = not any(isinstance(value, Mapping | list) for value in row.values())
    from engine.cli.template_functions import Row

    return Row(sorted(row.items())) if flat else row
