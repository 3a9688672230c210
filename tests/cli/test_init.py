"""``nstudent init`` and ``nstudent data check``: a newcomer's first two screens."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from fork_server import ForkServer
from nstudent.config.file import load_config
from PIL import Image
from pseudo_terminal import at_a_terminal

Command = Callable[..., "CompletedProcess[str]"]
_SHORT = ("teacher.epochs=1", "student.epochs=1", "data.image_size=16", "evaluate.resamples=20", "jobs=1", "threads=1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos of two kinds and four classes, bright and dark, and a heap; some files are none."""
    random = np.random.default_rng(0)
    for number in range(48):
        name = ("day/noon", "day/dusk", "night/moon", "night/dark")[number % 4]
        _photo(tmp_path / "photos" / name / f"{number}.jpg", random, 220 - 60 * (number % 4))
    for number in range(24):
        _photo(tmp_path / "heap" / f"{number}.jpg", random, 220 - 60 * (number % 4))
    (tmp_path / "photos" / "notes.txt").write_text("x")
    (tmp_path / "heap" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return tmp_path


def _photo(path: Path, random: np.random.Generator, brightness: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(random.normal(brightness, 20, (72, 96, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def command(server: ForkServer, folder: Path) -> Command:
    """``nstudent ...`` in the folder, as wide as 80 columns, with nobody to ask."""
    return lambda *arguments: server.command(arguments, folder, columns=80)


@pytest.mark.slow
def test_a_folder_of_photos_becomes_a_file_that_runs(command: Command, folder: Path) -> None:
    done = command("init", "photos", "heap")
    assert done.returncode == 0, done.stderr
    for said in (
        "73 images, 48 of them with a label",
        "level coarse: 2 classes",
        "day 24, night 24",
        "level fine: 4 classes",
        "1 not an image (.txt)",
        "1 of 73 images that were opened cannot be read (unlabelled:broken.jpg",
        "wrote nstudent.yaml",
        "expected time: about",
        "run it:  nstudent run-all --config nstudent.yaml",
    ):
        assert said in " ".join(done.stdout.split()).replace("run it: ", "run it:  ")
    assert "without pretrained weights, as nobody was there to ask" in done.stderr
    assert max(map(len, [*done.stdout.splitlines(), *done.stderr.splitlines()])) <= 80
    config = load_config(folder / "nstudent.yaml")
    assert (config.data.root, config.data.unlabelled_root, config.name) == ("photos", "heap", "photos")
    assert not any(network.model_dump()["pretrained"] for network in config.teacher.members)

    ran = command("run-all", "--config", "nstudent.yaml", *_SHORT)
    assert ran.returncode == 0, ran.stderr
    assert (folder / "runs" / "photos" / "report.html").exists()


@pytest.mark.slow
def test_a_tree_of_more_than_three_levels_is_taken_whole(command: Command, folder: Path) -> None:
    for number in range(16):
        name = "/".join(f"{letter}{number >> shift & 1}" for letter, shift in zip("abcd", (3, 2, 1, 0), strict=True))
        for copy in range(3):
            _photo(folder / "deep" / name / f"{copy}.jpg", np.random.default_rng(number + 16 * copy), 10 * number)
    done = command("init", "deep")
    assert done.returncode == 0, done.stderr
    assert "all 4 levels are taken; call them better than level1 to level4 (data.levels)" in done.stdout
    assert "level level4: 2 classes" in done.stdout
    config = load_config(folder / "nstudent.yaml")
    assert config.data.levels == ("level1", "level2", "level3", "level4")


@pytest.mark.slow
def test_files_of_the_mnist_family_and_a_table_of_somebody_else_become_files_that_run(
    command: Command, folder: Path
) -> None:
    random = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for split, count in (("train", 60), ("t10k", 20)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        pixels[:, 5:20] = 60 * (np.arange(count) % 4)[:, None, None]
        for kind, numbers in (("images-idx3", pixels), ("labels-idx1", np.arange(count, dtype=np.uint8) % 4)):
            head = struct.pack(f">HBB{numbers.ndim}I", 0, 8, numbers.ndim, *numbers.shape)
            (folder / "mnist" / f"{split}-{kind}-ubyte").write_bytes(head + numbers.tobytes())
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted((folder / "photos").rglob("*.jpg"))]
    (folder / "theirs.csv").write_text("\n".join(["file_name,label", *rows]))
    for source, levels in (("mnist", {"class": 4}), ("theirs.csv", {"label": 4})):
        done = command("init", source, "--out", f"{source}.yaml")
        assert done.returncode == 0, done.stderr
        assert all(f"level {name}: {count} classes" in done.stdout for name, count in levels.items())
        made = command("stage", "data", "--config", f"{source}.yaml", "--run-dir", f"run-{source}")
        assert made.returncode == 0, made.stderr


@pytest.mark.slow
def test_the_screen_fits_80_columns(command: Command, folder: Path) -> None:
    long = folder / "photos" / "day" / ("a class with a long name " * 5).strip() / "1.jpg"
    _photo(long, np.random.default_rng(1), 50)
    done = command("data", "check", "data.source=folder", "data.root=photos", "data.unlabelled_root=heap")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "networks: all can be trained at 64 px" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["heap", "photos"]


@pytest.mark.slow
def test_a_check_names_a_network_that_cannot_be_trained(command: Command) -> None:
    done = command("data", "check", "data.source=folder", "data.root=photos", "student.model.backbones=[resnet181]")
    assert done.returncode == 2
    assert "student.model.backbones" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_no_file_is_overwritten(command: Command, folder: Path) -> None:
    (folder / "nstudent.yaml").write_text("mine")
    done = command("init", "photos")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nstudent: nstudent.yaml is there already: remove it, or write another file with --out\n"
    (folder / "dead.yaml").symlink_to("nowhere.yaml")
    assert command("init", "photos", "--out", "dead.yaml").returncode == 2
    assert command("init", "photos", "--out", "no/where.yaml").returncode == 2
    assert (folder / "nstudent.yaml").read_text() == "mine"
    assert not (folder / "nowhere.yaml").exists()


@pytest.mark.slow
def test_weights_are_downloaded_if_that_was_said_and_a_file_is_taken(command: Command, folder: Path) -> None:
    def weights(*words: str) -> object:
        done = command("init", "photos", *words, "--out", "it.yaml")
        assert done.returncode == 0, done.stderr
        assert "nobody was there to ask" not in done.stderr
        assert done.stderr.startswith("looking at your images, then timing a few steps: nothing is downloaded\n")
        assert ("it downloads pretrained weights (41 MB) from huggingface.co" in done.stdout) is ("--yes" in words)
        config = load_config(folder / "it.yaml")
        (folder / "it.yaml").unlink()
        assert config.rounds == 0
        return config.student.model.pretrained

    assert weights("--yes") is True
    assert weights("--no-download") is False
    (folder / "w.safetensors").touch()
    assert weights("--weights", "w.safetensors") == "w.safetensors"
    missing = command("init", "photos", "--weights", "missing.safetensors")
    assert (missing.returncode, (folder / "nstudent.yaml").exists()) == (2, False)


def _answered(folder: Path, answer: str) -> str:
    """What a person sees at a terminal who gives this answer."""
    return at_a_terminal([sys.executable, "-m", "nstudent", "init", "photos"], typed=f"{answer}\n", folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "weights"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_a_person_is_asked_before_a_download_is_proposed(
    folder: Path, answer: str, weights: bool
) -> None:
    seen = _answered(folder, answer)
    assert "May the run download" in seen
    assert load_config(folder / "nstudent.yaml").student.model.pretrained is weights


@pytest.mark.slow
def test_a_folder_that_no_run_could_divide_gives_no_file(command: Command, folder: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        _photo(folder / "few" / name / "1.jpg", random, 100)
    done = command("init", "few")
    assert (done.returncode, (folder / "nstudent.yaml").exists()) == (2, False)
    assert "2 images, 2 of them with a label" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("nstudent: there is no ")
