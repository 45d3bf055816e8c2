"""Which step a rule line names after overtaken builds."""

from __future__ import annotations

import pytest

from engine.model import StepInfo
from engine.project.making import _earlier

COPY, RUN = (StepInfo(f"stage-0/{n}", "0", n, 6, text, n) for n, text in ((5, "COPY app.py ."), (6, "RUN make")))
OTHER = StepInfo("stage-1/1", "1", 1, 6, "COPY --from=0 /x /x", 9)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        (None, None, None),
        (None, RUN, RUN),
        (COPY, None, COPY),
        (COPY, RUN, COPY),  # the overtaken build copied the file, which the next one found done
        (RUN, COPY, COPY),
        (COPY, OTHER, COPY),
    ],
)
def test_the_first_step_that_the_change_made_necessary(
    before: StepInfo | None, now: StepInfo | None, named: StepInfo | None
) -> None:
    assert _earlier(before, now) is named
