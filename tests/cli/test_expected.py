"""What is said of the expected time of a run."""

from __future__ import annotations

import pytest
from nstudent import machine
from nstudent.cli.expected import BUSY, print_expected


@pytest.mark.parametrize(("load", "busy"), [(0.0, False), (4.0, False), (5.9, False), (6.1, True), (60.0, True)])
def test_a_machine_that_others_use_is_named_beside_the_time(
    load: float, busy: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load, 0.0, 0.0))
    print_expected("about 2 h on this machine (4 cores, no GPU)")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "expected time: about 2 h on this machine (4 cores, no GPU);"
    assert [line.strip() for line in said[2:]] == ([BUSY] if busy else [])


def test_a_system_that_knows_no_load_is_not_called_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> tuple[float, float, float]:
        raise OSError("no load")

    monkeypatch.setattr(machine.os, "getloadavg", unknown)
    assert not machine.is_used_by_others()
