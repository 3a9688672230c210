"""A run is up to date by what its data and files are, not by where they lie; what has changed is told in numbers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from costless_runs import ONE_ROUND, Told
from nstudent import Session, load_config, run_all
from nstudent.data.sources.seen import Seen, seen_files
from nstudent.errors import ConfigError, DataError
from nstudent.progress import Silence
from nstudent.runs import source_seen
from nstudent.runs.asked import by_content, why_stale
from nstudent.runs.source_seen import SOURCE_SEEN, Kept, SourceOfRun, write_seen
from nstudent.runs.status import status
from nstudent.storage.artifact import Manifest
from PIL import Image

if TYPE_CHECKING:
    from conftest import FakeStages

Made = Callable[..., dict[str, str]]


class _Told(Told):
    def task(self, *_: Any, **__: Any) -> Any:
        return nullcontext(Silence())


@pytest.fixture
def made(tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Run everything on the folder ``photos``; why each step was made, in order."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/cat", "photos/dog", "heap"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / name / f"{number}.png")

    def run(*words: str, run_dir: str = "run", root: str = "photos", heap: str = "heap") -> dict[str, str]:
        told = _Told()
        where = [f"data.root={root}", f"data.unlabelled_root={heap}", "data.source=folder", "data.levels=[x]"]
        where.append("probe.members=[]")
        run_all(load_config(None, [*where, *words]), run_dir, Session(progress=told))
        said = dict(line.split(": ", 1) for line in told.lines)
        return {name: reason for name, reason in said.items() if reason != "up to date"}

    assert list(run()) == ONE_ROUND
    return run


def test_a_run_and_its_data_copied_elsewhere_stay_up_to_date(made: Made, tmp_path: Path) -> None:
    for name in ("photos", "heap", "run"):
        shutil.copytree(name, tmp_path / "elsewhere" / name)
        shutil.rmtree(name)
    assert made(run_dir="elsewhere/run", root=str(tmp_path / "elsewhere/photos"), heap="elsewhere/heap") == {}


def test_files_of_other_times_and_equal_bytes_are_up_to_date_and_read_once_for_that(
    made: Made, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a copy without times, a clone or an unpacked archive. It is written down, so that they are read once."""
    files = sorted([*Path.cwd().joinpath("photos").rglob("*.png"), *Path.cwd().joinpath("heap").iterdir()])
    for number, file in enumerate(files):
        os.utime(file, (number, number))
    read: list[str] = []
    digest = source_seen._sha256
    monkeypatch.setattr(source_seen, "_sha256", lambda path: read.append(str(path)) or digest(path))
    assert {state.state for state in status("run")} == {"done"}
    assert sorted(read) == [str(file) for file in files]
    assert made() == {}
    read.clear()
    assert made() == {}
    assert {state.state for state in status("run")} == {"done"}
    assert read == []
    # What was written down is not of the copy alone: the next one is compared with what the data were made of.
    os.utime("photos/cat/0.png", (7, 7))
    assert made() == {}
    assert read == ["photos/cat/0.png"]


def test_files_of_other_times_and_other_bytes_are_another_source(made: Made) -> None:
    """Of equal names and sizes: nothing but the bytes tells."""
    image = Path("photos/cat/0.png")
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)
    os.utime("heap/0.png", (1, 1))
    assert made() == {"00-data": "the source has changed: 2 files of another time"}


def test_other_times_do_not_hide_another_setting(made: Made) -> None:
    os.utime("photos/cat/0.png", (1, 1))
    assert made("data.image_size=16")["00-data"] == "data.image_size changed from 64 to 16"


