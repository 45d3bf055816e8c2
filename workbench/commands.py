"""The one table of what can be done: key bindings, palette, help, footer, command log and `--read-only` are derived from it.

An entry says on what it acts, how it is asked for, and what the same is on the command line; `workbench.actions` performs it
under its id. Keys that only move or show something inside a pane are BINDINGS of that pane, and have ids as well.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

from workbench.subjects import Kind, Subject

Needs = Literal["", "confirm", "form"]
Line = Callable[[Sequence[Subject]], str]

# Which digit goes to which pane; the others are reached by `[ ]`, tab and the palette.
NUMBERS = {
    "services": "1",
    "containers": "2",
    "images": "3",
    "layers": "4",
    "build": "5",
    "logs": "6",
    "volumes": "7",
    "networks": "8",
    "stats": "9",
    "events": "0",
}


@dataclass(frozen=True, slots=True)
class Command:
    """`id` is "<noun>.<verb>". `kinds` are the subjects it acts on, () is none: it concerns the app. `writes`: not under
    `--read-only`. `many`: on all marked ones at once. `needs` "confirm" names the objects and asks first."""

    id: str
    title: str
    help: str
    keys: str  # Textual's names with commas between; "" is reached by the palette
    kinds: tuple[Kind, ...] = ()
    line: Line | None = None
    writes: bool = True
    many: bool = True
    needs: Needs = ""
    footer: bool = False

    @property
    def noun(self) -> str:
        return self.id.partition(".")[0]


def _names(subjects: Sequence[Subject]) -> str:
    return " ".join(shlex.quote(each.name) for each in subjects)


def _verb(words: str) -> Line:
    return lambda subjects: f"workbench {words} {_names(subjects)}".rstrip()


def _container(verb: str, title: str, help: str, keys: str, words: str = "", **more: object) -> Command:
    line = _verb(words or verb)
    return Command(f"container.{verb}", title, help, keys, ("container", "service"), line, **more)  # type: ignore[arg-type]


TABLE: tuple[Command, ...] = (
    _container("stop", "Stop", "Stop: the stop signal, ten seconds, then KILL", "s", footer=True),
    _container("start", "Start", "Start again", "S", footer=True),
    _container("restart", "Restart", "Stop and start", "R", footer=True),
    _container("pause", "Pause", "Stop every process where it stands, or let them go on", "p"),
    _container("kill", "Kill", "KILL its first process", "ctrl+k", needs="confirm"),
    _container("remove", "Remove", "Stop and remove", "d,ctrl+d,delete", "rm -f", needs="confirm", footer=True),
    _container("shell", "Shell", "A shell inside", "E", "exec -it", many=False, footer=True),
    _container("attach", "Attach", "Its own input and output", "a", many=False),
    _container("top", "Processes", "Its processes", "t", many=False, writes=False),
    _container("changes", "Changed files", "What it changed of its image's files; enter shows one", "f", "diff", many=False, writes=False),
    _container("browse", "Open page", "Its published port in the browser; over ssh the address is copied", "w", many=False, writes=False),
    _container("rename", "Rename", "Another name", "f2", many=False, needs="form"),
    _container("commit", "Commit", "Make an image of it as it is", "c", many=False, needs="form"),
    Command("service.rebuild", "Rebuild", "Build and replace now", "r", ("service", "container"), None, footer=True),
    Command(
        "service.rollback",
        "Roll back",
        "Run an earlier generation again",
        "B",
        ("service", "container"),
        _verb("rollback"),
        many=False,
        needs="form",
    ),
    Command("service.compare", "Compare", "What the generation that serves has otherwise than an earlier one", "equals_sign", ("service", "container"), _verb("generations"), writes=False, many=False),
    Command("image.run", "Run", "A new container, by a form", "x", ("image",), _verb("run -d"), many=False, needs="form", footer=True),
    Command("image.tag", "Tag", "Another name for it", "t", ("image",), _verb("tag"), many=False, needs="form"),
    Command("image.push", "Push", "To the registry that its name says", "P", ("image",), _verb("push")),
    Command("image.pull", "Pull", "Fetch it anew, or another one", "u", ("image",), _verb("pull"), many=False, needs="form"),
    Command("image.remove", "Remove", "Untag, and delete what has no tag left", "d,ctrl+d,delete", ("image",), _verb("rmi"), needs="confirm", footer=True),
    Command("volume.create", "Create", "A new volume", "A", ("volume",), _verb("volume create"), many=False, needs="form"),
    Command("volume.remove", "Remove", "Remove it with what is in it", "d,ctrl+d,delete", ("volume",), _verb("volume rm"), needs="confirm", footer=True),
    Command("network.create", "Create", "A new network", "A", ("network",), _verb("network create"), many=False, needs="form"),
    Command("network.remove", "Remove", "Remove it", "d,ctrl+d,delete", ("network",), _verb("network rm"), needs="confirm", footer=True),
    Command("build.remove", "Forget", "Remove it from the history", "d,ctrl+d,delete", ("build",), lambda s: f"workbench builds rm {' '.join(each.id for each in s)}", needs="confirm"),
    Command("item.inspect", "Inspect", "All there is to know: as a tree, or as JSON", "i", ("container", "service", "image", "volume", "network"), _verb("inspect"), writes=False, many=False, footer=True),
    Command("item.copy_name", "Copy name", "Copy the name", "y", ("container", "service", "image", "volume", "network", "layer", "build", "event"), writes=False),
    Command("item.copy_id", "Copy id", "Copy the id", "Y", ("container", "service", "image", "volume", "network", "layer", "build"), writes=False),
    Command("item.copy_command", "Copy command", "Copy the command line that makes or shows it", "ctrl+y", ("container", "service", "image", "volume", "network", "build"), writes=False, many=False),
    Command("app.build", "Build", "Build an image of a folder, by a form", "b", (), lambda _: "workbench build .", many=False, needs="form"),
    Command("app.pull", "Pull image", "Fetch an image by name", "", (), lambda _: "workbench pull", many=False, needs="form"),
    Command("app.prune", "Prune", "Remove what nobody uses: shows first what goes and how much it frees", "D", (), lambda _: "workbench system prune", needs="form"),
    Command("app.rebuild", "Rebuild all", "Build and replace every service", "ctrl+r", (), None),
)  # fmt: skip
BY_ID = {command.id: command for command in TABLE}
_PANES_OWN = ("build.shell",)  # keys of panes that change something


def writes(identity: str) -> bool:
    """Whether a command, or a pane's own key, is refused under `--read-only`."""
    return identity in _PANES_OWN or (identity in BY_ID and BY_ID[identity].writes)


def for_kind(kind: Kind) -> list[Command]:
    return [command for command in TABLE if kind in command.kinds]


def bindings(kind: Kind) -> list[Binding]:
    """Of a pane that lists subjects of this kind: each runs `act("<id>")` of the app."""
    return [binding(command) for command in for_kind(kind)]


def binding(command: Command) -> Binding:
    return Binding(
        command.keys or f"unbound-{command.id}",  # no terminal sends it; the user's keymap may give it a key
        f"app.act('{command.id}')",
        command.title,
        show=command.footer,
        id=command.id,
        tooltip=command.help,
    )
