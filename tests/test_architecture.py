"""The rooms of the code, from the top, and the rules that every module keeps (tests/architecture_rules.py)."""

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import architecture_rules as rules
from architecture_rules import Module
from nstudent.runs.plan import STAGES

ROOT = Path(__file__).resolve().parent.parent
# On the top level of the package, beside its rooms.
MAX_LOOSE_MODULES = 12

# From the top. A room may import what stands on a lower floor, and itself; never its own floor or a higher one. A
# module that stands here by its name, as ``stages.data``, is a room of its own.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"runs.verification", "runs.status", "report", "export", "answers"},
    {"runs.run"},
    {"runs.jobs"},
    {"runs.job_process", "runs.sized_config"},
    {"runs.folder", "runs.forecast", "runs.sizing"},
    {"runs.plan", "runs.outcome", "runs.verdict", "runs.curves", "runs.tensorboard", "runs.rehearsal"},
    {"runs.preflight"},
    {f"stages.{name}" for name in STAGES} | {"stages"},
    {"probes"},
    {"lessons"},
    {"classifier", "trainer"},
    {"runs.under_way"},
    {"runs.remaining"},
    {"runs.asked"},
    {
        "runs.stage",
        "runs.lineage",
        "runs.findings",
        "runs.filtered",
        "runs.lengths",
        "runs.candidate_ensembles",
        "runs.contributions",
    },
    {"runs.score_findings"},
    {"runs.measured", "runs.finding", "runs.source_seen", "runs.kept_config", "runs.words"},
    {"runs.step_metrics"},
    {"training"},
    {"noise"},
    {"evaluation"},
    {"models"},
    {"distributed.ranks"},
    {"data", "labels"},
    {"storage.commit", "config.origins", "config.explained", "config.json_schema", "config.first_page"},
    {"storage.artifact", "storage.hdf5", "storage.lock", "storage.sealed", "config.file", "config.rules", "session"},
    {"screen"},
    {"machine", "storage.links", "distributed.world", "taxonomy.outputs", "taxonomy.wordnet"},
    {
        "config.schema",
        "taxonomy.tree",
        "taxonomy.proposal",
        "randomness",
        "progress",
        "listener",
        "signals",
        "storage.files",
        "storage.hdf5_guard",
    },
    {"config.as_typed", "config.stage_sections"},
    {
        "config.advice",
        "config.data",
        "config.members",
        "config.pseudolabel",
        "config.yaml_text",
        "config.network_names",
        "config.training",
        "tables",
        "taxonomy.reading",
    },
    {
        "config.types",
        "errors",
        "runs",
        "distributed",
        "taxonomy",
        "config",
        "storage",
        "storage.json_record",
    },
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Rooms and modules that may not import torch and its like: all below ``data``, and what starts every command.
LIGHT = {room for rooms in FLOORS[FLOOR_OF["data"] + 1 :] for room in rooms} | {
    "cli",
    "__init__",
    "runs.verification",
    "runs.status",
    "runs.run",
    "runs.jobs",
    "runs.job_process",
    "runs.folder",
    "runs.plan",
    "runs.rehearsal",
    "runs.preflight",
    "runs.asked",
    "runs.source_seen",
    "runs.outcome",
    "runs.stage",
    "runs.step_metrics",
    "runs.lineage",
    "runs.measured",
    "runs.finding",
    "runs.score_findings",
    "runs.findings",
    "runs.verdict",
    "runs.curves",
    "runs.lengths",
    "runs.remaining",
    "runs.under_way",
    "runs.kept_config",
    "runs.sized_config",
    "runs.words",
    # Whatever shows the scores of a run reads them here.
    "evaluation.scores",
    "evaluation.refit_scores",
}


def _modules() -> list[Module]:
    found = []
    for folder, prefix in ((ROOT / "pipeline", ""), (ROOT / "stages", "stages.")):
        for path in sorted(folder.rglob("*.py")):
            name = prefix + path.relative_to(folder).with_suffix("").as_posix().replace("/", ".")
            found.append(Module(name.removesuffix(".__init__"), path.read_text(encoding="utf-8")))
    return found


MODULES = _modules()


def room_of(name: str) -> str:
    """The longest beginning of a module's name that stands on a floor; its first word where none does."""
    words = name.split(".")
    beginnings = [".".join(words[:number]) for number in range(len(words), 0, -1)]
    return next((room for room in beginnings if room in FLOOR_OF), words[0])


def upward_imports(module: Module) -> Iterator[str]:
    own = room_of(module.name)
    for full in module.imports:
        package, _, name = full.partition(".")
        other = room_of(name)
        if package == "nstudent" and other != own and FLOOR_OF[other] <= FLOOR_OF[own]:
            yield f"{full}, of {other}, which does not stand below {own}"


