"""From images to a scored classifier, and again, and through kill -9."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset, Ids, PixelStore
from nstudent.data.decode import Pixels
from nstudent.runs.run import run_all
from nstudent.runs.status import status
from nstudent.runs.step_metrics import ChoiceMetrics
from nstudent.storage.artifact import Artifact, Manifest

pytestmark = pytest.mark.slow

STEPS = [
    *("00-data", "01-teacher", "02-baseline", "03-choose", "04-pseudolabel", "05-filter", "06-student"),
    *("07-choose", "08-evaluate"),
]
NETWORK = {"manifest.json", "model.json", "member-0.safetensors"}
FILES = {
    "00-data": {
        "manifest.json",
        "index.h5",
        "truth.h5",
        "taxonomy.json",
        "info.json",
        "left_out.json",
        "findings.json",
        "pixels-00000.h5",
    },
    "01-teacher": NETWORK,
    "02-baseline": NETWORK,
    "04-pseudolabel": {
        "manifest.json",
        "labels.h5",
        "labels.json",
        "labels-000000000-000000240.h5",
        "selection.h5",
    },
    "05-filter": {"manifest.json", "selection.h5", "labelled.h5"},
    "06-student": NETWORK,
    "08-evaluate": {
        "manifest.json",
        "scores.json",
        "scores.png",
        # 539 images of validation and test.
        *(
            f"predictions-{step}-000000000-000000539.h5"
            for step in ("01-teacher", "02-baseline", "06-student", "07-choose")
        ),
    },
}


# A choice holds the members of whatever it takes.
CHOICES = ("03-choose", "07-choose")


def _files(step: str, run_dir: Path) -> set[str]:
    if step not in CHOICES:
        return FILES[step]
    members = json.loads((run_dir / step / "model.json").read_text())["members"]
    return NETWORK | {f"member-{number}.safetensors" for number in range(len(members))}


def ids(folder: Path) -> dict[str, str]:
    return {step: Manifest.read(folder / step).id for step in STEPS}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_leaves_the_files_it_promised_and_nothing_else(step: str, finished: Path) -> None:
    folder = finished / step
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == _files(step, finished)
    assert set(Manifest.read(folder).files) == _files(step, finished) - {"manifest.json"}


def test_the_run_folder_holds_the_steps_and_the_configuration(finished: Path) -> None:
    assert {path.name for path in finished.iterdir() if not path.name.startswith(".")} == {
        *STEPS,
        "config.yaml",
        "curves",
        "final.json",
    }
    assert [state.state for state in status(finished)] == ["done"] * len(STEPS)


@pytest.mark.parametrize("step", ["01-teacher", "02-baseline", "06-student"])
def test_trained_steps_say_what_they_cost_and_how_they_went(step: str, finished: Path) -> None:
    metrics = Manifest.read(finished / step).metrics
    assert metrics["gmacs"] > 0
    # 16 epochs of 4 steps of 25; students take 3 epochs of 240 / 77 = 4 steps of 32 labelled images and 77 others.
    assert metrics["image_passes"] == {"01-teacher": 1600, "02-baseline": 1308, "06-student": 1308}[step]
    # Forward, and backward for activations and for weights; the teacher has one member.
    assert metrics["training_gmacs"] == pytest.approx(3 * metrics["gmacs"] * metrics["image_passes"], rel=1e-3)
    (history,) = metrics["history"]
    assert [entry["epoch"] for entry in history] == list(range(1, len(history) + 1))
    assert 0 < metrics["validation"]["level accuracy"] < 1


def test_the_same_configuration_and_seed_make_the_same_bytes(
    tiny: Callable[..., Config], finished: Path, tmp_path: Path
) -> None:
    assert ids(run_all(tiny(), tmp_path)) == ids(finished)


def test_a_second_call_makes_nothing(tiny: Callable[..., Config], go_on: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in go_on.rglob("manifest.json")}
    run_all(tiny(), go_on)
    assert {path: path.stat().st_mtime_ns for path in go_on.rglob("manifest.json")} == before


def test_until_the_student_no_test_image_is_looked_at(
    tiny: Callable[..., Config], untrained: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    look, look_into = PixelStore.__getitem__, PixelStore.read_into

    def noted(store: PixelStore, images: Ids) -> Pixels:
        seen.update(images.tolist())
        return look(store, images)

    def noted_into(store: PixelStore, images: Ids, squares: Pixels) -> None:
        seen.update(images.tolist())
        look_into(store, images, squares)

    monkeypatch.setattr(PixelStore, "__getitem__", noted)
    monkeypatch.setattr(PixelStore, "read_into", noted_into)
    dataset = Dataset(Artifact(untrained / "00-data"))
    run_all(tiny(), untrained, until="student")
    assert set(dataset.labelled.tolist()) | set(dataset.validation.tolist()) <= seen
    assert not seen & set(dataset.test.tolist())
    # The whole run goes on from there, and looks at them.
    run_all(tiny(), untrained)
    assert set(dataset.test.tolist()) <= seen
    assert ids(untrained) == ids(finished)


def test_two_rounds_walk_on_from_the_student(two_rounds: Callable[..., Config], go_on: Path) -> None:
    """Where the first student is clearly better than its teacher, it has a part in what labels in the second round."""
    run_all(two_rounds(), go_on)
    choice = Manifest.read(go_on / "07-choose")
    assert "06-student" in ChoiceMetrics.of(choice).taken.parts
    assert Manifest.read(go_on / "08-pseudolabel").inputs["07-choose"] == choice.id
    assert Manifest.read(go_on / "10-student").round == 2
    scores = json.loads((go_on / "12-evaluate" / "scores.json").read_text())
    assert list(scores["classifiers"]) == ["01-teacher", "02-baseline", "06-student", "10-student"]
    assert list(scores["pseudo_labels"]) == ["04-pseudolabel", "05-filter", "08-pseudolabel", "09-filter"]


def test_nothing_as_a_class_of_its_own_runs_through(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """The digits' mid and fine levels can end, and so have one output more; the coarse one cannot."""
    folder = run_all(tiny("absent=class"), tmp_path)
    model = json.loads((folder / "06-student" / "model.json").read_text())
    assert model["absent"] == "class"
    assert [len(names) for names in model["taxonomy"]["classes"]] == [3, 4, 8]
    from nstudent import Classifier

    assert [len(level) for level in Classifier.load(folder, device="cpu").taxonomy.classes] == [3, 4, 8]
    scores = json.loads((folder / "08-evaluate" / "scores.json").read_text())
    assert scores["classifiers"]["01-teacher"]["test"]["level accuracy"]["value"] > 0.5


@pytest.mark.gpu
def test_a_whole_run_on_a_gpu_is_scored_and_is_up_to_date_afterwards(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    asked = tiny("device=cuda", "precision=auto", "data.image_size=32", "filter.labelled=true")
    folder = run_all(asked, tmp_path)
    made = ids(folder)
    assert {state.state for state in status(folder)} == {"done"}
    assert Manifest.read(folder / "01-teacher").metrics["validation"]["level accuracy"] > 0.5
    assert ids(run_all(asked, folder)) == made
