"""Events as Docker's API writes and filters them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from engine.errors import InvalidInput
from engine.model import EngineEvent

Filters: TypeAlias = Mapping[str, Sequence[str]]

_KNOWN = {
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service",
    "type", "volume",
}  # fmt: skip


def parse_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """`key=value` words, as `--filter` has them. Raises InvalidInput."""
    filters: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"invalid argument {text!r} for --filter: it is key=value")
        filters.setdefault(key.strip().lower(), []).append(value.strip())
    check_filters(filters)
    return filters


def check_filters(filters: Filters) -> None:
    """Raises InvalidInput for a key that there is not."""
    for key in filters:
        if key not in _KNOWN:
            raise InvalidInput(f"invalid filter {key!r}", hint=f"known: {', '.join(sorted(_KNOWN))}")


def matches(event: EngineEvent, filters: Filters) -> bool:
    """Every key must hold; of several values for one key, one is enough (of labels, all)."""
    return all(_holds(event, key, values) for key, values in filters.items() if values)


def _holds(event: EngineEvent, key: str, values: Sequence[str]) -> bool:
    attributes = event.attributes
    if key == "event":
        return any(event.action == value or event.action.startswith(f"{value}:") for value in values)
    if key == "type":
        return event.type in values
    if key == "label":
        return all(_labelled(attributes, value) for value in values)
    if key == "scope":
        return "local" in values
    if key == "image":
        names = {event.id, attributes.get("name", "")} if event.type == "image" else {attributes.get("image", "")}
        names |= {name.rpartition(":")[0] for name in names if ":" in name.rpartition("/")[2]}
        return any(value in names for value in values)
    # One of another kind of thing that names one of this (a network, its container) does not count.
    return event.type == key and any(_named(event, value) for value in values)


def _named(event: EngineEvent, value: str) -> bool:
    return bool(value) and (event.id == value or event.attributes.get("name") == value or event.id.startswith(value))


def _labelled(attributes: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in attributes and (not equals or attributes[name] == value)


def event_document(event: EngineEvent) -> dict[str, object]:
    """Docker's message, with the older fields (status, id, from) that containers and images still have."""
    document: dict[str, object] = {}
    if event.type in ("container", "image"):
        document = {"status": event.action, "id": event.id}
        if event.type == "container" and event.attributes.get("image"):
            document["from"] = event.attributes["image"]
    return {
        **document,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(sorted(event.attributes.items()))},
        "scope": "local",
        "time": event.time // 1_000_000_000,
        "timeNano": event.time,
    }
