"""The linter in a build: warnings as notices, and as errors where the Dockerfile asks for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.errors import DockerfileError
from engine.model import BuildNotice
from tests.build.conftest import Built

pytestmark = pytest.mark.root


def test_warnings_are_notices(make: Callable[..., Built]) -> None:
    built = make("FROM scratch\nENV old style\nFROM scratch AS unused\nFROM scratch AS last\nCMD x")
    notices = [event.text for event in built.events if isinstance(event, BuildNotice)]
    assert [text.partition(":")[0] for text in notices] == ["JSONArgsRecommended"]
    assert "(line 5)" in notices[0]


def test_warnings_can_fail_a_build(make: Callable[..., Built]) -> None:
    with pytest.raises(DockerfileError, match="lint violation found for rules: LegacyKeyValueFormat") as caught:
        make("# check=error=true\nFROM scratch\nENV a b")
    assert caught.value.line == 3
    make("# check=skip=all;error=true\nFROM scratch\nENV a b")
