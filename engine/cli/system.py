"""`version`, `info`, `check`."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

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
    own: dict[str, object] = {
        "Version": VERSION,
        "Python": platform.python_version(),
        "Os": "linux",
        "Arch": platform.machine(),
        "KernelVersion": platform.release(),
    }
    # Client and Server, as scripts ask Docker's for them: here they are one process.
    document = {"Client": own, "Server": own, **own}
    if parsed.given("format"):
        print(render(parsed.text("format"), [document], escapes=False))
    else:
        from engine.rest.router import API_VERSION, MIN_VERSION

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
        info = await engine.info()
        if parsed.given("format"):
            document = {
                "ServerVersion": info.version,
                "DockerRootDir": info.root,
                "KernelVersion": info.kernel,
                "CgroupVersion": info.cgroup.removeprefix("v"),
                "Images": info.images,
                "Containers": info.containers,
                "ContainersRunning": info.running,
                "Runtimes": {name: {"path": path} for name, path in info.runtimes.items()},
                "DefaultRuntime": info.default_runtime,
                "OSType": "linux",
                "Architecture": platform.machine(),
                "Name": platform.node(),
                "NCPU": os.cpu_count() or 1,
                "Warnings": list(info.notes),
            }
            print(render(parsed.text("format"), [document], escapes=False))
            return 0
        print(
            f"Version:    {info.version}\nRoot:       {info.root}\nKernel:     {info.kernel}\nCgroup:     {info.cgroup}"
        )
        print(f"Images:     {info.images}\nContainers: {info.containers} ({info.running} running)")
        print(f"Runtimes:   {' '.join(info.runtimes)} (default: {info.default_runtime})")
        for note in info.notes:
            print(f"Note:       {note}")
        return 0

    return run(root, work, plain=True)


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
