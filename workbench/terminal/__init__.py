"""A terminal emulator: what a program writes becomes a grid of cells, what a user presses becomes bytes for it. No widget, no
engine: `workbench.widgets.terminal_view` draws it, `workbench.panes.terminal` joins it to a container.

Our own and not pyte, which was tried: 0.26 MB/s where this reads 5 to 13, no alternate screen, no scrolling up and down by a
program (SU, SD), no repeated character (REP), device control strings printed as text, and `CSI > 4 ; 2 m`, with which vim
begins, taken for an underline. The sequences are those of ECMA-48 and of xterm's "Control Sequences", as TERM=xterm-256color
promises them.
"""
