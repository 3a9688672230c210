"""The rooms of the code, and what may not stand in them. Read from the source, so that nothing has to be imported."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from nstudent.steps import STAGES

ROOT = Path(__file__).resolve().parent.parent

# From the top. A room may import what stands on a lower floor, and itself; never its own floor or a higher one.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"verification", "status"},
    {"run"},
    {"jobs"},
    {"job_process"},
    {"run_folder"},
    {"steps"},
    {f"stages.{name}" for name in STAGES} | {"stages"},
    {"classifier", "workbench"},
    {"stage"},
    {"step_metrics"},
    {"training"},
    {"noise"},
    {"evaluation"},
    {"models"},
    {"ranks"},
    {"data", "labels"},
    {"commit"},
    {"artifact", "hdf5", "lock", "config_file", "session"},
    {"processes", "world", "outputs"},
    {"config", "taxonomy", "randomness", "progress", "listener", "stopping", "storage", "hdf5_heap"},
    {"config_data", "tables"},
    {"config_types", "errors", "json_record"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# The first room, from below, that may import torch and its like.
LIGHT = {room for rooms in FLOORS[FLOOR_OF["data"] + 1 :] for room in rooms} | {
    "cli",
    "__init__",
    "verification",
    "status",
    "run",
    "jobs",
    "job_process",
    "run_folder",
    "steps",
    "stage",
    "step_metrics",
    # Whatever shows the scores of a run reads them here.
    "evaluation.scores",
}
HEAVY = {"torch", "torchvision", "timm", "albumentations", "cv2", "sklearn", "scipy", "matplotlib", "simplejpeg", "PIL"}
GRAB_BAGS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "core", "misc", "tools", "shared"}
MAX_LINES = 300


def _modules() -> dict[str, Path]:
    """Path of each module, by its name below the package."""
    found = {}
    for folder, prefix in ((ROOT / "pipeline", ""), (ROOT / "stages", "stages.")):
        for path in sorted(folder.rglob("*.py")):
            name = prefix + path.relative_to(folder).with_suffix("").as_posix().replace("/", ".")
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = _modules()
every_module = pytest.mark.parametrize("name", MODULES)


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def _room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "stages" else parts[0]


def _imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported, also inside functions and for type checkers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_rooms(name: str) -> set[str]:
    """Rooms of nstudent that a module imports."""
    own = {full.removeprefix("nstudent.") for full in _imports(_tree(name)) if full.startswith("nstudent.")}
    return {_room(module) for module in own}


def _dotted(node: ast.AST) -> str:
    """``np.random.rand`` of an attribute or a name, empty for anything else."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Call):
            yield _dotted(node.func), node


def test_every_module_stands_on_a_floor() -> None:
    assert {_room(name) for name in MODULES} == set(FLOOR_OF)


@every_module
def test_a_line_imports_only_what_stands_below_it(name: str) -> None:
    room = _room(name)
    upward = {other for other in _own_rooms(name) - {room} if FLOOR_OF[other] <= FLOOR_OF[room]}
    assert not upward, f"{name} imports {sorted(upward)}"


@pytest.mark.parametrize("name", [name for name in MODULES if _room(name) in LIGHT or name in LIGHT])
def test_light_rooms_import_nothing_heavy(name: str) -> None:
    assert not {full.partition(".")[0] for full in _imports(_tree(name))} & HEAVY


def test_every_package_that_is_imported_is_declared() -> None:
    """One that only comes with another is gone when the other no longer needs it."""
    page = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = {re.split(r"[<>=]", line)[0] for line in page["project"]["dependencies"]}
    named = {"cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    imported = {full.partition(".")[0] for name in MODULES for full in _imports(_tree(name))}
    # _typeshed is there for type checkers alone.
    foreign = imported - set(sys.stdlib_module_names) - {"nstudent", "_typeshed"}
    assert {named.get(package, package) for package in foreign} <= declared


def test_only_the_runner_knows_the_stages() -> None:
    knowing = {
        name
        for name in MODULES
        if not name.startswith("stages") and any(r.startswith("stages") for r in _own_rooms(name))
    }
    # The runner imports a stage by its name, when it is needed: no line of code imports one.
    assert knowing == set()


def test_every_stage_has_its_file_and_every_file_its_stage() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)
    assert {stage.name for stage in STAGES.values()} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_function_of_its_context(stage: str) -> None:
    functions = {node.name: node for node in _tree(f"stages.{stage}").body if isinstance(node, ast.FunctionDef)}
    assert [argument.arg for argument in functions["run"].args.args] == ["context"]


@every_module
def test_nothing_is_unpickled_or_executed(name: str) -> None:
    pickling = {"pickle", "cPickle", "_pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle", "copyreg"}
    starting = {"subprocess", "ctypes", "cffi", "code", "runpy", "pty"}
    assert not {full.partition(".")[0] for full in _imports(_tree(name))} & (pickling | starting)
    loading = {"torch.load", "torch.save", "torch.jit.load", "np.load", "numpy.load", "np.fromregex", "pd.read_pickle"}
    running = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.compile"}
    for called, call in _calls(name):
        assert called not in loading | running
        assert not called.startswith(("os.exec", "os.spawn", "os.posix_spawn", "torch.hub.", "torch.package."))
        shell = [word.value for word in call.keywords if word.arg == "shell"]
        assert all(isinstance(value, ast.Constant) and value.value is False for value in shell)


