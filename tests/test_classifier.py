import copy
import ctypes
import faulthandler
import gc
import hashlib
import io
import os
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.classifier import Classifier, Prediction
from nstudent.config.schema import ModelConfig
from nstudent.data.decode import TOO_MUCH_MEMORY
from nstudent.data.packing import decoders
from nstudent.data.packing import reader as reader_module
from nstudent.errors import ArtifactError, NstudentError
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import FINAL
from nstudent.storage.commit import commit, open_partial
from nstudent.storage.files import write_json
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from PIL import Image

forks = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a decoder has no process of its own")

TAXONOMY = Taxonomy.from_labels(
    [("loop", "one loop", "six"), ("loop", "one loop", "nine"), ("loop", "two loops", "-"), ("stroke", "-", "-")],
    ("coarse", "mid", "fine"),
)
MODEL = ModelConfig(head="independent")
# Logits per level that make each legal final label the most probable path.
SIX = ((3, 0), (2, 0), (0, 4))
TWO_LOOPS = ((3, 0), (0, 3), (0, 0))
STROKE = ((0, 3), (0, 0), (0, 0))


def add_step(
    run_dir: Path,
    name: str,
    logits: tuple[tuple[float, ...], ...],
    *,
    stands: bool = True,
    image_size: int = 32,
    precision: str = "auto",
    calibration: Calibration | None = None,
) -> Path:
    """A committed step whose network says the same of every image."""
    with torch.random.fork_rng():
        recipe = Recipe(
            members=(MODEL,),
            taxonomy=TAXONOMY,
            absent="ignore",
            image_size=image_size,
            max_pixels=10_000,
            precision=precision,
        )
        member = build_network(MODEL, recipe.outputs, (name,))
    with torch.no_grad():
        for layer, level in zip(member.head.classify, logits, strict=True):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(level, dtype=torch.float32))
    folder = run_dir / name
    ensemble = Ensemble.of_networks(recipe, [member], Placement(torch.device("cpu"), "float32"))
    ensemble.calibrated(calibration).save(open_partial(folder, "by hand"))
    stage = name.partition("-")[2]
    fields = {"stage": stage, "role": "labeller", "round": 0, "asked": {}, "inputs": {}, "seconds": 0.0}
    commit(folder, fields | {"metrics": {}})
    if stands:
        write_json(run_dir / FINAL, {"step": name})
    return run_dir


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def classifier(tmp_path: Path, logits: tuple[tuple[float, ...], ...]) -> Classifier:
    return Classifier.load(add_step(tmp_path / "run", "01-teacher", logits), device="cpu")


@pytest.mark.parametrize(
    ("image_size", "precision", "used"),
    [(32, "auto", "auto"), (16, "auto", "float32"), (32, "float32", "float32"), (32, "bfloat16", "bfloat16")],
)
def test_it_computes_as_precisely_as_the_run_did(image_size: int, precision: str, used: str, tmp_path: Path) -> None:
    run = add_step(tmp_path / "run", "01-teacher", SIX, image_size=image_size, precision=precision)
    assert Classifier.load(run, device="cpu")._ensemble._placement.precision == used


def said(prediction: Prediction) -> dict[str, str]:
    return {level: entry.name for level, entry in prediction.labels.items()}


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (SIX, {"coarse": "loop", "mid": "one loop", "fine": "six"}),
        (TWO_LOOPS, {"coarse": "loop", "mid": "two loops"}),
        (STROKE, {"coarse": "stroke"}),
    ],
    ids=["whole path", "ends at mid", "ends at coarse"],
)
def test_absent_levels_are_left_out(
    logits: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    expected: dict[str, str],
    tmp_path: Path,
    image: Path,
) -> None:
    (prediction,) = classifier(tmp_path, logits).predict([image])
    assert said(prediction) == expected
    assert prediction.image == str(image)
    assert prediction.error is None


def test_each_level_has_the_probability_of_its_class(tmp_path: Path, image: Path) -> None:
    (prediction,) = classifier(tmp_path, SIX).predict([str(image)])
    # Softmax of (3, 0), (2, 0) and (0, 4).
    probabilities = {level: entry.probability for level, entry in prediction.labels.items()}
    assert probabilities == pytest.approx({"coarse": 0.952574, "mid": 0.880797, "fine": 0.982014}, abs=5e-3)


