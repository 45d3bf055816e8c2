"""The stages of a build that are done, and those that others wait for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from engine.base.cancel import CancelToken
from engine.build.state import State


class Finished(Mapping[int, State]):
    """Asking for a stage waits until it is done; it raises `Cancelled` when the build ends before."""

    def __init__(self, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._states: dict[int, State] = {}
        self._changed = threading.Condition()
        self._expected: set[int] = set()
        cancel.on_cancel(self._wake)

    def expect(self, stages: set[int]) -> None:
        self._expected = stages

    def put(self, stage: int, state: State) -> None:
        with self._changed:
            self._states[stage] = state
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def __getitem__(self, stage: int) -> State:
        with self._changed:
            if stage not in self._expected and stage not in self._states:
                raise KeyError(stage)
            while stage not in self._states:
                self._cancel.check()
                self._changed.wait()
            return self._states[stage]

    def __contains__(self, stage: object) -> bool:
        return stage in self._expected or stage in self._states

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._states))

    def __len__(self) -> int:
        return len(self._states)
