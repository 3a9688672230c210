"""Whose classifier stands at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from costless_runs import states, steps_made
from nstudent import load_config, plan
from nstudent.runs.outcome import standing

if TYPE_CHECKING:
    from conftest import FakeStages


def _final(run_dir: Path) -> str:
    return str(json.loads((run_dir / "final.json").read_text())["step"])


def test_what_was_trained_again_stands_once_it_is_there(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    assert _final(tmp_path) == "07-choose"
    assert steps_made(tmp_path, "final.refit=true") == {"08-refit": "not made yet", "09-evaluate": "not made yet"}
    assert _final(tmp_path) == "08-refit"
    assert set(states(tmp_path).values()) == {"done"}


def test_where_nothing_is_trained_again_any_more_the_choice_stands(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path, "final.refit=true")
    assert steps_made(tmp_path) == {"08-evaluate": "not made yet"}
    assert _final(tmp_path) == "07-choose"
    assert standing(plan(load_config(None, ["rounds=1", "probe.members=[]", "final.refit=true"])), tmp_path) == (
        "08-refit"
    )


def test_other_labels_make_a_refit_again(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path, "final.refit=true")
    made = steps_made(tmp_path, "final.refit=true", "pseudolabel.threshold=0.9")
    assert list(made) == [*("04-pseudolabel", "05-filter", "06-student", "07-choose", "08-refit", "09-evaluate")]
