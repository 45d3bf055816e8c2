"""The 22 rules of `build --check`: each with what sets it off, where, and what does not."""

from __future__ import annotations

import pytest

from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.build.dockerfile.parser import parse
from engine.build.lint import LintInput, lint
from engine.build.lint_rules import RULES, parse_options
from engine.build.variables import platform_args
from engine.errors import InvalidInput
from engine.oci.config import ImageConfig
from engine.oci.platform import Platform

TARGET = Platform("linux", "amd64")
ARM = ImageConfig({"os": "linux", "architecture": "arm64", "config": {"Env": ["PATH=/x", "FROM_BASE=1"]}})
BASE = ImageConfig(
    {"os": "linux", "architecture": "amd64", "config": {"Env": ["FROM_BASE=1"], "Shell": ["/bin/bash", "-c"]}}
)


def check(text: str, ignore: str = "", args: dict[str, str] | None = None) -> list[tuple[str, int]]:
    given = LintInput(
        parse(text, "Dockerfile"),
        args or {},
        platform_args(TARGET, TARGET, "", {}),
        TARGET,
        Matcher(read_patterns(ignore)) if ignore else None,
        lambda name, platform: {"base": BASE, "arm": ARM}.get(name),
    )
    return [(warning.rule, warning.line) for warning in lint(given)]


BAD = [
    ("FROM scratch AS Upper", [("StageNameCasing", 1)]),
    ("FROM scratch as a", [("FromAsCasing", 1)]),
    ("FROM scratch\nCOPY \\\n\n a b", [("NoEmptyContinuation", 4)]),
    ("FROM scratch\ncopy a b\nENV A=1", [("ConsistentInstructionCasing", 2)]),
    ("FROM scratch\nCopy a b\nENV A=1", [("ConsistentInstructionCasing", 2)]),
    ("FROM scratch AS a\nFROM scratch AS a", [("DuplicateStageName", 2)]),
    ("FROM scratch AS context", [("ReservedStageName", 1)]),
    ("FROM scratch AS scratch", [("ReservedStageName", 1)]),
    ("FROM scratch\nCMD a b", [("JSONArgsRecommended", 2)]),
    ("FROM scratch\nENTRYPOINT a b", [("JSONArgsRecommended", 2)]),
    ("FROM scratch\nMAINTAINER me", [("MaintainerDeprecated", 2)]),
    ("FROM --platform=$BULIDPLATFORM scratch", [("UndefinedArgInFrom", 1)]),
    ("FROM scratch\nWORKDIR a\nWORKDIR b", [("WorkdirRelativePath", 2)]),
    ("FROM scratch\nCOPY $NOPE /x", [("UndefinedVar", 2)]),
    ("FROM base\nRUN --mount=target=$NOPE true", [("UndefinedVar", 2)]),
    ("FROM scratch\nCOPY <<E /x\n$NOPE\nE", [("UndefinedVar", 2)]),
    ("FROM scratch\nARG A=$NOPE", [("UndefinedVar", 2)]),
    ('FROM scratch\nCMD ["a"]\nCMD ["b"]', [("MultipleInstructionsDisallowed", 2)]),
    ("FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK CMD x", [("MultipleInstructionsDisallowed", 2)]),
    ("FROM scratch\nENV a b", [("LegacyKeyValueFormat", 2)]),
    ("FROM scratch\nLABEL a b", [("LegacyKeyValueFormat", 2)]),
    ("FROM arm", [("InvalidBaseImagePlatform", 1)]),
    ("FROM --platform=$TARGETPLATFORM scratch", [("RedundantTargetPlatform", 1)]),
    ("FROM --platform=linux/arm64 scratch", [("FromPlatformFlagConstDisallowed", 1)]),
    ("FROM scratch\nARG API_KEY\nENV password=x", [("SecretsUsedInArgOrEnv", 2), ("SecretsUsedInArgOrEnv", 3)]),
    ("ARG T\nFROM a:$T", [("InvalidDefaultArgInFrom", 2)]),
    ("FROM scratch\nEXPOSE 80/TCP", [("ExposeProtoCasing", 2)]),
    ("FROM scratch\nEXPOSE 127.0.0.1:80:80", [("ExposeInvalidFormat", 2)]),
    ("# check=experimental=all\n# about it\nFROM scratch AS a", [("InvalidDefinitionDescription", 3)]),
]
GOOD = [
    "FROM scratch AS a",
    "from scratch as a\ncopy a b",
    "FROM base\nCMD a b",  # the base has a SHELL: a shell is meant
    'FROM scratch\nSHELL ["/x"]\nCMD a',
    "FROM base\nCOPY $FROM_BASE /x",
    "FROM unknown\nCOPY $MAY_BE_SET_THERE /x",
    "FROM scratch\nARG A\nCOPY x$A /x",
    "FROM scratch\nRUN echo $SHELLS_OWN",
    "FROM --platform=$BUILDPLATFORM scratch",
    "FROM --platform=linux/arm64 scratch AS build-arm64",
    "FROM scratch\nENV PUBLIC_KEY=x TOKEN_FILE=y AUTH_VERSION=1 KEYBOARD=z",
    "ARG T=1\nFROM a:$T",
    "FROM scratch\nWORKDIR /a\nWORKDIR b",
    "FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b",
    'FROM scratch AS a\nCMD ["a"]\nFROM a\nCMD ["b"]',
    "# a describes it\nFROM scratch AS a",
    "FROM scratch\nCOPY \\\n# a comment\n a b",
]


