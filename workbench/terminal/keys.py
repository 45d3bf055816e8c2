"""What a key, a paste or the mouse sends to a program (xterm's "Control Sequences", PC-style function keys)."""

from __future__ import annotations

import contextlib
import unicodedata

from textual.keys import KEY_NAME_REPLACEMENTS

_NAMES = {short: name for name, short in KEY_NAME_REPLACEMENTS.items()}
_NAMES |= {"minus": "hyphen-minus", "less_than_sign": "less-than_sign", "greater_than_sign": "greater-than_sign"}
_CURSOR = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F"}
_TILDE = {
    "insert": 2, "delete": 3, "pageup": 5, "pagedown": 6, "f5": 15, "f6": 17, "f7": 18, "f8": 19, "f9": 20, "f10": 21,
    "f11": 23, "f12": 24, "f13": 25, "f14": 26, "f15": 28, "f16": 29, "f17": 31, "f18": 32, "f19": 33, "f20": 34,
}  # fmt: skip
_PF = {"f1": "P", "f2": "Q", "f3": "R", "f4": "S"}
_PLAIN = {"enter": "\r", "tab": "\t", "escape": "\x1b", "backspace": "\x7f", "space": " ", "shift+tab": "\x1b[Z",
          "ctrl+h": "\b", "ctrl+i": "\t", "ctrl+j": "\n", "ctrl+m": "\r", "ctrl+backspace": "\b", "shift+enter": "\r"}  # fmt: skip
_CONTROLS = {
    "at": 0, "space": 0, "left_square_bracket": 27, "backslash": 28, "right_square_bracket": 29, "circumflex_accent": 30,
    "underscore": 31, "minus": 31, "slash": 31, "question_mark": 127,
}  # fmt: skip
_MODIFIERS = {"shift": 1, "alt": 2, "ctrl": 4}


def key_bytes(key: str, character: str | None, *, application: bool = False) -> bytes:
    """Of Textual's `Key`: its name, and the character that it stands for. `application`: the cursor keys' other form (DECCKM).
    Empty for what no terminal sends."""
    if key in _PLAIN:
        return _PLAIN[key].encode()
    *held, name = key.split("+")
    modifier = 1 + sum(_MODIFIERS.get(each, 0) for each in set(held))
    if name in _CURSOR:
        if modifier > 1:
            return f"\x1b[1;{modifier}{_CURSOR[name]}".encode()
        return f"\x1b{'O' if application else '['}{_CURSOR[name]}".encode()
    if name in _PF:
        return (f"\x1b[1;{modifier}{_PF[name]}" if modifier > 1 else f"\x1bO{_PF[name]}").encode()
    if name in _TILDE:
        return (f"\x1b[{_TILDE[name]};{modifier}~" if modifier > 1 else f"\x1b[{_TILDE[name]}~").encode()
    prefix = "\x1b" if "alt" in held else ""
    if "ctrl" in held:
        if len(name) == 1 and "a" <= name.lower() <= "z":
            return (prefix + chr(ord(name.lower()) & 31)).encode()
        return (prefix + chr(_CONTROLS[name])).encode() if name in _CONTROLS else b""
    if "alt" in held:
        plain = _PLAIN.get(name) or character or _letter(name)
        return (prefix + (plain.upper() if "shift" in held else plain)).encode() if plain else b""
    return character.encode("utf-8", "replace") if character else b""


def _letter(name: str) -> str:
    """The character that Textual calls `name`: its name in Unicode, some of them shortened."""
    if len(name) == 1:
        return name
    with contextlib.suppress(KeyError):
        return unicodedata.lookup(_NAMES.get(name, name).replace("_", " "))
    return ""


def paste_bytes(text: str, *, bracketed: bool) -> bytes:
    """A paste cannot end its own brackets: what is in it stays text."""
    data = text.replace("\r\n", "\r").replace("\n", "\r")
    if bracketed:
        data = f"\x1b[200~{data.replace(chr(27), '')}\x1b[201~"
    return data.encode("utf-8", "replace")


def mouse_bytes(button: int, x: int, y: int, *, pressed: bool, sgr: bool) -> bytes:
    """`button`: 0 to 2, 64 and 65 for the wheel, +32 while moving, + 4, 8, 16 for shift, alt, ctrl. Cells from 0."""
    if sgr:
        return f"\x1b[<{button};{x + 1};{y + 1}{'M' if pressed else 'm'}".encode()
    if x > 222 or y > 222:
        return b""
    return b"\x1b[M" + bytes([32 + (button if pressed else 3), 33 + x, 33 + y])
