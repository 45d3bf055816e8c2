"""The command line as a user meets it: flags, tables, errors with hints, exit codes, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.flags import Flag, parse
from engine.cli.tables import render, table
from engine.errors import InvalidInput

FLAGS = [
    Flag("rm", ""),
    Flag("interactive", "", "i"),
    Flag("tty", "", "t"),
    Flag("publish", "", "p", kind="list"),
    Flag("env", "", "e", kind="list"),
    Flag("name", "", kind="str"),
    Flag("cpus", "", kind="float"),
]


def workbench(root: Path, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "WORKBENCH_ROOT": str(root), "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_flags_follow_pflag() -> None:
    words = [
        "-it",
        "--rm=false",
        "-p8080:80",
        "-eA=B",
        "-e",
        "C",
        "--name=x",
        "--cpus",
        "1.5",
        "img",
        "sh",
        "-c",
        "ls",
        "--rm",
    ]
    parsed = parse(words, FLAGS, "run", stop_at_argument=True)
    assert parsed.args == ["img", "sh", "-c", "ls", "--rm"]
    assert (parsed.on("interactive"), parsed.on("tty"), parsed.on("rm")) == (True, True, False)
    assert (parsed.items("publish"), parsed.items("env"), parsed.text("name")) == (["8080:80"], ["A=B", "C"], "x")
    for bad in (["--nope"], ["-x"], ["--name"], ["--cpus=a"], ["--rm=perhaps"]):
        with pytest.raises(InvalidInput):
            parse(bad, FLAGS, "run")


def test_tables_and_templates() -> None:
    assert table(["A", "LONG"], [["1", "x"]]) == "A         LONG\n1         x", "a column is ten wide at least"
    assert table(["A", "B"], [["a name of 20 letters", ""]]) == f"A{' ' * 22}B\na name of 20 letters   "
    row: dict[str, object] = {"Name": "n", "State": {"Running": True}}
    assert render("{{.Some}} {{.Cmd}} {{.None}}", [{"Some": {"a": True}, "Cmd": ["a", 1], "None": None}]) == (
        "map[a:true] [a 1] <no value>"
    )
    assert render("{{.Name}} {{.State.Running}}", [row]) == "n true"
    assert render("json", [row]) == '{"Name":"n","State":{"Running":true}}'
    with pytest.raises(InvalidInput, match="Nope"):
        render("{{.Nope}}", [row])


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["inspcet"], 1, "did you mean `workbench inspect`?"),
        (["run"], 1, "run requires at least 1 argument\n\nUsage:  workbench run [OPTIONS] IMAGE"),
        (["run", "--nope", "x"], 125, "unknown flag: --nope"),
        (["tag", "one"], 1, "tag requires 2 arguments"),
        (["ps", "more"], 1, "ps accepts no arguments"),
        (["run", "--pull", "often", "a"], 125, "invalid pull option: 'often'"),
        (["run", "-e", "", "a"], 125, "invalid environment variable"),
        (["update", "-m", "x", "a"], 125, "invalid argument 'x' for --memory"),
        (["pull", "a", "b"], 1, "pull takes one name"),
        (["images", "-f", "colour=red"], 1, "invalid filter 'colour'"),
        (["exec", "nobody", "true"], 1, "No such container: nobody"),
        (["tag", "nothing", "x"], 1, "No such image: nothing:latest"),
        (["run", "-p", "8080:x", "x"], 125, "Invalid containerPort: x"),
        (["run", "-p", "8080-8090:80-81", "x"], 125, "Invalid ranges"),
        (["run", "--add-host", "name", "x"], 125, "bad format for add-host"),
        (["network", "create", "host"], 1, "predefined host network"),
        (["ps", "--nope"], 125, "unknown flag: --nope"),
        (["build", "/no/such/folder"], 1, "is not a folder"),
        (["tag", "UPPER", "x"], 1, "lower case"),
        (["--host", "tcp://127.0.0.1:1", "ps"], 1, "cannot connect to the engine at tcp://127.0.0.1:1"),
        (["logs", "nobody"], 1, "No such container: nobody"),
        (["."], 1, "needs a terminal"),
    ],
)
def test_mistakes_get_one_message(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    done = workbench(tmp_path / "root", *args, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = workbench(tmp_path, "--help")
    assert done.returncode == 0
    for verb in [
        "build",
        "run",
        "ps",
        "images",
        "logs",
        "exec",
        "pull",
        "tag",
        "rmi",
        "rm",
        "stop",
        "kill",
        "inspect",
        "history",
        "up",
        "demo",
        "version",
        "check",
    ]:
        assert f"  {verb} " in done.stdout
        assert "Usage:" in workbench(tmp_path, verb, "--help").stdout


@pytest.mark.root
def test_a_day_of_docker_verbs(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM workbench/base\nCOPY f /f\nCMD cat /f\n")
    (tmp_path / "f").write_text("from the file\n")
    assert workbench(data_root, "build", "-t", "day", str(tmp_path)).returncode == 0
    ran = workbench(data_root, "run", "--rm", "-e", "A=1", "day", "sh", "-c", "cat /f; echo $A >&2; exit 3")
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "from the file\n", "1\n")
    started = workbench(data_root, "run", "-d", "--name", "daily", "day", "sleep", "100")
    assert started.returncode == 0, started.stderr
    assert "daily" in workbench(data_root, "ps").stdout
    assert workbench(data_root, "exec", "daily", "cat", "/f").stdout == "from the file\n"
    assert workbench(data_root, "inspect", "-f", "{{.State.Status}}", "daily").stdout == "running\n"
    assert workbench(data_root, "tag", "day", "night:1").returncode == 0
    assert "night" in workbench(data_root, "images").stdout
    assert workbench(data_root, "images", "--format", "{{.Repository}}", "nig*").stdout == "night\n"
    assert workbench(data_root, "images", "-q", "-f", "dangling=true", "night").stdout == ""
    plain = workbench(data_root, "history", "-H=false", "--format", "{{.Size}}", "day").stdout.split()
    assert plain[1] == "14"
    taken = workbench(data_root, "run", "-d", "--name", "daily", "day")
    assert (taken.returncode, 'The container name "/daily" is already in use by container "' in taken.stderr) == (
        125,
        True,
    )
    assert "\"sh -c 'exit 0'\"" in (
        workbench(data_root, "run", "--name", "quoted", "day", "sh", "-c", "exit 0").stdout
        + workbench(data_root, "ps", "-a", "--no-trunc").stdout
    )
    assert workbench(data_root, "rm", "quoted").stdout == "quoted\n"
    refused = workbench(data_root, "rm", "daily")
    assert (refused.returncode, "rm --force" in refused.stderr) == (1, True)
    assert workbench(data_root, "rm", "-f", "daily").stdout == "daily\n"
    assert "Untagged: night:1" in workbench(data_root, "rmi", "night:1").stdout
    assert "COPY f /f" in workbench(data_root, "history", "day").stdout
    assert workbench(data_root, "check").stdout == "the store is whole\n"


def test_an_ordinary_user_is_told_what_to_do(tmp_path: Path) -> None:
    """As root the check is made in a process that has given root up."""
    (tmp_path / "Dockerfile").write_text("FROM workbench/base\n")
    tmp_path.chmod(0o777)
    code = (
        "import os, sys\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from engine.service.system import require_root\n"
        "from engine.errors import Unsupported\n"
        "try: require_root()\n"
        "except Unsupported as error: print(error, '|', error.hint)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # Imported before root is given up: the checkout may be readable by root alone.
    code = "import engine.service.system, engine.errors\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert "needs a user namespace" in done.stdout, done.stderr
    assert "engine.linux.userns.enter" in done.stdout