@pytest.mark.parametrize(("text", "found"), BAD)
def test_what_is_warned_of(text: str, found: list[tuple[str, int]]) -> None:
    assert check(text) == found


@pytest.mark.parametrize("text", GOOD)
def test_what_is_fine(text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(
    ("ignore", "text", "found"),
    [
        ("x", "COPY x /", 1),
        ("x", "ADD x/y /", 1),
        ("x", "COPY . /", 0),
        ("*", "COPY . /", 1),
        ("*\n!x", "COPY x /", 0),
        ("x", "COPY --from=base x /", 0),
        ("x", "ADD https://h/x /", 0),
    ],
)
def test_ignored_files(ignore: str, text: str, found: int) -> None:
    assert check(f"FROM scratch\n{text}", ignore) == [("CopyIgnoredFile", 2)] * found


def test_every_rule_is_tried() -> None:
    tried = {rule for _, found in BAD for rule, _ in found} | {"CopyIgnoredFile"}
    assert tried == set(RULES)
    assert len(RULES) == 22
    assert all(rule.advice and rule.description for rule in RULES.values())


def test_switching_rules_off() -> None:
    bad = "FROM scratch\nENV a b\nMAINTAINER me"
    assert len(check(bad)) == 2
    assert check(f"# check=skip=LegacyKeyValueFormat\n{bad}") == [("MaintainerDeprecated", 4)]
    assert check(f"# check=skip=legacykeyvalueformat\n{bad}") != [("MaintainerDeprecated", 4)]
    assert check(f"# check=skip=all\n{bad}") == []
    assert check(bad, args={"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}) == []
    assert check("FROM scratch\n# check=skip=all\nENV a b\nENV c d") == [("LegacyKeyValueFormat", 4)]


def test_options() -> None:
    assert parse_options("skip=A, B;error=true").skip == {"A", "B"}
    assert parse_options(" skip=all ; experimental=X").skip_all
    assert parse_options("error=1").error
    assert not parse_options("").error
    for bad in ("skip", "nothing=1", "error=perhaps"):
        with pytest.raises(InvalidInput):
            parse_options(bad)


def test_suggestions() -> None:
    given = LintInput(parse("FROM scratch\nARG VERSION=1\nCOPY $VERSON /", "D"), {}, {}, TARGET)
    warning = lint(given)[0]
    assert warning.message == "Usage of undefined variable '$VERSON' (did you mean $VERSION?)"
    assert warning.url == "https://docs.docker.com/go/dockerfile/rule/undefined-var/"
    assert "ARG or ENV" in warning.suggestion
