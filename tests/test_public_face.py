"""What ``import nstudent`` gives, and what it costs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import nstudent
import pytest
from nstudent.report.mark import REPORT, mark
from nstudent.runs.kept_config import CONFIG

if TYPE_CHECKING:
    from conftest import FakeStages

HEAVY = ["torch", "torchvision", "timm", "albumentations", "cv2", "sklearn", "scipy", "matplotlib", "h5py", "PIL"]


def test_the_public_names() -> None:
    assert sorted(nstudent.__all__) == [
        *("Classifier", "NstudentError", "Screen", "Session", "Taxonomy", "load_config", "plan", "run_all", "run_stage")
    ]
    assert set(nstudent.__all__) <= set(dir(nstudent))
    for name in nstudent.__all__:
        found = getattr(nstudent, name)
        assert found.__name__ == name
        assert found.__doc__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nstudent' has no attribute 'train'"):
        nstudent.train  # noqa: B018


def test_the_version_is_the_installed_one() -> None:
    assert nstudent.__version__ == metadata.version("nstudent")


def test_every_error_is_an_nstudent_error() -> None:
    from nstudent import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__]
    assert len(kinds) > 5
    errors_of_runs = [kind for kind in kinds if not issubclass(kind, KeyboardInterrupt)]
    assert all(issubclass(kind, nstudent.NstudentError) for kind in errors_of_runs)
    assert all(kind.__doc__ for kind in kinds)


def test_types_are_published() -> None:
    assert (Path(nstudent.__file__).parent / "py.typed").exists()


def test_the_package_refuses_another_name() -> None:
    """A second copy of every class would make isinstance() lie."""
    spec = importlib.util.spec_from_file_location("pipeline", nstudent.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match="this package is 'nstudent', not 'pipeline'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_COMMANDS = """
import sys
from nstudent import cli
for words in sys.argv[1:]:
    sys.argv = ["nstudent", *words.split()]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, end.code
"""
_REPORT = f"\nimport sys\nprint('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"


def _heavy(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("heavy: ")


def test_importing_costs_no_torch(python: Callable[..., CompletedProcess[str]]) -> None:
    code = (
        "import nstudent; nstudent.run_all; nstudent.Session; nstudent.Taxonomy; nstudent.plan(nstudent.load_config())"
    )
    assert _heavy(python("-c", code + _REPORT)) == "[]"


def test_light_commands_cost_no_torch(python: Callable[..., CompletedProcess[str]]) -> None:
    done = python("-c", _COMMANDS + _REPORT, "--help", "stage --help", "run-all --dry-run")
    assert _heavy(done) == "[]"
    assert done.stdout.count("Usage: nstudent") == 2
    assert "02-teacher" in done.stdout


@pytest.mark.slow
def test_a_finished_run_costs_no_torch(
    python: Callable[..., CompletedProcess[str]], fake_stages: FakeStages, tmp_path: Path
) -> None:
    nstudent.run_all(nstudent.load_config(), tmp_path / "run")
    # Of these stages no report can be written: here is one that nothing has changed since.
    (tmp_path / "run" / REPORT).write_text(mark(tmp_path / "run", "09-evaluate", CONFIG))
    assert _heavy(python("-c", _COMMANDS + _REPORT, "status run")) == "[]"
    assert _heavy(python("-c", _COMMANDS + _REPORT, "run-all --run-dir run")) == "[]"


def test_python_dash_m(python: Callable[..., CompletedProcess[str]]) -> None:
    done = python("-m", "nstudent", "run-all", "--dry-run", "rounds=0")
    assert done.returncode == 0
    assert "04-evaluate" in done.stdout
