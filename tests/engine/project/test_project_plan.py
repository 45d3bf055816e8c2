"""What changes mean: compose's rules, the Dockerfile's copies, and a rebuild wherever it cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.build.dockerfile.ignore import Matcher
from engine.build.dockerfile.parser import parse
from engine.project.infer import Copies
from engine.project.model import Hook, WatchRule
from engine.project.plan import ServiceRules, decide

TOP = Path("/p")


def act(rules: ServiceRules, *paths: str, running: bool = True) -> str:
    found = decide([TOP / path for path in paths], rules, running=running)
    return found.kind + ("+restart" if found.restart and found.syncs else "") + ("+exec" if found.hooks else "")


def watch(*rules: WatchRule, ignored: Matcher | None = None) -> ServiceRules:
    return ServiceRules(TOP, files=frozenset((TOP / "Dockerfile",)), watch=rules, ignored=ignored)


SRC = WatchRule(TOP / "src", "sync", "/app/src")


@pytest.mark.parametrize(
    ("rules", "paths", "expected"),
    [
        ((SRC,), ("src/a.py",), "sync"),
        ((SRC,), ("srcs/a.py",), "nothing"),
        ((SRC,), ("Dockerfile", "src/a.py"), "rebuild"),
        ((SRC, WatchRule(TOP / "go.mod", "rebuild")), ("src/a.py", "go.mod"), "rebuild"),
        ((WatchRule(TOP, "restart"),), ("any",), "restart"),
        ((WatchRule(TOP / "src", "sync+restart", "/a"), SRC), ("src/a",), "sync+restart"),
        ((WatchRule(TOP / "src", "sync+exec", "/a", exec=Hook(("x",))),), ("src/a",), "sync+exec"),
        ((WatchRule(TOP / "src", "sync", "/a", include=("*.go",)),), ("src/a.go",), "sync"),
        ((WatchRule(TOP / "src", "sync", "/a", include=("*.go",)),), ("src/b/a.go",), "nothing"),
        ((WatchRule(TOP / "src", "sync", "/a", include=("**/*.go",)),), ("src/b/a.go",), "sync"),
        ((WatchRule(TOP / "src", "sync", "/a", ignore=("node_modules",)),), ("src/node_modules/x",), "nothing"),
    ],
)
def test_rules_of_develop_watch(rules: tuple[WatchRule, ...], paths: tuple[str, ...], expected: str) -> None:
    assert act(watch(*rules), *paths) == expected


def test_the_ignore_file_counts_for_rules_too_and_what_does_not_run_is_rebuilt() -> None:
    assert act(watch(SRC, ignored=Matcher(["src/tmp"])), "src/tmp/a") == "nothing"
    assert act(watch(SRC), "src/a", running=False) == "rebuild"


def test_a_file_rule_goes_to_its_target_and_a_folder_s_below_it() -> None:
    rules = watch(SRC, WatchRule(TOP / "conf.ini", "sync", "/etc/conf.ini"))
    found = decide([TOP / "src/b/c", TOP / "conf.ini"], rules, running=True)
    assert {(each.source, each.target) for each in found.syncs} == {
        (TOP / "src/b/c", "/app/src/b/c"),
        (TOP / "conf.ini", "/etc/conf.ini"),
    }


def infer(dockerfile: str, path: str, target: str = "") -> str:
    found = Copies(parse(dockerfile, "Dockerfile"), target, TOP)(path)
    return found if isinstance(found, str) else "" if found is None else f"→ {found.target} {found.owner}".strip()


FLASK = "FROM python\nWORKDIR /app\nCOPY requirements.txt .\nRUN pip install -r requirements.txt\nCOPY . .\nCMD x\n"


@pytest.mark.parametrize(
    ("dockerfile", "path", "expected"),
    [
        (FLASK, "app.py", "→ /app/app.py"),
        (FLASK, "static/a/b.css", "→ /app/static/a/b.css"),
        (FLASK, "requirements.txt", "lines 3 and 5 read it"),
        ("FROM a\nCOPY . /x\nRUN make\n", "a.c", "line 3 runs after it was copied"),
        ("FROM a\nCOPY src /x\n", "other", ""),
        ("FROM a\nCOPY src/ /x\n", "src/a", "→ /x/a"),
        ("FROM a\nCOPY *.py lib/ /x/\n", "b.py", "→ /x/b.py"),
        ("FROM a\nCOPY --chown=app b.py /x/\n", "b.py", "→ /x/b.py app"),
        ("FROM a\nCOPY b.py x/\n", "b.py", "line 2 copies to a folder that the base image names"),
        ("FROM a AS one\nWORKDIR /w\nFROM one\nCOPY b.py x/\n", "b.py", "→ /w/x/b.py"),
        ("FROM a\nCOPY $SRC /x\n", "b.py", "line 2 may read it"),
        ("FROM a\nCOPY b.py /$DIR/\n", "b.py", "line 2 has variables"),
        ("FROM a\nCOPY a /x/\nCOPY --from=b /f /x/a\n", "a", "line 3 may copy over it"),
        ("FROM a\nCOPY a /x/\nVOLUME /x\n", "a", "line 3 makes a volume of its folder"),
        ("FROM a\nADD a.tar.gz /x/\n", "a.tar.gz", "line 2 may unpack it"),
        ("FROM a\nADD a.txt /x/\n", "a.txt", "→ /x/a.txt"),
        ("FROM a\nRUN --mount=type=bind,target=/s make\nCOPY a /x/\n", "a", "line 2 may read it"),
        (
            "FROM go AS b\nCOPY . /s\nRUN go build\nFROM a\nCOPY --from=b /s/x /x\n",
            "m.go",
            "line 2 makes something of it",
        ),
        ("FROM a AS dev\nCOPY a /x/\nFROM a\nCOPY b /y/\n", "a", ""),
        ("FROM a\nCOPY --parents a/b /x/\n", "a/b", "line 2 copies with --parents"),
        ("FROM a\nCOPY --exclude=*.md docs /x/\n", "docs/a.md", ""),
    ],
)
def test_what_a_build_only_copies(dockerfile: str, path: str, expected: str) -> None:
    assert infer(dockerfile, path) == expected


def test_without_rules_a_rebuild_unless_syncs_are_asked_for() -> None:
    copies = Copies(parse(FLASK, "Dockerfile"), "", TOP)
    asked = ServiceRules(TOP, sync="files", infer=copies)
    assert act(ServiceRules(TOP), "app.py") == "rebuild"
    assert act(asked, "app.py") == "sync"
    assert act(asked, "app.py", "requirements.txt") == "rebuild"
    assert act(ServiceRules(TOP, sync="restart", infer=copies), "app.py") == "sync+restart"
    assert act(ServiceRules(TOP, ignored=Matcher(["docs"])), "docs/a") == "nothing"
    assert decide([Path("/q/x")], ServiceRules(TOP, contexts=(Path("/q"),)), running=True).kind == "rebuild"