def undeclared_imports(module: Module, declared: set[str]) -> Iterator[str]:
    """A package that only comes with another is gone when the other no longer needs it."""
    named = {"cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    named["pi_heif"] = "pi-heif"
    # _typeshed is there for type checkers alone.
    foreign = module.packages - set(sys.stdlib_module_names) - {"nstudent", "_typeshed"}
    yield from sorted(package for package in foreign if named.get(package, package) not in declared)


def _hold(rule: Callable[[Module], Iterator[str]], modules: list[Module] = MODULES) -> None:
    offenders = [f"{module.name}: {what}" for module in modules for what in rule(module)]
    assert not offenders, "\n".join(["", *offenders])


def test_every_module_stands_on_a_floor() -> None:
    assert {room_of(module.name) for module in MODULES} == set(FLOOR_OF)


def test_a_line_imports_only_what_stands_below_it() -> None:
    _hold(rules.relative_imports)
    _hold(upward_imports)


def test_an_import_of_the_same_floor_or_a_higher_one_is_found() -> None:
    one, other = sorted(next(rooms for rooms in FLOORS if len(rooms) > 1))[:2]
    highest, lowest = min(FLOORS[0]), min(FLOORS[-1])
    assert list(upward_imports(Module(one, f"from nstudent.{other} import x")))
    assert list(upward_imports(Module(f"{lowest}.module", f"def f():\n    import nstudent.{highest}")))
    assert not list(upward_imports(Module(one, f"import {other}\nimport nstudent.{one}, nstudent.{lowest}")))


def test_light_rooms_import_nothing_heavy() -> None:
    light = [module for module in MODULES if LIGHT & {module.name, room_of(module.name)}]
    assert light
    _hold(rules.heavy_imports, light)


def test_every_package_that_is_imported_is_declared() -> None:
    page = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # What an extra brings is imported only where it is needed.
    extras = page["project"]["optional-dependencies"]
    lines = [*page["project"]["dependencies"], *(line for name, of in extras.items() if name != "test" for line in of)]
    declared = {re.split(r"[<>=]", line)[0] for line in lines}
    _hold(partial(undeclared_imports, declared=declared))
    assert list(undeclared_imports(Module("a", "import os, numpy, pandas"), declared)) == ["pandas"]


def test_every_room_is_in_the_wheel() -> None:
    """An editable install has all folders, whatever is listed."""
    page = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {path.parent.relative_to(ROOT / "pipeline") for path in (ROOT / "pipeline").rglob("__init__.py")}
    names = {".".join(("nstudent", *room.parts)) for room in rooms}
    assert {*page["tool"]["setuptools"]["packages"]} == {*names, "nstudent.stages"}


def test_only_the_runner_knows_the_stages() -> None:
    _hold(rules.stages_imported)


def test_every_stage_has_its_file_and_every_file_its_stage() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)
    assert {stage.name for stage in STAGES.values()} == set(STAGES)


def test_a_stage_is_a_function_of_its_context() -> None:
    stages = [module for module in MODULES if module.name in {f"stages.{name}" for name in STAGES}]
    assert len(stages) == len(STAGES)
    _hold(rules.stages_that_ask_for_more_than_a_context, stages)


def test_what_a_step_is_to_others_is_its_role_and_never_its_stage() -> None:
    _hold(rules.going_by_stage)


def test_the_score_that_choices_are_made_by_is_spelled_once() -> None:
    _hold(rules.headlines_spelled)


def test_nothing_is_unpickled_or_executed() -> None:
    _hold(rules.unpickled_or_executed)


def test_nothing_is_imported_by_a_name_from_a_file() -> None:
    _hold(rules.imported_by_a_name_from_a_file)


def test_no_module_asks_for_the_network() -> None:
    _hold(rules.network_used)


def test_files_are_written_in_one_place() -> None:
    _hold(rules.files_written)


def test_yaml_is_read_by_a_safe_loader() -> None:
    _hold(rules.yaml_read_unsafely)


def test_only_the_command_line_prints() -> None:
    _hold(rules.printed)


def test_no_hdf5_file_is_ever_open_for_writing_on_disk() -> None:
    _hold(rules.hdf5_open_for_writing)


def test_randomness_comes_from_a_key() -> None:
    _hold(rules.randomness_without_a_key)


def test_torch_draws_only_after_it_was_seeded_from_a_key() -> None:
    _hold(rules.torch_drawing_unseeded)


def test_no_generator_is_made_elsewhere() -> None:
    _hold(rules.generators_made)


def test_nothing_assigns_to_an_attribute_of_another_object() -> None:
    _hold(rules.attributes_assigned_from_outside)


def test_a_file_has_one_subject() -> None:
    _hold(rules.grab_bags)
    _hold(rules.long_files)
    _hold(rules.files_that_do_not_say_why_they_exist)


def test_a_public_function_says_which_errors_it_raises() -> None:
    _hold(rules.errors_not_documented)


def test_few_modules_stand_outside_of_the_rooms() -> None:
    found = {path.stem for path in (ROOT / "pipeline").glob("*.py")}
    loose = sorted(found - {"__init__", "__main__"})
    assert len(loose) <= MAX_LOOSE_MODULES, f"{len(loose)} modules, at most {MAX_LOOSE_MODULES}: {', '.join(loose)}"


def test_no_dataclass_can_be_changed() -> None:
    _hold(rules.dataclasses_that_can_be_changed)


def test_no_function_is_long() -> None:
    _hold(rules.long_functions)


def test_no_function_takes_many_parameters() -> None:
    _hold(rules.functions_of_many_parameters)


def test_no_two_test_modules_have_one_name() -> None:
    """They are collected without packages, so that a second one of a name stops the whole suite."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
