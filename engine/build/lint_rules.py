"""The rules of `build --check` (Docker's own names), what to do about each, and who switches which off (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.errors import InvalidInput

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PAGE = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True)
class Rule:
    """`advice` is what to write instead."""

    name: str
    description: str
    advice: str
    experimental: bool = False

    @property
    def url(self) -> str:
        return f"{_PAGE}{_WORD.sub('-', self.name).lower()}/"


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("StageNameCasing", "Stage names should be lowercase", "write the stage's name in lower case"),
        Rule(
            "FromAsCasing",
            "The 'as' keyword should match the case of the 'from' keyword",
            "write FROM … AS or from … as",
        ),
        Rule(
            "NoEmptyContinuation",
            "Empty continuation lines will become errors in a future release",
            "remove the blank line, or make it a comment: #",
        ),
        Rule(
            "ConsistentInstructionCasing",
            "All commands within the Dockerfile should use the same casing (either upper or lower)",
            "write all instructions in upper case, or all in lower case",
        ),
        Rule("DuplicateStageName", "Stage names should be unique", "give one of the stages another name"),
        Rule("ReservedStageName", "Reserved words should not be used as stage names", "choose another name"),
        Rule(
            "JSONArgsRecommended",
            "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            'write the command as a JSON array: ["program", "argument"]; or set SHELL, if a shell is meant',
        ),
        Rule(
            "MaintainerDeprecated",
            "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            'LABEL org.opencontainers.image.authors="…"',
        ),
        Rule(
            "UndefinedArgInFrom",
            "FROM command must use declared ARGs",
            "declare it before the first FROM: ARG NAME=value",
        ),
        Rule(
            "WorkdirRelativePath",
            "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
            "image changes",
            "give an absolute path: WORKDIR /app",
        ),
        Rule(
            "UndefinedVar",
            "Variables should be defined before their use",
            "declare it with ARG or ENV, or correct its name",
        ),
        Rule(
            "MultipleInstructionsDisallowed",
            "Multiple instructions of the same type should not be used in the same stage",
            "remove this one: the later one wins",
        ),
        Rule(
            "LegacyKeyValueFormat",
            "Legacy key/value format with whitespace separator should not be used",
            "write NAME=value, quoted where the value has blanks",
        ),
        Rule(
            "InvalidBaseImagePlatform",
            "Base image platform does not match expected target platform",
            "take an image that is made for the platform, or build for the image's: --platform",
        ),
        Rule(
            "RedundantTargetPlatform",
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            "leave --platform out",
        ),
        Rule(
            "SecretsUsedInArgOrEnv",
            "Sensitive data should not be used in the ARG or ENV commands",
            "mount it where it is needed: RUN --mount=type=secret,id=…",
        ),
        Rule(
            "InvalidDefaultArgInFrom",
            "Default value for global ARG results in an empty or invalid base image name",
            "give the ARG a default that makes a valid name: ARG TAG=latest",
        ),
        Rule(
            "FromPlatformFlagConstDisallowed",
            "FROM --platform flag should not use a constant value",
            "leave --platform out and build with --platform, or name the stage after the platform",
        ),
        Rule(
            "CopyIgnoredFile",
            "Attempting to Copy file that is excluded by .dockerignore",
            "take it out of .dockerignore, or do not copy it",
        ),
        Rule(
            "InvalidDefinitionDescription",
            "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not "
            "intended to be a description comment, add an empty line or comment between the instruction and the comment.",
            "begin the comment with the name, or put an empty comment line (#) below it",
            experimental=True,
        ),
        Rule(
            "ExposeProtoCasing",
            "Protocol in EXPOSE instruction should be lowercase",
            "write the protocol in lower case",
        ),
        Rule(
            "ExposeInvalidFormat",
            "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
            "future release",
            "write the container's port alone, and map it with run -p",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class LintWarning:
    """`line` and `end_line` count from 1; `suggestion` says what to do."""

    rule: str
    message: str
    line: int
    end_line: int

    @property
    def description(self) -> str:
        return RULES[self.rule].description

    @property
    def url(self) -> str:
        return "" if self.rule == "InvalidBaseImagePlatform" else RULES[self.rule].url

    @property
    def suggestion(self) -> str:
        return RULES[self.rule].advice


@dataclass(frozen=True, slots=True)
class LintOptions:
    """What `# check=…` says: rules that are off, experimental ones that are on, whether a warning fails the build."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    def wants(self, name: str) -> bool:
        if RULES[name].experimental:
            return self.experimental_all or name in self.experimental
        return not (self.skip_all or name in self.skip)

    def with_comments(self, comments: Sequence[str]) -> LintOptions:
        """The options for one instruction, with a `# check=skip=…` right above it. One that cannot be read is passed over."""
        for comment in comments:
            key, equals, value = comment.partition("=")
            if equals and key.strip().lower() == "check":
                try:
                    own = parse_options(value.strip().partition(" ")[0])
                except InvalidInput:
                    return self
                return replace(
                    self,
                    skip=self.skip | own.skip,
                    skip_all=self.skip_all or own.skip_all,
                    experimental=self.experimental | own.experimental,
                    experimental_all=self.experimental_all or own.experimental_all,
                )
        return self


def parse_options(text: str) -> LintOptions:
    """`skip=A,B;error=true;experimental=all`. Raises `InvalidInput`."""
    values: dict[str, object] = {}
    for part in text.strip().split(";", 2) if text.strip() else []:
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or key not in ("skip", "experimental", "error"):
            raise InvalidInput(
                f"invalid check option {part.strip()[:80]!r}", hint="# check=skip=RULE,RULE;error=true (or skip=all)"
            )
        if key == "error":
            if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise InvalidInput(f"invalid check option error={value[:40]!r}", hint="true or false")
            values["error"] = value.lower() in ("true", "1", "t")
        elif value == "all":
            values[f"{key}_all"] = True
        else:
            values[key] = frozenset(name.strip() for name in value.split(","))
    return LintOptions(**values)  # type: ignore[arg-type]
