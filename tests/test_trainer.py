from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent import trainer as trainer_module
from nstudent.config.file import load_config
from nstudent.config.schema import FilterConfig, ModelConfig, StudentConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.data.resident import ResidentPixels
from nstudent.errors import StoppedError
from nstudent.evaluation.assess import assess
from nstudent.evaluation.calibration import fit_calibration, fit_temperatures
from nstudent.evaluation.metrics import scores
from nstudent.labels.path_posterior import Calibration
from nstudent.labels.targets import GivenTargets
from nstudent.lessons import Lessons
from nstudent.listener import Listener, NoListener
from nstudent.models.cost import gmacs
from nstudent.models.inference import predict
from nstudent.models.kinds import kind_for
from nstudent.models.network_member import NetworkMember
from nstudent.randomness import Key
from nstudent.runs.lengths import batch_parts, filter_length, mixed_batch, student_length
from nstudent.runs.plan import plan
from nstudent.runs.run import run_stage
from nstudent.runs.stage import Context
from nstudent.session import Session
from nstudent.storage.artifact import Artifact
from nstudent.storage.sealed import SCRATCH
from nstudent.taxonomy.tree import UNKNOWN
from nstudent.trainer import Trainer
from nstudent.training.build import Lesson
from nstudent.training.loop import Length, Loop, Trained
from timm.layers import DropPath
from torch import nn

