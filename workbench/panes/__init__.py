"""The panes: one module, one `Pane` subclass each. `workbench.panes.base` says what a pane is and what it may count on.

`workbench.layout` names them all (`PANES`) and says where each goes at which size; `workbench.app` makes one of each class in
`ALL`. To add a pane: its name in `layout.LISTS` or `layout.OUTPUTS`, its class here, its number in `commands.NUMBERS`.
"""

from __future__ import annotations

from workbench.panes.base import Pane
from workbench.panes.build import BuildPane
from workbench.panes.builds import BuildsPane
from workbench.panes.containers import ContainersPane
from workbench.panes.events import EventsPane
from workbench.panes.explorer import ExplorerPane
from workbench.panes.images import ImagesPane
from workbench.panes.layers import LayersPane
from workbench.panes.logs import LogsPane
from workbench.panes.networks import NetworksPane
from workbench.panes.services import ServicesPane
from workbench.panes.stats import StatsPane
from workbench.panes.terminal import TerminalPane
from workbench.panes.volumes import VolumesPane

ALL: tuple[type[Pane], ...] = (
    ServicesPane,
    ContainersPane,
    ImagesPane,
    VolumesPane,
    NetworksPane,
    LayersPane,
    ExplorerPane,
    BuildPane,
    BuildsPane,
    StatsPane,
    LogsPane,
    EventsPane,
    TerminalPane,
)
