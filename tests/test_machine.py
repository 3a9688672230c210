"""What the environment says of a process, and what it only seems to say."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nstudent.errors import ConfigError
from nstudent.machine import available_cores, is_one_of_several, may_start_processes

TORCHRUN = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


def test_torchrun_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = available_cores()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert is_one_of_several()
    assert available_cores() == max(1, cores // 2)


@pytest.mark.parametrize("size", ["", " ", "0", "1"])
def test_a_variable_that_says_nothing_does_not_matter(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    assert not is_one_of_several()


@pytest.mark.parametrize("name", sorted(TORCHRUN.keys() - {"WORLD_SIZE"}))
@pytest.mark.parametrize("value", ["", None])
def test_what_torchrun_would_have_set_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None) -> None:
    for key, given in (TORCHRUN | {name: value}).items():
        if given is not None:
            monkeypatch.setenv(key, given)
    with pytest.raises(ConfigError, match=f"what torchrun sets: {name}. Start with torchrun, or unset WORLD_SIZE"):
        is_one_of_several()
    assert available_cores() > 0


@pytest.mark.parametrize(("size", "rank"), [("two", "0"), ("2", "2"), ("-2", "0"), ("2", "x")])
def test_numbers_that_cannot_be(monkeypatch: pytest.MonkeyPatch, size: str, rank: str) -> None:
    for key, given in (TORCHRUN | {"WORLD_SIZE": size, "RANK": rank}).items():
        monkeypatch.setenv(key, given)
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        is_one_of_several()


@pytest.mark.parametrize("value", ["", "0", "x", "4"])
def test_cores_are_not_shared_because_a_job_system_sets_a_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    cores = available_cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    assert available_cores() == cores


@pytest.mark.slow
@pytest.mark.parametrize("size", ["2", "two"])
def test_a_job_without_torchrun_is_one_line(tmp_path: Path, size: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nstudent", "run-all", "rounds=0"],
        cwd=tmp_path,
        env=os.environ | {"WORLD_SIZE": size},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nstudent: WORLD_SIZE is ")
    assert len(done.stderr.splitlines()) == 1


SWEEP = """
import multiprocessing, sys
import nstudent
from nstudent.config.file import load_config
WORDS = ["rounds=0", "teacher.members=[{}, {}]", "teacher.epochs=8", "data.source=folder", "data.root=photos",
         "data.levels=[x]", "data.image_size=16", "jobs=2", "evaluate.resamples=20"]
def go(workers):
    words = [*WORDS, "augment=image", f"workers={workers}"]
    return str(nstudent.run_all(load_config(None, words), f"run{workers}"))
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(go, [0, 2]))
"""


@pytest.mark.slow
def test_a_run_in_a_worker_of_a_pool(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for number in range(60):
        folder = tmp_path / "photos" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 100, (16, 16, 3)) + 150 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "sweep.py").write_text(SWEEP)
    done = subprocess.run([sys.executable, "sweep.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "['run0', 'run2']\n", done.stderr
    made = [sorted((tmp_path / name).glob("01-teacher/*.safetensors")) for name in ("run0", "run2")]
    assert [path.read_bytes() for path in made[0]] == [path.read_bytes() for path in made[1]]


def test_this_process_may_start_others() -> None:
    assert may_start_processes()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert not pool.apply(may_start_processes)
