"""A clock that tests of a room set."""

from types import ModuleType

import pytest


class Clock:
    """Stands in for the module ``time`` of a room."""

    def __init__(self, room: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(room, "time", self)

    def monotonic(self) -> float:
        return self.now
