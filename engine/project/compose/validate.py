"""A compose document held against the published JSON schema (compose-spec, schema/compose-spec.json of 2026-06-23)."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.errors import DockerfileError
from engine.project.compose.positions import Map, Place, Seq, problem

SCHEMA = Path(__file__).with_name("compose-spec.json")


@functools.cache
def schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return document


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(schema())


def validate(document: Map) -> None:
    """Raises `DockerfileError` at the place of the first thing that the schema does not allow."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(document))
    if error is not None:
        raise _explain(document, error)


def place_of(document: Any, path: Sequence[str | int]) -> Place:
    """Where the value at `path` stands, or the nearest thing around it that has a place."""
    place: Place = document.place
    value = document
    for part in path:
        if isinstance(value, Map) and isinstance(part, str) and part in value:
            place, value = value.where(part), value[part]
        elif isinstance(value, Seq) and isinstance(part, int) and part < len(value):
            place, value = value.at[part], value[part]
        else:
            break
    return place


def _explain(document: Map, error: Any) -> DockerfileError:
    path = list(error.absolute_path)
    name = ".".join(str(part) for part in path)
    place = place_of(document, path)
    if error.validator == "additionalProperties" and isinstance(error.instance, Map):
        known = list(error.schema.get("properties", {}))
        for key in error.instance:
            if key not in known and not key.startswith("x-"):
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else "keys that compose does not know begin with x-"
                where = f"{name}.{key}" if name else key
                return problem(error.instance.where(key), f"{where}: no such key in the compose specification", hint)
    if error.validator == "type":
        wanted = error.validator_value
        kinds = wanted if isinstance(wanted, str) else " or ".join(wanted)
        return problem(place, f"{name}: {_shown(error.instance)} is not of type {kinds}")
    if error.validator == "enum":
        return problem(
            place, f"{name}: {_shown(error.instance)} is none of {', '.join(map(str, error.validator_value))}"
        )
    if error.validator == "required":
        return problem(place, f"{name}: {error.message}")
    return problem(
        place,
        f"{name}: {error.message if len(error.message) < 200 else _shown(error.instance) + ' is not allowed here'}",
    )


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
