"""Docker's columns and `--format`: a table, one field path a row, or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from engine.errors import InvalidInput, harmless

_ACTION = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as Docker's tabwriter sets them: at least ten wide, three spaces apart, the last one as it comes."""
    rows = [[harmless(cell) for cell in row] for row in rows]  # labels and commands are an image's words
    widths = [max(10, 3 + max([len(header), *(len(row[i]) for row in rows)])) for i, header in enumerate(headers)]
    lines = [headers, *rows]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)) + line[-1] for line in lines
    )


def render(template: str, rows: Sequence[Mapping[str, object]]) -> str:
    """`--format`: "json", "table {{.A}}\\t{{.B}}" or a template of `{{.Field.Sub}}` and `{{json .Field}}`."""
    if template == "json":
        template = "{{json .}}"
    with_header = template.startswith("table ")
    if with_header:
        template = template.removeprefix("table ")
    template = template.replace("\\t", "\t").replace("\\n", "\n")
    lines = [_ACTION.sub(lambda match, row=row: _action(match[1], row), template) for row in rows]  # type: ignore[misc]
    if not with_header:
        return "\n".join(lines)
    headers = [
        _ACTION.sub(lambda match: re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[1].lstrip(".")).upper(), cell)
        for cell in template.split("\t")
    ]
    return table(headers, [line.split("\t") for line in lines])


def _action(text: str, row: Mapping[str, object]) -> str:
    function, _, path = text.rpartition(" ")
    if not path.startswith(".") or function not in ("", "json"):
        raise InvalidInput(f"--format: {{{{{text}}}}} is not supported", hint="use {{.Field}} or {{json .Field}}")
    value: object = row
    for part in (p for p in path.split(".") if p):
        if not isinstance(value, Mapping) or part not in value:
            known = ", ".join(map(str, value)) if isinstance(value, Mapping) else "none"
            raise InvalidInput(f"--format: no field {part!r}", hint=f"fields here: {known}")
        value = value[part]
    return json.dumps(value) if function == "json" else _go(value)


def _go(value: object) -> str:
    """A value as Go's text/template prints it: `[a b]`, `map[k:v]`, `true`, `<no value>`."""
    if value is None:
        return "<no value>"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_go(one)}' for key, one in sorted(value.items()))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_go, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
