"""Every rule of the architecture finds what offends it, and lets harmless code be."""

import inspect
from collections.abc import Callable, Iterator

import architecture_rules as rules
import pytest
from architecture_rules import MAX_FUNCTION_LINES, MAX_LINES, MAX_PARAMETERS, Module

Rule = Callable[[Module], Iterator[str]]


def _function(lines: int, comments: int = 0) -> str:
    body = ['    """Line.', "", '    More."""', *["    # Why."] * comments, "", *["    x = 1"] * (lines - 1)]
    return "\n".join(["def long():", *body])


def _parameters(number: int, first: str = "") -> str:
    return f"def many({first}{', '.join(f'p{i}' for i in range(number - 2))}, *rest, key): ..."


# Of each rule: (name of the module, source) that offend it, and some that do not.
OFFENDING: dict[Rule, list[tuple[str, str]]] = {
    rules.relative_imports: [("a", "from . import b"), ("a.b", "from ..c import d")],
    rules.heavy_imports: [
        ("runs.run", "import torch.nn"),
        ("runs.run", "def f():\n    from torch import nn"),
        ("runs.run", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from PIL import Image"),
    ],
    rules.stages_imported: [
        ("runs.run", "from nstudent.stages import data"),
        ("runs.run", "import nstudent.stages.data"),
    ],
    rules.stages_that_ask_for_more_than_a_context: [
        ("stages.data", "def run(context, more): ..."),
        ("stages.data", "def go(context): ..."),
    ],
    rules.going_by_stage: [
        ("a", "made.manifest.stage == 'teacher'"),
        ("a", "[m for m in all if m.manifest.stage in ('teacher', 'student')]"),
        ("a", "name.endswith(('-teacher', '-baseline'))"),
    ],
    rules.headlines_spelled: [("a", "scores['level accuracy']"), ("cli.console", "HEADLINE = 'level accuracy'")],
    rules.unpickled_or_executed: [
        ("a", "import pickle"),
        ("a", "from subprocess import run"),
        ("a", "torch.load('x', weights_only=True)"),
        ("a", "eval('1')"),
        ("a", "os.execv('x', [])"),
        ("a", "f(shell=True)"),
        ("a", "f(shell=word)"),
    ],
    rules.imported_by_a_name_from_a_file: [
        ("runs.run", "importlib.import_module(name)"),
        ("runs.run", "importlib.import_module(f'{name}.nstudent.')"),
        ("runs.run", "importlib.import_module(_HOMES[name])"),
    ],
    rules.network_used: [("a", "import socket"), ("a", "from urllib.request import urlopen")],
    rules.files_written: [
        ("a", "path.write_text('x')"),
        ("a", "open('x', 'w')"),
        ("a", "open('x', mode='ab')"),
        ("a", "array.tofile('x')"),
    ],
    rules.yaml_read_unsafely: [
        ("a", "yaml.unsafe_load(x)"),
        ("a", "yaml.load(x)"),
        ("a", "yaml.load(x, Loader=yaml.Loader)"),
        ("a", "class Mine(yaml.Loader): ...\nyaml.load(x, Loader=Mine)"),
    ],
    rules.printed: [("runs.run", "print('x')"), ("training.loop", "sys.stderr.write('x')")],
    rules.hdf5_open_for_writing: [
        ("a", "h5py.File(path, 'w')"),
        ("a", "h5py.File(path)"),
        ("a", "h5py.File(buffer, 'w')"),
        (rules.WRITES_HDF5, "h5py.File(path, 'w')"),
    ],
    rules.randomness_without_a_key: [
        ("a", "np.random.rand(3)"),
        ("a", "from numpy.random import rand"),
        ("a", "np.random.Philox(1)"),
        ("a", "import random\nrandom.random()"),
    ],
    rules.torch_drawing_unseeded: [
        ("a", "torch.rand(3)"),
        ("a", "torch.manual_seed(1)"),
    ],
    rules.generators_made: [
        ("a", "np.random.default_rng(1)"),
        ("a", "random.Random(1)"),
        (rules.SEEDS_ALBUMENTATIONS, "np.random.Generator(x)"),
    ],
    rules.attributes_assigned_from_outside: [
        ("a", "loop.step = 3"),
        ("a", "def f(self):\n    self.spending.spent, self.b = 1, 2"),
        ("a", "counter.number += 1"),
    ],
    rules.grab_bags: [("data.utils", ""), ("common.data", "")],
    rules.long_files: [("a", "x = 1\n" * (MAX_LINES + 1))],
    rules.files_that_do_not_say_why_they_exist: [("a", "x = 1"), ("a", "# Because.\nx = 1")],
    rules.errors_not_documented: [
        ("a", "def f():\n    raise DataError('x')"),
        ("a", 'class A:\n    def f(self):\n        """Raises:\n    OtherError: why."""\n        raise DataError()'),
        ("a", 'def f():\n    """DataError is raised."""\n    if x:\n        raise DataError()'),
    ],
    rules.dataclasses_that_can_be_changed: [
        ("a", "@dataclass\nclass A: ..."),
        ("a", "@dataclasses.dataclass(kw_only=True)\nclass A: ..."),
        ("a", "def f():\n    @total_ordering\n    @dataclass(frozen=False)\n    class A: ..."),
    ],
    rules.long_functions: [
        ("a", _function(MAX_FUNCTION_LINES + 1)),
        ("a", "class A:\n" + "\n".join(f"    {line}" for line in _function(MAX_FUNCTION_LINES + 1).splitlines())),
    ],
    rules.functions_of_many_parameters: [
        ("a", _parameters(MAX_PARAMETERS + 1)),
        ("a", f"class A:\n    {_parameters(MAX_PARAMETERS + 1, 'self, ')}"),
    ],
}
HARMLESS: dict[Rule, list[tuple[str, str]]] = {
    rules.relative_imports: [("a", "from a import b")],
    rules.heavy_imports: [("runs.run", "import torchless\nfrom nstudent import torch")],
    rules.stages_imported: [
        ("runs.run", "from nstudent import stage\nimportlib.import_module(f'nstudent.stages.{name}')"),
        ("stages.student", "from nstudent.stages.teacher import x"),
    ],
    rules.stages_that_ask_for_more_than_a_context: [("stages.data", "def run(context): ...\ndef other(a, b): ...")],
    rules.going_by_stage: [("a", "made.manifest.role == 'labeller'\nsaid = f'{made.manifest.stage} step'")],
    rules.headlines_spelled: [
        (rules.SPELLS_THE_HEADLINE, "HEADLINE = 'level accuracy'"),
        ("a", '"""Of level accuracy."""\nscores[HEADLINE]'),
    ],
    rules.unpickled_or_executed: [("a", "import json\njson.load(x)\nevaluate(x)\nf(shell=False)\nre.compile('x')")],
    rules.imported_by_a_name_from_a_file: [
        ("runs.run", "importlib.import_module(f'nstudent.stages.{name}')"),
        ("__init__", "importlib.import_module(_HOMES[name])"),
    ],
    rules.network_used: [("a", "import sockets\nfrom nstudent import http")],
    rules.files_written: [
        ("a", "open('x')\nopen('x', 'rb')\npath.read_text()"),
        (rules.WRITES_FILES, "path.write_bytes(b'')\nopen('x', 'wb')"),
    ],
    rules.yaml_read_unsafely: [
        ("a", "yaml.safe_load(x)"),
        ("a", "class Mine(yaml.SafeLoader): ...\nyaml.load(x, Loader=Mine)"),
    ],
    rules.printed: [
        (rules.COMMAND_LINE, "print('x')"),
        (f"{rules.COMMAND_LINE}.run", "typer.echo('x')"),
        ("runs.run", "progress.say('x')"),
    ],
    rules.hdf5_open_for_writing: [("a", "h5py.File(path, 'r')"), (rules.WRITES_HDF5, "h5py.File(buffer, 'w')")],
    rules.randomness_without_a_key: [
        ("a", "def f(random: np.random.Generator): random.normal()"),
        (rules.MAKES_GENERATORS, "np.random.Generator(np.random.Philox(1))"),
        ("a", "import random\nrandom.Random(seed(1))"),
    ],
    rules.torch_drawing_unseeded: [
        ("a", "torch.rand(3, generator=generator)\ntorch.manual_seed(seed(1))"),
    ],
    rules.generators_made: [
        (rules.MAKES_GENERATORS, "np.random.Generator(x)"),
        (rules.SEEDS_ALBUMENTATIONS, "random.Random(1)"),
        ("a", "generator(1, 'x')"),
    ],
    rules.attributes_assigned_from_outside: [
        ("a", "def f(self):\n    self.step = self.loop.step\n    weight.grad = None"),
    ],
    rules.grab_bags: [("data.batches", ""), ("database", "")],
    rules.long_files: [("a", "x = 1\n" * MAX_LINES)],
    rules.files_that_do_not_say_why_they_exist: [("a", '"""Because."""')],
    rules.errors_not_documented: [
        ("a", 'def f():\n    """F.\n\n    Raises:\n        DataError: why.\n    """\n    raise DataError()'),
        ("a", "def f():\n    raise ValueError()\ndef _g():\n    raise DataError()"),
        ("a", "class _A:\n    def f(self):\n        raise DataError()"),
        ("a", "def f():\n    def g():\n        raise DataError()\n    raise"),
        (f"{rules.COMMAND_LINE}.run", "def f():\n    raise DataError()"),
    ],
    rules.dataclasses_that_can_be_changed: [
        ("a", "@dataclass(kw_only=True, frozen=True)\nclass A: ..."),
        ("a", "@final\nclass A: ...\n@dataclass_like\nclass B: ..."),
    ],
    rules.long_functions: [("a", _function(MAX_FUNCTION_LINES, comments=9))],
    rules.functions_of_many_parameters: [
        ("a", _parameters(MAX_PARAMETERS)),
        ("a", f"class A:\n    {_parameters(MAX_PARAMETERS, 'self, ')}"),
        (f"{rules.COMMAND_LINE}.run", _parameters(MAX_PARAMETERS + 9)),
    ],
}


def test_every_rule_has_its_examples() -> None:
    found = inspect.getmembers(rules, inspect.isgeneratorfunction)
    written = {each for name, each in found if not name.startswith("_")}
    assert written
    assert set(OFFENDING) == set(HARMLESS) == written


@pytest.mark.parametrize("rule", OFFENDING, ids=lambda rule: rule.__name__)
def test_a_rule_finds_each_offence(rule: Rule) -> None:
    unnoticed = [source for name, source in OFFENDING[rule] if not list(rule(Module(name, source)))]
    assert not unnoticed


@pytest.mark.parametrize("rule", HARMLESS, ids=lambda rule: rule.__name__)
def test_a_rule_lets_harmless_code_be(rule: Rule) -> None:
    assert [offence for name, source in HARMLESS[rule] for offence in rule(Module(name, source))] == []
