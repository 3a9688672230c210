"""A whole run on a tree of a few thousand classes, of most of which nobody has labelled an image."""

import io
import json
from pathlib import Path

import h5py
import nstudent
import numpy as np
import pytest
from nstudent.labels.store import LabelStore
from nstudent.storage.artifact import Artifact
from nstudent.storage.files import read_json
from PIL import Image

pytestmark = pytest.mark.slow

COARSE, MIDS, FINES = 4, 10, 75
SIDE = 16
LEVELS = ("coarse", "mid", "fine")
NAMES = (
    [f"c{c}" for c in range(COARSE)],
    [f"c{c}m{m}" for c in range(COARSE) for m in range(MIDS)],
    [f"c{c}m{m}f{f}" for c in range(COARSE) for m in range(MIDS) for f in range(FINES)],
)
TREE = {f"c{c}": {f"c{c}m{m}": [f"c{c}m{m}f{f}" for f in range(FINES)] for m in range(MIDS)} for c in range(COARSE)}
WORDS = (
    "threads=1",
    "workers=0",
    "device=cpu",
    "rounds=1",
    "probe.members=[]",
    f"data.image_size={SIDE}",
    "data.labelled=all",
    "teacher.members=[{}]",
    "teacher.epochs=4",
    "teacher.ema_decay=0.9",
    "pseudolabel.threshold=0.05",
    "filter.enabled=true",
    "filter.epochs=1",
    "filter.iterations=1",
    "filter.max_dropped_share=1.0",
    "student.epochs=1",
    "student.ema_decay=0.9",
    "evaluate.resamples=50",
)


def picture(fine: int, random: np.random.Generator) -> bytes:
    """The coarse class is the colour, the mid class its brightness, and the fine class nothing at all."""
    coarse, mid = fine // (MIDS * FINES), fine // FINES % MIDS
    colour = np.array([[1, 0.2, 0.2], [0.2, 1, 0.2], [0.2, 0.2, 1], [1, 1, 0.2]])[coarse] * (80 + 17 * mid)
    pixels = np.clip(colour + random.normal(0, 12, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def packed(path: Path, sizes: tuple[int, ...] = (320, 120, 120, 200)) -> None:
    """Images of the four splits, as docs/DATA.md describes them; the labels of all are known."""
    random = np.random.default_rng(0)
    fine = random.integers(0, COARSE * MIDS * FINES, sum(sizes))
    content = [picture(int(each), random) for each in fine]
    with h5py.File(path, "w") as file:
        file["jpeg"] = np.frombuffer(b"".join(content), np.uint8)
        file["offset"] = np.cumsum([0, *map(len, content)])
        file["label"] = np.stack([fine // (MIDS * FINES), fine // FINES, fine], axis=1).astype(np.int32)
        file["split"] = np.repeat(np.arange(4, dtype=np.int8), sizes)
        file.attrs["meta"] = json.dumps({"levels": NAMES})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    packed(folder / "images.h5")
    words = [*WORDS, "data.source=hdf5", f"data.root={folder / 'images.h5'}", f"data.taxonomy={json.dumps(TREE)}"]
    return nstudent.run_all(nstudent.load_config(overrides=words), folder / "run")


def test_it_ends_with_scores(run: Path) -> None:
    scores = read_json(run / "08-evaluate" / "scores.json")

    assert len(scores["classifiers"]) == 3
    assert scores["final"]["test"]["accuracy/coarse"]["value"] > 0.5


def test_of_the_fine_level_the_most_probable_classes_are_stored(run: Path) -> None:
    with h5py.File(run / "04-pseudolabel" / "labels.h5") as file:
        assert file["probability/coarse"].shape == (200, COARSE)
        assert file["probability/mid"].shape == (200, COARSE * MIDS)
        assert file["top/fine/class"].shape == file["top/fine/probability"].shape == (200, 64)
        assert file["top/fine/class"].dtype == np.int16


def test_the_student_reads_whole_distributions(run: Path) -> None:
    fine = LabelStore.open(Artifact(run / "04-pseudolabel")).probabilities[2][np.arange(200)]

    assert fine.shape == (200, COARSE * MIDS * FINES)
    np.testing.assert_allclose(fine.sum(axis=1), 1, atol=1e-3)
    assert (fine > 0).all()


def test_the_classifier_names_a_path_of_the_tree(run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(picture(0, np.random.default_rng(1)))

    (prediction,) = nstudent.Classifier.load(run, device="cpu").predict([tmp_path / "x.png"])

    names = [prediction.labels[level].name for level in LEVELS]
    assert names[2] in TREE[names[0]][names[1]]
