"""Build events as JSON, for two workbenches that speak with each other over Docker's API.

`POST /build` with the header `X-Workbench-Events: 1` answers with these, each as `{"workbench": {…}}` on a line, instead of the
classic builder's words: reasons, times, sizes and cached steps come through as they are. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from engine.model import (
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildStarted,
    PullProgress,
    StepFinished,
    StepInfo,
    StepOutput,
    StepProgress,
    StepStarted,
)

HEADER = "x-workbench-events"
KEY = "workbench"
_KINDS: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        PullProgress,
        BuildStarted,
        StepStarted,
        StepOutput,
        StepProgress,
        StepFinished,
        BuildNotice,
        BuildFinished,
    )
}


def encode(event: BuildEvent) -> dict[str, Any]:
    return {KEY: {"kind": type(event).__name__, **dataclasses.asdict(event)}}


def decode(line: Mapping[str, Any]) -> BuildEvent | None:
    """None for a line that is none, or is of a kind or form that a later version has."""
    document = line.get(KEY)
    if not isinstance(document, dict) or document.get("kind") not in _KINDS:
        return None
    kind = _KINDS[document["kind"]]
    known = {entry.name for entry in dataclasses.fields(kind)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document.items() if key in known
    }
    try:
        for key in ("step", "first_changed"):
            if isinstance(values.get(key), dict):
                values[key] = _step(values[key])
        if "steps" in values:
            values["steps"] = tuple(_step(each) for each in values["steps"])
        event: BuildEvent = kind(**values)
    except TypeError:
        return None
    return event


def _step(document: Mapping[str, Any]) -> StepInfo:
    known = {entry.name for entry in dataclasses.fields(StepInfo)}
    return StepInfo(**{key: value for key, value in document.items() if key in known})
