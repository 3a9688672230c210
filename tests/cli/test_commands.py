"""The command line: results on the screen, and errors in words."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest
from nstudent import cli, load_config
from nstudent.errors import NstudentError, TrainingError
from nstudent.runs.plan import STAGES, plan
from nstudent.runs.step_metrics import DataMetrics
from nstudent.runs.words import DOES

if TYPE_CHECKING:
    from conftest import FakeStages

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """``nstudent ...`` in this process, with fake stages or none; in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["nstudent", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return CompletedProcess(arguments, code, said.out, said.err)

    return run


# --- errors ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run-all", "student.epoch=3"], "student.epoch: there is no such key (did you mean 'epochs'?)"),
        (["run-all", "--dry-run", "seed=x"], "seed is 'x': input should be a valid integer"),
        (["run-all", "--config", "nowhere.yaml"], "cannot read nowhere.yaml: No such file or directory"),
        (["run-all", "epochs"], "'epochs' is not an override: write key=value"),
        (["run-all", "--run-dir", "file"], "cannot use the run folder file"),
        (["stage", "filter", "rounds=0"], "no filter step: with rounds=0"),
        (["run-all", "--until", "filter", "rounds=0"], "no filter step: with rounds=0"),
        (
            ["stage", "teacher"],
            "teacher needs 00-data, which is not in runs/digits: run `nstudent stage data` with the same options first",
        ),
        (["stage", "pseudolabel", "--shard", "4/4"], "--shard 4/4: write I/N with I from 0 to N - 1, such as 0/4"),
        (["stage", "pseudolabel", "--shard", "one"], "--shard one: write I/N"),
        (["stage", "teacher", "--shard", "0/4"], "--shard is for the stage pseudolabel; teacher cannot"),
        (["status", "nowhere"], "nowhere is not a run folder: it has no config.yaml"),
        (["status", "file"], "file is not a run folder"),
        (["predict", "nowhere", "x.png"], "nowhere holds no trained classifier: run `nstudent run-all --run-dir"),
        (["predict", "nowhere", "x.png", "--device", "abacus"], "device"),
    ],
)
def test_an_error_is_words_and_exit_code_2(tmp_path: Path, command: Command, words: list[str], said: str) -> None:
    (tmp_path / "file").write_text("")
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("nstudent: ")]
    assert len(message) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage", "distil"], "'distil' is not one of"),
        (["run-all", "--until", "distil"], "'distil' is not one of"),
        (["train"], "No such command 'train'"),
        (["run-all", "--fast"], "No such option: --fast"),
        (["status"], "Missing argument"),
        (["predict", "runs/digits"], "Missing argument"),
    ],
)
def test_a_wrong_word_is_named(command: Command, words: list[str], said: str) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_every_problem_of_a_configuration_has_its_line(command: Command) -> None:
    done = command("run-all", "seed=x", "rounds=-1", "student.epoch=3")
    first, *listed = done.stderr.splitlines()
    assert first == "nstudent: the command line: 3 problems in the configuration:"
    assert {re.split(r": | is ", line.strip())[0] for line in listed} == {"seed", "rounds", "student.epoch"}


