"""systemd units for `workbench serve`: what they say, where they are, and how they go again.

The texts are pure (systemd.service(5), systemd.socket(5)); `systemd-analyze verify` finds no fault in them. Root gets units
of the system, an ordinary user its own. Containers live in scopes of their own, and KillMode=process leaves alone what is
in the service's group where there is no scope: stopping or restarting the service ends no container.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.atomic import write_atomic
from engine.errors import Conflict, from_os_error

NAME = "workbench"
_MARK = "# Written by `workbench serve --install`; `workbench serve --uninstall` removes it.\n"
SYSTEM = Path("/etc/systemd/system")


@dataclass(frozen=True, slots=True)
class Plan:
    """`user`: units of an ordinary user's own manager. `command` is the whole command line of the service."""

    folder: Path
    user: bool
    command: Sequence[str]
    socket: Path
    group: str = ""  # of the socket; "" leaves it root's, or the user's

    @property
    def ctl(self) -> str:
        return "systemctl --user" if self.user else "systemctl"


def folder(*, user: bool) -> Path:
    if not user:
        return SYSTEM
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"


def program() -> list[str]:
    """How this very program is started again, from anywhere: its script, or its interpreter and module."""
    script = Path(sys.argv[0]).absolute()
    if script.name == "workbench" and os.access(script, os.X_OK):
        return [str(script)]
    return [sys.executable, "-m", "engine.cli.main"]


def quote(word: str) -> str:
    """One word of a command line in a unit: systemd.service(5), "Command lines"; % is a specifier, $ a variable."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return f'"{text}"' if not text or any(c in text for c in " \t;'\"\\") else text


def service(plan: Plan) -> str:
    network = "" if plan.user else "After=network-online.target\nWants=network-online.target\n"
    rank = "" if plan.user else "OOMScoreAdjust=-500\n"
    modules = "" if plan.command[0].endswith("/workbench") else f"Environment={quote(f'PYTHONPATH={_modules()}')}\n"
    return f"""{_MARK}[Unit]
Description=container-workbench: the Docker Engine API
{network}Requires={NAME}.socket
After={NAME}.socket

[Service]
Type=notify
ExecStart={" ".join(map(quote, plan.command))}
{modules}Restart=on-failure
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
{rank}
[Install]
WantedBy={"default.target" if plan.user else "multi-user.target"}
Also={NAME}.socket
"""


def _modules() -> str:
    """Where the interpreter found what it runs, when that is no installation with a script."""
    return os.environ.get("PYTHONPATH") or str(Path(__file__).resolve().parents[2])


def socket_unit(plan: Plan) -> str:
    group = f"SocketGroup={plan.group}\n" if plan.group else ""
    path = str(plan.socket).replace("%", "%%")
    return f"""{_MARK}[Unit]
Description=container-workbench: where the Docker Engine API is reached

[Socket]
ListenStream={path}
SocketMode=0660
DirectoryMode=0711
{group}RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""


def install(plan: Plan) -> list[str]:
    """Writes both units; what was done and what to run next, in lines. Raises Conflict for units that are not ours."""
    units = {f"{NAME}.service": service(plan), f"{NAME}.socket": socket_unit(plan)}
    for name in units:
        _check(plan.folder / name)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            write_atomic(plan.folder / name, text.encode(), 0o644)
    except OSError as error:
        raise from_os_error(error, f"writing units into {plan.folder}") from error
    said = [f"wrote {plan.folder / name}" for name in units]
    said += ["now run:", f"  {plan.ctl} daemon-reload", f"  {plan.ctl} enable --now {NAME}.socket {NAME}.service"]
    if plan.user:
        said.append("  loginctl enable-linger     # else it ends with your last session, and your containers with it")
    return [*said, f"  export DOCKER_HOST=unix://{plan.socket}"]


def uninstall(plan: Plan) -> list[str]:
    """Removes both units, and the links of those that were enabled."""
    names = [f"{NAME}.socket", f"{NAME}.service"]
    there = [plan.folder / name for name in names if (plan.folder / name).exists()]
    for path in there:
        _check(path)
    links = [link for name in names for link in plan.folder.glob(f"*.wants/{name}")]
    try:
        for path in (*links, *there):
            path.unlink()
            with contextlib.suppress(OSError):  # others are in it
                if path in links:
                    path.parent.rmdir()
    except OSError as error:
        raise from_os_error(error, f"removing units from {plan.folder}") from error
    if not there:
        return [f"no units of ours in {plan.folder}"]
    said = [f"removed {path}" for path in there]
    return [*said, "now run (containers go on):", f"  {plan.ctl} stop {' '.join(names)}", f"  {plan.ctl} daemon-reload"]


def _check(path: Path) -> None:
    try:
        ours = path.read_text(encoding="utf-8", errors="replace").startswith(_MARK)
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error
    if not ours:
        raise Conflict(f"{path} was not written by workbench", hint="move it away, or edit it by hand")
