"""The report of a run that was really made, in a real Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, NO_CHROMIUM, Browser, browser
from nstudent.report.page import render

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
PHONE_PX = 380


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE_PX, 1000])
def test_the_report_of_a_finished_run_asks_for_nothing_runs_nothing_and_fits(
    finished: Path, chromium: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(render(finished))
    seen = chromium.look(page, width=width, dark=dark)
    assert (seen.requests, seen.scripts, seen.said) == ((), 0, ())
    assert seen.width <= width
    assert "Your unlabelled images" in seen.text
    assert seen.screenshot.startswith(b"\x89PNG")
