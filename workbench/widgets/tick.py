"""A box that is ticked or not, also where there are no colours and nothing but ASCII."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Checkbox


class Tick(Checkbox):
    DEFAULT_CSS = """
    Tick, Tick:focus { border: none; padding: 0; background: transparent; width: 1fr; }
    Tick:focus > .toggle--label { text-style: bold reverse; }
    """

    @property
    def _button(self) -> Content:
        return Content("[x]" if self.value else "[ ]")
