"""Flags of the app itself: `workbench [PATH]` and `demo` take them."""

from __future__ import annotations

from engine.cli.flags import Flag

APP_FLAGS = [
    Flag("read-only", "The app: look at everything, change nothing"),
    Flag("serve", "The app: while it is open, serve the Docker API as `workbench serve` does"),
    Flag("keymap", "The app's keys: native, lazydocker, k9s", kind="str", metavar="NAME"),
    Flag(
        "theme",
        "The app's colours: workbench, light, high-contrast, colour-blind, 16-colour, 16-colour-light",
        kind="str",
        metavar="NAME",
    ),
]
