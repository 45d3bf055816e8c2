"""What the palette offers, and what the help of a pane says: both made of the bindings and of the table of commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual.app import App

from workbench import commands, keymaps, themes
from workbench.layout import PANES
from workbench.panes.base import Pane
from workbench.screens.palette import Entry
from workbench.state import neutral
from workbench.subjects import Subject, image_subjects

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.screens.texts import Section

MANY = 300  # objects up to which each has its commands in the palette by its own name
READ_ONLY = "not with --read-only"
_SHORT = ("container.stop", "container.start", "container.restart", "container.shell", "container.remove")


def entries(app: WorkbenchApp) -> list[Entry]:
    return [*_actions(app), *_views(app), *_places(app), *_objects(app), *_choices(app)]


def _off(app: WorkbenchApp, identity: str) -> str:
    return READ_ONLY if app.read_only and commands.writes(identity) else ""


def _actions(app: WorkbenchApp) -> Iterator[Entry]:
    for command in commands.TABLE:
        subjects = app.subjects_of(command)
        kind = subjects[0].kind if subjects else None
        if command.kinds and kind not in command.kinds:
            continue
        about = ""
        if command.kinds:
            about = f" {neutral(subjects[0].name)}" if len(subjects) == 1 else f" {len(subjects)} marked"
        run = partial(app.perform, command, subjects if command.kinds else ())
        yield Entry(
            f"{command.title}{about}", "action", app.keys.here(command.id), run, command.help, _off(app, command.id)
        )


def _views(app: WorkbenchApp) -> Iterator[Entry]:
    """What the keys of the focused pane, and those of the app, do beside the commands."""
    seen = set()
    for node, binding, _, _ in app.grid.screen.active_bindings.values():
        name = binding.id or ""
        if not binding.description or name in seen or name in commands.BY_ID or name.startswith(("list.", "pane.")):
            continue
        seen.add(name)
        if isinstance(node, App | Pane):
            where = node.TITLE if isinstance(node, Pane) else "app"
            run = partial(app.run_later, binding.action, node)
            yield Entry(
                f"{where}: {binding.description}", "view", app.keys.here(name), run, binding.tooltip, _off(app, name)
            )


def _places(app: WorkbenchApp) -> Iterator[Entry]:
    for name in PANES:
        pane = app.panes[name]
        yield Entry(f"go to {pane.TITLE}", "pane", app.keys.here(f"pane.{name}"), partial(app.action_pane, name))


def _objects(app: WorkbenchApp) -> Iterator[Entry]:
    lists = app.lists
    found: list[tuple[str, Subject]] = []
    found += [("services", Subject("service", one.service, one.service, one)) for one in lists.services]
    found += [("containers", Subject("container", one.id, one.name, one)) for one in lists.containers]
    found += [("images", subject) for subject in image_subjects(lists.images)]
    found += [("volumes", Subject("volume", one.name, one.name, one)) for one in lists.volumes]
    found += [("networks", Subject("network", one.id, one.name, one)) for one in lists.networks]
    for pane, subject in found:
        yield Entry(neutral(subject.name), subject.kind, "", partial(app.go_to, pane, subject))
    if len(lists.containers) <= MANY:
        for pane, subject in found:
            for identity in _SHORT if pane == "containers" else ():
                command = commands.BY_ID[identity]
                run = partial(app.perform, command, (subject,))
                title = f"{command.title} {neutral(subject.name)}"
                yield Entry(title, "container", "", run, command.help, _off(app, command.id))


def _choices(app: WorkbenchApp) -> Iterator[Entry]:
    for name in themes.NAMES:
        yield Entry(f"theme: {name}", "setting", "", partial(app.use_theme, name), "Colours, kept for this folder")
    for name in keymaps.NAMES:
        yield Entry(
            f"keys: {name}", "setting", "", partial(app.keys.use, name), "Until the app ends; config.toml keeps it"
        )


def sections(app: WorkbenchApp) -> list[Section]:
    """The keys that work in the focused pane, by who they belong to."""
    groups: dict[str, dict[str, tuple[list[str], str]]] = {}
    for key, (node, binding, _, _) in app.grid.screen.active_bindings.items():
        if not binding.id or binding.id.startswith("log.") or binding.key.startswith("unbound-"):
            continue
        if isinstance(node, Pane) and not binding.id.startswith("list."):
            group = node.TITLE
        elif isinstance(node, App):
            group = "everywhere"
        else:
            group = "moving and marking"
        off = _off(app, binding.id)
        what = f"{binding.tooltip or binding.description}{f' ({off})' if off else ''}"
        keys, _ = groups.setdefault(group, {}).setdefault(binding.id, ([], what))
        keys.append(app.keys.shown(key))
    order = sorted(groups, key=lambda group: (group == "everywhere", group == "moving and marking"))
    return [(group, _pairs(list(groups[group].values()))) for group in order]


def _pairs(rows: Sequence[tuple[list[str], str]]) -> list[tuple[str, str]]:
    return [(" ".join(keys), what) for keys, what in rows]
