"""Build arguments: the platform's own, those before the first FROM, ARG in a stage, proxies (pure)."""

from __future__ import annotations

import string
from collections.abc import Mapping

from engine.build.dockerfile.ast import Arg, Dockerfile, Stage
from engine.build.dockerfile.words import expand
from engine.build.state import State
from engine.errors import DockerfileError, InvalidInput
from engine.oci.platform import Platform

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
# Read by the builder itself; naming them with --build-arg is no mistake though no ARG takes them.
BUILTIN = frozenset(
    (
        "BUILDKIT_BUILD_NAME BUILDKIT_CACHE_MOUNT_NS BUILDKIT_CONTEXT_KEEP_GIT_DIR BUILDKIT_DOCKERFILE_CHECK "
        "BUILDKIT_INLINE_CACHE BUILDKIT_MULTI_PLATFORM BUILDKIT_SANDBOX_HOSTNAME BUILDKIT_SBOM_SCAN_CONTEXT "
        "BUILDKIT_SBOM_SCAN_STAGE BUILDKIT_SYNTAX SOURCE_DATE_EPOCH"
    ).split()
)
_NOT_ENVIRONMENT = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")


def platform_text(platform: Platform) -> str:
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))


def platform_args(build: Platform, target: Platform, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    """BUILD*, TARGET*: global, and in a stage only where an ARG asks for them. `given` build arguments win."""
    values: dict[str, str] = {}
    for side, platform in (("BUILD", build), ("TARGET", target)):
        values |= {
            f"{side}PLATFORM": platform_text(platform),
            f"{side}OS": platform.os,
            f"{side}OSVERSION": "",
            f"{side}ARCH": platform.architecture,
            f"{side}VARIANT": platform.variant,
        }
    values["TARGETSTAGE"] = stage or "default"
    return {name: given.get(name, value) for name, value in values.items()}


def global_args(dockerfile: Dockerfile, predefined: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The ARGs before the first FROM, over the predefined ones. Raises `InvalidInput`."""
    scope = dict(predefined)
    for arg in dockerfile.meta_args:
        for name, default in arg.pairs:
            if name in given:
                scope[name] = given[name]
            elif default is not None:
                scope[name] = expand(default, scope, dockerfile.escape)
    return scope


def apply_arg(
    state: State, arg: Arg, given: Mapping[str, str], outer: Mapping[str, str], escape: str
) -> list[tuple[str, str | None]]:
    """ARG inside a stage. Returns the names with their values; None is an ARG that nobody gave a value."""
    found: list[tuple[str, str | None]] = []
    for name, default in arg.pairs:
        value: str | None
        if name in given:
            value = given[name]
        elif default is not None:
            value = expand(default, state.variables, escape)
        else:
            value = outer.get(name)
        if value is not None and name not in _NOT_ENVIRONMENT:
            state.variables[name] = value
        state.build_args.append((name, value))
        found.append((name, value))
    return found


def proxy_environment(given: Mapping[str, str], state: State) -> dict[str, str]:
    """Proxy variables that RUN gets though no ARG declares them; they are in neither the history nor the cache key."""
    found: dict[str, str] = {}
    for name in sorted(given):
        if name.lower() in PROXIES:
            for spelling in (name.upper(), name.lower()):
                if spelling not in state.variables:
                    found[spelling] = given[name]
    return found


def unused_args(dockerfile: Dockerfile, given: Mapping[str, str]) -> list[str]:
    """Build arguments that no ARG takes."""
    declared = {name for arg in dockerfile.meta_args for name, _ in arg.pairs}
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, Arg):
                declared |= {name for name, _ in instruction.pairs}
    return sorted(
        name for name in given if name not in declared and name not in BUILTIN and name.lower() not in PROXIES
    )


def source_date_epoch(scope: Mapping[str, str], given: Mapping[str, str]) -> int | None:
    """Seconds since 1970, or None. Raises `InvalidInput`."""
    text = given.get("SOURCE_DATE_EPOCH", scope.get("SOURCE_DATE_EPOCH", ""))
    if not text:
        return None
    digits = text.removeprefix("-")
    if digits and len(digits) <= 11 and all(char in string.digits for char in digits):
        return int(text)
    if text == "context":
        raise InvalidInput(
            "SOURCE_DATE_EPOCH=context takes the time of a commit, and this context is no git repository",
            hint="build a git URL, or give the seconds since 1970: $(git log -1 --format=%ct)",
        )
    raise InvalidInput(f"invalid SOURCE_DATE_EPOCH: {text[:80]}", hint="give the seconds since 1970")


def expand_bases(dockerfile: Dockerfile, scope: Mapping[str, str], file: str) -> dict[int, str]:
    """The base that each FROM names. Raises `DockerfileError`."""
    return {stage.index: _word(stage, stage.base, "base name", scope, dockerfile, file) for stage in dockerfile.stages}


def expand_platforms(dockerfile: Dockerfile, scope: Mapping[str, str], file: str) -> dict[int, Platform]:
    """The platform of each FROM that names one. Raises `DockerfileError`."""
    found: dict[int, Platform] = {}
    for stage in dockerfile.stages:
        if stage.platform:
            text = _word(stage, stage.platform, "platform", scope, dockerfile, file)
            try:
                found[stage.index] = Platform.parse(text)
            except InvalidInput as error:
                raise _at(stage, f"FROM --platform={stage.platform}: {error.message}", file, dockerfile) from error
    return found


def _word(stage: Stage, word: str, what: str, scope: Mapping[str, str], dockerfile: Dockerfile, file: str) -> str:
    try:
        text = expand(word, scope, dockerfile.escape)
    except InvalidInput as error:
        raise _at(stage, f"FROM {stage.base}: {error.message}", file, dockerfile) from error
    if not text:
        raise _at(stage, f"FROM {stage.base}: the {what} ({word}) is empty", file, dockerfile)
    return text


def _at(stage: Stage, message: str, file: str, dockerfile: Dockerfile) -> DockerfileError:
    return DockerfileError(
        message,
        file=file,
        line=stage.line,
        source=dockerfile.lines[stage.line - 1],
        hint="give the ARG a default before FROM, or pass --build-arg",
    )
