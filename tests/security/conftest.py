"""What the tests of trust share: canaries, the run folder of a stranger, and processes with a bound on memory."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from nstudent.classifier import Classifier
from nstudent.config.schema import Config, ModelConfig
from nstudent.errors import NstudentError
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import FINAL
from nstudent.storage.commit import commit, open_partial
from nstudent.storage.files import write_json
from nstudent.taxonomy.tree import Taxonomy
from strangers import STEP, Canary, Stranger

TREE = {"A": {"A1": ["a", "b"], "A2": ["c"]}, "B": {"B1": ["d", "e"]}}


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one small classifier."""
    run = tmp_path_factory.mktemp("honest") / "run"
    model = ModelConfig(head="independent")
    recipe = Recipe.of(Config(), Taxonomy.from_tree(TREE, ("coarse", "mid", "fine")), [model])
    member = build_network(model, recipe.outputs, ("key",))
    ensemble = Ensemble.of_networks(recipe, [member], Placement(torch.device("cpu"), "float32"))
    ensemble.save(open_partial(run / STEP, "by hand"))
    fields = {
        "stage": "teacher",
        "role": "labeller",
        "round": 0,
        "asked": {},
        "inputs": {},
        "metrics": {"promoted": True},
        "seconds": 0.0,
    }
    commit(run / STEP, fields)
    write_json(run / FINAL, {"step": STEP})
    return run


@pytest.fixture
def strangers(honest: Path, tmp_path: Path) -> Callable[[str], Stranger]:
    """Copies of the honest run folder under other names, each in a stranger's hands."""
    return lambda name: Stranger(Path(shutil.copytree(honest, tmp_path / name)))


@pytest.fixture
def stranger(strangers: Callable[[str], Stranger]) -> Stranger:
    return strangers("given")


@pytest.fixture
def bounded(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run Python code in a process that may not hang, dump core or write large files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))

    def run(code: str, *arguments: str | Path, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=timeout
        )

    return run


_ASK_ALL = """
import json, re, sys
from pathlib import Path
from nstudent.errors import {error} as Refusal
{setup}

def peak_kib():
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    status = Path("/proc/self/status")
    return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) if status.exists() else 0

before, said = peak_kib(), {{}}
for path in map(Path, sys.argv[1:]):
    try:
        {read}
        said[path.stem] = ""
    except Refusal as error:
        said[path.stem] = str(error)
print(json.dumps([said, (peak_kib() - before) / 1024]))
"""


@pytest.fixture
def refusals(bounded: "Callable[..., subprocess.CompletedProcess[str]]") -> Callable[..., tuple[dict[str, str], float]]:
    """The error by which a process of its own refuses each path, '' where none, and by how many MiB its memory grew."""

    def ask(setup: str, read: str, error: str, paths: Iterable[Path]) -> tuple[dict[str, str], float]:
        done = bounded(_ASK_ALL.format(setup=setup, read=read, error=error), *paths)
        assert done.returncode == 0, done.stderr
        said, grown_mib = json.loads(done.stdout)
        return said, grown_mib

    return ask


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.fixture
def refused() -> Callable[..., str]:
    """Load the classifier of a run folder, which has to fail with one line; returns it."""

    def load(run: Path, match: str | None = None) -> str:
        with pytest.raises(NstudentError, match=match) as error:
            Classifier.load(run, device="cpu")
        said = str(error.value)
        assert len(said.splitlines()) == 1
        return said

    return load


_WATCHERS: list[list[str]] = []


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every path that this process opens during the test."""
    first = not _WATCHERS
    _WATCHERS[:] = [[]]
    if first:
        # An audit hook stays for ever, so there is one, and it writes into the list of the test at hand.
        sys.addaudithook(lambda event, args: _WATCHERS[-1].append(str(args[0])) if event == "open" else None)
    yield _WATCHERS[0]
    _WATCHERS[0] = []
