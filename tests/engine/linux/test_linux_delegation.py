"""An ordinary user's part of the cgroup v2 tree, on recorded trees. With a real systemd it was tried by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.linux import delegation
from engine.linux.cgroup import Cgroup, Layout, recorded
from engine.linux.userns import entered_by

# /proc/self/cgroup as Debian 12 (systemd 252, unified hierarchy) shows it: a login over SSH, and a scope of `systemd-run --user`.
SESSION = "0::/user.slice/user-1000.slice/session-4.scope\n"
SCOPE = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r12e3.scope\n"
# ... and in a container, where the cgroup namespace hides what is above.
ABOVE = "0::/../..\n"


def tree(root: Path, path: str, controllers: str, *, writable: bool = True) -> Path:
    group = root / path
    group.mkdir(parents=True, exist_ok=True)
    for name, text in (("cgroup.controllers", controllers), ("cgroup.procs", ""), ("cgroup.subtree_control", "")):
        (group / name).write_text(text)
        (group / name).chmod(0o644 if writable else 0o444)
    return group


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """access(2) as the modes say: root may write everything."""

    def access(path: Path, _mode: int) -> bool:
        return path.exists() and bool(path.stat().st_mode & 0o200)

    monkeypatch.setattr(delegation.os, "access", access)
    monkeypatch.setattr(delegation, "SYSTEMD", Path("/"))


def test_own_group() -> None:
    root = Path("/sys/fs/cgroup")
    assert delegation.own_group(root, SESSION) == root / "user.slice/user-1000.slice/session-4.scope"
    assert delegation.own_group(root, "4:memory:/x\n" + SCOPE) == root / SCOPE[4:].strip()
    assert delegation.own_group(root, ABOVE) is None
    assert delegation.own_group(root, "4:memory:/x\n") is None


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize(
    ("controllers", "expected"),
    [
        ("cpuset cpu io memory pids\n", ""),
        ("memory pids\n", "limits of CPU, block I/O, CPU sets do not hold"),  # systemd before 244
        ("cpu memory pids\n", "limits of block I/O, CPU sets do not hold"),  # its default since
        ("", "limits of memory, CPU, processes, block I/O, CPU sets do not hold"),
    ],
)
def test_what_is_not_delegated_is_named(tmp_path: Path, controllers: str, expected: str) -> None:
    layout = Layout("v2", {"": tmp_path})
    tree(tmp_path, "user.slice/user-1000.slice/session-4.scope", "", writable=False)
    tree(tmp_path, "user.slice/user-1000.slice/user@1000.service", controllers)
    assert delegation.note(1000, layout, SESSION).startswith(expected)
    assert bool(delegation.note(1000, layout, SESSION)) == bool(expected)
    tree(tmp_path, SCOPE[4:].strip(), controllers)
    assert delegation.note(1000, layout, SCOPE) == delegation.note(1000, layout, SESSION)


@pytest.mark.usefixtures("ordinary")
def test_without_delegation_the_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, SESSION[4:].strip(), "", writable=False)
    for layout in (Layout("v2", {"": tmp_path}), Layout("v1", {"memory": tmp_path}), Layout("none", {})):
        assert delegation.note(1000, layout, SESSION).startswith("no control group of one's own")
    tree(tmp_path, "user.slice/user-1000.slice/user@1000.service", "memory")
    monkeypatch.setattr(delegation, "SYSTEMD", Path("/nonexistent"))
    assert delegation.note(1000, Layout("v2", {"": tmp_path}), SESSION).startswith("no control group")


@pytest.mark.usefixtures("ordinary")
def test_the_supervisor_takes_its_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert entered_by() is None
    scope = tree(tmp_path, SCOPE[4:].strip(), "memory pids")
    layout = Layout("v2", {"": tmp_path})
    assert delegation.take(layout) is layout, "root keeps the whole tree"
    monkeypatch.setattr(delegation.idmap, "inside", lambda: True)
    monkeypatch.setattr(delegation, "_own", lambda: SCOPE)
    taken = delegation.take(layout)
    assert taken == Layout("v2", {"": scope}, delegated=True) == recorded(str(scope))
    assert (scope / "supervisor/cgroup.procs").read_text().isdigit(), "processes are in leaves only"
    group = Cgroup(taken, "workbench/abc")
    group.create({"memory": {"limit": 1 << 26}, "cpu": {"shares": 512}, "devices": [{"allow": False, "access": "rwm"}]})
    assert (scope / "cgroup.subtree_control").read_text().startswith("+pids"), "the last one written: memory, then pids"
    assert (scope / "workbench/abc").is_dir()
    assert any("cpu shares" in note for note in group.notes), "not delegated, and said"
    monkeypatch.setattr(delegation, "_own", lambda: SCOPE.strip() + "/supervisor\n")
    assert delegation.take(layout) == taken, "started again from where it was"
    scope.chmod(0o500)
    (scope / "cgroup.procs").chmod(0o444)
    assert delegation.take(layout) is layout, "somebody else's"
