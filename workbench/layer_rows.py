"""Layers and builds as the cells of their lists (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.base.units import brief_seconds, human_size
from workbench.state import AMBER, DIM, GREEN, RED, brief_when, neutral
from workbench.table import Column

if TYPE_CHECKING:
    from engine.api import BuildRecord, LayerInfo, LayerWaste, WasteReport

LAYERS = (
    Column(right=True, title="#", drop=10, styles={"": DIM}, key=lambda layer: layer.index),
    Column(grow=True, title="INSTRUCTION", squeeze=30),
    Column(right=True, title="LINE", drop=60, styles={"": DIM}, key=lambda layer: layer.line),
    Column(title="HOW", short={"cached": "·", "built": "✓"}, styles={"built": GREEN, "cached": DIM}),
    Column(right=True, title="SIZE", key=lambda layer: layer.size),
    Column(right=True, title="WASTED", drop=40, styles={"": AMBER}),
    Column(right=True, title="TIME", drop=30, key=lambda layer: layer.seconds or 0),
    Column(title="WHY", drop=50, cap=44, styles={"": DIM}),
)
BUILDS = (
    Column(right=True, title="#", key=lambda record: record.number),
    Column(grow=True, title="BUILD"),
    Column(title="RESULT", styles={"failed": RED, "cancelled": AMBER, "interrupted": AMBER, "running": AMBER, "done": GREEN}),
    Column(right=True, title="CACHED", drop=30),
    Column(right=True, title="TIME", key=lambda record: record.seconds),
    Column(right=True, title="BEGUN", drop=40, styles={"": DIM}, key=lambda record: record.started),
    Column(title="WHY", drop=50, cap=48, styles={"": DIM}),
)  # fmt: skip


def layer_row(layer: LayerInfo, waste: LayerWaste | None = None) -> tuple[str, ...]:
    """As LAYERS. A step that only changes settings has no layer, so what a layer has is empty."""
    number, instruction = str(layer.index), neutral(" ".join(layer.instruction.split()))
    line = str(layer.line) if layer.line else ""
    if layer.empty:
        return number, instruction, line, "", "", "", "", ""
    return (
        number,
        instruction,
        line,
        "" if layer.cached is None else "cached" if layer.cached else "built",
        human_size(layer.size),
        human_size(waste.wasted) if waste is not None and waste.wasted else "",
        brief_seconds(layer.seconds) if layer.seconds is not None else "",
        neutral(layer.reason),
    )


def waste_words(report: WasteReport) -> str:
    """`92MB, nothing wasted`, or `92MB, 3.1MB of it wasted`: what later layers hide or write again."""
    wasted = f"{human_size(report.wasted)} of it" if report.wasted else "nothing"
    return f"{human_size(report.shipped)}, {wasted} wasted"


def build_row(record: BuildRecord, now: float | None = None) -> tuple[str, ...]:
    share = f"{record.cache_share:.0%}" if record.steps else ""
    why = record.error.splitlines()[0] if record.error else record.reason
    return (
        str(record.number),
        neutral(record.name),
        record.status,
        share,
        "" if record.status == "running" else brief_seconds(record.seconds),
        brief_when(record.started, now),
        neutral(why),
    )
