"""Key maps: which key does what for fingers that know another program, and the user's own over it.

A map is a TOML file of `id = "keys"`: ids are those of `workbench.commands` and of the bindings of the panes, keys Textual's names
with commas between. `native` is what the code says.
"""

from __future__ import annotations

import difflib
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

from textual.binding import Binding
from textual.keys import KEY_NAME_REPLACEMENTS, KEY_TO_UNICODE_NAME, Keys

NAMES = ("native", "lazydocker", "k9s")


def load(name: str) -> dict[str, str]:
    """Raises `KeyError` for a name that is none."""
    if name in ("", "native"):
        return {}
    if name not in NAMES:
        raise KeyError(name)
    document = tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text())
    return {str(key): str(value) for key, value in document.items()}


_MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
_NAMED = {str(key.value) for key in Keys if not str(key.value).startswith("<")} - {"return"} | set(KEY_TO_UNICODE_NAME)
_NAMED |= {*KEY_NAME_REPLACEMENTS.values(), *(f"f{number}" for number in range(1, 25))}


def is_key(name: str) -> bool:
    """Whether Textual has a key of this name: `a`, `A`, `f4`, `ctrl+s`, `question_mark`, or a character by its Unicode name."""
    *modifiers, base = name.split("+") if len(name) > 1 else [name]
    if any(each not in _MODIFIERS for each in modifiers):
        return False
    if len(base) == 1:
        return base.isprintable() and not base.isspace()
    if base in _NAMED:
        return True
    try:
        found = unicodedata.lookup(base.replace("_", " ").upper())
    except KeyError:
        return False
    return base == base.lower() and found.isprintable()


def near_key(name: str) -> str:
    """A key that may have been meant, "" for none."""
    head, plus, base = name.lower().rpartition("+")
    guessed = {
        "return": "enter",
        "esc": "escape",
        "del": "delete",
        "pgup": "pageup",
        "pgdn": "pagedown",
        "bksp": "backspace",
    }
    head = head.replace("control", "ctrl").replace("option", "alt")
    for found in (guessed.get(base, base), *difflib.get_close_matches(base, sorted(_NAMED), 1)):
        if is_key(f"{head}{plus}{found}") and f"{head}{plus}{found}" != name:
            return f"{head}{plus}{found}"
    return ""


def effective(bindings: Iterable[Binding], keymap: Mapping[str, str]) -> dict[str, list[str]]:
    """Keys by id, in a scope. Bindings without an id stand for their action."""
    found: dict[str, list[str]] = {}
    for binding in Binding.make_bindings(list(bindings)):
        name = binding.id or binding.action
        if name in keymap:
            found[name] = [
                key for binding in Binding.make_bindings([Binding(keymap[name], "")]) for key in [binding.key]
            ]
        else:
            found.setdefault(name, []).append(binding.key)
    return found


def clashes(scopes: Mapping[str, Sequence[Binding]], keymap: Mapping[str, str]) -> list[str]:
    """Sentences about keys that would do two things in one scope (a pane with its list and the app around it), and about ids
    that nobody knows."""
    told: dict[tuple[str, ...], str] = {}
    known: set[str] = set()
    for scope, bindings in scopes.items():
        by_key: dict[str, set[str]] = {}
        for name, keys in effective(bindings, keymap).items():
            known.add(name)
            for key in keys:
                by_key.setdefault(key, set()).add(name)
        for key, names in by_key.items():
            if len(names) > 1:
                told.setdefault((key, *sorted(names)), f"{key} is both {' and '.join(sorted(names))} (in {scope})")
    unknown = [f"there is no action {name!r}" for name in keymap if name not in known]
    return [*told.values(), *unknown]