def test_it_shows_the_probabilities_that_its_calibration_makes(tmp_path: Path, image: Path) -> None:
    """Those of the labels of the heap, and of the scores: paths of one, two and three classes are weighed together."""
    calibration = Calibration((2.0, 1.5, 1.0), (-0.5, 0.25, 0.0))
    run_dir = add_step(tmp_path / "run", "01-teacher", SIX, calibration=calibration)
    softmax = [torch.tensor([level], dtype=torch.float32).softmax(dim=1) for level in SIX]
    coarse, mid, fine = PathPosterior(Outputs(TAXONOMY), calibration).marginals(softmax)

    (found,) = Classifier.load(run_dir, device="cpu").predict([image])

    shown = {level: (said.name, said.probability) for level, said in found.labels.items()}
    six = TAXONOMY.classes[2].index("six")
    assert shown == {
        "coarse": ("loop", pytest.approx(float(coarse[0, 0]), abs=1e-5)),
        "mid": ("one loop", pytest.approx(float(mid[0, 0]), abs=1e-5)),
        "fine": ("six", pytest.approx(float(fine[0, six]), abs=1e-5)),
    }
    assert shown["coarse"][1] >= shown["mid"][1] >= shown["fine"][1]


def test_unreadable_files_get_an_error_and_the_others_their_labels(tmp_path: Path, image: Path) -> None:
    broken, empty, folder, huge = (tmp_path / name for name in ("broken.jpg", "empty.png", "folder", "huge.png"))
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    empty.write_bytes(b"")
    folder.mkdir()
    Image.new("L", (200, 100)).save(huge)
    paths = [broken, image, tmp_path / "gone.png", empty, image, folder, huge]
    predictions = classifier(tmp_path, SIX).predict(paths)
    assert [prediction.image for prediction in predictions] == [str(path) for path in paths]
    assert [bool(prediction.labels) for prediction in predictions] == [False, True, False, False, True, False, False]
    errors = [prediction.error for prediction in predictions]
    assert errors[0]
    assert errors[2] == "No such file or directory"
    assert errors[3] == "the file is empty"
    assert errors[5] == "a folder that holds no image"
    assert errors[6] == "200x100 pixels are more than data.max_pixels (10,000)"
    assert errors[1] is errors[4] is None


def test_only_unreadable_files_and_none_at_all(tmp_path: Path) -> None:
    loaded = classifier(tmp_path, SIX)
    (prediction,) = loaded.predict([tmp_path / "gone.png"])
    assert prediction.labels == {}
    assert loaded.predict([]) == []


def test_batches_keep_the_order_of_the_images(tmp_path: Path, image: Path) -> None:
    gone = tmp_path / "gone.png"
    paths = [image, gone, image, image, gone, gone, image]
    predictions = classifier(tmp_path, SIX).predict(paths, batch_size=2)
    assert [prediction.image for prediction in predictions] == [str(path) for path in paths]
    assert [prediction.error is None for prediction in predictions] == [path == image for path in paths]


def test_a_generator_of_images_is_taken(tmp_path: Path, image: Path) -> None:
    assert len(classifier(tmp_path, SIX).predict(path for path in (image, image))) == 2


def test_it_is_the_one_that_the_run_points_at(tmp_path: Path, image: Path) -> None:
    run = tmp_path / "run"
    add_step(run, "01-teacher", STROKE, stands=False)
    add_step(run, "07-choose", TWO_LOOPS)
    add_step(run, "10-student", SIX, stands=False)
    (prediction,) = Classifier.load(run, device="cpu").predict([image])
    assert said(prediction) == {"coarse": "loop", "mid": "two loops"}


def test_a_half_made_step_is_no_classifier(tmp_path: Path, image: Path) -> None:
    run = add_step(tmp_path / "run", "01-teacher", STROKE)
    add_step(run, "06-student", SIX, stands=False).joinpath("06-student").rename(run / "06-student.partial")
    (prediction,) = Classifier.load(run, device="cpu").predict([image])
    assert said(prediction) == {"coarse": "stroke"}


def test_it_knows_its_classes(tmp_path: Path) -> None:
    assert classifier(tmp_path, SIX).taxonomy == TAXONOMY


