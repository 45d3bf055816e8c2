"""What scripts ask of `docker`, asked of `workbench`: fields, columns and exit codes as the docker command line (28) had them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.cli.main import main

pytestmark = pytest.mark.root
Ask = Callable[..., str]


@pytest.fixture
def ask(data_root: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Runs a verb beside one container `day` and gives what it printed; `status` is what it must end with."""

    def run(*args: str, status: int = 0) -> str:
        capfd.readouterr()
        assert main(["--root", str(data_root), *args]) == status, capfd.readouterr().err
        return capfd.readouterr().out

    flags = [
        "--network",
        "none",
        "-l",
        "a=b",
        "-l",
        "com.x=y",
        "-v",
        "day-data:/data",
        "-v",
        "/tmp:/a-long-name-of-a-folder",
    ]
    run("run", "-d", "--name", "day", *flags, "workbench/base", "sleep", "1000")
    yield run
    run("rm", "-f", "-v", "day")
    run("volume", "rm", "day-data")


def test_fields_of_ps(ask: Ask) -> None:
    assert (
        ask("ps", "--format", '{{.Names}} {{.Label "com.x"}} {{.LocalVolumes}} {{.Mounts}}')
        == "day y 1 day-data,/tmp\n"
    )
    assert re.fullmatch(r"\d+(\.\d+)?k?B \(virtual \d+(\.\d+)?MB\)\n", ask("ps", "--format", "{{.Size}}"))
    assert ask("ps", "--format", "raw").splitlines()[1:3] == ["image: workbench/base", 'command: "sleep 1000"']
    assert ask("ps", "--format", "table") == ask("ps")
    heads = ask("ps", "--format", r"table {{.ID}}\t{{.Names}}\t{{.RunningFor}}").splitlines()[0].split()
    assert heads == ["CONTAINER", "ID", "NAMES", "CREATED"]
    row = json.loads(ask("ps", "--format", "json"))
    assert row["Labels"] == "a=b,com.x=y"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} \w+", row["CreatedAt"])
    assert re.search(r"\d+B \(virtual \d+(\.\d+)?MB\)", ask("ps", "-s"))


def test_the_container_noun(ask: Ask) -> None:
    assert ask("container", "ls", "--format", "{{.Names}}") == "day\n"
    assert ask("container", "inspect", "-f", "{{.Name}}", "day") == "/day\n"
    assert ask("container", "exec", "day", "echo", "hi") == "hi\n"
    assert "day" not in ask("container", "prune", "--dry-run")
    ask("container", "nothing", status=1)


def test_fields_of_inspect(ask: Ask) -> None:
    assert ask("inspect", "-f", "{{.Config.Entrypoint}} {{.Config.Cmd}} {{.Path}}", "day") == "[] [sleep 1000] sleep\n"
    assert json.loads(ask("inspect", "--format", "json", "day"))[0]["Name"] == "/day"
    assert int(ask("inspect", "-s", "-f", "{{.SizeRootFs}}", "day")) > 1_000_000
    assert ask("inspect", "-f", "{{range .Mounts}}{{.Destination}} {{end}}", "day").split() == [
        "/data",
        "/a-long-name-of-a-folder",
    ]
    ask("inspect", "-f", "{{.Nothing}}", "day", status=1)


def test_the_rest_of_a_day(ask: Ask) -> None:
    assert ask("rm", "-f", "nobody") == "", "gone is what was wanted"
    ask("rm", "nobody", status=1)
    assert ask("version", "-f", "{{.Server.Version}}") == ask("info", "-f", "{{.ServerVersion}}")
    assert ask("top", "day").splitlines()[0].startswith("UID                 PID                 PPID")
    assert ask("images", "--format", "{{.CreatedSince}}", "workbench/base").endswith("years ago\n")
    assert json.loads(ask("history", "--format", "json", "workbench/base").splitlines()[0])["CreatedAt"].startswith(
        "19"
    )
    info = ask("info")
    assert " Storage Driver: overlay2\n" in info
    assert " Containers: 1\n  Running: 1\n" in info
    assert ask("info", "-f", "{{.Driver}} {{len .ServerErrors}} {{.Swarm.LocalNodeState}}") == "overlay2 0 inactive\n"
    assert json.loads(ask("system", "df", "-v", "--format", "json"))["Containers"][0]["Names"] == "day"
    assert ask("rmi", "-f", "nobody:1") == ""
    assert "--size" in ask("help", "ps")
    assert "  prune       Remove unused networks\n" in ask("network")
    assert ask("network", "list") == ask("network", "ls")
    assert json.loads(ask("network", "ls", "--format", "json").splitlines()[0])["IPv4"] == "true"


def test_detach_keys_in_a_terminal(ask: Ask, data_root: Path) -> None:
    """Who started the container gets 0, who joined what runs is told of it and gets 1: nothing has ended."""

    def detached(*args: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "engine.cli.main", "--root", str(data_root), *args]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        seen = b""
        try:
            while b"# " not in seen:  # the shell's prompt: the terminal passes keys on by now
                seen += os.read(ours, 4096)
            os.write(ours, b"\x18a")
            while True:
                seen += os.read(ours, 4096)
        except OSError:  # EIO: nobody has the terminal any more
            return process.wait(), seen.decode()
        finally:
            os.close(ours)

    keys = ("--detach-keys", "ctrl-x,a")
    try:
        code, _ = detached("run", "-it", "--name", "joined", "--network", "none", *keys, "workbench/base", "sh")
        assert code == 0
        code, seen = detached("exec", "-it", *keys, "joined", "sh")
        assert code == 1
        assert seen.endswith("read escape sequence\r\n")
        ask("exec", "joined", "true")
    finally:
        ask("rm", "-f", "joined")
