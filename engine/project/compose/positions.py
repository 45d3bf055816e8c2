"""YAML that knows its places: every key of a mapping and every item of a list carries its file and line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.errors import DockerfileError, InvalidInput

MAX_BYTES = 4 << 20
MAX_NODES = 200_000  # an alias bomb expands to more


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column count from 1."""

    file: Path
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"


class Map(dict[str, Any]):
    """A mapping; `at` has the place of each key, `place` its own."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.at: dict[str, Place] = {}

    def put(self, key: str, value: Any, place: Place) -> None:
        self[key] = value
        self.at[key] = place

    def where(self, key: str) -> Place:
        return self.at.get(key, self.place)

    def copy_of(self, keys: Iterable[str] | None = None) -> Map:
        found = Map(self.place)
        for key in self if keys is None else keys:
            found.put(key, self[key], self.where(key))
        return found


class Seq(list[Any]):
    """A list; `at` has the place of each item."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.at: list[Place] = []

    def add(self, value: Any, place: Place) -> None:
        self.append(value)
        self.at.append(place)


@dataclass(frozen=True, slots=True)
class Tagged:
    """`!reset` or `!override` before a value (compose-spec, 13-merge)."""

    tag: str
    value: Any


def problem(place: Place, message: str, hint: str | None = None) -> DockerfileError:
    """An error that shows the line it is about."""
    try:
        lines = place.file.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    source = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    return DockerfileError(
        message, file=str(place.file), line=place.line, column=place.column, source=source, hint=hint
    )


def read_yaml(file: Path) -> Map:
    """The file's one document as a mapping; an empty file is an empty mapping. Raises `DockerfileError`, `InvalidInput`."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise InvalidInput(f"{file} does not exist", hint="check the path") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise InvalidInput(f"{file} is larger than {MAX_BYTES >> 20} MiB")
    try:
        node = yaml.compose(raw, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1)
        raise problem(place, f"not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{file} is not YAML: {error}") from error
    if node is None:
        return Map(Place(file, 1))
    try:
        value = _Builder(file).build(node)
    except RecursionError:
        raise InvalidInput(f"{file} is nested too deeply") from None
    if not isinstance(value, Map):
        raise problem(Place(file, 1), "a compose file is a mapping", "services:\n    web:\n      build: .")
    return value


class _Builder:
    """Turns nodes into values. Tags other than YAML's own, `!reset` and `!override` are refused."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._scalars = yaml.SafeLoader("")
        self._count = 0
        self._open: set[int] = set()

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: yaml.Node) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise problem(self._place(node), "the document expands to too many values", "are there aliases in aliases?")
        if id(node) in self._open:
            raise problem(self._place(node), "an alias refers to itself")
        if node.tag in ("!reset", "!override"):
            return Tagged(node.tag[1:], None if node.tag == "!reset" else self._plain(node))
        return self._plain(node)

    def _plain(self, node: yaml.Node) -> Any:
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node)
            if isinstance(node, yaml.SequenceNode):
                found = Seq(self._place(node))
                for item in node.value:
                    found.add(self.build(item), self._place(item))
                return found
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.Node) -> Any:
        tag = node.tag
        if tag == "!override":
            tag = str(self._scalars.resolve(yaml.ScalarNode, node.value, (True, False)))  # type: ignore[no-untyped-call]
        if tag == "tag:yaml.org,2002:timestamp":  # compose has no dates: a version like 2024-01-01 stays text
            return node.value
        if not tag.startswith("tag:yaml.org,2002:"):
            raise problem(self._place(node), f"the tag {tag} is not known")
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, node.value, node.start_mark, node.end_mark))
        except (yaml.YAMLError, ValueError) as error:
            raise problem(self._place(node), f"{node.value!r}: {error}") from error

    def _mapping(self, node: yaml.MappingNode) -> Map:
        found = Map(self._place(node))
        merged: list[Map] = []
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                value = self.build(value_node)
                merged += value if isinstance(value, Seq) else [value]
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise problem(place, "a key must be a plain word")
            if key_node.value in found:
                raise problem(
                    place, f"the key {key_node.value!r} stands twice, first in line {found.at[key_node.value].line}"
                )
            found.put(key_node.value, self.build(value_node), place)
        for source in merged:
            if not isinstance(source, Map):
                raise problem(found.place, "<<: needs a mapping")
            for key, value in source.items():
                if key not in found:
                    found.put(key, value, source.where(key))
        return found