def test_a_folder_without_a_finished_classifier_says_what_to_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ArtifactError, match=r"holds no trained classifier: run `nstudent run-all"):
            Classifier.load(folder, device="cpu")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    run = add_step(tmp_path / "run", "01-teacher", SIX)
    (run / "01-teacher" / "member-0.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"member-0\.safetensors has changed since it was made"):
        Classifier.load(run, device="cpu")


def test_nothing_in_the_folder_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    run = add_step(tmp_path / "run", "01-teacher", SIX)
    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, refuse)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    assert Classifier.load(run, device="cpu").predict([tmp_path / "x.png"])[0].error is None


def test_a_device_that_does_not_exist_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    run = add_step(tmp_path / "run", "01-teacher", SIX)
    with pytest.raises(NstudentError, match="device"):
        Classifier.load(run, device="gpu")


def test_one_image_is_one_prediction_however_it_is_given(tmp_path: Path, image: Path) -> None:
    classifier = Classifier.load(add_step(tmp_path, "01-teacher", SIX), "cpu")
    for given in (str(image), image, image.read_bytes(), Image.open(image), np.asarray(Image.open(image))):
        (prediction,) = classifier.predict(given)
        assert (prediction.labels["coarse"].name, prediction.error) == ("loop", None)
    assert len(classifier.predict([image] * 5, batch_size=2)) == 5
    assert [found.error is None for found in classifier.predict([image, b"no image", str(image)])] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_image_is_refused(tmp_path: Path, image: Path, batch_size: int) -> None:
    classifier = Classifier.load(add_step(tmp_path, "01-teacher", SIX), "cpu")
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}: at least one"):
        classifier.predict([image], batch_size=batch_size)


def test_a_path_that_no_file_can_have_is_an_error_of_that_image(tmp_path: Path, image: Path) -> None:
    classifier = Classifier.load(add_step(tmp_path, "01-teacher", SIX), "cpu")
    found = classifier.predict(["a\0b", "x" * 5000, image])
    assert [bool(prediction.error) for prediction in found] == [True, True, False]


def test_a_classifier_that_is_being_made_again_is_no_damage(tmp_path: Path) -> None:
    run = add_step(tmp_path, "01-teacher", SIX)
    (run / "01-teacher").rename(run / "01-teacher.partial")
    with pytest.raises(ArtifactError, match="is being made again, or that was interrupted: wait, or run"):
        Classifier.load(run, "cpu")