def test_an_error_of_a_process_has_no_traceback(nstudent: Command) -> None:
    done = nstudent("status", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "nstudent: nowhere is not a run folder: it has no config.yaml\n"


def test_an_error_while_training_keeps_what_is_done(command: Command, fake_stages: FakeStages, tmp_path: Path) -> None:
    fake_stages.failing = {"02-teacher": TrainingError("the teacher is no better than chance")}
    done = command("run-all")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "nstudent: the teacher is no better than chance"
    assert (tmp_path / "runs" / "digits" / "00-data" / "manifest.json").exists()


def test_an_interrupt_says_how_to_go_on(command: Command, fake_stages: FakeStages) -> None:
    fake_stages.failing = {"02-teacher": KeyboardInterrupt()}
    done = command("run-all")
    assert done.returncode == 130
    assert "the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_defect_of_ours_is_not_dressed_up_as_the_users(command: Command, fake_stages: FakeStages) -> None:
    fake_stages.failing = {"02-teacher": ZeroDivisionError()}
    with pytest.raises(ZeroDivisionError):
        command("run-all")


@pytest.mark.slow
def test_a_busy_folder_is_refused(nstudent: Command, tmp_path: Path) -> None:
    from nstudent.storage.lock import hold

    with hold(tmp_path / "run"):
        done = nstudent("stage", "data", "--run-dir", "run")
    assert done.returncode == 2
    assert done.stderr.startswith("nstudent: run is in use by process ")


# --- results ---


def test_help_names_every_command_and_stage(command: Command) -> None:
    done = command("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("run-all", "stage", "status", "predict"))
    assert all(stage in command("stage", "--help").stdout for stage in STAGES)


def test_without_a_word_it_shows_its_help(command: Command) -> None:
    done = command()
    assert "run-all" in done.stdout + done.stderr


def test_a_dry_run_prints_the_plan_and_makes_nothing(command: Command, tmp_path: Path) -> None:
    done = command("run-all", "--dry-run", "rounds=1", "probe.members=[]")
    assert done.returncode == 0
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()[1:]]
    assert [name for name, _ in rows] == [
        *("00-data", "01-teacher", "02-baseline", "03-choose", "04-pseudolabel", "05-filter", "06-student"),
        *("07-choose", "08-evaluate"),
    ]
    assert rows[3][1].split() == ["takes", "the", "best", "classifier", "so", "far", "everything", "made", "before"]
    assert rows[6][1].startswith("learns from the labels and from the guesses ")
    assert rows[6][1].endswith(" 00-data, 03-choose, 04-pseudolabel, 05-filter")
    assert list(tmp_path.iterdir()) == []


def _dry(command: Command, *words: str) -> dict[str, str]:
    """What a dry run says of each step: its row without the columns about every run."""
    done = command("run-all", "--dry-run", "rounds=1", "probe.members=[]", *words)
    assert done.returncode == 0, done.stderr
    return _becomes(done)


def _becomes(done: CompletedProcess[str]) -> dict[str, str]:
    head, *rows = done.stdout.splitlines()
    assert head.split()[:2] == ["step", "now"]
    does, reads = head.index("what it does"), head.index("reads")
    cells = {row.split()[0]: (" ".join(row[:does].split()[1:]), row[does:reads].strip()) for row in rows}
    known = {step.name: DOES[step.stage.name] for step in plan(load_config(None, ["rounds=1", "probe.members=[]"]))}
    return {name: now if why == known[name] else f"{now}: {why}" for name, (now, why) in cells.items()}


def test_a_dry_run_in_a_copied_run_says_what_is_made_again_and_why(
    command: Command, fake_stages: FakeStages, tmp_path: Path
) -> None:
    made = ["rounds=1", "probe.members=[]", "pseudolabel.threshold=0.6", "--run-dir"]
    assert command("run-all", *made, "run").returncode == 0
    shutil.copytree("run", "copy")
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    same = _dry(command, "pseudolabel.threshold=0.6", "--run-dir", "copy")
    assert set(same.values()) == {"up to date"}
    other = _dry(command, "pseudolabel.threshold=0.7", "--run-dir", "copy")
    assert other == {
        **dict.fromkeys(("00-data", "01-teacher", "02-baseline", "03-choose"), "up to date"),
        "04-pseudolabel": "made again: pseudolabel.threshold changed from 0.6 to 0.7",
        "05-filter": "made again: pseudolabel.threshold changed from 0.6 to 0.7",
        "06-student": "perhaps made again: if 04-pseudolabel comes out different",
        "07-choose": "perhaps made again: if 06-student comes out different",
        "08-evaluate": "perhaps made again: if 04-pseudolabel comes out different",
    }
    shutil.rmtree("copy/04-pseudolabel")
    assert _dry(command, "pseudolabel.threshold=0.6", "--run-dir", "copy")["04-pseudolabel"] == "made"
    shutil.copytree("run/04-pseudolabel", "copy/04-pseudolabel")
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before


def test_a_dry_run_says_that_an_interrupted_step_goes_on_or_is_refused(
    command: Command, fake_stages: FakeStages, tmp_path: Path
) -> None:
    fake_stages.failing = {"02-baseline": KeyboardInterrupt()}
    command("run-all", "rounds=1", "probe.members=[]")
    folder = tmp_path / "runs" / "digits"
    (folder / "02-baseline.partial" / "work").write_text("x")
    found = _dry(command)
    assert (found["01-teacher"], found["02-baseline"], found["03-choose"]) == ("up to date", "goes on", "made")
    refused = command("run-all", "--dry-run", "rounds=1", "probe.members=[]", "student.epochs=3")
    assert _becomes(refused)["02-baseline"] == "refused: see below"
    assert refused.returncode == 2
    said = (
        "nstudent: runs/digits/02-baseline.partial holds unfinished work for other settings or inputs (student.epochs"
    )
    assert refused.stderr.startswith(said)
    assert refused.stderr == command("run-all", "rounds=1", "probe.members=[]", "student.epochs=3").stderr


def test_a_dry_run_says_that_there_is_nothing_to_learn_from(command: Command, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").touch()
    done = command("run-all", "--dry-run", "data.source=folder", "data.root=photos")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("nstudent: there are no unlabelled images to learn from: give")
    assert command("run-all", "--dry-run", "data.source=folder", "data.root=photos", "rounds=0").returncode == 0


def test_until_a_stage_the_states_and_scores_of_its_steps_are_shown(command: Command, fake_stages: FakeStages) -> None:
    assert (
        "evaluate" not in command("run-all", "rounds=1", "probe.members=[]", "--until", "student", "--dry-run").stdout
    )
    done = command("run-all", "rounds=1", "probe.members=[]", "--until", "student")
    assert done.returncode == 0
    *rows, last = done.stdout.splitlines()[1:]
    made = ["00-data", "01-teacher", "02-baseline", "03-choose", "04-pseudolabel", "05-filter", "06-student"]
    scores = dict.fromkeys(("01-teacher", "02-baseline", "06-student"), "50.0")
    scores["03-choose"] = "50.0 takes 01-teacher"
    wanted = [[name, "done", *scores.get(name, "").split()] for name in made]
    assert [row.split()[: len(words)] for row, words in zip(rows, wanted, strict=True)] == wanted
    assert rows[-1].rstrip().endswith("learns from the labels and from the guesses")
    assert last == "the same command without --until goes on from here"
    assert fake_stages.made == made
    assert "08-evaluate" in command("run-all", "rounds=1", "probe.members=[]").stdout


def test_a_student_that_is_asked_for_and_not_reached_is_an_error(command: Command, fake_stages: FakeStages) -> None:
    fake_stages.leave_nothing_after("09-filter")
    done = command("run-all", "rounds=2", "probe.members=[]", "--until", "student")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "nstudent: nothing is left: 10-student was not made"


def test_run_all_ends_with_the_scores(command: Command, fake_stages: FakeStages) -> None:
    done = command("run-all", "rounds=1", "probe.members=[]")
    assert done.returncode == 0
    assert done.stderr.splitlines()[1] == "[2/9] 01-teacher: not made yet"
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line.split() for line in lines if line.startswith(("01-teacher", "06-student"))][:2] == [
        ["01-teacher", "*", "50.0", "±10.0", "-"],
        ["06-student", "50.0", "±10.0", "-"],
    ]
    # These stages leave nothing to report on, and the run ends all the same.
    assert lines[-4].startswith("no report could be written: runs/digits/00-data/index.h5 is missing: ")
    assert lines[-4].endswith("; nstudent report runs/digits tries it again")
    assert lines[-3:-1] == [
        "picture: runs/digits/08-evaluate/scores.png",
        "use it:  nstudent predict runs/digits IMAGE...",
    ]
    assert lines[-1].startswith("Your unlabelled images did not help")


def test_run_all_counts_what_was_left_out_and_what_is_worth_a_look(command: Command, fake_stages: FakeStages) -> None:
    fake_stages.metrics = {
        "00-data": DataMetrics(
            *(1, 1, 1, 1),
            unreadable=3,
            duplicates=0,
            near_duplicates=1234,
            conflicting_labels=0,
            classes=(2,),
            terminals=2,
            findings={"one_training_image": 2, "held_out_only": 0},
        )
    }
    assert command("run-all", "rounds=1", "probe.members=[]").stdout.splitlines()[-6:-4] == [
        "not used: 3 unreadable images, 1,234 near-duplicates (runs/digits/00-data/left_out.json)",
        "worth a look: 2 labels with one training image (runs/digits/00-data/findings.json)",
    ]


def test_run_all_again_makes_nothing(command: Command, fake_stages: FakeStages) -> None:
    first = command("run-all", "rounds=1", "probe.members=[]")
    fake_stages.forget()
    again = command("run-all", "rounds=1", "probe.members=[]")
    assert fake_stages.made == []
    assert all(line.endswith(": up to date") for line in again.stderr.splitlines())
    assert again.stdout == first.stdout


def test_a_page_and_overrides_and_a_folder(command: Command, fake_stages: FakeStages, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text("# mine\nname: mine\nrounds: 0\nteacher: {epochs: 3}\n")
    assert command("run-all", "--config", "page.yaml", "teacher.epochs=5").returncode == 0
    text = (tmp_path / "runs" / "mine" / "config.yaml").read_text()
    assert "epochs: 5" in text
    command("run-all", "teacher.epochs=6", "--config", "page.yaml", "--run-dir", "elsewhere", "seed=4")
    assert "seed: 4" in (tmp_path / "elsewhere" / "config.yaml").read_text()


def test_stage_prints_the_folder_it_made(command: Command, fake_stages: FakeStages) -> None:
    assert command("stage", "data").stdout == "runs/digits/00-data\n"
    assert command("stage", "teacher").stdout == "runs/digits/02-teacher\n"
    assert fake_stages.made == ["00-data", "02-teacher"]


def test_status_shows_each_step(command: Command, fake_stages: FakeStages) -> None:
    command("run-all", "rounds=2")
    command("stage", "data", "seed=1")
    done = command("status", "runs/digits")
    assert done.returncode == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1].rstrip() for line in done.stdout.splitlines()[1:]}
    assert rows["00-data"].split() == ["done", "reads", "and", "divides", "the", "images"]
    assert rows["07-student"].split()[1] == rows["03-baseline"].split()[1] == "50.0"
    assert rows["08-choose"].split()[:2] == ["stale", "50.0"]
    assert rows["02-teacher"].startswith("stale")
    assert "seed changed from 0 to 1" in rows["02-teacher"]
    said = "run-all makes a stale step again, and each step that reads it if it comes out different"
    assert done.stdout.splitlines()[-1] == said
    command("run-all", "rounds=2", "seed=1")
    assert said not in command("status", "runs/digits").stdout


def test_status_says_why_a_run_stopped(command: Command, fake_stages: FakeStages) -> None:
    fake_stages.leave_nothing_after("06-filter")
    command("run-all", "rounds=2")
    rows = {line.split()[0]: line for line in command("status", "runs/digits").stdout.splitlines()[1:]}
    assert rows["07-student"].split(maxsplit=1)[1].split() == ["not", "needed", "nothing", "is", "left"]
    assert "not needed" in rows["11-student"]
    assert "done" in rows["12-choose"]


def test_square_brackets_are_shown_as_they_are(command: Command, fake_stages: FakeStages) -> None:
    """rich would take them for markup and swallow them, as in a list of thresholds or a folder's name."""
    fake_stages.failing = {"00-data": NstudentError("photos/[red]/x.jpg is no image")}
    assert "photos/[red]/x.jpg is no image" in command("run-all").stderr
    fake_stages.failing = {}
    command("run-all", "pseudolabel.threshold=[0.5, 0.5, 0.5]")
    done = command("run-all", "pseudolabel.threshold=[0.5, 0.5, 0.6]")
    assert "from [0.5, 0.5, 0.5] to [0.5, 0.5, 0.6]" in done.stderr
