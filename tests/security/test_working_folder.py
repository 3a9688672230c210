"""A person works in a folder that a stranger has filled: nothing in it is run, and no setting of a library is read."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

WORDS = (
    *("threads=1", "jobs=2", "workers=0", "device=cpu", "precision=float32", "rounds=1", "data.image_size=8"),
    *("data.labelled=60", "data.unlabelled=30", "data.validation=60", "data.test=60", "teacher.members=[{},{}]"),
    *("teacher.batch_size=30", "teacher.epochs=8", "teacher.ema_decay=0.8", "teacher.learning_rate=0.02"),
    *("pseudolabel.threshold=0.2", "filter.enabled=false", "student.batch_size=15", "student.epochs=1"),
    *("student.ema_decay=0.8", "evaluate.resamples=20"),
)
_LIBRARY = """
#include <stdio.h>
__attribute__((constructor)) static void sing(void) { FILE *file = fopen("CANARY", "a"); if (file) fclose(file); }
"""
_SETTINGS = r"""
text.usetex : True
text.latex.preamble : \usepackage{evil}
axes.prop_cycle : cycler('color', ['r']).__class__.__init__.__globals__['os'].system('touch CANARY')
backend : module://evil_backend
"""


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Is there once anything of the stranger's has run."""
    return tmp_path / "canary"


@pytest.fixture
def folder(tmp_path: Path, canary: Path) -> Path:
    """The stranger's folder of photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    sing = f"open({str(canary)!r}, 'w').close()\n"
    for name in ("torch", "yaml", "typer", "h5py", "matplotlib", "sitecustomize", "usercustomize", "evil_backend"):
        (folder / f"{name}.py").write_text(sing)
    for name in ("multiprocessing", "concurrent", "nstudent"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(sing)
    (folder / "evil-1.0.dist-info").mkdir()
    (folder / "evil-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (folder / "evil-1.0.dist-info" / "entry_points.txt").write_text(
        "[pydantic]\nevil = evil_backend:x\n[torch.backends]\nevil = evil_backend:x\n"
    )
    (folder / "matplotlibrc").write_text(_SETTINGS.replace("CANARY", str(canary)))
    for name in (".env", "pyproject.toml", "setup.cfg", "tox.ini", "conftest.py", ".netrc", "torch.toml"):
        (folder / name).write_text("\0 no file of settings that could be read\n")
    if shutil.which("cc"):
        source = tmp_path / "library.c"
        source.write_text(_LIBRARY.replace("CANARY", str(canary)))
        library = folder / "libcuda.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        shutil.copy(library, folder / "libc.so.6")
    Image.new("RGB", (20, 20)).save(folder / "x.png")
    return folder


@pytest.fixture
def ran(tmp_path: Path, folder: Path, canary: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run Python in the stranger's folder, on a machine with TeX and Ghostscript."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("latex", "pdflatex", "dvipng", "gs", "kpsewhich"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("LD_LIBRARY_PATH", None)

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def tool(tmp_path: Path) -> str:
    """The command as pip installs it: a script in a folder of its own."""
    path = tmp_path / "bin" / "nstudent.py"
    path.parent.mkdir()
    path.write_text("import sys\nsys.path[:1] = []\nfrom nstudent.cli import main\nmain()\n")
    return str(path)


@pytest.mark.slow
def test_a_whole_run_in_a_strangers_folder_runs_nothing_of_it(
    ran: Callable[..., "subprocess.CompletedProcess[str]"], tool: str, tmp_path: Path, canary: Path
) -> None:
    """Its trainings side by side: the processes for that are started by Python, which looks for modules, too."""
    done = ran(tool, "run-all", *WORDS, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert not canary.exists()
    predicted = ran(tool, "predict", str(tmp_path / "run"), "x.png")
    assert predicted.returncode == 0, predicted.stderr
    assert not canary.exists()


@pytest.mark.slow
def test_as_a_module_of_python_it_imports_nothing_of_the_folder(
    ran: Callable[..., "subprocess.CompletedProcess[str]"], folder: Path, canary: Path
) -> None:
    # What Python itself imports before it hands over is Python's affair: these two names are of that kind.
    shutil.rmtree(folder / "nstudent")
    done = ran("-m", "nstudent", "data", "pack", "pack", "data.image_size=8")
    assert done.returncode == 0, done.stderr
    assert not canary.exists()


_EVERYTHING = """
import os, subprocess, sys
sys.path[:1] = []
import nstudent
for name in nstudent.__all__:
    getattr(nstudent, name)
from nstudent.runs.plan import STAGES
for stage in STAGES.values():
    stage.load()
assert os.environ.get("LD_LIBRARY_PATH") is None, os.environ["LD_LIBRARY_PATH"]
print(os.getcwd())
subprocess.run(["uname"], check=True)
"""


@pytest.mark.slow
def test_whatever_is_imported_the_loader_finds_no_library_in_the_folder(
    ran: Callable[..., "subprocess.CompletedProcess[str]"], folder: Path, canary: Path
) -> None:
    """Libraries of CUDA name the working folder among those where they look for others; so does OpenCV."""
    if not (folder / "libcuda.so.1").exists():
        pytest.skip("there is no compiler to make a library with")
    done = ran("-c", _EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(folder), "and the working folder is what it was"
    assert not canary.exists()


_PICTURE = """
import sys
sys.path[:1] = []
import matplotlib
matplotlib.rcParams.update({"text.usetex": %s, "lines.linewidth": %s, "text.parse_math": True})
from pathlib import Path
from nstudent.evaluation.plots import _own_settings
from matplotlib.figure import Figure
with _own_settings():
    figure = Figure()
    figure.subplots().set_title(r"$\\frac$ a $ and $x^$")
    figure.savefig("picture.png", metadata={"Software": None})
assert matplotlib.rcParams["text.usetex"] is %s
"""


@pytest.mark.slow
def test_no_setting_of_matplotlib_changes_a_picture_and_no_name_is_a_formula(
    ran: Callable[..., "subprocess.CompletedProcess[str]"], folder: Path, canary: Path
) -> None:
    """Also in a program that has set its own: it has them back afterwards."""
    (folder / "matplotlibrc").unlink()
    (folder / "matplotlib.py").unlink()
    pictures = []
    for tex, width in (("False", 1.5), ("True", 9)):
        done = ran("-c", _PICTURE % (tex, width, tex))
        assert done.returncode == 0, done.stderr
        pictures.append((folder / "picture.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert not canary.exists()