@forks
@pytest.mark.slow
def test_what_an_image_does_to_its_decoder_costs_that_image_alone(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reads address 0, one asks for a gibibyte, one has no end; really, in the processes that decode."""
    monkeypatch.setattr(decoders, "_BYTES_BESIDE", 64 << 20)
    monkeypatch.setattr(decoders, "IMAGE_CPU_SECONDS", 0.5)
    decode, here = reader_module.decode, os.getpid()

    def patched(content: bytes, *given: Any) -> np.ndarray:
        assert os.getpid() != here
        if content == b"crash":
            faulthandler.disable()
            ctypes.string_at(0)
        if content == b"greedy":
            np.ones(1 << 30, np.uint8)
        while content == b"endless":
            pass
        return decode(content, *given)

    monkeypatch.setattr(reader_module, "decode", patched)
    for name in ("crash", "greedy", "endless"):
        (tmp_path / name).write_bytes(name.encode())
    paths = [image, tmp_path / "crash", tmp_path / "greedy", tmp_path / "endless", *[image] * 30]
    predictions = classifier(tmp_path, SIX).predict(paths)
    assert [prediction.image for prediction in predictions] == [str(path) for path in paths]
    assert [prediction.error for prediction in predictions] == [
        None,
        decoders.CRASHED,
        TOO_MUCH_MEMORY,
        "its decoder has not ended after 300 s of processor time",
        *[None] * 30,
    ]


def test_threads_that_predict_at_once_do_not_end_each_others_decoders(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "_PATIENCE_SECONDS", 0.0)
    # What one that was ended was at would be read alone, so that nobody noticed.
    monkeypatch.setattr(decoders.Decoders, "_alone", lambda *_: pytest.fail("a decoder was ended"))
    loaded = classifier(tmp_path, SIX)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda count: loaded.predict([image] * count), [1, 40, 2, 30, 1, 20]))
    assert [len(each) for each in found] == [1, 40, 2, 30, 1, 20]
    assert {prediction.error for each in found for prediction in each} == {None}


def test_a_prediction_knows_the_bytes_that_were_looked_at(tmp_path: Path, image: Path) -> None:
    read, gone = classifier(tmp_path, SIX).predict([image, tmp_path / "gone.png"])
    assert read.digest == hashlib.sha256(image.read_bytes()).digest()
    assert gone.digest == bytes(32)


def test_few_images_start_one_process_and_many_no_more_than_there_are_cores(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    started = decoders.Decoders.__init__

    def noted(self: decoders.Decoders, reader: reader_module.Reader, processes: int) -> None:
        asked.append(processes)
        started(self, reader, processes)

    monkeypatch.setattr(decoders, "available_cores", lambda: 3)
    monkeypatch.setattr(decoders.Decoders, "__init__", noted)
    loaded = classifier(tmp_path, SIX)
    for count in (1, 8, 3, 16, 17, 80):
        assert len(loaded.predict([image] * count)) == count
    # One of them serves all calls with a few images.
    assert asked == [1, 1, 2, 3]


@forks
def test_the_process_that_decodes_a_few_images_is_kept_and_ends_with_the_classifier(
    tmp_path: Path, image: Path
) -> None:
    loaded = classifier(tmp_path, SIX)
    assert active_children() == []
    loaded.predict(image)
    kept = [process.pid for process in active_children()]
    assert len(kept) == 1
    loaded.predict([image] * 8)
    assert [process.pid for process in active_children()] == kept
    del loaded
    gc.collect()
    assert active_children() == []


@forks
def test_a_path_counts_from_where_the_caller_is_now(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = classifier(tmp_path, SIX)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.png").write_bytes(image.read_bytes())
        monkeypatch.chdir(tmp_path / folder)
        assert loaded.predict(f"{folder}.png")[0].error is None
        assert loaded.predict(".")[0].error is None


@forks
def test_a_decoder_that_crashes_costs_the_others_nothing_whichever_thread_asked(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, here = reader_module.decode, os.getpid()

    def patched(content: bytes, *given: Any) -> np.ndarray:
        assert os.getpid() != here
        if content == b"crash":
            faulthandler.disable()
            ctypes.string_at(0)
        return decode(content, *given)

    monkeypatch.setattr(reader_module, "decode", patched)
    loaded = classifier(tmp_path, SIX)
    with ThreadPoolExecutor(4) as pool:
        asked = [[b"crash"], [image], [image, b"crash"], [image]] * 3
        found = list(pool.map(loaded.predict, asked))
    assert [[each.error for each in some] for some in found] == [
        [decoders.CRASHED if image == b"crash" else None for image in some] for some in asked
    ]
    # A process there is again.
    assert loaded.predict(image)[0].error is None


@forks
def test_a_classifier_that_has_decoded_works_on_in_a_process_that_is_forked_and_in_a_copy(
    tmp_path: Path, image: Path
) -> None:
    loaded = classifier(tmp_path, SIX)
    loaded.predict(image)
    for copied in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert said(copied.predict(image)[0]) == said(loaded.predict(image)[0])
    ours, theirs = get_context("fork").Pipe(duplex=False)
    # In a worker of a pool, too, which may start no process and whose processes are waited for.
    for daemon in (False, True):
        process = get_context("fork").Process(target=_answer, args=(loaded, image, theirs), daemon=daemon)
        process.start()
        assert ours.poll(30)
        assert ours.recv() == said(loaded.predict(image)[0])
        process.join(30)
        assert process.exitcode == 0


def _answer(loaded: Classifier, image: Path, connection: Connection) -> None:
    connection.send(said(loaded.predict(image)[0]))


def test_an_image_in_memory_that_cannot_be_encoded_is_an_error_of_that_image(tmp_path: Path, image: Path) -> None:
    closed = Image.open(image)
    closed.close()
    found = classifier(tmp_path, SIX).predict([closed, image])
    assert [bool(prediction.error) for prediction in found] == [True, False]
