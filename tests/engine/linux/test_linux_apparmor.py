"""AppArmor on recorded trees, and the profile by the real parser. (No kernel here runs it.)"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.errors import NotFound, Unsupported
from engine.linux import apparmor
from engine.model import HostConfig
from engine.runtime.spec import SpecParams, make_spec
from engine.service import apparmor_profile, hostside


def tree(root: Path, *, on: bool = True, profiles: str = "") -> str:
    for path, text in (
        ("sys/module/apparmor/parameters/enabled", "Y\n" if on else "N\n"),
        ("sys/kernel/security/apparmor/profiles", profiles),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return str(root)


def test_what_the_kernel_says(tmp_path: Path) -> None:
    assert not apparmor.enabled(str(tmp_path / "none"))
    assert not apparmor.enabled(tree(tmp_path, on=False))
    root = tree(tmp_path, profiles="/usr/bin/man (enforce)\nworkbench-default (enforce)\n")
    assert apparmor.enabled(root)
    assert apparmor.loaded("workbench-default", root)
    assert not apparmor.loaded("workbench", root)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A host that runs it; the list is what is loaded."""
    there = ["mine"]
    monkeypatch.setattr(apparmor, "enabled", lambda: True)
    monkeypatch.setattr(apparmor, "loaded", lambda name: name in there)
    monkeypatch.setattr(apparmor_profile, "load_default", lambda: there.append(apparmor_profile.DEFAULT))
    return there


def test_which_profile_a_container_gets(host: list[str]) -> None:
    def of(*options: str, privileged: bool = False) -> str:
        return hostside.apparmor_profile(HostConfig(security_opt=options, privileged=privileged))

    assert of() == apparmor_profile.DEFAULT
    assert host == ["mine", apparmor_profile.DEFAULT]
    assert of("apparmor=mine") == of("apparmor:mine", privileged=True) == "mine"
    assert of("apparmor=unconfined") == of(privileged=True) == "unconfined"
    with pytest.raises(NotFound, match="profile other is not loaded"):
        of("apparmor=other")
    spec = make_spec(SpecParams("x", ["true"], apparmor_profile="mine"))
    assert spec["process"]["apparmorProfile"] == "mine"


def test_a_host_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apparmor, "enabled", lambda: False)
    assert hostside.apparmor_profile(HostConfig()) == ""
    assert hostside.apparmor_profile(HostConfig(security_opt=("apparmor=unconfined",))) == ""
    with pytest.raises(Unsupported, match="does not run AppArmor"):
        hostside.apparmor_profile(HostConfig(security_opt=("apparmor=mine",)))
    assert "apparmorProfile" not in make_spec(SpecParams("x", ["true"]))["process"]


def test_a_host_without_the_parser(host: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(OSError, match="apparmor_parser is not installed"):
        apparmor_profile.load_default(("/no/such/parser",))


@pytest.mark.peer("apparmor_parser")
def test_the_profile_compiles(tmp_path: Path) -> None:
    file = tmp_path / "profile"
    file.write_text(apparmor_profile.PROFILE)
    done = subprocess.run(["apparmor_parser", "-Q", "-K", "-S", str(file)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout, "a compiled policy"
    names = subprocess.run(["apparmor_parser", "-N", str(file)], capture_output=True, text=True, check=True)
    assert names.stdout == f"{apparmor_profile.DEFAULT}\n"
