"""Engine records as the cells of the lists (pure). A column list and the function that fills it stand together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.base.units import human_size
from workbench.state import AMBER, DIM, GLYPHS, GREEN, PHASES, RED, brief_port, brief_when, neutral
from workbench.table import Column, natural_key

if TYPE_CHECKING:
    from engine.api import ContainerSummary, EngineEvent, ImageSummary, NetworkInfo, ServiceState, VolumeInfo
    from workbench.messages import Reading
    from workbench.subjects import Lists

_DOTS = {"●": GREEN, "◐": AMBER, "◑": AMBER, "↓": AMBER, "‖": AMBER, "↻": AMBER, "✗": RED, "": DIM}
_HEALTH = {"healthy": GREEN, "starting": AMBER, "unhealthy": RED}

SERVICES = (
    Column(styles=_DOTS),
    Column(grow=True, title="SERVICE"),
    Column(title="STATE", styles={"failed": RED, "building": AMBER}),
    Column(right=True, title="GEN", drop=10, key=lambda state: state.generation),
    Column(title="DRIFT", drop=20, styles={"": AMBER}),
)
CONTAINERS = (
    Column(styles=_DOTS),
    Column(grow=True, title="CONTAINER", key=lambda one: natural_key(one.name)),
    Column(title="STATE", styles={"dead": RED}),
    Column(title="HEALTH", drop=30, styles=_HEALTH),
    Column(title="PORTS", drop=40, cap=24, squeeze=6),
    Column(right=True, title="CPU", drop=50, least=5),
    Column(right=True, title="MEMORY", drop=55, least=6),
    Column(right=True, title="STARTS", drop=35, styles={"": AMBER}, key=lambda one: one.restart_count),
    Column(right=True, title="GEN", drop=70),
    Column(right=True, title="SINCE", drop=60, styles={"": DIM}, key=lambda one: one.started),
    Column(title="IMAGE", drop=80, cap=32, styles={"": DIM}),
)
EVENTS = (
    Column(title="TIME", styles={"": DIM}, key=lambda event: event.seq),
    Column(title="TYPE"),
    Column(title="ACTION", cap=40, styles={"die": AMBER, "oom": RED, "health_status: unhealthy": RED}),
    Column(grow=True, title="NAME"),
    Column(title="DETAIL", drop=30, cap=60, styles={"": DIM}),
)
CPU, MEMORY = 5, 6  # of CONTAINERS: what only readings say
IMAGES = (
    Column(grow=True, title="IMAGE", ends=True),
    Column(title="USED BY", drop=40, cap=28, squeeze=8, styles={"": GREEN}),
    Column(right=True, title="SIZE", key=lambda one: one.size),
    Column(right=True, title="SHARED", drop=30, styles={"": DIM}),
    Column(right=True, title="CREATED", drop=20, styles={"": DIM}, key=lambda one: one.created),
)
VOLUMES = (
    Column(grow=True, title="VOLUME"),
    Column(title="USED BY", drop=20, cap=32, styles={"": GREEN}),
    Column(right=True, title="SIZE", key=lambda one: one.size),
    Column(title="DRIVER", drop=40, styles={"": DIM}),
    Column(right=True, title="CREATED", drop=30, styles={"": DIM}, key=lambda one: one.created),
)
NETWORKS = (
    Column(grow=True, title="NETWORK"),
    Column(title="DRIVER"),
    Column(title="SUBNET", drop=20),
    Column(right=True, title="CONTAINERS", drop=10),
    Column(title="", drop=30, styles={"": DIM}),
)


def service_row(state: ServiceState, lists: Lists, synced: int = 0) -> tuple[str, ...]:
    """Glyph, name, phase, generation, drift: what the running container has otherwise than its image, or than the newest one."""
    return (
        PHASES[state.phase],
        neutral(state.service),
        state.phase,
        str(state.generation) if state.generation else "",
        drift_of(state, lists, synced),
    )


def drift_of(state: ServiceState, lists: Lists, synced: int) -> str:
    container = lists.container(state.container) if state.container else None
    if synced:
        return f"{synced} synced"
    if container is not None and (image := lists.image(container.image)) and image.id != container.image_id:
        return "image newer"
    return ""


def state_word(one: ContainerSummary) -> str:
    if one.oom_killed and one.status == "exited":
        return "out of memory"
    if one.status == "exited":
        return f"exit {one.exit_code if one.exit_code is not None else '?'}"
    return one.status


def container_row(one: ContainerSummary, reading: Reading | None = None, now: float | None = None) -> tuple[str, ...]:
    """As CONTAINERS. Times are the clock's, not "5 minutes ago": so a row changes only when its container does."""
    ports = " ".join(dict.fromkeys(map(brief_port, one.ports)))
    return (
        GLYPHS[one.status],
        neutral(one.name),
        state_word(one),
        one.health,
        ports,
        brief_percent(reading.cpu) if reading and one.running else "",
        brief_bytes(reading.stats.memory.used) if reading and one.running else "",
        str(one.restart_count) if one.restart_count else "",
        one.labels.get("workbench.generation", ""),
        brief_when(one.started if one.running else one.finished or one.created, now),
        neutral(one.image),
    )


def image_name(one: ImageSummary, tag: str = "") -> str:
    """The tag (else its first one) as people write it, or a short id."""
    tag = tag if tag in one.tags else one.tags[0] if one.tags else ""
    return neutral(tag).removesuffix(":latest") if tag else f"<none> {one.id[7:15]}"


def image_row(one: ImageSummary, tag: str = "", shared: int | None = None, now: float | None = None) -> tuple[str, ...]:
    return (
        image_name(one, tag),
        neutral(" ".join(one.used_by)),
        human_size(one.size),
        human_size(shared) if shared else "",
        brief_when(one.created, now),
    )


def volume_row(one: VolumeInfo, size: int = -1, now: float | None = None) -> tuple[str, ...]:
    name = neutral(one.name[:12] if one.anonymous else one.name)
    size = max(size, one.size)
    return (
        name,
        neutral(" ".join(one.used_by)),
        human_size(size) if size >= 0 else "",
        neutral(one.driver),
        brief_when(one.created, now),
    )


def network_row(one: NetworkInfo, containers: int = 0) -> tuple[str, ...]:
    flags = " ".join(word for word, on in (("internal", one.internal), ("ipv6", one.enable_ipv6)) if on)
    return neutral(one.name), one.driver, subnet_of(one), str(containers) if containers else "", flags


def subnet_of(one: NetworkInfo) -> str:
    ipam = one.config.get("IPAM")
    pools = ipam.get("Config") if isinstance(ipam, Mapping) else None
    if isinstance(pools, Sequence) and pools and isinstance(pools[0], Mapping):
        return neutral(str(pools[0].get("Subnet", "")))
    return ""


def brief_percent(value: float) -> str:
    """A share of one CPU; the smallest movements of an idle one are none."""
    if value < 0.5:
        return "0 %"
    return f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


def brief_bytes(size: float) -> str:
    """Two digits at least, no more than the eye needs: 9.1MB, 20MB, 1.3GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f}{unit}" if size >= 9.95 or unit == "B" else f"{size:.1f}{unit}"
        size /= 1000
    return f"{size:.1f}TB"


def event_row(event: EngineEvent, name: str) -> tuple[str, ...]:
    """As EVENTS."""
    moment = time.strftime("%H:%M:%S", time.localtime(event.time / 1e9))
    shown = ("exitCode", "signal", "image", "container")
    detail = " ".join(f"{key}={event.attributes[key][:40]}" for key in shown if event.attributes.get(key))
    return moment, event.type, neutral(event.action), neutral(name), neutral(detail)