WORDS = (
    "probe.members=[]",
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
def make_trainer(dataset: Dataset, tmp_path: Path) -> Callable[..., Trainer]:
    def make(*words: str, listener: Listener | None = None) -> Trainer:
        config = load_config(None, [*WORDS, *words])
        session = Session(listener=listener or NoListener())
        return Trainer(Context(config, plan(config)[1], tmp_path, {}, session=session), dataset)

    return make


@pytest.mark.parametrize(("batch_size", "ratio", "share"), [(32, 3.0, 96), (32, 0.5, 16), (7, 1.5, 10), (32, 0.0, 0)])
def test_pseudo_labelled_images_beside_the_labelled_ones(batch_size: int, ratio: float, share: int) -> None:
    assert batch_parts(FilterConfig(batch_size=batch_size, unlabelled_ratio=ratio)) == (batch_size, share)


@pytest.mark.parametrize(
    ("words", "steps_per_epoch"),
    [
        (["student.batch_size=16", "student.unlabelled_ratio=3"], 2),  # 90 / 48
        (["student.batch_size=15", "student.unlabelled_ratio=2"], 3),  # 90 / 30
        (["student.batch_size=60", "student.unlabelled_ratio=3"], 1),
    ],
)
def test_a_students_epoch_shows_the_heap_once(
    words: list[str], steps_per_epoch: int, make_trainer: Callable[..., Trainer]
) -> None:
    assert make_trainer("student.epochs=7", *words).student_length() == Length(7, steps_per_epoch)


@pytest.mark.parametrize(
    ("words", "length"),
    [
        # 90 images of the heap, so many of them in a batch that an epoch has 2, 1 and 15 steps.
        (["student.batch_size=16"], Length(200, 2)),
        (["student.batch_size=60"], Length(400, 1)),
        (["student.batch_size=2"], Length(30, 15)),
    ],
)
def test_a_student_that_is_given_no_length_has_30_epochs_and_at_least_400_steps(
    words: list[str], length: Length, make_trainer: Callable[..., Trainer]
) -> None:
    assert make_trainer("student.epochs=null", "student.unlabelled_ratio=3", *words).student_length() == length


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "batch", "length"),
    [
        (100, 1_000, (32, 96), (37, 11)),
        (100, 300, (32, 96), (100, 4)),
        # As many images are shown in the smaller batches.
        (100, 200, (32, 64), (134, 4)),
        (270, 300, (32, 36), (84, 9)),
        (100, 50, (32, 16), (267, 4)),
        (0, 50, (32, 96), (400, 1)),
        # And every labelled image as often as there are epochs, however small the heap is.
        (5_000, 500, (32, 3), (30, 167)),
        (5_000, 10, (32, 1), (30, 157)),
    ],
)
def test_where_the_heap_is_small_a_student_sees_its_images_no_more_often_than_the_labelled_ones(
    labelled: int, unlabelled: int, batch: tuple[int, int], length: tuple[int, int]
) -> None:
    assert mixed_batch(StudentConfig(), labelled, unlabelled) == batch
    assert student_length(StudentConfig(), labelled, unlabelled) == length
    given = StudentConfig(unlabelled_ratio=3)
    assert mixed_batch(given, labelled, unlabelled) == (32, 96)
    assert student_length(given, labelled, unlabelled)[0] >= 30
    assert batch_parts(StudentConfig()) == (32, 96), "what memory and time are tried with"


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "batch", "steps"),
    [
        (100, 1_000, (32, 96), 11),
        # A small heap is shown once in an epoch, as the labelled images are, and not three times.
        (1_000, 100, (32, 3), 34),
        (100, 150, (32, 48), 4),
    ],
)
def test_beside_a_small_heap_a_filter_sees_its_images_no_more_often_than_the_labelled_ones(
    labelled: int, unlabelled: int, batch: tuple[int, int], steps: int
) -> None:
    assert mixed_batch(FilterConfig(), labelled, unlabelled) == batch
    assert filter_length(FilterConfig(epochs=5), labelled, unlabelled) == (5, steps)
    assert mixed_batch(FilterConfig(unlabelled_ratio=3), labelled, unlabelled) == (32, 96)
    assert mixed_batch(FilterConfig(unlabelled_ratio=0), labelled, unlabelled) == (32, 0)
    assert filter_length(FilterConfig(unlabelled_ratio=0), labelled, unlabelled)[1] == -(-labelled // 32)


def test_a_ratio_that_rounds_to_no_image_does_not_divide_by_zero(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer("student.batch_size=4", "student.unlabelled_ratio=0.1")
    assert trainer.student_length().steps > 0


def test_labelled_examples_are_those_of_the_data_or_others_in_their_place(
    make_trainer: Callable[..., Trainer], dataset: Dataset
) -> None:
    trainer = make_trainer()
    rows = np.arange(60)
    given = trainer.labelled()
    assert np.array_equal(given.ids, dataset.labelled)
    coarse, mid, fine = given.targets(rows)
    labels = dataset.labels[dataset.labelled]
    assert np.array_equal(coarse.argmax(axis=1), labels[:, 0])
    assert np.array_equal(mid.sum(axis=1), labels[:, 1] >= 0)
    assert np.array_equal(fine.sum(axis=1), labels[:, 2] >= 0)
    doubted = labels.copy()
    doubted[:, 2] = UNKNOWN
    assert trainer.labelled(doubted).targets(rows)[2].sum() == 0


def test_the_loss_has_the_class_weights_of_the_labelled_images(
    make_trainer: Callable[..., Trainer], dataset: Dataset
) -> None:
    trainer = make_trainer("teacher.class_weights=balanced", "teacher.label_smoothing=0.25")
    objective = trainer.supervised(trainer._config.teacher, unlabelled_weight=2.0)
    labels = dataset.labels[dataset.labelled][:, 0]
    expected = [60 / (3 * (labels == c).sum()) for c in range(3)]
    assert objective.labelled.class_weights[0].tolist() == pytest.approx(expected)
    assert objective.labelled.smoothing == 0.25
    assert (objective.level_weights, objective.unlabelled_weight) == ((1, 1, 1), 2.0)
    assert objective.heap.class_weights[0].tolist() == [1, 1, 1]
    assert objective.heap.smoothing == 0


def test_logits_are_adjusted_by_the_frequencies_of_the_labelled_images_and_for_them_alone(
    make_trainer: Callable[..., Trainer], dataset: Dataset
) -> None:
    trainer = make_trainer("teacher.logit_adjustment=2", "teacher.label_smoothing=0")
    objective = trainer.supervised(trainer._config.teacher, unlabelled_weight=1.0)
    labels = dataset.labels[dataset.labelled][:, 0]
    counts = torch.tensor([(labels == c).sum() for c in range(3)])
    logits = tuple(torch.zeros(1, size) for size in trainer.outputs.sizes)
    mass = [torch.eye(size)[[1]] for size in trainer.outputs.sizes]
    expected = -(2 * (counts / 60).log()).log_softmax(dim=0)[1]
    assert objective.labelled(logits, mass)[0].item() == pytest.approx(expected.item())
    assert objective.heap(logits, mass)[0].item() == pytest.approx(np.log(3))


@pytest.mark.slow
def test_a_part_of_the_labelled_images_has_labels_and_class_weights_of_its_own(
    make_trainer: Callable[..., Trainer], dataset: Dataset
) -> None:
    trainer = make_trainer("teacher.class_weights=balanced")
    part = dataset.labelled[dataset.labels[dataset.labelled, 0] != 1][:20]
    labels = dataset.labels[part, 0]

    examples = trainer.labelled(ids=part)
    weights = trainer.supervised(trainer._config.teacher, ids=part).labelled.class_weights[0]

    assert np.array_equal(examples.ids, part)
    assert np.array_equal(examples.targets(np.arange(20))[0].argmax(axis=1), labels)
    # No image of the part is of class 1, which so has the weight of a class without images.
    assert weights.tolist() == pytest.approx([20 / (2 * (labels == 0).sum()), 1.0, 20 / (2 * (labels == 2).sum())])


def test_a_listener_hears_of_a_training_from_where_it_begins(
    make_trainer: Callable[..., Trainer],
) -> None:
    heard: list[tuple[str, Any]] = []

    class Heard(NoListener):
        def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
            heard.append((training, [entry["epoch"] for entry in behind]))

        def epoch(self, training: str, entry: Mapping[str, float]) -> None:
            heard.append((training, entry["epoch"]))
            if entry["epoch"] == 1:
                raise StoppedError("enough for today")

    trainer = make_trainer(listener=Heard())
    with pytest.raises(StoppedError):
        train(trainer)
    for _ in range(2):
        train(trainer)
    assert heard == [("01-teacher/member 0", what) for what in ([], 1, [1], 2, [1, 2])]


def test_level_weights_are_those_of_the_section(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer("student.level_weights=[1, 2, 3]")
    assert trainer.supervised(trainer._config.student).level_weights == (1, 2, 3)


def test_the_recipe_is_that_of_the_data(make_trainer: Callable[..., Trainer], dataset: Dataset) -> None:
    trainer = make_trainer("absent=class")
    recipe = trainer.recipe(trainer._config.teacher.members)
    assert recipe.outputs.sizes == (3, 5, 9), "the mid and fine levels can end"
    assert recipe.taxonomy == dataset.taxonomy
    assert recipe.image_size == 16
    assert make_trainer().recipe([ModelConfig()]).outputs.sizes == (3, 4, 8)


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_a_network_fits_its_recipe(absent: str, make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(f"absent={absent}")
    (model, *_) = trainer._config.teacher.members
    logits = trainer.build(model, trainer._config.teacher, ("key",)).eval()(torch.zeros(2, 3, 16, 16))
    assert tuple(level.shape[1] for level in logits) == trainer.recipe([model]).outputs.sizes


def test_dropout_and_stochastic_depth_are_built_into_what_is_trained(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes the student a noisy one beside the noise on its images."""
    built = []
    build_loop = trainer_module.build_loop

    def watched(network: nn.Module, *arguments: Any, **words: Any) -> Loop:
        built.append(network)
        return build_loop(network, *arguments, **words)

    monkeypatch.setattr(trainer_module, "build_loop", watched)
    trainer = make_trainer("student.noise.dropout=0.3", "student.noise.drop_path=0.2", "student.epochs=1")
    config = trainer._config.student
    lesson = Lesson([(trainer.labelled(), 10)], trainer.supervised(config), Length(1, 1))
    trainer.train("student", config.model, config, lesson, ("key",))
    (network,) = built
    assert network.dropout.p == 0.3
    assert max(layer.drop_prob for layer in network.modules() if isinstance(layer, DropPath)) == pytest.approx(0.2)


def train(trainer: Trainer, name: str = "member 0", key: Key = ("key", 0)) -> Trained:
    config = trainer._config.teacher
    lesson = Lesson([(trainer.labelled(), 10)], trainer.supervised(config), Length(2, 2))
    return trainer.train(name, config.members[0], config, lesson, key)


def train_with_a_teacher(trainer: Trainer, name: str) -> Trained:
    """A student of Meta Pseudo Labels in 2 epochs of 2 steps, and 2 epochs of fine-tuning."""
    config, dataset = trainer._config.student, trainer.dataset
    heap = Examples(dataset.unlabelled, GivenTargets(dataset.labels[dataset.unlabelled], trainer.outputs))
    parts = [(trainer.labelled(), 10), (heap, 20)]
    lesson = Lesson(parts, trainer.supervised(config), Length(2, 2))
    assert config.meta_pseudo_labels is not None
    lesson = Lessons(trainer, trainer._config)._with_a_teacher(lesson, config.meta_pseudo_labels)
    return trainer.train(name, config.model, config, lesson, ("key", 0))


@pytest.mark.slow
def test_a_student_that_dies_in_its_fine_tuning_goes_on_to_the_same_bytes(make_trainer: Callable[..., Trainer]) -> None:
    """And where its training with a teacher has ended, which is not taken again; what both cost is counted by size."""
    words = (
        "student.method=meta_pseudo_labels",
        "student.meta.finetune_epochs=2",
        "student.batch_size=30",
        "student.progressive_stages=2",
    )
    whole = train_with_a_teacher(make_trainer(*words), "whole")
    heard: list[tuple[str, float]] = []

    class Dies(NoListener):
        def epoch(self, training: str, entry: Mapping[str, float]) -> None:
            heard.append((training.rpartition("/")[2], entry["epoch"]))
            if heard[-1] in (("cut", 2.0), ("cut fine-tuning", 1.0)):
                raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_with_a_teacher(make_trainer(*words, listener=Dies()), "cut")
    cut = train_with_a_teacher(make_trainer(*words, listener=Dies()), "cut")
    assert heard == [("cut", 1), ("cut", 2), ("cut fine-tuning", 1), ("cut fine-tuning", 2)]
    assert bytes_of(cut) == bytes_of(whole)
    assert (cut.history, cut.spent) == (whole.history, whole.spent)
    # Two steps at 12 px and two at 16, each of 10 labelled images and of 20 that the teacher learns in two views and
    # the student in one, beside one look of the teacher at these and two of the student at those; then 4 steps of 30.
    first, last = (gmacs([whole.network], side) for side in (12, 16))
    step = 3 * (10 + 3 * 20) + 20 + 2 * 10
    assert whole.spent.image_passes == 4 * (10 + 3 * 20) + 4 * 30
    assert whole.spent.training_gmacs == pytest.approx(2 * step * (first + last) + 4 * 3 * 30 * last)


@pytest.mark.slow
def test_noise_by_the_batch_is_decided_by_the_key_too_and_is_other_noise(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer("augment=batch")
    assert bytes_of(train(trainer, name="one")) == bytes_of(train(trainer, name="two"))
    assert bytes_of(train(trainer, name="three")) != bytes_of(train(make_trainer("augment=image"), name="four"))


@pytest.mark.slow
def test_noise_by_the_batch_does_not_depend_on_the_loaders(make_trainer: Callable[..., Trainer]) -> None:
    in_a_process = train(make_trainer("augment=batch", "workers=1"), name="process")
    assert bytes_of(in_a_process) == bytes_of(train(make_trainer("augment=batch"), name="here"))


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["batch", "image"])
def test_whether_a_thread_prepares_the_batches_changes_nothing(
    augment: str, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    for cores in (1, 2):
        monkeypatch.setattr("nstudent.training.feed.available_cores", lambda cores=cores: cores)
        trained.append(bytes_of(train(make_trainer(f"augment={augment}"), name=f"{cores} cores")))
    assert trained[0] == trained[1]


@pytest.mark.slow
def test_images_that_live_on_the_device_train_the_same(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = make_trainer("augment=batch")
    monkeypatch.setattr("nstudent.training.pixels.fits_beside_training", lambda *about: True)
    resident = make_trainer("augment=batch")
    assert isinstance(resident._site.pixels, ResidentPixels)
    assert not isinstance(make_trainer("augment=image")._site.pixels, ResidentPixels), (
        "one by one they are noised on the host"
    )
    assert bytes_of(train(resident, name="resident")) == bytes_of(train(mapped, name="mapped"))


@pytest.mark.slow
def test_activations_that_are_computed_twice_change_nothing(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer("teacher.checkpoint_activations=true")
    network = trainer.build(trainer._config.teacher.members[0], trainer._config.teacher, ("key",))
    assert network.backbones[0].network.grad_checkpointing
    assert bytes_of(train(trainer, name="twice")) == bytes_of(train(make_trainer(), name="once"))


@pytest.mark.slow
def test_a_network_is_fitted_as_it_is_trained(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    config, key = trainer._config.teacher, ("key", 0)
    lesson = Lesson([(trainer.labelled(), 10)], trainer.supervised(config), Length(2, 2))
    inputs = trainer.fit_inputs("fitted", config, lesson, key)
    kind = kind_for(config.members[0])

    cost = kind.cost(config.members[0], inputs)
    fitted = kind.fit(config.members[0], inputs)

    trained = train(trainer, key=key)
    assert isinstance(fitted.member, NetworkMember)
    weights, theirs = fitted.member.tensors(), trained.network.state_dict()
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)
    assert (fitted.history, fitted.spent) == (tuple(trained.history), trained.spent)
    assert cost(16) == fitted.member.gmacs(16)
    assert torch.equal(inputs.images(inputs.examples.ids[:2]), trainer.placement.images(_pixels(trainer, 2)))


def _pixels(trainer: Trainer, number: int) -> torch.Tensor:
    return torch.from_numpy(trainer.dataset.pixels[trainer.dataset.labelled[:number]])


def bytes_of(trained: Trained) -> bytes:
    return b"".join(tensor.contiguous().numpy().tobytes() for tensor in trained.network.state_dict().values())


@pytest.mark.slow
def test_training_is_decided_by_its_key_and_kept_under_its_name(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer()
    trained = train(trainer)
    assert (tmp_path / SCRATCH / "member-0.safetensors").exists()
    assert bytes_of(train(trainer, name="again")) == bytes_of(trained)
    assert bytes_of(train(trainer, name="other", key=("key", 1))) != bytes_of(trained)


def test_the_validation_score_is_the_headline_of_the_scores(
    make_trainer: Callable[..., Trainer], dataset: Dataset
) -> None:
    trainer = make_trainer()
    trained = train(trainer)
    ensemble = trainer.ensemble(trainer._config.teacher.members[:1], [trained.network])
    expected = scores(assess(ensemble, dataset, dataset.validation, 64).tallies)["level accuracy"]
    assert trainer.validation_score(ensemble) == pytest.approx(expected)
    assert trained.history[-1]["validation"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "before", [None, Calibration((0.5, 0.5, 0.5), (4.0, 0.0, 0.0))], ids=["raw", "calibrated before"]
)
def test_a_calibration_is_fitted_to_the_raw_pool_on_the_validation_images(
    before: Calibration | None, make_trainer: Callable[..., Trainer], dataset: Dataset
) -> None:
    trainer = make_trainer()
    network = trainer.build(ModelConfig(), trainer._config.teacher, ("network",))
    raw = trainer.ensemble([ModelConfig()], [network])
    levels = predict(raw, dataset.pixels, dataset.validation, 64)
    labels = dataset.labels[dataset.validation]
    alone = fit_temperatures(levels, labels, trainer.outputs)
    sharpened = predict(raw.with_member_temperatures([alone]), dataset.pixels, dataset.validation, 64)
    wanted = fit_calibration(sharpened, labels, trainer.outputs)

    found = trainer.calibrated(raw.calibrated(before))

    assert found.recipe.member_temperatures is not None
    np.testing.assert_allclose(found.recipe.member_temperatures, [alone], rtol=1e-3)
    assert found.recipe.calibration is not None
    assert found.recipe.calibration.temperatures == pytest.approx(wanted.temperatures, rel=1e-3)
    assert found.recipe.calibration.ends == pytest.approx(wanted.ends, abs=1e-3)
    assert found.members == raw.members
