"""The curves of trainings on disk: each epoch once, whatever an interrupted attempt had written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.distributed.world import Alone, World
from nstudent.errors import ArtifactError, ConfigError
from nstudent.listener import Listener, NoListener, Several
from nstudent.runs.curves import COLUMNS, CurveFiles, read_curves
from nstudent.runs.folder import Run
from nstudent.runs.tensorboard import TensorBoard
from nstudent.session import Session

TRAINING = "01-teacher/member 0"
EPOCHS = [
    {"epoch": 1, "step": 4, "loss": 2.5, "learning_rate": 0.1},
    {"epoch": 2, "step": 8, "loss": 1.25, "learning_rate": 1e-05, "validation": 0.5},
    {"epoch": 3, "step": 12, "loss": 1.0, "learning_rate": 0.0},
]


def heard(listener: Listener, behind: int, last: int) -> None:
    """Let a listener hear of a training that begins behind an epoch and comes to another one."""
    listener.begins(TRAINING, EPOCHS[:behind])
    for entry in EPOCHS[behind:last]:
        listener.epoch(TRAINING, entry)


def test_each_training_has_a_file_with_a_row_for_each_epoch(tmp_path: Path) -> None:
    heard(CurveFiles(tmp_path), 0, 2)
    CurveFiles(tmp_path).begins("02-baseline/baseline", [])
    assert (tmp_path / "curves" / "01-teacher.member-0.csv").read_text() == (
        "training,epoch,step,loss,learning_rate,validation\n"
        "01-teacher/member 0,1,4,2.5,0.1,\n"
        "01-teacher/member 0,2,8,1.25,1e-05,0.5\n"
    )
    assert (tmp_path / "curves" / "02-baseline.baseline.csv").read_text() == f"{','.join(COLUMNS)}\n"


def test_a_figure_that_comes_later_gets_a_column_and_epochs_before_it_have_none_there(tmp_path: Path) -> None:
    entries = [*EPOCHS[:1], EPOCHS[1] | {"own_share": 0.25}, EPOCHS[2] | {"own_share": 0.5, "own_agreement": 0.75}]
    listener = CurveFiles(tmp_path)
    listener.begins(TRAINING, [])
    for entry in entries:
        listener.epoch(TRAINING, entry)

    assert (tmp_path / "curves" / "01-teacher.member-0.csv").read_text() == (
        "training,epoch,step,loss,learning_rate,validation,own_agreement,own_share\n"
        "01-teacher/member 0,1,4,2.5,0.1,,,\n"
        "01-teacher/member 0,2,8,1.25,1e-05,0.5,,0.25\n"
        "01-teacher/member 0,3,12,1.0,0.0,,0.75,0.5\n"
    )
    assert read_curves(tmp_path) == {TRAINING: entries}
    # A training that goes on behind the second epoch has the columns of the epochs that it knows.
    CurveFiles(tmp_path).begins(TRAINING, entries[:2])
    assert read_curves(tmp_path) == {TRAINING: entries[:2]}


@pytest.mark.parametrize(("reported", "behind"), [(1, 0), (3, 1), (1, 2), (2, 2), (0, 3)])
def test_a_resumed_training_has_each_epoch_once_whatever_was_reported_before(
    tmp_path: Path, reported: int, behind: int
) -> None:
    heard(CurveFiles(tmp_path), 0, reported)
    heard(CurveFiles(tmp_path), behind, 3)
    assert read_curves(tmp_path) == {TRAINING: EPOCHS}


def test_a_row_that_was_cut_off_is_gone_when_the_training_goes_on(tmp_path: Path) -> None:
    heard(CurveFiles(tmp_path), 0, 2)
    path = tmp_path / "curves" / "01-teacher.member-0.csv"
    path.write_bytes(path.read_bytes()[:-9])
    heard(CurveFiles(tmp_path), 1, 3)
    assert read_curves(tmp_path) == {TRAINING: EPOCHS}


@pytest.mark.parametrize(
    "text",
    [
        "what,why\nmine,none\n",
        f"{','.join(COLUMNS)}\n01-teacher/member 0,,4,2.5,0.1,\n",
        f"{','.join(COLUMNS)}\n01-teacher/member 0,inf,4,2.5,0.1,\n",
        f"{','.join(COLUMNS)}\n01-teacher/member 0,1,4,2.5,0.1,3\n",
        f"{','.join(COLUMNS)}\n01-teacher/member 0,1,4,2.5,0.1,nan\n",
    ],
)
def test_a_file_that_holds_no_curves_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "notes.csv").write_text(text)
    with pytest.raises(ArtifactError, match=r"curves/notes\.csv does not hold curves"):
        read_curves(tmp_path)


def test_a_run_folder_without_curves_has_none(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("reported", "behind"), [(0, 0), (3, 1), (1, 2)])
def test_tensorboard_shows_each_epoch_once_whatever_was_reported_before(
    tmp_path: Path, reported: int, behind: int
) -> None:
    heard(TensorBoard(tmp_path), 0, reported)
    heard(TensorBoard(tmp_path), behind, 3)
    found = list(scalars(tmp_path / "tensorboard" / "01-teacher" / "member-0"))
    wanted = [
        (entry["step"], name, pytest.approx(entry[name]))
        for entry in EPOCHS
        for name in ("loss", "learning_rate", "validation")
        if name in entry
    ]
    assert found == wanted


def scalars(folder: Path) -> Iterator[tuple[int, str, float]]:
    """The events of a folder as (step, name, value), in the order in which they were written."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for path in sorted(folder.glob("events.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield event.step, value.tag, value.simple_value


def test_a_tracker_that_is_not_installed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'nstudent\[track\]', or set track=none"):
        TensorBoard(tmp_path)


class Follower(Alone):
    """A process that trains with others and does not lead them."""

    leads = False


@pytest.mark.parametrize("world", [Alone(), Follower()])
def test_of_processes_that_train_together_only_the_leader_writes(tmp_path: Path, world: World) -> None:
    run = Run.open(load_config(None, []), tmp_path, Session(world=world))
    heard(run._listener(), 0, 1)
    assert read_curves(tmp_path) == ({TRAINING: EPOCHS[:1]} if world.leads else {})


def test_several_listeners_hear_every_event_in_their_order() -> None:
    class Heard(NoListener):
        def __init__(self, name: str) -> None:
            self.name = name

        def begins(self, training: str, behind: object) -> None:
            events.append((self.name, training, behind))

        def epoch(self, training: str, entry: Mapping[str, float]) -> None:
            events.append((self.name, training, entry))

        def made(self, step: str, metrics: Mapping[str, object]) -> None:
            events.append((self.name, step, metrics))

    events: list[tuple[object, ...]] = []
    both = Several(Heard("a"), Heard("b"))
    both.begins("t", [])
    both.epoch("t", {"epoch": 1})
    both.made("01-teacher", {"x": 1})
    said = [("t", []), ("t", {"epoch": 1}), ("01-teacher", {"x": 1})]
    assert events == [(name, *rest) for rest in said for name in "ab"]


def test_what_a_killed_write_has_left_is_gone_when_the_next_training_begins(tmp_path: Path) -> None:
    files = CurveFiles(tmp_path)
    files.begins("05-filter/filter 0", [])
    left = tmp_path / "curves" / ".05-filter.filter-0.csv.01234567.writing"
    left.write_text("half")
    files.begins("06-student/student", [])
    assert sorted(path.name for path in left.parent.iterdir()) == ["05-filter.filter-0.csv", "06-student.student.csv"]
