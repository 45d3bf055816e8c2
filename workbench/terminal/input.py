"""An Escape with something right behind it, which Textual 8.2 loses.

What follows an Escape within 100 ms is taken for Alt with that key, and for a key with a name (`:`, `/`, enter) the Alt is then
forgotten: of a quick `Esc : w q` a program would get `:wq`. While a program has the keys, the Alt is kept, and `Alt :` is for a
terminal the same as `Esc :`.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual._xterm_parser import XTermParser
from textual.events import Key

_inside = False
_original = XTermParser._sequence_to_key_events


def _with_alt(self: XTermParser, sequence: str, alt: bool = False) -> Iterable[Key]:
    for key in _original(self, sequence, alt):
        if alt and _inside and len(sequence) == 1 and not key.key.startswith("alt+"):
            yield Key(f"alt+{key.key}", None)
        else:
            yield key


def program_has_keys(yes: bool) -> None:
    """From now on, or no longer."""
    global _inside
    _inside = yes


XTermParser._sequence_to_key_events = _with_alt  # type: ignore[method-assign]  # before the first parser begins
