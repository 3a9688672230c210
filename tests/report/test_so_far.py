"""The report of a run that has no scores yet: what is there, and what is missing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from nstudent.report.material import Material
from nstudent.report.page import render
from nstudent.runs.plan import plan
from nstudent.runs.under_way import PROGRESS, UnderWay, Work
from nstudent.storage.artifact import Manifest
from nstudent.storage.commit import commit, open_partial, partial_folder
from nstudent.storage.files import atomic_write, write_json
from nstudent.storage.lock import hold
from test_page import SECTIONS, Tags
from written_run import WrittenRun

STEPS = ("00-data", "01-teacher", "02-baseline", "03-choose", "04-pseudolabel", "05-filter", "06-student", "07-choose")
SCORES = "08-evaluate"
MISSING = ("missing", *(name for name in SECTIONS if name not in ("confusion", "sure", "severity")))


def stopped_before(folder: Path, step: str, *, begun: bool = False, **run: object) -> Path:
    """A run folder without this step and those that follow."""
    written = WrittenRun(folder, **run)  # type: ignore[arg-type]
    written.write()
    names = [each.name for each in plan(written.config)]
    for name in names[names.index(step) :]:
        shutil.rmtree(folder / name)
    (folder / "final.json").unlink()
    if begun:
        partial_folder(folder / step).mkdir()
    return folder


def section(page: str, name: str) -> str:
    """One section of a page."""
    return page.split(f'<h2 id="{name}">')[1].split("<h2")[0]


def cells(page: str, name: str) -> list[list[str]]:
    """The rows of the tables of a section, as text."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", section(page, name), re.DOTALL)
    return [[Tags(cell).text for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows if "<td" in row]


@pytest.mark.slow
@pytest.mark.parametrize("step", [*STEPS, SCORES])
def test_a_run_that_was_stopped_anywhere_has_a_page_that_names_what_is_missing(tmp_path: Path, step: str) -> None:
    folder = stopped_before(tmp_path / "run", step, begun=True)
    page = render(folder).decode()
    assert page == render(folder).decode()
    assert re.findall(r'<h2 id="(\w+)">', page) == list(MISSING)
    assert re.findall(r'<a href="#(\w+)">', page)[: len(MISSING)] == list(MISSING)
    names = [*STEPS, SCORES]
    made = names.index(step)
    assert [row[:2] for row in cells(page, "missing")] == [
        [name, "begun" if name == step else "not begun"] for name in names[made:]
    ]
    assert "scores on test" in cells(page, "missing")[-1][2]
    text = Tags(page).text
    assert "The run has no scores yet: whether your unlabelled images help is not known." in text
    assert f"{made} of 9 steps are made; the same nstudent run-all command makes the others." in text
    assert [row[0] for row in cells(page, "cost")] == [*names[:made], "all steps"]


def test_what_is_there_is_shown(tmp_path: Path) -> None:
    folder = stopped_before(tmp_path / "run", "06-student", dropped=((0, 1),), curves=True)
    page = render(folder).decode()
    assert cells(page, "scores") == [["01-teacher", "80.0"], ["02-baseline", "80.0"]]
    assert "There are no scores on test yet." in section(page, "scores")
    assert re.findall(r"<h3>(0.*) 0</h3>", section(page, "curves")) == ["01-teacher/member", "02-baseline/member"]
    assert cells(page, "classes")[:2] == [["fruit", "2", "4"], ["root", "2", "4"]]
    assert ["apple", "1", "1"] in cells(page, "classes"), "one of its two labels was dropped"
    assert "after the filter" in section(page, "heap")
    assert [row[0] for row in cells(page, "heap")].count("all classes") == 2
    titles = re.findall(r"<h3>(.*?)</h3>", section(page, "pictures"))
    assert titles[0].startswith("Most doubtful")
    assert "Most confident mistakes" not in titles
    assert "Left out" in titles
    assert "data:image/jpeg;base64," in section(page, "pictures")
    kinds = {finding.kind for finding in Material.read(folder).findings}
    assert kinds == {"few unlabelled images"}, "what needs no scores is found, and nothing else"


def test_the_curves_of_a_training_under_way_are_shown_and_those_of_one_to_come_are_not(tmp_path: Path) -> None:
    folder = stopped_before(tmp_path / "run", "06-student", curves=True)
    assert "06-student" not in section(render(folder).decode(), "curves")
    partial_folder(folder / "06-student").mkdir()
    curves = section(render(folder).decode(), "curves")
    assert "06-student" in curves
    assert curves.count("This step is not finished. So far: it ends at its best score") == 1


def test_how_far_a_process_is_that_makes_the_run_is_said(tmp_path: Path) -> None:
    folder = stopped_before(tmp_path / "run", "06-student", begun=True)
    found = UnderWay("06-student", (Work("student", 120, 310, "batches", {"loss": 1.2}),), 28.0)
    write_json(folder / PROGRESS, found.to_json())
    said = (
        "When this page was written a process was at step 7 of 9, 06-student; student: 120 of 310 batches, loss 1.2; "
        "about 28 s to the end of the run."
    )
    assert said not in Tags(render(folder).decode()).text
    with hold(folder):
        assert said in Tags(render(folder).decode()).text


def test_steps_that_were_made_again_leave_no_scores_of_before(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    assert 'id="confusion"' in render(folder).decode()
    before = Manifest.read(folder / "01-teacher")
    shutil.rmtree(folder / "01-teacher")
    atomic_write(open_partial(folder / "01-teacher", {}) / "weights", b"others")
    kept = {"stage": "teacher", "role": "classifier", "round": 0, "asked": {}, "seconds": 60.0}
    commit(folder / "01-teacher", {**kept, "inputs": before.inputs, "metrics": before.metrics})
    page = render(folder).decode()
    assert [row[0] for row in cells(page, "missing")] == [*STEPS[3:], SCORES]


def test_a_hostile_name_of_an_unfinished_run_adds_no_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    labels = [(hostile, f"{hostile} {number}") for number in range(2)] + [("z", "z 0"), ("z", "z 1")]
    page = render(stopped_before(tmp_path / "run", "06-student", labels=labels, levels=(hostile, "fine"))).decode()
    found = Tags(page)
    assert "script" not in {tag for tag, _ in found.tags}
    assert hostile in found.text