@every_module
def test_nothing_is_imported_by_a_name_from_a_file(name: str) -> None:
    """A module's name comes from our own table, or begins with our own package."""
    for called, call in _calls(name):
        if called != "importlib.import_module":
            continue
        (wanted,) = call.args
        ours = isinstance(wanted, ast.JoinedStr) and ast.unparse(wanted.values[0]).strip("'").startswith("nstudent.")
        assert ours or (name == "__init__" and ast.unparse(wanted) == "_HOMES[name]")


@every_module
def test_no_module_asks_for_the_network(name: str) -> None:
    network = {
        "socket",
        "ssl",
        "urllib",
        "http",
        "requests",
        "httpx",
        "ftplib",
        "smtplib",
        "asyncio",
        "huggingface_hub",
    }
    assert not {full.partition(".")[0] for full in _imports(_tree(name))} & network


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"storage"}))
def test_files_are_written_in_one_place(name: str) -> None:
    """So that nothing has a half-written file under its name, and no link is written through."""
    for called, call in _calls(name):
        assert called.rpartition(".")[2] not in {"write_text", "write_bytes", "tofile", "savetxt", "symlink_to"}
        if called == "open":
            assert _mode(call) in {"r", "rb", "not given"}


def _safe_loaders(name: str) -> set[str]:
    classes = [node for node in _tree(name).body if isinstance(node, ast.ClassDef)]
    return {"yaml.SafeLoader"} | {
        node.name for node in classes if any(_dotted(above) == "yaml.SafeLoader" for above in node.bases)
    }


@every_module
def test_yaml_is_read_by_a_safe_loader(name: str) -> None:
    for called, call in _calls(name):
        assert called not in {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"}
        if called == "yaml.load":
            loaders = {_dotted(word.value) for word in call.keywords if word.arg == "Loader"}
            assert loaders
            assert loaders <= _safe_loaders(name)


@pytest.mark.parametrize("name", [name for name in MODULES if _room(name) != "cli"])
def test_only_the_command_line_prints(name: str) -> None:
    writing = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}
    assert not {called for called, _ in _calls(name)} & writing


def _mode(call: ast.Call) -> str:
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return str(modes[0].value) if modes and isinstance(modes[0], ast.Constant) else "not given"


@every_module
def test_no_hdf5_file_is_ever_open_for_writing_on_disk(name: str) -> None:
    for called, call in _calls(name):
        if called != "h5py.File" or _mode(call) == "r":
            continue
        # A live file does not survive kill -9: what is written is written to memory.
        assert name == "hdf5"
        assert _dotted(call.args[0]) == "buffer"


@every_module
def test_randomness_comes_from_a_key(name: str) -> None:
    imported = set(_imports(_tree(name)))
    assert not {full for full in imported if full.startswith("numpy.random.")}
    used = {_dotted(node) for node in ast.walk(_tree(name)) if isinstance(node, ast.Attribute)}
    drawing = {attribute for attribute in used if attribute.startswith(("np.random.", "numpy.random."))}
    allowed = {"np.random.Generator", "np.random.Philox"} if name == "randomness" else {"np.random.Generator"}
    assert drawing <= allowed
    if "random" in imported:
        assert {attribute for attribute in used if attribute.startswith("random.")} <= {"random.Random"}


@every_module
def test_torch_draws_only_after_it_was_seeded_from_a_key(name: str) -> None:
    drawing = {
        f"torch.{word}" for word in ("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal")
    }
    for called, call in _calls(name):
        assert called not in drawing or any(word.arg == "generator" for word in call.keywords)
        if called == "torch.manual_seed":
            assert ast.unparse(call.args[0]).startswith("seed(")


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"randomness"}))
def test_no_generator_is_made_elsewhere(name: str) -> None:
    making = {"np.random.Generator", "np.random.default_rng", "torch.seed", "random.seed", "random.Random"}
    made = {called for called, _ in _calls(name)} & making
    # albumentations asks for a stdlib generator beside numpy's; it gets one seeded from the key.
    assert made <= ({"random.Random"} if name == "noise.image_noise" else set())


def test_what_a_step_is_to_others_is_its_role_and_never_its_stage() -> None:
    """An artifact's stage is compared nowhere, and no artifact goes by how the name of its folder ends."""
    by_stage = {
        name
        for name in MODULES
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Compare) and any(_dotted(each).endswith("manifest.stage") for each in ast.walk(node))
    }
    ends = {f"-{stage}" for stage in STAGES}
    by_name = {
        name
        for name in MODULES
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ends
    }
    assert not by_stage | by_name


def test_the_score_that_choices_are_made_by_is_spelled_once() -> None:
    spelling = {
        name
        for name in MODULES
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Constant) and node.value == "contest alone"
    }
    assert spelling == {"evaluation.scores"}


@every_module
def test_a_file_has_one_subject(name: str) -> None:
    assert not set(name.split(".")) & GRAB_BAGS
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert ast.get_docstring(_tree(name)), "a file begins by saying why it exists"
