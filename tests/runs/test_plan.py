"""The plan: what a run will do, known before anything is done."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from costless_runs import ONE_ROUND, TWO_ROUNDS, planned, steps_made
from nstudent import load_config, plan
from nstudent.cli.console import print_plan
from nstudent.runs.plan import STAGES
from nstudent.runs.stage import Context, Stage
from nstudent.storage.artifact import Metrics

if TYPE_CHECKING:
    from conftest import FakeStages


def test_the_plan_without_rounds() -> None:
    data = ["00-data"]
    assert planned(0) == {"00-data": [], "01-teacher": data, "02-choose": data, "03-evaluate": [*data, "02-choose"]}


def test_a_probe_comes_before_what_is_trained() -> None:
    steps = plan(load_config(None, ["rounds=1"]))
    assert [step.name for step in steps[:5]] == ["00-data", "01-probe", "02-teacher", "03-baseline", "04-choose"]
    assert steps[4].gathered == ("01-probe", "02-teacher", "03-baseline")
    assert steps[-1].name == "09-evaluate"


def test_probes_that_learn_from_the_heap_are_of_the_first_round_and_decide_nothing_for_the_labels() -> None:
    words = ["rounds=1", "probe.heap=500", "teacher.noise.flip=null"]
    steps = plan(load_config(None, words))
    assert [(step.name, step.round) for step in steps[:4]] == [
        ("00-data", 0),
        ("01-probe", 0),
        ("02-probe", 1),
        ("03-teacher", 0),
    ]
    reads = {step.name: step.reads for step in steps}
    assert reads["03-teacher"] == ("00-data", "01-probe")
    assert reads["02-probe"] == ("00-data",)
    assert "02-probe" in reads["05-choose"]
    for word in ("rounds=0", "probe.members=[]", "probe.heap=0"):
        assert [step.round for step in plan(load_config(None, [*words, word])) if step.stage.name == "probe"] in (
            [],
            [0],
        )


def test_a_number_of_images_of_the_heap_makes_the_probes_of_the_labels_no_other(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    words = ("probe.members=[{kind: probe}]",)
    steps_made(tmp_path, *words)
    assert "01-probe" not in steps_made(tmp_path, *words, "probe.heap=500")
    assert steps_made(tmp_path, *words, "probe.heap=600")["02-probe"] == "probe.heap changed from 500 to 600"


def test_a_decision_that_is_left_to_the_probe_makes_it_an_input() -> None:
    words = ["rounds=1", "teacher.noise.flip=null", "student.noise.flip=null", "filter.noise.flip=null"]
    reads = {step.name: step.reads for step in plan(load_config(None, words))}
    assert reads["02-teacher"] == ("00-data", "01-probe")
    assert reads["03-baseline"] == ("00-data", "01-probe")
    assert "01-probe" in reads["07-student"]
    assert "01-probe" not in reads["06-filter"], "it trains nothing: the filter is off"
    reads = {step.name: step.reads for step in plan(load_config(None, [*words, "filter.enabled=true"]))}
    assert "01-probe" in reads["06-filter"]
    without = {step.name: step.reads for step in plan(load_config(None, [*words, "probe.members=[]"]))}
    assert without["01-teacher"] == ("00-data",)
    given = {step.name: step.reads for step in plan(load_config(None, ["rounds=1"]))}
    assert given["02-teacher"] == given["03-baseline"] == ("00-data",)


_FIRST_ROUND = {
    "00-data": [],
    "01-teacher": ["00-data"],
    "02-baseline": ["00-data"],
    "03-choose": ["00-data"],
    "04-pseudolabel": ["00-data", "03-choose"],
    "05-filter": ["00-data", "03-choose", "04-pseudolabel"],
    "06-student": ["00-data", "03-choose", "04-pseudolabel", "05-filter"],
    "07-choose": ["00-data"],
}


def test_the_plan_of_one_round() -> None:
    assert planned(1) == _FIRST_ROUND | {"08-evaluate": ["00-data", "07-choose"]}


def test_in_the_second_round_what_was_chosen_after_the_first_one_labels() -> None:
    assert planned(2) == _FIRST_ROUND | {
        "08-pseudolabel": ["00-data", "07-choose"],
        "09-filter": ["00-data", "07-choose", "08-pseudolabel"],
        "10-student": ["00-data", "07-choose", "08-pseudolabel", "09-filter"],
        "11-choose": ["00-data"],
        "12-evaluate": ["00-data", "11-choose"],
    }


def _gathered(rounds: int) -> dict[str, tuple[str, ...]]:
    return {
        step.name: step.gathered
        for step in plan(load_config(None, [f"rounds={rounds}", "probe.members=[]"]))
        if step.gathered
    }


def test_a_choice_gathers_every_classifier_that_was_trained_before_it() -> None:
    """The baseline too, and no earlier choice: that is made of the same classifiers."""
    found = _gathered(2)
    assert found["03-choose"] == ("01-teacher", "02-baseline")
    assert found["07-choose"] == ("01-teacher", "02-baseline", "06-student")
    assert found["11-choose"] == ("01-teacher", "02-baseline", "06-student", "10-student")
    assert _gathered(0)["02-choose"] == ("01-teacher",)


def test_the_evaluation_gathers_everything_that_is_scored() -> None:
    assert [plan(load_config(None, [f"rounds={n}", "probe.members=[]"]))[-1].gathered for n in (0, 1, 2)] == [
        ("01-teacher", "02-choose"),
        tuple(ONE_ROUND[1:-1]),
        tuple(TWO_ROUNDS[1:-1]),
    ]


def test_a_refit_comes_after_the_last_choice_and_reads_what_it_trains_again() -> None:
    steps = plan(load_config(None, ["rounds=2", "final.refit=true"]))
    refit, evaluate = steps[-2:]
    assert [step.stage.name for step in steps[-3:]] == ["choose", "refit", "evaluate"]
    assert dict(refit.inputs) == {
        "data": "00-data",
        "labeller": steps[-3].name,
        "teacher": "02-teacher",
        "probe": "01-probe",
        "baseline": "03-baseline",
    }
    made = [step.name for step in steps if step.stage.provides in ("classifier", "labels", "selection")]
    assert refit.gathered == tuple(made)
    assert refit.name in evaluate.gathered
    alone = plan(load_config(None, ["rounds=0", "probe.members=[]", "final.refit=true"]))[-2]
    assert alone.reads == ("00-data", "01-teacher", "02-choose")


def test_steps_know_their_round() -> None:
    """The last choice is of none: it is made also where the rounds end early."""
    rounds = {step.name: step.round for step in plan(load_config(None, ["rounds=2", "probe.members=[]"]))}
    assert [rounds[name] for name in TWO_ROUNDS] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 0, 0]


@pytest.mark.parametrize(("rounds", "last"), [(0, "02-choose"), (1, "07-choose"), (2, "11-choose")])
def test_the_last_step_of_a_stage_knows_that_it_is(rounds: int, last: str) -> None:
    steps = [
        step
        for step in plan(load_config(None, [f"rounds={rounds}", "probe.members=[]"]))
        if step.stage.name == "choose"
    ]
    assert [step.name for step in steps if step.is_last] == [last]


def test_all_processes_of_a_run_share_what_takes_long() -> None:
    """The leader alone reads the images and scores: the others wait for it."""
    assert {name for name, stage in STAGES.items() if not stage.shared} == {
        *("data", "probe", "soup", "choose", "evaluate")
    }


# --- a stage that reads every artifact of a role and not only the latest ---


@pytest.fixture
def labelled_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are made by every labeller there is."""
    monkeypatch.setitem(STAGES, "pseudolabel", replace(STAGES["pseudolabel"], gathers=("labeller",)))


