"""Links anywhere in a run folder: nobody reads or writes through one, and `verify` names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nstudent
import pytest
from nstudent.classifier import Classifier
from nstudent.config.schema import Config
from nstudent.errors import ArtifactError
from nstudent.runs.status import status
from nstudent.runs.verification import repair, verify
from nstudent.storage.links import links_below, links_of_run
from nstudent.storage.lock import hold, hold_part
from PIL import Image

SIZE = 8


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A source of a few images, and what a run on it is to do."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(24):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (SIZE, SIZE), (number * 10, 250 - number * 10, 90)).save(path)
    return (f"data.root={root}", "data.source=folder", "data.levels=[fine]", f"data.image_size={SIZE}", "rounds=0")


@pytest.fixture(scope="module")
def made(words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its data."""
    run = tmp_path_factory.mktemp("made") / "run"
    nstudent.run_stage(nstudent.load_config(None, list(words)), "data", run)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def config(words: tuple[str, ...]) -> Config:
    return nstudent.load_config(None, list(words))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Somebody's folder, with a file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    return folder


def _untouched(elsewhere: Path) -> bool:
    return [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("precious", "mine")]


PLACES = [
    *("01-teacher.partial", "01-teacher.partial/scratch", "01-teacher.partial/scratch/sealed"),
    *("01-teacher.partial/member-0", "00-data.partial/scratch", "00-data/deep/er", "03-choose", "00-data.before"),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_link_to_a_folder_is_refused_before_anything_is_done(
    run: Path, config: Config, elsewhere: Path, place: str
) -> None:
    (run / place).parent.mkdir(parents=True, exist_ok=True)
    (run / place).symlink_to(elsewhere)
    for act in (lambda: nstudent.run_all(config, run), lambda: nstudent.run_stage(config, "teacher", run)):
        with pytest.raises(ArtifactError, match=f"{place} is a link to somewhere else: put the file or folder itself"):
            act()
    with pytest.raises(ArtifactError, match=f"{place} is a link"):
        status(run)
    with pytest.raises(ArtifactError, match=f"{place} is a link"):
        repair(run)
    assert _untouched(elsewhere)


@pytest.mark.parametrize(
    "place",
    [
        *("config.yaml", "final.json", "stopped.json", ".lock", ".lock.mark", ".holder.json", "00-data/manifest.json"),
        *("00-data/index.h5", "01-teacher.partial/asked.json", "01-teacher.partial/scratch/member-0.safetensors"),
        *("01-teacher.partial/scratch/previous-member-0.safetensors", "01-teacher.partial/.manifest.json.writing"),
    ],
)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_to_a_file_is_refused_and_the_file_is_as_it_was(
    run: Path, config: Config, elsewhere: Path, place: str, dangling: bool
) -> None:
    path = run / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere / ("new" if dangling else "precious"))
    with pytest.raises(ArtifactError, match=f"{place} is a link"):
        nstudent.run_all(config, run)
    assert _untouched(elsewhere)


def test_a_link_of_a_part_is_refused(run: Path, elsewhere: Path) -> None:
    (run / ".lock-part-0-of-2").symlink_to(elsewhere / "precious")
    with (
        pytest.raises(ArtifactError, match="lock-part-0-of-2 is a link"),
        hold(run, beside_parts=True),
        hold_part(run, 0, 2),
    ):
        pytest.fail("the part is held")
    assert _untouched(elsewhere)


@pytest.mark.parametrize("place", ["00-data/index.h5", "00-data/deep/er", "01-teacher.partial/scratch", "00-data/new"])
def test_verify_names_every_link_and_reads_through_none(
    run: Path, elsewhere: Path, place: str, opened: list[str]
) -> None:
    path = run / place
    path.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    # The right bytes elsewhere: also then it is not the file that was committed.
    (elsewhere / "copy").write_bytes(content)
    path.symlink_to(elsewhere if place.endswith(("scratch", "er")) else elsewhere / "copy")
    opened.clear()
    step, _, name = place.partition("/")
    assert [(each.step, each.file, each.what) for each in verify(run)] == [(step, name, "a link to somewhere else")]
    assert not [path for path in opened if str(elsewhere) in path]


def test_verify_names_a_link_in_place_of_a_step(run: Path, tmp_path: Path) -> None:
    (run / "00-data").rename(tmp_path / "data of another")
    (run / "00-data").symlink_to(tmp_path / "data of another")
    with pytest.raises(ArtifactError, match="00-data is a link to somewhere else"):
        verify(run)


def test_a_classifier_is_not_read_through_a_link(honest: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(honest, tmp_path / "given"))
    (run / "01-teacher").rename(tmp_path / "theirs")
    (run / "01-teacher").symlink_to(tmp_path / "theirs")
    with pytest.raises(ArtifactError, match="01-teacher is a link"):
        Classifier.load(run, device="cpu")


def test_a_run_folder_may_be_a_link_itself(run: Path, config: Config, tmp_path: Path) -> None:
    """Who names it knows where it leads: results often lie on another disk."""
    (tmp_path / "runs").symlink_to(run)
    assert nstudent.run_stage(config, "data", tmp_path / "runs") == tmp_path / "runs" / "00-data"


def test_what_else_a_person_keeps_beside_the_steps_may_be_a_link(run: Path, config: Config, elsewhere: Path) -> None:
    (run / "notes").symlink_to(elsewhere)
    (run / "photo.jpg").symlink_to(elsewhere / "precious")
    assert list(links_of_run(run)) == []
    nstudent.run_stage(config, "data", run)
    assert _untouched(elsewhere)


def test_links_are_found_at_any_depth_and_a_circle_is_no_trap(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "circle").symlink_to(tmp_path)
    (tmp_path / "a" / "dead").symlink_to(tmp_path / "nowhere")
    assert sorted(links_below(tmp_path)) == ["a/b/c/circle", "a/dead"]


@pytest.fixture
def pack(words: tuple[str, ...], tmp_path: Path) -> Callable[[], Path]:
    from nstudent.data.packing.pack_folder import make_pack

    return lambda: make_pack(nstudent.load_config(None, list(words)).data, tmp_path / "pack")


@pytest.mark.parametrize("place", ["pack.partial/scratch", "pack.partial/records.h5"])
def test_a_link_in_an_unfinished_pack_is_refused(
    pack: Callable[[], Path], tmp_path: Path, elsewhere: Path, place: str
) -> None:
    (tmp_path / "pack.partial").mkdir()
    (tmp_path / place).symlink_to(elsewhere)
    with pytest.raises(ArtifactError, match="is a link"):
        pack()
    assert _untouched(elsewhere)
