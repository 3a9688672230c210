"""The plan: what a run will do, known before anything is done."""

from costless_runs import ONE_ROUND, TWO_ROUNDS, planned
from nstudent import load_config, plan


def test_the_plan_without_rounds() -> None:
    assert planned(0) == {"00-data": [], "01-teacher": ["00-data"], "02-evaluate": ["00-data"]}


_FIRST_ROUND = {
    "00-data": [],
    "01-teacher": ["00-data"],
    "02-baseline": ["00-data"],
    "03-pseudolabel": ["00-data", "01-teacher"],
    "04-filter": ["00-data", "03-pseudolabel"],
    "05-student": ["00-data", "01-teacher", "03-pseudolabel", "04-filter"],
}


def test_the_plan_of_one_round() -> None:
    assert planned(1) == _FIRST_ROUND | {"06-evaluate": ["00-data"]}


def test_in_the_second_round_the_student_is_the_teacher() -> None:
    assert planned(2) == _FIRST_ROUND | {
        "06-pseudolabel": ["00-data", "05-student"],
        "07-filter": ["00-data", "06-pseudolabel"],
        "08-student": ["00-data", "05-student", "06-pseudolabel", "07-filter"],
        "09-evaluate": ["00-data"],
    }


def test_the_evaluation_gathers_everything_that_is_scored() -> None:
    assert [plan(load_config(None, [f"rounds={n}"]))[-1].gathered for n in (0, 1, 2)] == [
        ("01-teacher",),
        tuple(ONE_ROUND[1:-1]),
        tuple(TWO_ROUNDS[1:-1]),
    ]


def test_steps_know_their_round() -> None:
    rounds = {step.name: step.round for step in plan(load_config(None, ["rounds=2"]))}
    assert [rounds[name] for name in TWO_ROUNDS] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0]
