"""A whole run and a prediction in a process that is watched: no network, no writing elsewhere, no secret kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nstudent.storage.artifact import Manifest
from PIL import Image

pytestmark = pytest.mark.slow

TOKEN = "nstudent-test-token-9f3c1d"
_NAMES = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "CUDA_TOKEN", "NSTUDENT_TOKEN", "SLURM_TOKEN")
_WORDS = (
    *("threads=1", "workers=0", "device=cpu", "precision=float32", "data.image_size=16", "data.unlabelled=120"),
    *("teacher.members=[{}]", "teacher.batch_size=25", "teacher.epochs=16", "teacher.ema_decay=0.9"),
    *("pseudolabel.threshold=0.3", "filter.enabled=false", "student.batch_size=32", "student.epochs=1"),
    *("student.ema_decay=0.9", "evaluate.resamples=20"),
)

# The hook is the interpreter's own: what a library swallows is seen all the same.
_WATCHED = """
import json, os, sys

seen = {"network": [], "written": [], "started": []}
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
STARTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
CHANGED = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

def hook(event, args):
    if event in NETWORK:
        seen["network"].append(repr((event, args)))
    elif event in STARTED:
        seen["started"].append(repr((event, args)))
    elif event == "open" and isinstance(args[0], str) and (args[2] or 0) & WRITING:
        seen["written"].append(os.path.abspath(args[0]))
    # A file that is open already is named by its number: it was opened under its name before.
    elif event in CHANGED and not isinstance(args[0], int):
        seen["written"].append(os.path.abspath(os.fsdecode(args[0])))

sys.addaudithook(hook)
report, run, image, *words = sys.argv[1:]
import nstudent
folder = nstudent.run_all(nstudent.load_config(None, words), run)
assert nstudent.Classifier.load(folder, device="cpu").predict([image])[0].labels
with open(report, "w") as file:
    json.dump(seen, file)
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """The run folder, and what the process was seen to do."""
    folder = tmp_path_factory.mktemp("watched")
    Image.new("RGB", (20, 20)).save(folder / "x.png")
    environment = {
        **os.environ,
        **dict.fromkeys(_NAMES, TOKEN),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": str(folder / "settings of matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "made by torch when it is imported"),
    }
    command = [sys.executable, "-c", _WATCHED, "report.json", "run", "x.png", *_WORDS]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "report.json").read_text())


def test_nothing_asks_for_the_network(watched: tuple[Path, dict[str, list[str]]]) -> None:
    assert watched[1]["network"] == []


def test_nothing_is_written_outside_the_run_folder(watched: tuple[Path, dict[str, list[str]]]) -> None:
    folder, seen = watched
    allowed = (str(folder), "/dev/", "/proc/")
    assert [path for path in seen["written"] if path.startswith(str(folder / "run"))], "the hook sees what is written"
    assert [path for path in seen["written"] if not path.startswith(allowed)] == []


def test_no_secret_of_the_environment_is_kept(watched: tuple[Path, dict[str, list[str]]]) -> None:
    folder, _ = watched
    files = [path for path in (folder / "run").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_the_manifest_knows_the_versions_and_nothing_else(watched: tuple[Path, dict[str, list[str]]]) -> None:
    environment = Manifest.read(watched[0] / "run" / "02-teacher").environment
    packages = {"nstudent", "torch", "timm", "albumentations", "numpy", "h5py", "scikit-learn"}
    assert environment.keys() == {"python", "platform", *packages}


def test_no_path_of_this_machine_is_kept(watched: tuple[Path, dict[str, list[str]]]) -> None:
    """A folder that is passed on says nothing of where it was made."""
    folder, _ = watched
    here = [str(folder).encode(), str(Path.home()).encode() + b"/"]
    files = [path for path in (folder / "run").rglob("*") if path.is_file()]
    assert [path for path in files if any(place in path.read_bytes() for place in here)] == []
