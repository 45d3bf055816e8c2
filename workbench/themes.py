"""The themes. State is never told by colour alone, so each of them only has to be readable."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="workbench",
    primary="#7aa2d6",
    secondary="#8fb8a8",
    accent="#e0a458",
    foreground="#cfd8e3",
    background="#10141a",
    surface="#161c24",
    panel="#1b222c",
    success="#8fbf7f",
    warning="#d9b26a",
    error="#d9746a",
    dark=True,
)
LIGHT = Theme(
    name="light",
    primary="#2c5f9e",
    secondary="#3d7a66",
    accent="#9a5b00",
    foreground="#22272e",
    background="#fafafa",
    surface="#eeeeee",
    panel="#e4e4e4",
    success="#2f7d32",
    warning="#8a6100",
    error="#b3261e",
    dark=False,
)
HIGH_CONTRAST = Theme(
    name="high-contrast",
    primary="#ffffff",
    secondary="#ffffff",
    accent="#ffff00",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    success="#00ff7f",
    warning="#ffd700",
    error="#ff6b6b",
    dark=True,
)
# Blue, orange and yellow keep apart with any of the usual kinds of colour blindness (after Okabe and Ito, 2008).
COLOUR_BLIND = Theme(
    name="colour-blind",
    primary="#56b4e9",
    secondary="#0072b2",
    accent="#f0e442",
    foreground="#e8e8e8",
    background="#101318",
    surface="#171b22",
    panel="#1e232c",
    success="#56b4e9",
    warning="#f0e442",
    error="#e69f00",
    dark=True,
)
OWN = (DARK, LIGHT, HIGH_CONTRAST, COLOUR_BLIND)
# The terminal's own sixteen colours: what its user chose there, and all that some terminals have.
SIXTEEN = {"16-colour": "ansi-dark", "16-colour-light": "ansi-light"}
NAMES = (*(theme.name for theme in OWN), *SIXTEEN)


def textual_name(name: str) -> str:
    return SIXTEEN.get(name, name)


def own_name(textual: str) -> str:
    return next((name for name, value in SIXTEEN.items() if value == textual), textual)
