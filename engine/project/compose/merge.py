"""Joining two compose documents, the second over the first (compose-spec, 13-merge).

Mappings merge, lists append, and the exceptions are named here by path. Lists that stand for mappings (`environment` as
`- K=V`) are read as mappings, so that both forms merge with each other.
"""

from __future__ import annotations

import pathlib
from typing import Any

from engine.project.compose.positions import Map, Place, Seq, Tagged

Path = tuple[str, ...]
NOWHERE = Place(pathlib.Path(), 0)

# By the path below services.NAME (or another section's name): "*" is any one part.
_REPLACED = {
    ("services", "*", "command"),
    ("services", "*", "entrypoint"),
    ("services", "*", "healthcheck", "test"),
    ("services", "*", "develop", "watch", "*", "exec", "command"),
}
_MAPPINGS = {
    ("services", "*", "environment"): "=",
    ("services", "*", "labels"): "=",
    ("services", "*", "annotations"): "=",
    ("services", "*", "sysctls"): "=",
    ("services", "*", "extra_hosts"): "=:",
    ("services", "*", "build", "args"): "=",
    ("services", "*", "build", "labels"): "=",
    ("services", "*", "build", "extra_hosts"): "=:",
    ("services", "*", "build", "additional_contexts"): "=",
    ("services", "*", "deploy", "labels"): "=",
    ("networks", "*", "labels"): "=",
    ("volumes", "*", "labels"): "=",
    ("secrets", "*", "labels"): "=",
    ("configs", "*", "labels"): "=",
}
_NAMES = {("services", "*", "depends_on"), ("services", "*", "networks")}  # a list of names is a mapping to nothing
_BUILD = {("services", "*", "build")}
_UNIQUE = {
    ("services", "*", "volumes"),
    ("services", "*", "devices"),
    ("services", "*", "secrets"),
    ("services", "*", "configs"),
    ("services", "*", "ports"),
}
_SETS = {
    ("services", "*", key)
    for key in (
        "cap_add",
        "cap_drop",
        "expose",
        "external_links",
        "security_opt",
        "device_cgroup_rules",
        "group_add",
        "profiles",
    )
}


def _matches(path: Path, patterns: Any) -> Any:
    for pattern in patterns:
        if len(pattern) == len(path) and all(p in ("*", part) for p, part in zip(pattern, path, strict=True)):
            return pattern
    return None


def merge(base: Any, over: Any, path: Path = (), place: Place = NOWHERE) -> Any:
    """`over` laid on `base`. `!reset` takes away, `!override` replaces. `build: .` merges with a mapping form of it."""
    if isinstance(over, Tagged):
        return None if over.tag == "reset" else over.value
    if over is None:
        return base
    if base is None or _matches(path, _REPLACED):
        return over
    base, over = _shape(base, path, place), _shape(over, path, place)
    if isinstance(base, Map) and isinstance(over, Map):
        return _mappings(base, over, path)
    if isinstance(base, Seq) and isinstance(over, Seq):
        return _sequences(base, over, path)
    return over


def _mappings(base: Map, over: Map, path: Path) -> Map:
    found = base.copy_of()
    for key, value in over.items():
        if isinstance(value, Tagged) and value.tag == "reset":
            found.pop(key, None)
            continue
        found.put(key, merge(found.get(key), value, (*path, key), over.where(key)), over.where(key))
    return found


def _sequences(base: Seq, over: Seq, path: Path) -> Seq:
    found = Seq(base.place)
    unique, distinct = _matches(path, _UNIQUE), _matches(path, _SETS)
    index: dict[Any, int] = {}
    for source in (base, over):
        for value, place in zip(source, source.at, strict=True):
            key = _identity(path[-1], value) if unique else repr(value) if distinct else None
            if key is not None and key in index:
                at = index[key]
                old = found[at]
                found[at] = merge(old, value) if isinstance(old, Map) and isinstance(value, Map) else value
                found.at[at] = place
                continue
            if key is not None:
                index[key] = len(found)
            found.add(value, place)
    return found


def _identity(kind: str, value: Any) -> Any:
    """What makes two entries of a list the same resource: the target, and for ports all that the host sees."""
    if isinstance(value, Map):
        if kind == "ports":
            return tuple(str(value.get(key, "")) for key in ("host_ip", "target", "published", "protocol"))
        return str(value.get("target") or value.get("source") or repr(value))
    text = str(value)
    if kind == "ports":
        return text if "/" in text else f"{text}/tcp"
    if kind in ("secrets", "configs"):
        return text
    parts = text.split(":")
    return parts[0] if len(parts) == 1 else parts[1]


def _pairs(value: Any, separators: str) -> Any:
    """`- K=V` as a mapping; a name without a value maps to None."""
    if not isinstance(value, Seq):
        return value
    found = Map(value.place)
    for item, place in zip(value, value.at, strict=True):
        text = str(item)
        cut = min((text.index(c) for c in separators if c in text), default=-1)
        if cut < 0:
            found.put(text, None, place)
        else:
            found.put(text[:cut], text[cut + 1 :], place)
    return found


def _named(value: Any, kind: str) -> Any:
    if not isinstance(value, Seq):
        return value
    found = Map(value.place)
    for name, place in zip(value, value.at, strict=True):
        entry: Any = None
        if kind == "depends_on":
            entry = Map(place)
            entry.put("condition", "service_started", place)
        found.put(str(name), entry, place)
    return found


def _shape(value: Any, path: Path, place: Place) -> Any:
    if pattern := _matches(path, _MAPPINGS):
        return _pairs(value, _MAPPINGS[pattern])
    if _matches(path, _NAMES):
        return _named(value, path[-1])
    if _matches(path, _BUILD):
        return _build(value, place)
    return value


def _build(value: Any, place: Place) -> Any:
    """`build: .` as a mapping."""
    if not isinstance(value, str):
        return value
    found = Map(place)
    found.put("context", value, place)
    return found


def normalise(value: Any, path: Path = (), place: Place = NOWHERE) -> Any:
    """Lists that stand for mappings as mappings, `build: .` as a mapping, tags that met nothing taken out."""
    if isinstance(value, Tagged):
        return None if value.tag == "reset" else normalise(value.value, path, place)
    value = _shape(value, path, place)
    if isinstance(value, Map):
        found = Map(value.place)
        for key, item in value.items():
            if not (isinstance(item, Tagged) and item.tag == "reset"):
                found.put(key, normalise(item, (*path, key), value.where(key)), value.where(key))
        return found
    if isinstance(value, Seq):
        items = Seq(value.place)
        for index, (item, place) in enumerate(zip(value, value.at, strict=True)):
            if not (isinstance(item, Tagged) and item.tag == "reset"):
                items.add(normalise(item, (*path, str(index)), place), place)
        return items
    return value
