"""Reports in a real Chromium: they ask for nothing, run nothing, and fit a phone, in light and in dark."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, NO_CHROMIUM, Browser, browser
from nstudent.report.page import write_report
from PIL import Image
from test_page import HOSTILE, hostile_run
from written_run import WrittenRun

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)]
PHONE_PX = 380


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of runs of several kinds, by name."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nstudent.storage.files.os.fsync", lambda descriptor: None)
        photo = "<img src=http://127.0.0.1:9/{} onerror=alert(1)>"
        long = tuple((f"{'wide' * 20} {i % 3}", f"{'long' * 30} {i}") for i in range(9))
        every = np.arange(9)
        runs = {
            "plain": WrittenRun(folder / "plain", dropped=((0, 1),), rounds=2),
            "hostile": hostile_run(folder / "hostile", HOSTILE, (HOSTILE[0], HOSTILE[1]), photo),
            "long names": WrittenRun(folder / "long", labels=long, test=every, said=np.roll(every, 1), heap=every),
            "unfinished": WrittenRun(folder / "unfinished"),
        }
        written = {name: run.write() for name, run in runs.items()}
        shutil.rmtree(written["unfinished"] / "08-evaluate")
        return {name: write_report(run) for name, run in written.items()}


@pytest.mark.parametrize("name", ["plain", "hostile", "long names", "unfinished"])
def test_a_page_asks_for_nothing_runs_nothing_and_says_nothing(
    chromium: Browser, pages: dict[str, Path], name: str
) -> None:
    seen = chromium.look(pages[name])
    assert seen.requests == ()
    assert seen.scripts == 0
    assert seen.said == ()
    assert "Findings" in seen.text
    assert ("Not there yet" in seen.text) == (name == "unfinished")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["plain", "hostile", "long names", "unfinished"])
def test_a_page_fits_a_phone(chromium: Browser, pages: dict[str, Path], name: str, dark: bool) -> None:
    seen = chromium.look(pages[name], width=PHONE_PX, dark=dark)
    assert seen.width <= PHONE_PX
    assert seen.said == ()


def brightness(colour: str) -> float:
    """Mean of red, green and blue of a colour as CSS says it, 0 to 255."""
    return float(np.mean([float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]))


def test_a_page_is_light_or_dark_as_its_reader_wishes(chromium: Browser, pages: dict[str, Path]) -> None:
    light, dark = (chromium.look(pages["plain"], dark=is_dark) for is_dark in (False, True))
    for seen, is_dark in ((light, False), (dark, True)):
        assert (brightness(seen.back) < brightness(seen.ink)) == is_dark
        assert abs(brightness(seen.back) - brightness(seen.ink)) > 150
        shown = np.asarray(Image.open(io.BytesIO(seen.screenshot)).convert("L"))
        assert shown.shape == (800, 1000)
        assert (np.median(shown) < 128) == is_dark
        assert shown.std() > 5, "something is drawn"


def test_what_a_page_must_not_do_would_be_seen(chromium: Browser, tmp_path: Path) -> None:
    """The tests above can fail: each thing that they look for is found where it is."""
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><body><div style='width: 900px'>wide</div><img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('ran'); document.body.append('written')</script>"
    )
    seen = chromium.look(page, width=PHONE_PX)
    assert seen.requests == ("http://127.0.0.1:9/x.png",)
    assert seen.scripts == 1
    assert any("ran" in each for each in seen.said)
    assert "written" in seen.text
    assert seen.width >= 900


def test_the_policy_of_a_page_stops_what_its_escapes_would_not(
    chromium: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """Markup that came through all the same could load and run nothing."""
    page = tmp_path / "page.html"
    injected = "<img src='http://127.0.0.1:9/x.png'><script>document.title = 'ran'</script>"
    page.write_text(pages["plain"].read_text().replace("<nav>", f"{injected}<nav>", 1))
    seen = chromium.look(page)
    assert seen.scripts == 0
    assert sum("Content Security Policy" in each for each in seen.said) == 2