def test_a_file_that_was_replaced_before_it_was_compared_is_not_taken_for_what_the_data_hold(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is no image of the data step is read after that step, which may have seen another one."""
    image = Path("photos/cat/0.png")
    digest = source_seen._sha256

    def replaced(path: Path) -> bytes | None:
        if path == image:
            image.write_bytes(image.read_bytes()[:-1] + b"x")
        return digest(path)

    shutil.rmtree("run")
    monkeypatch.setattr(source_seen, "_sha256", replaced)
    assert list(made()) == ONE_ROUND
    monkeypatch.setattr(source_seen, "_sha256", digest)
    assert made() == {"00-data": "the source has changed: 1 file of another time"}


def test_a_changed_image_makes_all_stale_and_is_counted(made: Made, fake_stages: FakeStages) -> None:
    fake_stages.content = {"00-data": "other"}
    for number in range(12):
        shutil.copy("photos/cat/0.png", f"heap/new{number}.png")
    Path("photos/dog/1.png").write_bytes(b"x")
    Path("photos/dog/2.png").unlink()
    reasons = made()
    assert reasons["00-data"] == "the source has changed: 12 new files, 1 gone, 1 changed"
    assert reasons["01-teacher"] == "00-data was made again"
    assert list(reasons) == ONE_ROUND


def test_without_the_note_of_what_was_seen_a_change_is_still_one(made: Made) -> None:
    Path("run", SOURCE_SEEN).unlink()
    Path("photos/dog/1.png").write_bytes(b"x")
    assert made()["00-data"] == "the source has changed"


@pytest.mark.parametrize("damage", [b"", b"no hdf5"])
def test_a_damaged_note_of_what_was_seen_is_no_obstacle(made: Made, damage: bytes) -> None:
    Path("run", SOURCE_SEEN).write_bytes(damage)
    assert made() == {}
    Path("photos/dog/1.png").write_bytes(b"x")
    assert made()["00-data"] == "the source has changed"


def test_a_note_that_is_a_link_is_not_read(made: Made, tmp_path: Path) -> None:
    note = Path("run", SOURCE_SEEN)
    note.rename(tmp_path / "theirs")
    note.symlink_to(tmp_path / "theirs")
    assert SourceOfRun(load_config(None, []).data, Path("run")).changes() == ""


@pytest.mark.parametrize("settings", [{}, {"source": 3}, []])
def test_data_that_do_not_say_what_they_were_made_of_are_made_again(made: Made, settings: Any) -> None:
    manifest = Path("run/00-data/manifest.json")
    content = json.loads(manifest.read_text())
    content["asked"]["settings"] = settings
    manifest.write_text(json.dumps(content))
    assert status("run")[0].state == "stale"
    assert "00-data" in made()
    assert status("run")[0].state == "done"


def test_a_page_of_classes_counts_by_its_content(made: Made) -> None:
    Path("tree.yaml").write_text("[cat, dog]")
    assert "00-data" in made("data.taxonomy=tree.yaml")
    Path("tree.yaml").rename("same.yaml")
    assert made("data.taxonomy=same.yaml") == {}
    Path("same.yaml").write_text("[cat, dog, fish]")
    assert made("data.taxonomy=same.yaml") == {"00-data": "the content of data.taxonomy changed"}


@pytest.mark.parametrize("is_folder", [False, True])
def test_weights_count_by_their_content(made: Made, is_folder: bool) -> None:
    file = Path("weights/test_resnet.safetensors") if is_folder else Path("weights")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"first")
    word = "teacher.members=[{pretrained: weights}]"
    assert "01-teacher" in made(word)
    assert made(word) == {}
    file.write_bytes(b"second")
    assert made(word)["01-teacher"] == "the content of teacher.members.0.pretrained changed"
    assert "02-baseline" in made(word, "student.model={pretrained: weights}")
    file.write_bytes(b"third!")
    reasons = made("student.model={pretrained: weights}", word)
    assert reasons["02-baseline"] == "the content of student.model.pretrained changed"


def test_a_file_behind_a_key_that_is_gone_is_an_error(made: Made) -> None:
    with pytest.raises(ConfigError, match=r"data\.taxonomy: cannot read nowhere\.yaml"):
        made("data.taxonomy=nowhere.yaml")
    with pytest.raises(ConfigError, match=r"student\.model\.pretrained: cannot read nowhere"):
        made("student.model={pretrained: nowhere}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_file_behind_a_key_is_not_waited_for(made: Made) -> None:
    os.mkfifo("pipe")
    with pytest.raises(ConfigError, match=r"data\.taxonomy: pipe is not a file but a folder, a pipe or a device"):
        made("data.taxonomy=pipe")
    with pytest.raises(ConfigError, match=r"student\.model\.pretrained: pipe is not a file"):
        made("student.model={pretrained: pipe}")


def test_runs_of_versions_that_asked_for_paths_stay_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "tree.yaml").write_text("[a, b]")
    (tmp_path / "weights").write_bytes(b"w")
    now = {"data.root": "p", "data.taxonomy": str(tmp_path / "tree.yaml"), "seed": 1}
    now |= {"teacher.members": [{"backbones": ["a"], "pretrained": str(tmp_path / "weights")}]}
    old = {"stage": "x", "version": 1, "round": 0, "settings": now, "inputs": {"00-data": "a fingerprint"}}
    data = Manifest("data", "data", 0, {}, {}, {}, {}, 0.0)
    made = Manifest("x", "y", 0, old, {"00-data": data.id}, {}, {}, 0.0)
    asked = {**old, "settings": by_content(now), "inputs": {"00-data": data.id}}
    assert why_stale(made, asked, {"00-data": data}) is None
    asked["settings"] = by_content(now | {"seed": 2})
    assert why_stale(made, asked, {"00-data": data}) == "seed changed from 1 to 2"


def test_what_was_seen_is_kept_in_full(tmp_path: Path) -> None:
    names = ["a.png", "b\udcff.png", "d/é.png", "x" * 300]
    for name in names[:3]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("path")
    seen = seen_files((tmp_path, names), (tmp_path, ["a.png"]), tables=[tmp_path / "t.csv"])
    assert len(seen.files) == 5
    digests = {"a.png": bytes(range(32)), "b\udcff.png": bytes(32)}
    write_seen(tmp_path, Kept(seen, "stamp", digests))
    assert source_seen._kept(tmp_path) == Kept(seen, "stamp", digests)
    assert seen.difference(seen) == ""
    assert Seen(seen.content, {}).difference(seen) == "5 files gone"
    assert Seen("other", seen.files).difference(seen) == "its table has changed"


def test_every_file_that_was_seen_is_found_again_where_it_lies(tmp_path: Path) -> None:
    for name in ("a/x", "a/y", "b/x", "b/2:x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    seen = seen_files((tmp_path / "a", ["x", "y"]), (tmp_path / "b", ["x", "2:x"]))
    assert {name: path.read_text() for name, path in seen.paths()} == {
        "x": "a/x",
        "y": "a/y",
        "2:x": "b/x",
        "2:2:x": "b/2:x",
    }


def test_nothing_to_see_but_an_identity(tmp_path: Path) -> None:
    write_seen(tmp_path, Kept(Seen("scikit-learn 1"), "scikit-learn 1", {}))
    kept = source_seen._kept(tmp_path)
    assert kept is not None
    assert Seen("scikit-learn 2").difference(kept.seen) == "it holds something else"
    assert Seen("scikit-learn 1").stamp == "scikit-learn 1"


def test_a_table_counts_by_its_content_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("path,x\n")
    os.utime(tmp_path / "b" / "t.csv", (1, 1))
    stamps = [seen_files(tables=[tmp_path / name / "t.csv"]).stamp for name in ("a", "b")]
    assert stamps[0] == stamps[1]


def test_a_source_that_is_gone_is_told_before_anything(made: Made) -> None:
    shutil.rmtree("photos")
    with pytest.raises(DataError, match=r"data\.root: there is no folder photos"):
        made()


def test_only_a_time_is_no_change_that_bytes_can_settle() -> None:
    before = Seen("table", {"a": (1, 10), "b": (2, 20)})
    assert Seen("table", {"a": (1, 11), "b": (2, 20)}).touched(before) == ["a"]
    assert Seen("table", dict(before.files)).touched(before) == []
    for other in (
        Seen("another table", {"a": (1, 11), "b": (2, 20)}),
        Seen("table", {"a": (3, 11), "b": (2, 21)}),
        Seen("table", {"a": (1, 11)}),
        Seen("table", {"a": (1, 11), "b": (2, 20), "c": (3, 30)}),
        Seen("table", {"b": (2, 20), "a": (1, 11)}),
    ):
        assert other.touched(before) is None


def test_a_note_of_other_data_says_nothing_of_these(made: Made) -> None:
    """As where a run was killed between data that were made again and their note."""
    os.utime("photos/cat/0.png", (1, 1))
    kept = source_seen._kept(Path("run"))
    assert kept is not None
    write_seen(Path("run"), Kept(kept.seen, "of other data", kept.digests))
    assert made() == {"00-data": "the source has changed: 1 file of another time"}
