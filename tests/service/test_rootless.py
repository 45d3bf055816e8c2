"""The engine as a real ordinary user, with ranges of ids and with one id alone."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.peer("newuidmap")]

Run = Callable[..., "subprocess.CompletedProcess[str]"]
DOCKERFILE = """FROM workbench/base
RUN mkdir /data /opq && echo hi > /data/f && touch /opq/a
RUN rm -rf /opq /etc/nsswitch.conf && mkdir /opq && touch /opq/b && chmod 4755 /data/f
VOLUME /data
COPY --chown=12:34 note /srv/note
CMD ["cat", "/data/f"]
"""


def _readable(path: Path) -> bool:
    """Whether everybody may read what is there: the checkout may be root's alone."""
    real = path.resolve()
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents) and bool(
        real.stat().st_mode & stat.S_IROTH
    )


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An interpreter and a PYTHONPATH that an ordinary user can use."""
    interpreter = next(
        (
            p
            for p in (os.path.realpath(sys.executable), f"/usr/bin/python3.{sys.version_info[1]}")
            if os.path.exists(p) and _readable(Path(p))
        ),
        "",
    )
    if not interpreter:
        pytest.skip("no interpreter of this version that an ordinary user can run")
    checkout, packages = Path(__file__).parents[2], Path(sysconfig.get_path("purelib"))
    if _readable(checkout) and _readable(packages):
        return interpreter, f"{checkout}:{packages}"
    place = tmp_path_factory.mktemp("program")
    for parent in (place, place.parent, place.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o011)
    place.chmod(0o755)
    shutil.copytree(checkout / "engine", place / "engine")
    ignored = shutil.ignore_patterns("mypy*", "ruff*", "pytest*", "_pytest", "pygments", "pip*", "__pycache__")
    shutil.copytree(packages, place / "packages", ignore=ignored)
    return interpreter, f"{place}:{place / 'packages'}"


@pytest.fixture(params=["ranges", "one id"])
def user(request: pytest.FixtureRequest, program: tuple[str, str]) -> Iterator[tuple[Run, Path, bool]]:
    """Runs `workbench …` as a new user; its home; whether it has ranges of ids."""
    name, ranges = f"wb{secrets.token_hex(4)}", request.param == "ranges"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True, capture_output=True)
    uid = int(subprocess.check_output(["id", "-u", name]))
    home = Path(f"~{name}").expanduser()
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        kept = [line for line in path.read_text().splitlines() if path.exists() and not line.startswith(f"{name}:")]
        path.write_text("\n".join([*kept, *([f"{name}:{1_000_000 + uid * 65536}:65536"] if ranges else []), ""]))
    interpreter, path = program

    def run(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [
            "setpriv",
            "--reuid",
            name,
            "--regid",
            name,
            "--init-groups",
            interpreter,
            "-m",
            "engine.cli.main",
            *args,
        ]
        env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=env, timeout=120)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    yield run, home, ranges
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        owner = int(status.partition("\nUid:")[2].split()[0])
        if owner == uid or (ranges and owner // 65536 == (1_000_000 + uid * 65536) // 65536):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(f"/tmp/workbench-{uid}", ignore_errors=True)


def test_a_day_of_an_ordinary_user(user: tuple[Run, Path, bool]) -> None:
    run, home, ranges = user
    context = home / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "note").write_text("from outside\n")
    built = run("build", "-q", "-t", "mine", "context")
    assert ("only one user id" in built.stderr) == (not ranges)
    assert built.stderr.count("control group") == 1
    assert "control group" not in run("images").stderr, "each limit is said once"
    assert run("run", "--rm", "mine").stdout == "hi\n"
    listing = run(
        "run",
        "--rm",
        "mine",
        "sh",
        "-c",
        "ls /opq; ls /etc/nsswitch.conf; stat -c '%u:%g %a' /srv/note /data/f",
        code=0,
    )
    owner = "12:34" if ranges else "0:0"
    assert listing.stdout.splitlines() == ["b", f"{owner} 644", "0:0 4755"]
    shown = run("run", "--rm", "mine", "sh", "-c", "id -u; cat /proc/self/uid_map").stdout.split()
    assert (shown[0], len(shown) // 3) == ("0", 2 if ranges else 1)
    assert "Root:" in run("info").stdout

    (home / "shared").mkdir()
    os.chown(home / "shared", *(home.stat().st_uid, home.stat().st_gid))
    script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"
    run("run", "-d", "--name", "box", "-v", "vol:/vol", "-v", f"{home}/shared:/shared", "mine", "sh", "-c", script)
    assert "box" in run("ps").stdout
    run("exec", "box", "sh", "-c", "echo kept > /vol/f; echo out > /shared/f; touch /new")
    assert (home / "shared/f").stat().st_uid == home.stat().st_uid, "root inside is the user outside"
    run("cp", "context/note", "box:/vol/note")
    run("cp", "box:/vol/note", "back")
    assert (home / "back").read_text() == "from outside\n"
    assert "A /new" in run("diff", "box").stdout
    run("commit", "box", "snap")
    assert run("run", "--rm", "-v", "vol:/vol", "snap", "cat", "/vol/f").stdout == "kept\n"
    if ranges:
        assert run("exec", "--user", "5", "box", "id", "-u").stdout == "5\n"
    else:
        assert "no such id" in run("exec", "--user", "5", "box", "id", "-u", code=125).stderr
    assert run("logs", "box").stdout == "up\n"
    run("stop", "-t", "5", "box")
    state = json.loads(run("inspect", "box").stdout)[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    run("cp", "box:/new", "stopped")
    run("start", "box")
    run("rm", "-f", "-v", "box")
    assert run("volume", "ls", "-q").stdout == "vol\n"
    assert run("check").stdout == "the store is whole\n"


@pytest.mark.parametrize("user", ["ranges"], indirect=True)
def test_processes_share_one_namespace(user: tuple[Run, Path, bool]) -> None:
    """A volume that is a file system is mounted once, whichever command came first; and a killed supervisor's successor
    joins the namespace of the containers that run on."""
    run, home, _ranges = user
    run("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\n"), ".")
    run("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "ram")
    run("run", "-d", "--name", "one", "-v", "ram:/r", "b", "sleep", "1000")
    run("exec", "one", "sh", "-c", "echo shared > /r/f")
    assert run("run", "--rm", "-v", "ram:/r", "b", "cat", "/r/f").stdout == "shared\n"
    uid = home.stat().st_uid
    supervisors = [
        int(pid)
        for pid in filter(str.isdigit, os.listdir("/proc"))
        if _comm(pid) == "wb-supervisor" and os.stat(f"/proc/{pid}").st_uid in (uid, 0) and _owner(pid) == uid
    ]
    for pid in supervisors:
        os.kill(pid, signal.SIGKILL)
    assert run("exec", "one", "cat", "/r/f").stdout == "shared\n"
    run("cp", "one:/etc/passwd", "passwd")
    assert run("run", "--rm", "-v", "ram:/r", "b", "cat", "/r/f").stdout == "shared\n"
    run("rm", "-f", "one")


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def _comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _owner(pid: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("\nUid:")[2].split()[0])
