"""The loop's lines: a rule fits into 80 columns, and what matters in it stays."""

from __future__ import annotations

import pytest

from engine.project import words

BEFORE, AFTER = "sha256:a1b2" + "0" * 60, "sha256:c3d4" + "0" * 60


def test_a_rule_says_when_what_why_and_how_long() -> None:
    text = words.rule(words.Why(BEFORE, AFTER, "src/app.py", "step 5/6 COPY . ."), 0.0412)
    assert text.startswith("── rebuilt ")
    assert text.endswith(" a1b2→c3d4 · src/app.py → step 5/6 COPY . . · 41 ms ──")
    assert len(text) <= words.WIDTH


@pytest.mark.parametrize(
    ("cause", "step", "kept"),
    [
        (
            "services/api/src/handlers/accounts/app.py and 12 more",
            "step 5/6 COPY . .",
            "accounts/app.py +12 → step 5/6 COPY…",
        ),
        ("app.py", "step 15/16 COPY --chown=1000:1000 --chmod=0755 src/ /srv/app/", "app.py → step 15/16 COPY --chow"),
        ("very/" * 30 + "long.py", "step 15/16 RUN " + "make " * 40, "long.py → step 15/16 RUN"),
        ("very/" * 30 + "long.py", "", "/long.py · 1.5 s ──"),
        ("", "step 5/6 RUN " + "make " * 40, " · step 5/6 RUN make"),
    ],
)
def test_a_long_rule_keeps_the_file_the_step_and_the_time(cause: str, step: str, kept: str) -> None:
    text = words.rule(words.Why(BEFORE, AFTER, cause, step), 1.5)
    assert kept in text
    assert text.endswith(" · 1.5 s ──")
    assert len(text) <= words.WIDTH


def test_a_rule_without_a_new_image() -> None:
    assert " · run again · 3 ms ──" in words.rule(words.Why(BEFORE, BEFORE, ""), 0.003)
    assert words.rule(words.Why(BEFORE, BEFORE, "asked for"), 0.003).startswith("── replaced ")


def test_a_sync_has_one_line_too() -> None:
    text = words.synced("very/" * 30 + "long.py", "restart", 0.012)
    assert text.endswith("/long.py · restart · 12 ms ──")
    assert len(text) <= words.WIDTH


def test_phases_leave_out_what_took_no_time() -> None:
    assert words.phases_text({"noticed": 0.004, "planned": 0.00001, "built": 0.0182}) == "noticed 4 ms, built 18 ms"


def test_why_a_container_had_to_be_killed() -> None:
    assert "is a shell" in words.ignored("/bin/sh -c 'python app.py'", "SIGTERM", 10.0)
    assert "after its stop signal" in words.ignored("bash run.sh", "", 10.0)
    assert "(`shop --serve`) has a handler" in words.ignored("shop --serve", "SIGINT", 10.0)
