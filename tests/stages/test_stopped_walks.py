"""Steps that ask classifiers about images, stopped again and again in the middle of that."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from nstudent.config.schema import Config
from nstudent.errors import StoppedError
from nstudent.models.ensemble import Ensemble
from nstudent.models.members import Levels
from nstudent.runs.run import run_stage
from nstudent.session import Session
from nstudent.signals import StopRequest
from nstudent.storage.artifact import Manifest
from nstudent.storage.commit import partial_folder
from nstudent.storage.sealed import WALKS
from torch import Tensor

SIZE = "evaluate.batch_size=25"
BATCHES = 6
"""After so many an attempt is asked to stop: fewer than a walk through the 180 validation images has."""


class Asked:
    """Counts the batches that classifiers are asked about, and asks an attempt to stop after some of them."""

    def __init__(self) -> None:
        self.batches = 0
        self.stop = StopRequest()
        self._pooled = Ensemble.pooled
        self._most: int | None = None

    def pooled(self, ensemble: Ensemble, images: Tensor) -> Levels:
        self.batches += 1
        if self._most is not None and self.batches >= self._most:
            self._most = None
            self.stop.note(signal.SIGTERM)
        return self._pooled(ensemble, images)

    def session(self, batches: int | None = None) -> Session:
        """That of a new attempt, which is asked to stop after so many batches."""
        self.stop = StopRequest()
        self._most = None if batches is None else self.batches + batches
        return Session(stop=self.stop)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(Ensemble, "pooled", lambda ensemble, images: asked.pooled(ensemble, images))
    return asked


def whole_of(go_on: Path, step: str, config: Config, asked: Asked) -> tuple[Path, int]:
    """A copy of the run in which a step is made at once, and how many batches that takes."""
    whole = Path(shutil.copytree(go_on, go_on.with_name("whole")))
    shutil.rmtree(whole / step)
    before = asked.batches
    run_stage(config, step[3:], whole, asked.session())
    return whole, asked.batches - before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "batches"),
    [("01-teacher", 30), ("02-baseline", BATCHES), ("03-choose", BATCHES), ("07-choose", BATCHES), ("08-evaluate", 12)],
)
def test_each_attempt_gets_further_to_the_same_bytes(
    go_on: Path, tiny: Callable[..., Config], asked: Asked, step: str, batches: int
) -> None:
    config = tiny(SIZE)
    whole, needed = whole_of(go_on, step, config, asked)
    shutil.rmtree(go_on / step)
    before, attempts = asked.batches, 1
    while True:
        try:
            run_stage(config, step[3:], go_on, asked.session(batches))
            break
        except StoppedError:
            attempts += 1
        assert attempts <= needed, "the attempts do not get further"
    assert attempts > 2
    # Of each attempt that was stopped the batch that was under way is lost, and nothing else.
    assert asked.batches - before <= needed + attempts
    assert Manifest.read(go_on / step).files == Manifest.read(whole / step).files


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: content[::-1]])
def test_what_rots_in_an_unfinished_evaluation_is_made_again(
    go_on: Path, tiny: Callable[..., Config], asked: Asked, damage: Callable[[bytes], bytes]
) -> None:
    config, step = tiny(SIZE), "08-evaluate"
    whole, _ = whole_of(go_on, step, config, asked)
    shutil.rmtree(go_on / step)
    with pytest.raises(StoppedError):
        run_stage(config, "evaluate", go_on, asked.session(2 * BATCHES))
    kept = list((partial_folder(go_on / step) / WALKS).glob("*.h5"))
    assert kept
    for path in kept:
        path.write_bytes(damage(path.read_bytes()))
    run_stage(config, "evaluate", go_on, asked.session())
    assert Manifest.read(go_on / step).files == Manifest.read(whole / step).files


def test_where_something_else_is_asked_for_it_is_thrown_away_without_a_question(
    go_on: Path, tiny: Callable[..., Config], asked: Asked
) -> None:
    """An evaluation is no training: nobody has to remove its folder by hand to ask for other intervals."""
    config, step = tiny(SIZE), "08-evaluate"
    shutil.rmtree(go_on / step)
    with pytest.raises(StoppedError):
        run_stage(config, "evaluate", go_on, asked.session(BATCHES))
    run_stage(tiny(SIZE, "evaluate.resamples=60"), "evaluate", go_on, asked.session())
    assert Manifest.read(go_on / step).asked["settings"]["evaluate.resamples"] == 60


def test_nothing_else_of_a_stopped_attempt_becomes_part_of_the_step(
    go_on: Path, tiny: Callable[..., Config], asked: Asked
) -> None:
    """A choice that is stopped while it writes its classifier may choose another one the next time."""
    config, step = tiny(SIZE), "07-choose"
    whole, _ = whole_of(go_on, step, config, asked)
    shutil.rmtree(go_on / step)
    with pytest.raises(StoppedError):
        run_stage(config, "choose", go_on, asked.session(BATCHES))
    (partial_folder(go_on / step) / "member-7.safetensors").write_bytes(b"weights")
    run_stage(config, "choose", go_on, asked.session())
    assert Manifest.read(go_on / step).files == Manifest.read(whole / step).files
