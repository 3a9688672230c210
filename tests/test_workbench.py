from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent import workbench
from nstudent.config.file import load_config
from nstudent.config.schema import ModelConfig
from nstudent.data.dataset import Dataset
from nstudent.data.resident import ResidentPixels
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.randomness import Key
from nstudent.run import run_stage
from nstudent.stage import Context
from nstudent.steps import plan
from nstudent.storage.artifact import Artifact
from nstudent.storage.commit import SCRATCH
from nstudent.taxonomy.tree import UNKNOWN
from nstudent.training.build import Lesson
from nstudent.training.loop import Length, Loop, Trained
from nstudent.workbench import Workbench, unlabelled_share
from timm.layers import DropPath
from torch import nn

WORDS = (
    "data.labelled=60",
    "data.unlabelled=90",
    "data.image_size=16",
    "threads=1",
    "workers=0",
    "device=cpu",
    "precision=float32",
    "checkpoint_minutes=0",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(Artifact(run_stage(load_config(None, WORDS), "data", tmp_path_factory.mktemp("data"))))


@pytest.fixture
def make_bench(dataset: Dataset, tmp_path: Path) -> Callable[..., Workbench]:
    def make(*words: str) -> Workbench:
        config = load_config(None, [*WORDS, *words])
        return Workbench(Context(config, plan(config)[1], tmp_path, {}), dataset)

    return make


@pytest.mark.parametrize(("batch_size", "ratio", "share"), [(32, 3.0, 96), (32, 0.5, 16), (7, 1.5, 10), (32, 0.0, 0)])
def test_pseudo_labelled_images_beside_the_labelled_ones(batch_size: int, ratio: float, share: int) -> None:
    assert unlabelled_share(batch_size, ratio) == share


@pytest.mark.parametrize(
    ("words", "steps_per_epoch"),
    [
        (["student.batch_size=16", "student.unlabelled_ratio=3"], 2),  # 90 / 48
        (["student.batch_size=15", "student.unlabelled_ratio=2"], 3),  # 90 / 30
        (["student.batch_size=60", "student.unlabelled_ratio=3"], 1),
    ],
)
def test_a_students_epoch_shows_the_heap_once(
    words: list[str], steps_per_epoch: int, make_bench: Callable[..., Workbench]
) -> None:
    assert make_bench("student.epochs=7", *words).student_length() == Length(7, steps_per_epoch)


def test_a_ratio_that_rounds_to_no_image_does_not_divide_by_zero(make_bench: Callable[..., Workbench]) -> None:
    bench = make_bench("student.batch_size=4", "student.unlabelled_ratio=0.1")
    assert bench.student_length().steps > 0


def test_labelled_examples_are_those_of_the_data_or_others_in_their_place(
    make_bench: Callable[..., Workbench], dataset: Dataset
) -> None:
    bench = make_bench()
    rows = np.arange(60)
    given = bench.labelled()
    assert np.array_equal(given.ids, dataset.labelled)
    coarse, mid, fine = given.targets(rows)
    labels = dataset.labels[dataset.labelled]
    assert np.array_equal(coarse.argmax(axis=1), labels[:, 0])
    assert np.array_equal(mid.sum(axis=1), labels[:, 1] >= 0)
    assert np.array_equal(fine.sum(axis=1), labels[:, 2] >= 0)
    doubted = labels.copy()
    doubted[:, 2] = UNKNOWN
    assert bench.labelled(doubted).targets(rows)[2].sum() == 0


def test_the_loss_has_the_class_weights_of_the_labelled_images(
    make_bench: Callable[..., Workbench], dataset: Dataset
) -> None:
    bench = make_bench("teacher.class_weights=balanced", "teacher.label_smoothing=0.25")
    objective = bench.supervised(bench._config.teacher, unlabelled_weight=2.0)
    labels = dataset.labels[dataset.labelled][:, 0]
    expected = [60 / (3 * (labels == c).sum()) for c in range(3)]
    assert objective.labelled.class_weights[0].tolist() == pytest.approx(expected)
    assert objective.labelled.smoothing == 0.25
    assert (objective.level_weights, objective.unlabelled_weight) == ((1, 1, 1), 2.0)
    assert objective.heap.class_weights[0].tolist() == [1, 1, 1]
    assert objective.heap.smoothing == 0


def test_level_weights_are_those_of_the_section(make_bench: Callable[..., Workbench]) -> None:
    bench = make_bench("student.level_weights=[1, 2, 3]")
    assert bench.supervised(bench._config.student).level_weights == (1, 2, 3)


def test_the_recipe_is_that_of_the_data(make_bench: Callable[..., Workbench], dataset: Dataset) -> None:
    bench = make_bench("absent=class")
    recipe = bench.recipe(bench._config.teacher.members)
    assert recipe.outputs.sizes == (3, 5, 9), "the mid and fine levels can end"
    assert recipe.taxonomy == dataset.taxonomy
    assert recipe.image_size == 16
    assert make_bench().recipe([ModelConfig()]).outputs.sizes == (3, 4, 8)


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_a_network_fits_its_recipe(absent: str, make_bench: Callable[..., Workbench]) -> None:
    bench = make_bench(f"absent={absent}")
    (model, *_) = bench._config.teacher.members
    logits = bench.build(model, bench._config.teacher, ("key",)).eval()(torch.zeros(2, 3, 16, 16))
    assert tuple(level.shape[1] for level in logits) == bench.recipe([model]).outputs.sizes


def test_dropout_and_stochastic_depth_are_built_into_what_is_trained(
    make_bench: Callable[..., Workbench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes the student a noisy one beside the noise on its images."""
    built = []
    build_loop = workbench.build_loop

    def watched(network: nn.Module, *arguments: Any, **words: Any) -> Loop:
        built.append(network)
        return build_loop(network, *arguments, **words)

    monkeypatch.setattr(workbench, "build_loop", watched)
    bench = make_bench("student.noise.dropout=0.3", "student.noise.drop_path=0.2", "student.epochs=1")
    config = bench._config.student
    lesson = Lesson([(bench.labelled(), 10)], bench.supervised(config), Length(1, 1))
    bench.train("student", config.model, config, lesson, ("key",))
    (network,) = built
    assert network.dropout.p == 0.3
    assert max(layer.drop_prob for layer in network.modules() if isinstance(layer, DropPath)) == pytest.approx(0.2)


def train(bench: Workbench, name: str = "member 0", key: Key = ("key", 0)) -> Trained:
    config = bench._config.teacher
    lesson = Lesson([(bench.labelled(), 10)], bench.supervised(config), Length(2, 2))
    return bench.train(name, config.members[0], config, lesson, key)


def test_noise_by_the_batch_is_decided_by_the_key_too_and_is_other_noise(make_bench: Callable[..., Workbench]) -> None:
    bench = make_bench("augment=batch")
    assert bytes_of(train(bench, name="one")) == bytes_of(train(bench, name="two"))
    assert bytes_of(train(bench, name="three")) != bytes_of(train(make_bench("augment=image"), name="four"))


def test_noise_by_the_batch_does_not_depend_on_the_loaders(make_bench: Callable[..., Workbench]) -> None:
    in_a_process = train(make_bench("augment=batch", "workers=1"), name="process")
    assert bytes_of(in_a_process) == bytes_of(train(make_bench("augment=batch"), name="here"))


@pytest.mark.parametrize("augment", ["batch", "image"])
def test_whether_a_thread_prepares_the_batches_changes_nothing(
    augment: str, make_bench: Callable[..., Workbench], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    for cores in (1, 2):
        monkeypatch.setattr("nstudent.training.feed.available_cores", lambda cores=cores: cores)
        trained.append(bytes_of(train(make_bench(f"augment={augment}"), name=f"{cores} cores")))
    assert trained[0] == trained[1]


def test_images_that_live_on_the_device_train_the_same(
    make_bench: Callable[..., Workbench], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = make_bench("augment=batch")
    monkeypatch.setattr("nstudent.workbench.fits_beside_training", lambda *about: True)
    resident = make_bench("augment=batch")
    assert isinstance(resident._site.pixels, ResidentPixels)
    assert not isinstance(make_bench("augment=image")._site.pixels, ResidentPixels), (
        "one by one they are noised on the host"
    )
    assert bytes_of(train(resident, name="resident")) == bytes_of(train(mapped, name="mapped"))


def test_activations_that_are_computed_twice_change_nothing(make_bench: Callable[..., Workbench]) -> None:
    bench = make_bench("teacher.checkpoint_activations=true")
    network = bench.build(bench._config.teacher.members[0], bench._config.teacher, ("key",))
    assert network.backbones[0].network.grad_checkpointing
    assert bytes_of(train(bench, name="twice")) == bytes_of(train(make_bench(), name="once"))


def bytes_of(trained: Trained) -> bytes:
    return b"".join(tensor.contiguous().numpy().tobytes() for tensor in trained.network.state_dict().values())


def test_training_is_decided_by_its_key_and_kept_under_its_name(
    make_bench: Callable[..., Workbench], tmp_path: Path
) -> None:
    bench = make_bench()
    trained = train(bench)
    assert (tmp_path / SCRATCH / "member-0.safetensors").exists()
    assert bytes_of(train(bench, name="again")) == bytes_of(trained)
    assert bytes_of(train(bench, name="other", key=("key", 1))) != bytes_of(trained)


def test_the_validation_score_is_the_headline_of_the_scores(
    make_bench: Callable[..., Workbench], dataset: Dataset
) -> None:
    bench = make_bench()
    trained = train(bench)
    ensemble = bench.ensemble(bench._config.teacher.members[:1], [trained.network])
    expected = scores(assess(ensemble, dataset, dataset.validation, 64).tallies)["contest alone"]
    assert bench.validation_score(ensemble) == pytest.approx(expected)
    assert trained.history[-1]["validation"] == pytest.approx(expected)
