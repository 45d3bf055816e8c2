"""`$NAME`, `${NAME:-default}` and their kin in the values of a compose file (compose-spec, 12-interpolation)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from engine.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_DEPTH = 32


def interpolate(
    text: str, env: Mapping[str, str], missing: Callable[[str], None] | None = None, *, depth: int = 0
) -> str:
    """`text` with its variables replaced; `$$` is a dollar sign. `missing` hears of each variable that is set nowhere.

    Raises `InvalidInput` for `${NAME:?message}` without a value and for a brace that does not close.
    """
    if depth > _MAX_DEPTH:
        raise InvalidInput("variables are nested too deeply")
    out, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        rest = text[dollar + 1 : dollar + 2]
        if rest == "$":
            out.append("$")
            at = dollar + 2
        elif rest == "{":
            end = _closing(text, dollar + 2)
            out.append(_braced(text[dollar + 2 : end], env, missing, depth))
            at = end + 1
        elif match := _NAME.match(text, dollar + 1):
            out.append(_value(match[0], env, missing))
            at = match.end()
        else:  # a lone dollar is itself
            out.append("$")
            at = dollar + 1
    out.append(text[at:])
    return "".join(out)


def _closing(text: str, start: int) -> int:
    depth, at = 1, start
    while at < len(text):
        if text.startswith("${", at):
            depth += 1
            at += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    raise InvalidInput(
        f"invalid interpolation format: {text!r} has a ${{ that does not close", hint="write $$ for a dollar sign"
    )


def _value(name: str, env: Mapping[str, str], missing: Callable[[str], None] | None) -> str:
    if name not in env and missing is not None:
        missing(name)
    return env.get(name, "")


def _braced(inner: str, env: Mapping[str, str], missing: Callable[[str], None] | None, depth: int) -> str:
    match = _NAME.match(inner)
    if match is None:
        raise InvalidInput(
            f"invalid interpolation format: ${{{inner}}}", hint="a name follows ${; write $$ for a dollar sign"
        )
    name, rest = match[0], inner[match.end() :]
    if not rest:
        return _value(name, env, missing)
    colon = rest.startswith(":")
    op, word = rest[colon : colon + 1], rest[colon + 1 :]
    found = env.get(name)
    is_set = found is not None and (not colon or found != "")

    def expanded() -> str:
        return interpolate(word, env, missing, depth=depth + 1)

    if op == "-":
        return found or "" if is_set else expanded()
    if op == "+":
        return expanded() if is_set else ""
    if op == "?":
        if not is_set:
            raise InvalidInput(f"required variable {name} is missing a value: {expanded()}".rstrip(": "))
        return found or ""
    raise InvalidInput(f"invalid interpolation format: ${{{inner}}}", hint="after the name: :- - :? ? :+ or +")
