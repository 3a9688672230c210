"""Files of predictions: the same whatever interrupts them, in three formats that say the same."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from nstudent.answers import labelled_file
from nstudent.answers.labelled_file import LabelledFile, Made
from nstudent.answers.tables import format_of
from nstudent.classifier import LevelPrediction, Prediction
from nstudent.data.given_images import NamedImage
from nstudent.errors import BusyError, ConfigError, StoppedError
from nstudent.session import Session
from nstudent.signals import StopRequest
from nstudent.storage.lock import hold

LEVELS = ("coarse", "fine")
NAMES = [f"new/{number}.jpg" for number in range(10)]


def _label(images: Iterator[NamedImage]) -> Iterator[Prediction]:
    for image in images:
        number = int(Path(image.name).stem)
        if number == 3:
            yield Prediction(image.name, {}, 'cannot be read, "really"')
            continue
        labels = {"coarse": LevelPrediction("a,b", 0.98765)}
        if number % 2:
            labels["fine"] = LevelPrediction("ü\n=1", number / 10)
        top = tuple(LevelPrediction(name, p) for name, p in (("x", 0.75), ("y", 0.25)))
        yield Prediction(image.name, labels, top={"coarse": top, "fine": top[:1]})


class _DiesError(Exception):
    pass


def _dying(after: int) -> Any:
    def label(images: Iterator[NamedImage]) -> Iterator[Prediction]:
        for number, prediction in enumerate(_label(images)):
            if number == after:
                raise _DiesError
            yield prediction

    return label


def _file(out: Path, **asked: Any) -> LabelledFile:
    return LabelledFile(out, format_of(out, LEVELS, 2), {"classifier": "id", **asked})


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_file, "_MOST_IMAGES", 3)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.usefixtures("small_parts")
def test_a_file_that_was_interrupted_is_the_same_as_one_that_was_not(tmp_path: Path, suffix: str) -> None:
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    made = _file(whole).make(NAMES, _label, Session())
    for after in (4, 0, 2, 5):
        with pytest.raises(_DiesError):
            _file(broken).make(NAMES, _dying(after), Session())
        assert not broken.exists()
    seen: list[str] = []

    def label(images: Iterator[NamedImage]) -> Iterator[Prediction]:
        for prediction in _label(images):
            seen.append(prediction.image)
            yield prediction

    assert _file(broken).make(NAMES, label, Session()) == made == Made(10, 1)
    assert broken.read_bytes() == whole.read_bytes()
    # Of 4, 0, 2 and 5 images that were labelled, two parts of three were kept.
    assert seen == NAMES[6:]
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, broken.name}


def test_a_stop_keeps_every_image_that_was_labelled(tmp_path: Path) -> None:
    out, stop = tmp_path / "out.jsonl", StopRequest()

    def label(images: Iterator[NamedImage]) -> Iterator[Prediction]:
        for number, prediction in enumerate(_label(images)):
            if number == 4:
                stop.note(15)
            yield prediction

    with pytest.raises(StoppedError, match="the same command goes on"):
        _file(out).make(NAMES, label, Session(stop=stop))
    assert [path.name for path in (tmp_path / "out.jsonl.parts").glob("part-*")] == [
        "part-000000000000-000000000005-1.jsonl"
    ]
    assert _file(out).make(NAMES, _label, Session()) == Made(10, 1)
    assert [json.loads(line)["image"] for line in out.read_text().splitlines()] == NAMES


@pytest.mark.usefixtures("small_parts")
def test_parts_for_other_images_or_of_another_classifier_are_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(_DiesError):
        _file(out, risk=0.05).make(NAMES, _dying(4), Session())
    with pytest.raises(ConfigError, match=r"out\.csv\.parts holds unfinished work with other images"):
        _file(out, risk=0.05).make(NAMES[1:], _label, Session())
    with pytest.raises(ConfigError, match="with other risk: remove that folder"):
        _file(out, risk=0.1).make(NAMES, _label, Session())
    assert _file(out, risk=0.05).make(NAMES, _label, Session()).images == 10


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_is_gone_is_missed(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(_DiesError):
        _file(out).make(NAMES, _dying(7), Session())
    (tmp_path / "out.csv.parts" / "part-000000000000-000000000003-0.csv").unlink()
    with pytest.raises(ConfigError, match="lacks a part before part-000000000003"):
        _file(out).make(NAMES, _label, Session())


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        _file(tmp_path / "out.csv")


def test_two_commands_do_not_write_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.storage.lock._GRACE_SECONDS", 0.1)
    out = tmp_path / "out.csv"
    with hold(tmp_path / "out.csv.parts"), pytest.raises(BusyError):
        _file(out).make(NAMES, _label, Session())


def test_all_formats_say_the_same(tmp_path: Path) -> None:
    for suffix in (".csv", ".parquet", ".jsonl"):
        _file(tmp_path / f"out{suffix}").make(NAMES, _label, Session())
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == len(table) == len(lines) == 10
    assert list(rows[0]) == list(table[0])
    for row, found, line in zip(rows, table, lines, strict=True):
        assert row["image"] == found["image"] == line["image"]
        assert (row["error"] or None) == found["error"] == line.get("error")
        for level in LEVELS:
            said = line.get("labels", {}).get(level, {"class": None, "probability": None})
            assert (row[level] or None) == found[level] == said["class"]
            if said["class"]:
                assert float(row[f"{level} probability"]) == said["probability"]
                assert found[f"{level} probability"] == pytest.approx(said["probability"], abs=1e-6)
            best = line.get("top", {}).get(level, [])
            assert [row[f"{level} top {n}"] for n in (1, 2)] == [*(b["class"] for b in best), "", ""][:2]


def test_a_suffix_that_says_no_format_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"ends in \.csv, \.jsonl or \.parquet"):
        format_of(Path("out.xlsx"), LEVELS, 1)


@pytest.mark.parametrize("levels", [("image", "fine"), ("fine", "fine probability")])
def test_a_level_that_is_called_like_another_column_is_an_error(levels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="two columns would be called"):
        format_of(Path("out.csv"), levels, 1)


def test_without_the_extra_a_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'nstudent\[parquet\]'"):
        format_of(Path("out.parquet"), LEVELS, 1)
