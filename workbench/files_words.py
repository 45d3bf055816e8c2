"""What is said about files of layers, as lines to read (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.base.units import human_size
from workbench.highlight import diff_lines, file_lines, hex_lines
from workbench.state import neutral
from workbench.widgets.lines_view import TextLine

if TYPE_CHECKING:
    from engine.api import FileComparison, FileContent, FileDifference, FileStep, LayerInfo, WasteReport

_DID = {"A": "made by", "M": "changed by", "D": "removed by"}
_STYLES = {"A": "success", "M": "warning", "D": "error", "added": "success", "changed": "warning", "removed": "error"}
_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def _instruction(step: FileStep) -> str:
    where = f" (line {step.line})" if step.line else ""
    return f"#{step.index} {neutral(' '.join(step.instruction.split()))[:60]}{where}"


def history_words(steps: Sequence[FileStep]) -> str:
    """`made by #3 COPY . . (line 5), changed by #5 RUN …`; of many the first and the last two."""
    words = [f"{_DID.get(step.mark, '')} {_instruction(step)}" for step in steps]
    if len(words) > 3:
        words = [words[0], f"{len(words) - 3} more", *words[-2:]]
    return ", ".join(words)


def step_lines(steps: Sequence[FileStep]) -> list[TextLine]:
    lines = []
    for step in steps:
        about = "" if step.mark == "D" else f"   {step.mode:04o} {step.uid}:{step.gid} {human_size(step.size)}"
        lines.append(TextLine(f"{_DID.get(step.mark, '')} {_instruction(step)}{about}", _STYLES.get(step.mark, "")))
    return lines


def content_lines(found: FileContent) -> tuple[list[TextLine], str]:
    """A file's lines, and what is to be said of it."""
    if found.kind == "link":
        return [TextLine(f"a symbolic link to {neutral(found.link)}"), TextLine("It is not followed.", "dim")], "link"
    if found.kind != "file":
        return [TextLine(f"no file: {found.kind}")], found.kind
    cut = f", the first {human_size(len(found.data))} shown" if found.truncated else ""
    if found.text:
        return file_lines(found.path, found.data.decode(errors="replace")), f"{human_size(found.size)}{cut}"
    return hex_lines(found.data), f"{human_size(found.size)}, no text: its first bytes"


def comparison_lines(found: FileComparison) -> list[TextLine]:
    lines = diff_lines(found.lines) or [TextLine(neutral(found.what))]
    return [*lines, TextLine("… more lines differ than are shown", "dim")] if found.truncated and found.lines else lines


def difference_lines(found: Sequence[FileDifference]) -> list[TextLine]:
    """Most bytes of difference first."""
    lines = []
    for one in sorted(found, key=lambda one: -abs((one.after or 0) - (one.before or 0))):
        grown = (one.after or 0) - (one.before or 0)
        what = f"   {neutral(one.what)}" if one.kind == "changed" else ""
        text = f"{_SIGNS[one.kind]} {'-' if grown < 0 else '+'}{human_size(abs(grown)):<9} {neutral(one.path)}{what}"
        lines.append(TextLine(text, _STYLES[one.kind], key="" if one.path.endswith("/") else one.path))
    return lines or [TextLine("Nothing differs.", "dim")]


def waste_lines(report: WasteReport, layers: Sequence[LayerInfo]) -> list[TextLine]:
    names = {layer.index: neutral(" ".join(layer.instruction.split())) for layer in layers}
    lines = [
        TextLine(f"efficiency {report.efficiency:.1%}: of {human_size(report.shipped)} in the layers {human_size(report.wasted)} "
                 "do not show in the image", "bold"),
        TextLine(""),
        TextLine("   SHIPPED    WASTED  LAYER", "dim"),
    ]  # fmt: skip
    for layer in report.layers:
        text = f"{human_size(layer.shipped):>10}{human_size(layer.wasted):>10}  #{layer.index} {names.get(layer.index, '')}"
        lines.append(TextLine(text, "warning" if layer.wasted else ""))
    lines += [TextLine(""), TextLine("    WASTED  VERSIONS  PATH", "dim")]
    lines += [TextLine(f"{human_size(one.size):>10}{one.times:>10}  {neutral(one.path)}") for one in report.worst]
    return lines if report.worst else [*lines, TextLine("          nothing")]


def counts_words(found: Sequence[FileDifference]) -> str:
    grown = sum((one.after or 0) - (one.before or 0) for one in found)
    return f"{len(found)} differ, {'-' if grown < 0 else '+'}{human_size(abs(grown))}; enter shows one"
