"""The generations of a service: back to one of them, and what one has otherwise than the one that serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench import forms
from workbench.files_words import comparison_lines, counts_words, difference_lines
from workbench.screens.dialogs import Choose
from workbench.screens.reading import ReadingScreen
from workbench.state import neutral

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.bridge import Generation
    from workbench.subjects import Subject


async def _choose(app: WorkbenchApp, subject: Subject, title: str) -> tuple[str, Generation, Generation | None] | None:
    """The service, the generation that the user chose, and the one that serves; None: there was nothing to choose, or nothing was."""
    service, loop = app.service_of(subject), app.bridge.loop
    if loop is None or not service:
        app.trouble(f"{subject.name} is no service of a project: only those have generations")
        return None
    found, current = loop.generations(service)
    others = {str(one.number): one for one in reversed(found) if one.number != current}
    if not others:
        app.trouble(f"{service} has no generation but the one that serves")
        return None
    rows = [(number, forms.generation_row(one)) for number, one in others.items()]
    heading = title.format(service=service, current=current)
    number = await app.push_screen_wait(Choose(heading, forms.GENERATIONS, rows))
    if number is None:
        return None
    return service, others[number], next((one for one in found if one.number == current), None)


async def rollback(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    chosen = await _choose(app, subjects[0], "roll {service} back from generation {current} to")
    if chosen is None or app.bridge.loop is None:
        return
    service, one, _ = chosen
    with app.log_command(f"workbench rollback {service} {one.number}"):
        await app.bridge.loop.rollback(service, one.number)


async def compare(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    """The files of two of them; enter on one shows what differs in it."""
    chosen = await _choose(app, subjects[0], "compare generation {current} of {service} with")
    if chosen is None:
        return
    service, one, serving = chosen
    if serving is None:
        app.trouble(f"{service} runs none of its generations")
        return
    first, last = sorted((one, serving), key=lambda each: each.number)
    engine, at = app.bridge.engine, 0
    found = await engine.image_diff(first.image, last.image)
    app.log_line(f"workbench generations {service} {first.number} {last.number}")
    title, lines = f"{service}: generation {first.number} → {last.number}", difference_lines(found)
    while True:
        screen = ReadingScreen(title, lines, note=counts_words(found), choices=True, cursor=at)
        path = await app.push_screen_wait(screen)
        if not path:
            return
        at = next((number for number, line in enumerate(lines) if line.key == path), 0)
        difference = await engine.file_diff(first.image, last.image, path)
        await app.push_screen_wait(ReadingScreen(f"{title} {neutral(path)}", comparison_lines(difference)))
