"""One real run on the digits, small enough for seconds, that many tests look at or go on from."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.runs.run import run_all, run_stage
from small_folders import Bench

TINY = (
    "threads=1",
    "jobs=1",
    "workers=0",
    "device=cpu",
    "precision=float32",
    "rounds=1",
    "probe.members=[]",
    # Tests that stop a training ask for checkpoints.
    "checkpoint_minutes=60",
    "data.image_size=16",
    "data.labelled=100",
    "data.unlabelled=240",
    "teacher.members=[{}]",
    "teacher.batch_size=25",
    "teacher.epochs=16",
    "teacher.ema_decay=0.9",
    "pseudolabel.threshold=0.3",
    # Every stage has work to do.
    *("pseudolabel.balance=true", "filter.enabled=true"),
    "filter.epochs=3",
    "filter.iterations=1",
    "filter.ema_decay=0.9",
    "filter.max_dropped_share=1.0",
    "student.batch_size=32",
    "student.ema_decay=0.9",
    "student.epochs=3",
    "evaluate.resamples=50",
)


# A teacher that stopped early, and students that learn fast: they beat it by 10 points and more.
BETTER_STUDENTS = (
    "rounds=2",
    "teacher.epochs=8",
    "filter.enabled=false",
    "student.epochs=5",
    "student.noise.operations=0",
    "student.noise.dropout=0",
    "student.noise.drop_path=0",
    "student.noise.cutmix=0",
    "student.unlabelled_ratio=1",
    "student.learning_rate=0.005",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a finished run are slow, however little they do: the first of them has to make the whole run."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """The small configuration, with more overrides."""
    return lambda *overrides: load_config(None, [*TINY, *overrides])


@pytest.fixture(scope="session")
def two_rounds(tiny: Callable[..., Config]) -> Callable[..., Config]:
    """Two rounds in which students beat their teachers."""
    return lambda *overrides: tiny(*BETTER_STUDENTS, *overrides)


@pytest.fixture(scope="session")
def tiny_words() -> tuple[str, ...]:
    """The same as words of a command."""
    return TINY


@pytest.fixture(scope="session")
def packed(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that holds the packed data alone. Tests only read it."""
    return run_stage(tiny(), "data", tmp_path_factory.mktemp("packed") / "run").parent


@pytest.fixture(scope="session")
def finished(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Tests only read it."""
    return run_all(tiny(), tmp_path_factory.mktemp("finished"))


@pytest.fixture
def go_on(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to go on from: steps whose settings stay are not made again."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def untrained(packed: Path, tmp_path: Path) -> Path:
    """A run folder that holds the packed data alone, to go on from."""
    return Path(shutil.copytree(packed, tmp_path / "run"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A source folder, and the data stage run on it."""
    # The order of writes is tested elsewhere; here nobody waits for the disk.
    monkeypatch.setattr("nstudent.storage.files.os.fsync", lambda descriptor: None)
    # So are the processes that decode: to start them for a dozen images takes longer than to decode those here.
    monkeypatch.setattr(
        "nstudent.data.packing.decoders.Decoders", lambda reader, _: nullcontext(lambda ids: iter([reader(ids)]))
    )
    return Bench(tmp_path)
