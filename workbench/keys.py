"""Which key does what: the app's own bindings, the key map that holds, the user's keys over it, and the line that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.dom import DOMNode

from workbench import commands, keymaps
from workbench.layout import PANES
from workbench.widgets.key_line import Hint, KeyLine

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.panes.base import Pane


def app_bindings() -> list[Binding]:
    """What works in every pane: an action of the app's, its short word, its id, and what it does."""
    rest = (
        ("tab", "neighbour(1)", "Next pane", "pane.next", "Go to the next pane"),
        ("shift+tab", "neighbour(-1)", "Pane before", "pane.before", "Go to the pane before"),
        ("right_square_bracket", "tab(1)", "Next tab", "tab.next", "Next tab of this pane"),
        ("left_square_bracket", "tab(-1)", "Tab before", "tab.before", "Tab before this one"),
        ("z", "zoom('full')", "Zoom", "pane.zoom", "Give the pane the whole screen, or take it back"),
        ("plus", "larger(1)", "Larger", "pane.larger", "Normal, half and whole screen"),
        ("underscore", "larger(-1)", "Smaller", "pane.smaller", "Whole, half and normal screen"),
        ("colon,ctrl+p", "palette", "Palette", "app.palette", "Any action or object by a few letters of its name"),
        ("question_mark,f1", "help", "Help", "app.help", "All keys of this pane"),
        ("C", "command_log", "Command log", "app.commands", "What was done here, as command lines"),
        ("m", "mouse", "Mouse", "app.mouse", "Release the mouse to the terminal, or take it back"),
        ("ctrl+l", "redraw", "Redraw", "app.redraw", "Draw the whole screen again"),
        ("f5", "refresh_lists", "Refresh", "app.refresh", "Read everything again"),
        ("ctrl+x", "cancel", "Cancel", "app.cancel", "Cancel the pull, push or build that was started here last"),
        ("escape", "clear", "Back", "app.back", "Clear the filter or the marks, else go back"),
        ("q", "leave", "Quit", "app.quit", "Clear the filter, else quit; containers go on"),
    )
    go = [
        Binding(commands.NUMBERS.get(name, f"unbound-pane-{name}"), f"pane('{name}')", name, show=False, id=f"pane.{name}", tooltip=f"Go to {name}")
        for name in PANES
    ]  # fmt: skip
    acts = [commands.binding(command) for command in commands.TABLE if not command.kinds]
    return [
        *go,
        *acts,
        *(Binding(key, act, word, show=False, id=name, tooltip=tip) for key, act, word, name, tip in rest),
    ]


class Keys:
    """The keys of one app: `map` by the ids of actions over `native`, what the code says."""

    def __init__(self, app: WorkbenchApp) -> None:
        self._app = app
        self.line = KeyLine()
        self.map: Mapping[str, str] = {}
        self.native: dict[str, str] = {each.id: each.key for each in app.BINDINGS if each.id}

    def learn(self) -> None:
        """The panes are there: reads their bindings."""
        for pane in self._app.panes.values():
            for scope in self.scopes(pane):
                for binding in scope:
                    if binding.id:
                        self.native[binding.id] = binding.key

    def scopes(self, pane: Pane) -> list[list[Binding]]:
        """The bindings that hold in a pane: its main widget's, its own, the app's. One binding an id, with all its keys."""
        nodes: list[DOMNode] = [pane.main, pane, self._app]
        found = []
        for node in nodes:
            by_id: dict[str, Binding] = {}
            for _, binding in node._bindings:
                if binding.id and binding.id in by_id:
                    binding = binding.with_key(f"{by_id[binding.id].key},{binding.key}")
                if binding.id:
                    by_id[binding.id] = binding
            found.append(list(by_id.values()))
        return found

    def use(self, name: str) -> None:
        """The key map, and over it the user's own keys. What clashes is said."""
        settings = self._app.settings
        problems = list(settings.problems)
        try:
            found = keymaps.load(name)
        except KeyError:
            found = {}
            problems.append(f"there is no key map {name!r}: {', '.join(keymaps.NAMES)}")
        self.map = {**found, **settings.keys}
        scopes = {pane.TITLE: [b for scope in self.scopes(pane) for b in scope] for pane in self._app.panes.values()}
        mine = set(settings.keys)
        told = keymaps.clashes(scopes, self.map) if mine else []
        about = ((each, sorted(name for name in mine if name in each)) for each in told)
        problems += [f"{settings.places.get(names[0], '[keys]')}: {each}" for each, names in about if names]
        self._app.set_keymap(dict(self.map))
        shown = {name: self.of(f"pane.{name}").split(" ")[0] for name in PANES}
        self._app.grid.number({name: key for name, key in shown.items() if len(key) == 1})
        if problems:
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            self._app.trouble("; ".join(problems[:3]) + more)
        self.draw()

    def shown(self, key: str) -> str:
        """A key as people read it; of several the first."""
        return self._app.get_key_display(Binding(key.split(",")[0], ""))

    def of(self, identity: str) -> str:
        """All keys of an action as they are shown, "" where it has none."""
        keys = self.map.get(identity) or self.native.get(identity, "")
        return " ".join(self.shown(key) for key in keys.split(",") if key and not key.startswith("unbound-"))

    def here(self, identity: str) -> str:
        """As `of`, but only those keys that the focused pane does not take for something else."""
        active = self._app.grid.screen.active_bindings
        keys = (self.map.get(identity) or self.native.get(identity, "")).split(",")
        names = [each.key for key in keys if key for each in Binding.make_bindings([Binding(key, "")])]
        taken = {name for name in names if name in active and active[name].binding.id not in (identity, None)}
        return " ".join(self.shown(name) for name in names if name not in taken and not name.startswith("unbound-"))

    def draw(self) -> None:
        """The line of keys below, for the pane that has the focus."""
        app, hints = self._app, dict[str, Hint]()
        if getattr(app.focused, "inside", False):
            self.line.show([Hint("F12", "leaves; every other key is the program's")])
            return
        for node, binding, _, _ in app.grid.screen.active_bindings.values():
            if binding.show and binding.id and binding.id not in hints and node in (app.pane, app.pane.main):
                enabled = not (app.read_only and commands.writes(binding.id))
                word = binding.description.lower()
                hints[binding.id] = Hint(app.get_key_display(binding), word, binding.action, enabled)
        ends = (
            ("app.palette", ":", "palette", "find"),
            ("app.help", "?", "help", "help"),
            ("app.quit", "q", "leave", "quit"),
        )
        for identity, key, action, word in ends:
            shown = self.shown(self.map[identity]) if identity in self.map else key
            hints[identity] = Hint(shown, word, f"app.{action}", last=True)
        self.line.show(list(hints.values()))
