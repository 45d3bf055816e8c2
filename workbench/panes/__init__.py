"""The panes: one module, one `Pane` subclass each. `workbench.panes.base` says what a pane is and what it may count on.

`workbench.layout` names them all (`PANES`) and says where each goes at which size. A pane is imported when the app makes it: first
those that the first frame shows, then the others. To add one: its name in `layout.LISTS` or `layout.OUTPUTS`, its class here, its
number, if it gets one, in `commands.NUMBERS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.panes.base import Pane

# By name: the module, and the class in it.
CLASSES = {
    "services": ("services", "ServicesPane"),
    "containers": ("containers", "ContainersPane"),
    "images": ("images", "ImagesPane"),
    "volumes": ("volumes", "VolumesPane"),
    "networks": ("networks", "NetworksPane"),
    "layers": ("layers", "LayersPane"),
    "files": ("explorer", "ExplorerPane"),
    "build": ("build", "BuildPane"),
    "builds": ("builds", "BuildsPane"),
    "stats": ("stats", "StatsPane"),
    "logs": ("logs", "LogsPane"),
    "events": ("events", "EventsPane"),
    "terminal": ("terminal", "TerminalPane"),
}


def make(name: str) -> Pane:
    """The pane of that name."""
    module, kind = CLASSES[name]
    made: Pane = getattr(import_module(f"workbench.panes.{module}"), kind)()
    return made


class Panes(dict[str, "Pane"]):
    """Panes by name, each made when it is asked for."""

    def __missing__(self, name: str) -> Pane:
        self[name] = made = make(name)
        return made
