"""Compose files read, interpolated, merged, extended, included and held against the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import DockerfileError, InvalidInput
from engine.project.compose.envfile import read_env_file
from engine.project.compose.load import Loaded, load, project_environment
from engine.project.compose.variables import interpolate


def loaded(folder: Path, *texts: str, env: dict[str, str] | None = None) -> Loaded:
    files = []
    for number, text in enumerate(texts):
        file = folder / (f"compose.{number}.yaml" if number else "compose.yaml")
        file.write_text(text)
        files.append(file)
    return load(files, folder, env or {})


def services(folder: Path, *texts: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = loaded(folder, *texts, env=env).document["services"]
    return found


# --- variables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("$A-$B", "1-"),
        ("${A}${B}", "1"),
        ("$$A ${A} $", "$A 1 $"),
        ("${X:-d}", "d"),
        ("${E:-d}|${E-d}", "d|"),
        ("${A:+y}${E:+n}${E+y}", "yy"),
        ("${X:-${A}${Y:-z}}", "1z"),
        ("${X:-a:b/c}", "a:b/c"),
        ("${A:?needed}", "1"),
        ("$1 $-", "$1 $-"),
    ],
)
def test_interpolation(text: str, result: str) -> None:
    assert interpolate(text, {"A": "1", "E": ""}) == result


@pytest.mark.parametrize("text", ["${", "${A", "${1}", "${A/b/c}", "${A:x}", "${}"])
def test_bad_interpolation_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match="interpolation"):
        interpolate(text, {})


def test_a_required_variable() -> None:
    with pytest.raises(InvalidInput, match="required variable X is missing a value: set it to 5"):
        interpolate("${X:?set it to ${N}}", {"N": "5"})


def test_deep_nesting_ends() -> None:
    with pytest.raises(InvalidInput):
        interpolate("${A:-" * 1000 + "}" * 1000, {})


# --- env files ------------------------------------------------------------------------------------------


def test_env_file_forms(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# comment\n\nA=plain value # comment\nB=no#comment\nC='single $A \\' \\n'\nD=\"double $A\\n\"\nE=\nexport F=f\nG\n"
        'H="two\nlines"\nI=$A-${OUT}\nJ="x" # trailing\n'
    )
    assert read_env_file(tmp_path / ".env", {"OUT": "o"}) == {
        "A": "plain value",
        "B": "no#comment",
        "C": "single $A ' \\n",
        "D": "double plain value\n",
        "E": "",
        "F": "f",
        "G": None,
        "H": "two\nlines",
        "I": "plain value-o",
        "J": "x",
    }


@pytest.mark.parametrize(
    ("text", "line"), [("A=1\n=x\n", 2), ("A='open\n", 1), ("A=1\nB='x' y\n", 2), ("two words\n", 1)]
)
def test_a_bad_env_file_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / ".env").write_text(text)
    with pytest.raises(DockerfileError) as caught:
        read_env_file(tmp_path / ".env", {})
    assert caught.value.line == line


def test_raw_env_file(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("A='$X'\nB\n")
    assert read_env_file(tmp_path / "e", {}, raw=True) == {"A": "'$X'", "B": None}


def test_the_process_wins_over_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    env, read = project_environment(tmp_path, [], {"A": "process"})
    assert (env["A"], env["B"], read) == ("process", "file", [tmp_path / ".env"])


# --- merge ----------------------------------------------------------------------------------------------

BASE = "services: {web: {image: a, command: [x, y], ports: ['80:80'], environment: {A: 1, B: 2}, volumes: ['d:/w']}}"


def test_mappings_merge_lists_append_commands_replace(tmp_path: Path) -> None:
    over = (
        "services: {web: {command: [z], ports: ['81:81', '80:80'], environment: [B=3, C=4], volumes: ['e:/w', 'f:/v']}}"
    )
    web = services(tmp_path, BASE, over)["web"]
    assert web["command"] == ["z"]
    assert web["ports"] == ["80:80", "81:81"]
    assert web["environment"] == {"A": 1, "B": "3", "C": "4"}
    assert web["volumes"] == ["e:/w", "f:/v"]


def test_reset_and_override(tmp_path: Path) -> None:
    over = "services: {web: {command: !reset null, ports: !override ['1:1'], environment: {A: !reset null}}}"
    web = services(tmp_path, BASE, over)["web"]
    assert "command" not in web
    assert web["ports"] == ["1:1"]
    assert web["environment"] == {"B": 2}


def test_short_and_long_forms_merge(tmp_path: Path) -> None:
    first = "services: {web: {build: ., depends_on: [db]}, db: {image: d}}"
    over = "services: {web: {build: {args: [X=1]}, depends_on: {db: {condition: service_healthy}}}}"
    web = services(tmp_path, first, over)["web"]
    assert web["build"] == {"context": str(tmp_path), "args": {"X": "1"}}
    assert web["depends_on"] == {"db": {"condition": "service_healthy"}}


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = "x-a: &a {image: a, tty: true}\nservices:\n  one: {<<: *a, tty: false}\n  two: *a\n"
    found = services(tmp_path, text)
    assert found["one"] == {"image": "a", "tty": False}
    assert found["two"] == {"image": "a", "tty": True}


# --- extends and include --------------------------------------------------------------------------------


def test_extends_another_file_keeps_its_paths(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "c.yml").write_text(
        "services: {base: {build: ., env_file: a.env, extends: root}, root: {user: me, cap_add: [A]}}"
    )
    text = "services: {web: {extends: {file: common/c.yml, service: base}, cap_add: [B, A]}}"
    web = services(tmp_path, text)["web"]
    assert web["build"]["context"] == str(tmp_path / "common")
    assert web["env_file"] == [str(tmp_path / "common" / "a.env")]
    assert (web["user"], web["cap_add"]) == ("me", ["A", "B"])


def test_circles_are_found(tmp_path: Path) -> None:
    with pytest.raises(DockerfileError, match="extend each other"):
        services(tmp_path, "services: {a: {extends: b}, b: {extends: a}}")
    (tmp_path / "other.yaml").write_text("include: [other.yaml]\nservices: {x: {image: x}}")
    with pytest.raises(DockerfileError, match="include each other"):
        services(tmp_path, "include: [other.yaml]\nservices: {a: {image: b}}")


def test_include_brings_its_own_folder_and_env(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "compose.yaml").write_text("services: {cache: {image: 'redis:${V}', volumes: ['./d:/d']}}")
    (tmp_path / "sub" / ".env").write_text("V=7\n")
    result = loaded(tmp_path, "include: [sub/compose.yaml]\nservices: {a: {image: 'x:${V:-none}'}}")
    assert result.document["services"]["cache"] == {"image": "redis:7", "volumes": [f"{tmp_path}/sub/d:/d"]}
    assert result.document["services"]["a"]["image"] == "x:none"
    assert {file.name for file in result.files} == {"compose.yaml", ".env"}


def test_include_may_not_clash(tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("services:\n  a: {image: other}\n")
    with pytest.raises(DockerfileError, match=r"stands in compose.yaml:2 too"):
        services(tmp_path, "include: [o.yaml]\nservices: {a: {image: mine}}")


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("services:\n  web:\n    imagee: x\n", 3, "services.web.imagee: no such key"),
        ("services:\n  web:\n    image: x\n    ports: 80\n", 4, "services.web.ports"),
        ("services:\n  web:\n    image: x\n    image: y\n", 4, "stands twice, first in line 3"),
        ("services:\n  web: [\n", 3, "not YAML"),
        ("services:\n  web:\n    image: ${X:?say it}\n", 3, "required variable X is missing a value: say it"),
        ("services:\n  web:\n    image: !!python/object:os.system x\n", 3, "tag"),
        ("- a\n", 1, "a compose file is a mapping"),
        ("services:\n  web:\n    extends: {service: nope}\n", 3, "'nope' is not in compose.yaml"),
        ("include: [missing.yaml]\nservices: {}\n", 1, "missing.yaml does not exist"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        services(tmp_path, text)
    assert message in str(caught.value)
    assert (Path(caught.value.file).name, caught.value.line) == ("compose.yaml", line)


def test_a_misspelt_key_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DockerfileError) as caught:
        services(tmp_path, "services: {web: {image: x, enviroment: {}}}")
    assert caught.value.hint == "did you mean 'environment'?"


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]")
    with pytest.raises(DockerfileError, match="too many values"):
        services(tmp_path, "\n".join(lines))


def test_unset_variables_and_old_keys_are_noted(tmp_path: Path) -> None:
    notes = loaded(tmp_path, "version: '3'\nservices: {web: {image: 'x:$V'}}").notes
    assert any("`version` is obsolete" in note for note in notes)
    assert any("the variable V is not set" in note and "compose.yaml:2" in note for note in notes)