@pytest.mark.usefixtures("labelled_by_all")
def test_a_stage_that_gathers_labellers_reads_all_that_were_made_before_it() -> None:
    reads = {step.name: step.reads for step in plan(load_config(None, ["rounds=3", "probe.members=[]"]))}
    assert reads["04-pseudolabel"] == ("00-data", "03-choose")
    assert reads["08-pseudolabel"] == ("00-data", "03-choose", "07-choose")
    assert reads["12-pseudolabel"] == ("00-data", "03-choose", "07-choose", "11-choose")
    assert reads["14-student"] == ("00-data", "11-choose", "12-pseudolabel", "13-filter")


@pytest.mark.usefixtures("labelled_by_all")
def test_the_plan_that_is_shown_names_every_labeller(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(plan(load_config(None, ["rounds=2", "probe.members=[]"])))
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines()}
    assert rows["04-pseudolabel"] == "guesses labels of the unlabelled images 00-data, 03-choose"
    assert rows["08-pseudolabel"] == "guesses labels of the unlabelled images 00-data, 03-choose, 07-choose"
    assert rows["12-evaluate"] == "scores on the test images everything made before"


@pytest.mark.usefixtures("labelled_by_all")
def test_the_context_hands_over_every_labeller_and_the_latest_one(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def work(context: Context) -> Metrics:
        if context.step.stage.name == "pseudolabel":
            (same,) = (made for made in context.all("labeller") if made.name == context.inputs["labeller"].name)
            assert same is context.inputs["labeller"], "it is opened once"
            seen[context.step.name] = ([made.name for made in context.all("labeller")], same.name)
        return fake_stages.work(context)

    monkeypatch.setattr(Stage, "load", lambda stage: work)
    steps_made(tmp_path, "rounds=2")
    assert seen == {
        "04-pseudolabel": (["03-choose"], "03-choose"),
        "08-pseudolabel": (["03-choose", "07-choose"], "07-choose"),
    }


def test_of_what_is_gathered_each_role_can_be_asked_for(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}

    def work(context: Context) -> Metrics:
        for role in context.step.stage.gathers:
            found[role] = [made.name for made in context.all(role)]
        if "labels" in context.step.stage.gathers:
            found["both"] = [made.name for made in context.all("selection", "labels")]
        return fake_stages.work(context)

    monkeypatch.setattr(Stage, "load", lambda stage: work)
    steps_made(tmp_path)
    assert found == {
        "classifier": ["01-teacher", "02-baseline", "06-student"],
        "labeller": ["03-choose", "07-choose"],
        "labels": ["04-pseudolabel"],
        "selection": ["05-filter"],
        "refit": [],
        "both": ["04-pseudolabel", "05-filter"],
    }


@pytest.mark.usefixtures("labelled_by_all")
def test_labels_are_stale_if_any_labeller_was_made_again(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path, "rounds=2")
    asked = json.loads((tmp_path / "08-pseudolabel" / "manifest.json").read_text())["asked"]
    assert list(asked["inputs"]) == ["00-data", "07-choose", "03-choose"]
    shutil.rmtree(tmp_path / "03-choose")
    fake_stages.content = {"03-choose": "other"}
    made = steps_made(tmp_path, "rounds=2")
    assert made["08-pseudolabel"] == "03-choose was made again"


def test_a_role_that_a_stage_does_not_gather_is_not_handed_over(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that it would seem that there are none."""

    def work(context: Context) -> Metrics:
        context.all("labeller")
        return fake_stages.work(context)

    monkeypatch.setattr(Stage, "load", lambda stage: work)
    with pytest.raises(AssertionError, match="the stage data does not gather labeller"):
        steps_made(tmp_path)
