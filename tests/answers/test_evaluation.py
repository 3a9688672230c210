"""Scores of new photos, against numbers that are counted by hand."""

import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_runs import TREE, add_classifier, photo
from nstudent.answers.evaluation import evaluate
from nstudent.classifier import Classifier
from nstudent.cli.evaluate import _print
from nstudent.config.members import ProbeConfig
from nstudent.data.decode import TOO_MUCH_MEMORY
from nstudent.data.packing import decoders, reader
from nstudent.errors import DataError
from nstudent.evaluation.scores import HEADLINE
from nstudent.session import Session
from nstudent.taxonomy.tree import Taxonomy

LEVELS = TREE.levels
OTHER = {
    "loop/one loop/six": "stroke",
    "loop/one loop/nine": "stroke",
    "loop/two loops": "stroke",
    "stroke": "loop/two loops",
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Classifier.load(add_classifier(tmp_path_factory.mktemp("run"), [ProbeConfig()]), "cpu")


def _said(classifier: Classifier, path: Path) -> str:
    return "/".join(each.name for each in classifier.predict(path)[0].labels.values())


@pytest.fixture
def photos(tmp_path: Path, classifier: Classifier) -> Path:
    """Eight photos in the folders of their labels: what the classifier says, but for the last two."""
    root = tmp_path / "photos"
    for number in range(8):
        made = photo(tmp_path / f"{number}.png", seed=number)
        said = _said(classifier, made)
        folder = root / (said if number < 6 else OTHER[said])
        folder.mkdir(parents=True, exist_ok=True)
        made.rename(folder / made.name)
    return root


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_photos_in_folders_are_scored_with_intervals_and_mistakes(
    classifier: Classifier, photos: Path, tmp_path: Path
) -> None:
    found = evaluate(classifier, photos, Session())
    assert found.images == 8
    whole = found.scores["whole path"]
    assert whole is not None
    assert whole.value == 0.75
    assert 0 <= whole.low < 0.75 < whole.high <= 1
    headline = found.scores[HEADLINE]
    assert headline is not None
    # The two wrong ones are wrong from the coarsest level on, and have nothing right.
    assert headline.value == 0.75
    assert {Path(each.image).name for each in found.mistakes} == {"6.png", "7.png"}
    for each in found.mistakes:
        said = _said(classifier, photos / each.image)
        assert (each.said, each.truth, each.level) == (said, OTHER[said], "coarse")
        assert each.probability > 0
    found.write(tmp_path / "out")
    assert json.loads((tmp_path / "out/scores.json").read_text())["scores"]["whole path"]["value"] == 0.75
    assert [row["image"] for row in _rows(tmp_path / "out/mistakes.csv")] == [each.image for each in found.mistakes]
    assert len(_rows(tmp_path / "out/classes.csv")) == len(found.classes)


def test_every_class_has_its_share_of_right_answers(classifier: Classifier, photos: Path) -> None:
    found = evaluate(classifier, photos, Session())
    truth = [path.relative_to(photos).parts[:-1] for path in sorted(photos.rglob("*.png"))]
    said = [tuple(_said(classifier, path).split("/")) for path in sorted(photos.rglob("*.png"))]
    for each in found.classes:
        level = LEVELS.index(each.level)
        of_it = [
            s[level : level + 1] == (each.name,)
            for t, s in zip(truth, said, strict=True)
            if t[level : level + 1] == (each.name,)
        ]
        assert (each.images, each.right.value) == (len(of_it), sum(of_it) / len(of_it))
        said_it = [
            t[level : level + 1] == (each.name,)
            for t, s in zip(truth, said, strict=True)
            if s[level : level + 1] == (each.name,)
        ]
        assert each.said == len(said_it)
        assert each.precision == (sum(said_it) / len(said_it) if said_it else None)
    assert {(each.level, each.name) for each in found.classes} == {
        (LEVELS[level], name) for path in truth for level, name in enumerate(path)
    }


def test_a_table_is_scored_like_its_folders(classifier: Classifier, photos: Path) -> None:
    lines = ["path,coarse,mid,fine"]
    for path in sorted(photos.rglob("*.png")):
        name = path.relative_to(photos)
        entries = [*name.parts[:-1], "-", "-"][:3]
        lines.append(",".join([name.as_posix(), *entries]))
    table = photos / "labels.csv"
    table.write_text("\n".join(lines))
    found, wanted = evaluate(classifier, table, Session()), evaluate(classifier, photos, Session())
    assert found.scores == wanted.scores
    assert found.classes == wanted.classes


def test_what_cannot_be_scored_is_counted_and_said(
    classifier: Classifier, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "loop" / "three loops").mkdir(parents=True)
    photo(photos / "loop/three loops/x.png")
    photo(photos / "nobody knows.png")
    (photos / "stroke").mkdir(exist_ok=True)
    (photos / "stroke" / "broken.png").write_bytes(b"x")
    found = evaluate(classifier, photos, Session())
    assert found.images == 8
    assert found.unlabelled == 1
    assert sum(found.unknown.values()) == 1
    assert "three loops" in next(iter(found.unknown))
    assert list(found.unreadable) == ["stroke/broken.png"]
    _print(found)
    assert "  stroke/broken.png: not an image, or of an unknown kind" in capsys.readouterr().out.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory of a process is not limited")
def test_a_photo_whose_decoder_asks_for_any_amount_of_memory_is_named(
    classifier: Classifier, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = reader.decode
    monkeypatch.setattr(decoders, "_BYTES_BESIDE", 64 << 20)
    (photos / "stroke").mkdir(exist_ok=True)
    (photos / "stroke" / "greedy.png").write_bytes(b"greedy")

    def patched(content: bytes, *given: Any) -> np.ndarray:
        if content == b"greedy":
            np.ones(10 << 30, np.uint8)
        return decode(content, *given)

    monkeypatch.setattr(reader, "decode", patched)
    found = evaluate(classifier, photos, Session())
    assert found.images == 8
    assert found.unreadable == {"stroke/greedy.png": TOO_MUCH_MEMORY}


def test_below_a_class_where_no_label_of_the_classifier_ends_nothing_is_judged(
    classifier: Classifier, tmp_path: Path
) -> None:
    made = photo(tmp_path / "x.png")
    top = _said(classifier, made).split("/")[0]
    if top == "stroke":
        pytest.skip("the drawn classifier ends at the coarsest level")
    (tmp_path / "photos" / top).mkdir(parents=True)
    made.rename(tmp_path / "photos" / top / "x.png")
    found = evaluate(classifier, tmp_path / "photos", Session())
    assert found.scores["accuracy/fine"] is None
    assert found.mistakes == ()


def test_photos_that_are_not_there_or_of_other_classes_are_errors(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder and no CSV file"):
        evaluate(classifier, tmp_path / "gone", Session())
    (tmp_path / "cats").mkdir()
    photo(tmp_path / "cats/x.png")
    with pytest.raises(DataError, match=r"no photo with a label that the classifier knows, such as: .*cats"):
        evaluate(classifier, tmp_path, Session())


def test_a_tree_of_one_level_is_scored_and_its_score_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Taxonomy.from_labels([("a",), ("b",)], ("class",))
    flat = Classifier.load(add_classifier(tmp_path / "run", [ProbeConfig()], taxonomy=tree), "cpu")
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        photo(tmp_path / f"photos/{name}/x.png")
    found = evaluate(flat, tmp_path / "photos", Session())
    accuracy = found.scores["accuracy/class"]
    assert accuracy is not None
    assert accuracy.value == 0.5
    _print(found)
    said = capsys.readouterr().out
    assert said.count("50.0%") == 1
    assert "level accuracy" in said


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_photos_that_the_run_has_seen_are_counted_and_the_others_scored_alone(
    classifier: Classifier, photos: Path, tmp_path: Path
) -> None:
    seen = {_digest(path) for path in photos.rglob("*.png") if path.name in ("0.png", "1.png", "2.png", "6.png")}
    found = evaluate(classifier, photos, Session(), seen)
    assert found.seen_before == 4
    whole, of_all = found.scores_of_new["whole path"], found.scores["whole path"]
    assert whole is not None
    assert of_all is not None
    # Of 3, 4, 5 and 7 only the last is wrong, as of all eight two are.
    assert (whole.value, of_all.value) == (0.75, 0.75)
    seen -= {_digest(path) for path in photos.rglob("6.png")}
    whole = evaluate(classifier, photos, Session(), seen).scores_of_new["whole path"]
    assert whole is not None
    assert whole.value == 0.6
    found.write(tmp_path / "out")
    written = json.loads((tmp_path / "out/scores.json").read_text())["seen_before"]
    assert (written["images"], written["scores_of_new"]["whole path"]["value"]) == (4, 0.75)


def test_where_all_photos_or_none_have_been_seen_there_is_no_second_score(classifier: Classifier, photos: Path) -> None:
    every = {_digest(path) for path in photos.rglob("*.png")}
    for seen, number in ((every, 8), (set[bytes](), 0)):
        found = evaluate(classifier, photos, Session(), seen)
        assert (found.seen_before, found.scores_of_new) == (number, {})


def test_that_photos_were_seen_before_is_said_above_their_scores(
    classifier: Classifier, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = {_digest(path) for path in photos.rglob("*.png") if path.name in ("0.png", "1.png", "2.png", "6.png")}
    every = {_digest(path) for path in photos.rglob("*.png")}
    cases = (
        (some, "4 of these photos are ones", "The other 4 alone: 75.0% ["),
        (every, "All of these photos are ones", "Score photos that it has not seen."),
    )
    for seen, which, others in cases:
        _print(evaluate(classifier, photos, Session(), seen))
        first, said, *_ = capsys.readouterr().out.splitlines()
        assert first == "8 photos"
        assert said.startswith(which)
        assert others in said
    _print(evaluate(classifier, photos, Session()))
    assert "seen" not in capsys.readouterr().out
