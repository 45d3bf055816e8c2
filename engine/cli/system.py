"""`version`, `info`, `check`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.main import VERSION
from engine.cli.tables import render

if TYPE_CHECKING:
    from engine.api import Engine


def cmd_version(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "version [OPTIONS]",
        "Show the version",
        [Flag("format", "Format output: json, or a template", "f", kind="str")],
        maximum=0,
    )
    if parsed is None:
        return 0
    from engine.rest.about import machine_name

    own: dict[str, object] = {
        "Version": VERSION,
        "Python": platform.python_version(),
        "Os": "linux",
        "Arch": machine_name(),
        "KernelVersion": platform.release(),
    }
    # Client and Server, as scripts ask Docker's for them: here they are one process.
    document = {"Client": own, "Server": own, **own}
    if parsed.given("format"):
        print(render(parsed.text("format"), [document], escapes=False))
    else:
        from engine.rest.about import API_VERSION, MIN_VERSION

        newest, oldest = (".".join(map(str, version)) for version in (API_VERSION, MIN_VERSION))
        client = {
            "Version": VERSION,
            "API version": newest,
            "Python version": own["Python"],
            "OS/Arch": f"linux/{own['Arch']}",
        }
        server = {
            "Version": VERSION,
            "API version": f"{newest} (minimum version {oldest})",
            "Kernel": own["KernelVersion"],
        }
        print("Client: container-workbench")
        print("\n".join(f" {key + ':':<19}{value}" for key, value in client.items()))
        print("\nServer: container-workbench\n Engine:")
        print("\n".join(f"  {key + ':':<18}{value}" for key, value in server.items()))
    return 0


def cmd_info(root: Path, args: list[str]) -> int:
    flags = [Flag("format", "Format output: json, or a template", "f", kind="str")]
    parsed = read(args, "info [OPTIONS]", "Display what this engine and this host can do", flags, maximum=0)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        from engine.rest.about import info_document  # the API's; there is one such document

        document = info_document(await engine.info())
        if parsed.given("format"):
            more = {"ServerErrors": [], "ClientInfo": {"Debug": False, "Version": VERSION, "Context": "default"}}
            print(render(parsed.text("format"), [document | more], escapes=False))
            return 0
        print("\n".join(_info_lines(document)))
        for warning in document.get("Warnings") or ():
            print(warning if str(warning).startswith("WARNING") else f"WARNING: {warning}", file=sys.stderr)
        return 0

    return run(root, work, plain=True)


def _info_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """An engine's document in the layout of `docker info`."""
    yield f"Client: container-workbench\n Version:    {VERSION}\n Debug Mode: false\n\nServer:"
    for title, key in _COUNTS.items():
        yield f" {title}: {found.get(key, 0)}"
    yield f" Storage Driver: {found.get('Driver', '')}"
    yield from (f"  {name}: {value}" for name, value in found.get("DriverStatus") or ())
    for title, key in _DRIVERS.items():
        yield f" {title}: {found.get(key, '')}"
    plugins = found.get("Plugins") or {}
    yield " Plugins:"
    yield from (f"  {name}: {' '.join(plugins.get(name) or ())}" for name in ("Volume", "Network", "Log"))
    yield f" Swarm: {(found.get('Swarm') or {}).get('LocalNodeState', 'inactive')}"
    yield f" Runtimes: {' '.join(found.get('Runtimes') or ())}\n Default Runtime: {found.get('DefaultRuntime', '')}"
    yield " Security Options:"
    for option in found.get("SecurityOptions") or ():
        pairs = [part.partition("=")[::2] for part in str(option).split(",")]
        yield from (f"  {value}" if name == "name" else f"   {name.capitalize()}: {value}" for name, value in pairs)
    for title, key in _HOST.items():
        yield f" {title}: {found.get(key, '')}"
    yield f" Total Memory: {_binary(int(found.get('MemTotal') or 0))}"
    for title, key in _ENGINE.items():
        value = found.get(key, "")
        yield f" {title}: {str(value).lower() if isinstance(value, bool) else value}"


_COUNTS = {
    "Containers": "Containers",
    " Running": "ContainersRunning",
    " Paused": "ContainersPaused",
    " Stopped": "ContainersStopped",
    "Images": "Images",
    "Server Version": "ServerVersion",
}
_DRIVERS = {"Logging Driver": "LoggingDriver", "Cgroup Driver": "CgroupDriver", "Cgroup Version": "CgroupVersion"}
_HOST = {
    "Kernel Version": "KernelVersion",
    "Operating System": "OperatingSystem",
    "OSType": "OSType",
    "Architecture": "Architecture",
    "CPUs": "NCPU",
}
_ENGINE = {
    "Name": "Name",
    "ID": "ID",
    "Docker Root Dir": "DockerRootDir",
    "Debug Mode": "Debug",
    "Experimental": "ExperimentalBuild",
    "Live Restore Enabled": "LiveRestoreEnabled",
}


def _binary(size: int) -> str:
    """Bytes as `docker info` prints the memory: 23.54GiB."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < 5:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.4g}{('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit]}"


def cmd_check(root: Path, args: list[str]) -> int:
    flags = [
        Flag("files", "Compare each file of unpacked layers with its layer, too"),
        Flag("repair", "Fetch or make again what is damaged or missing"),
    ]
    parsed = read(args, "check [OPTIONS]", "Verify the store and name what is damaged", flags, maximum=0)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        findings = await engine.check(repair=parsed.on("repair"), files=parsed.on("files"))
        for finding in findings:
            done = ": mended" if finding.mended else f" ({finding.why})" if finding.why else ""
            print(f"{finding.kind}: {finding.path}: {finding.problem}{done}")
        left = sum(not finding.mended for finding in findings)
        if left:
            again = " ".join(["workbench check", *(["--files"] if parsed.on("files") else []), "--repair"])
            hint = "pull or build what they name again" if parsed.on("repair") else f"`{again}` mends them"
            print(f"{left} problem{'s' if left > 1 else ''}; {hint}")
        else:
            print("the store is whole")
        return 1 if left else 0

    return run(root, work)
