"""What may not stand in a module: rules that read its source, so that nothing has to be imported.

A rule is a generator of offences, each a few words. tests/test_architecture.py holds the package to them;
tests/test_architecture_rules.py shows of each that it finds an offence and lets harmless code be.
"""

import ast
import builtins
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

HEAVY = {"torch", "torchvision", "timm", "albumentations", "cv2", "sklearn", "scipy", "matplotlib", "simplejpeg", "PIL"}
GRAB_BAGS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "core", "misc", "tools", "shared"}
MAX_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_PARAMETERS = 7

# Where that is done which is forbidden elsewhere. A room stands for all of its modules.
COMMAND_LINE = "cli"
SPELLS_THE_HEADLINE = "evaluation.scores"
WRITES_FILES = "storage.files"
WRITES_HDF5 = "storage.hdf5"
MAKES_GENERATORS = "randomness"
# albumentations asks for a stdlib generator beside numpy's; it gets one seeded from the key.
SEEDS_ALBUMENTATIONS = "noise.image_noise"
SET_BY_CUSTOM = {
    # Of weights, optimisers and layers; of a network of several processes; of a compiler; of an array; of a process.
    *("grad", "found_inf", "grad_scale", "momentum", "broadcast_buffers", "_compiled_call_impl", "recompile_limit"),
    *("stride", "writeable", "daemon"),
}
"""Attributes of other libraries' objects that are meant to be assigned."""


@dataclass(frozen=True)
class Module:
    """A source text and its name below the package, ``data.batches``."""

    name: str
    source: str = field(repr=False)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def room(self) -> str:
        """The first word of the name."""
        return self.name.partition(".")[0]

    @cached_property
    def imports(self) -> list[str]:
        """Full names of what is imported, also inside functions and for type checkers alone."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
        return found

    @property
    def packages(self) -> set[str]:
        """Top-level packages of what is imported."""
        return {full.partition(".")[0] for full in self.imports}

    @property
    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """Every call, with the dotted name of what is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield _dotted(node.func), node

    @property
    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    @cached_property
    def code_lines(self) -> set[int]:
        """Numbers of the lines that hold more than blanks, comments and docstrings."""
        empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.source).readline):
            if token.type not in empty:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            text = node.value if isinstance(node, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
        return lines


def _dotted(node: ast.AST) -> str:
    """``np.random.rand`` of an attribute or a name, empty for anything else."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _mode(call: ast.Call) -> str:
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return str(modes[0].value) if modes and isinstance(modes[0], ast.Constant) else "not given"


def relative_imports(module: Module) -> Iterator[str]:
    yield from (full for full in module.imports if full.startswith("."))


def heavy_imports(module: Module) -> Iterator[str]:
    yield from sorted(module.packages & HEAVY)


def stages_imported(module: Module) -> Iterator[str]:
    """The runner imports a stage by its name, when it is needed: no line of code imports one."""
    if module.room != "stages":
        yield from (full for full in module.imports if full.startswith("nstudent.stages"))


def stages_that_ask_for_more_than_a_context(module: Module) -> Iterator[str]:
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "run":
            if [argument.arg for argument in node.args.args] != ["context"]:
                yield f"run({ast.unparse(node.args)})"
            return
    yield "has no function run"


def going_by_stage(module: Module) -> Iterator[str]:
    """What an artifact is to others is its role: its stage is compared nowhere, nor how the name of its folder ends."""
    for node in ast.walk(module.tree):
        compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        yield from (ast.unparse(node) for each in compared if _dotted(each).endswith("manifest.stage"))
        if isinstance(node, ast.Constant) and node.value in {"-data", "-teacher", "-baseline", "-student"}:
            yield ast.unparse(node)


def headlines_spelled(module: Module) -> Iterator[str]:
    """The score that choices are made by has a constant."""
    if module.name != SPELLS_THE_HEADLINE:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and node.value == "level accuracy":
                yield f"line {node.lineno}"


def unpickled_or_executed(module: Module) -> Iterator[str]:
    pickling = {"pickle", "cPickle", "_pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle", "copyreg"}
    starting = {"subprocess", "ctypes", "cffi", "code", "runpy", "pty"}
    yield from sorted(module.packages & (pickling | starting))
    loading = {"torch.load", "torch.save", "torch.jit.load", "np.load", "numpy.load", "np.fromregex", "pd.read_pickle"}
    running = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.compile"}
    beginnings = "os.exec", "os.spawn", "os.posix_spawn", "torch.hub.", "torch.package."
    for called, call in module.calls:
        if called in loading | running or called.startswith(beginnings):
            yield called
        for word in call.keywords:
            if word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False):
                yield f"{called}(shell=...)"


def imported_by_a_name_from_a_file(module: Module) -> Iterator[str]:
    """A module's name comes from our own table, or begins with our own package."""
    for called, call in module.calls:
        if called != "importlib.import_module":
            continue
        wanted = call.args[0]
        ours = isinstance(wanted, ast.JoinedStr) and ast.unparse(wanted.values[0]).strip("'").startswith("nstudent.")
        if not ours and not (module.name == "__init__" and ast.unparse(wanted) == "_HOMES[name]"):
            yield ast.unparse(call)


def network_used(module: Module) -> Iterator[str]:
    clients = {"urllib", "http", "requests", "httpx", "ftplib", "smtplib", "huggingface_hub"}
    yield from sorted(module.packages & (clients | {"socket", "ssl", "asyncio"}))


def files_written(module: Module) -> Iterator[str]:
    """In one place alone: nothing has a half-written file under its name, and no link is written through."""
    if module.name == WRITES_FILES:
        return
    for called, call in module.calls:
        if called.rpartition(".")[2] in {"write_text", "write_bytes", "tofile", "savetxt", "symlink_to"}:
            yield called
        if called == "open" and _mode(call) not in {"r", "rb", "not given"}:
            yield ast.unparse(call)


def yaml_read_unsafely(module: Module) -> Iterator[str]:
    classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef)]
    safe = {"yaml.SafeLoader"} | {
        node.name for node in classes if any(_dotted(above) == "yaml.SafeLoader" for above in node.bases)
    }
    for called, call in module.calls:
        if called in {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"}:
            yield called
        if called == "yaml.load":
            loaders = {_dotted(word.value) for word in call.keywords if word.arg == "Loader"}
            if not loaders or not loaders <= safe:
                yield ast.unparse(call)


def printed(module: Module) -> Iterator[str]:
    writing = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}
    if module.room != COMMAND_LINE:
        yield from (called for called, _ in module.calls if called in writing)


def hdf5_open_for_writing(module: Module) -> Iterator[str]:
    """A live file does not survive kill -9: what is written is written to memory."""
    for called, call in module.calls:
        if called != "h5py.File" or _mode(call) == "r":
            continue
        if module.name != WRITES_HDF5 or _dotted(call.args[0]) != "buffer":
            yield ast.unparse(call)


def randomness_without_a_key(module: Module) -> Iterator[str]:
    yield from (full for full in module.imports if full.startswith("numpy.random."))
    used = {_dotted(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    allowed = {"np.random.Generator"} | ({"np.random.Philox"} if module.name == MAKES_GENERATORS else set())
    drawing = {name for name in used if name.startswith(("np.random.", "numpy.random."))}
    if "random" in module.imports:
        allowed.add("random.Random")
        drawing |= {name for name in used if name.startswith("random.")}
    yield from sorted(drawing - allowed)


def torch_drawing_unseeded(module: Module) -> Iterator[str]:
    words = "rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal"
    drawing = {f"torch.{word}" for word in words}
    for called, call in module.calls:
        if called in drawing and not any(word.arg == "generator" for word in call.keywords):
            yield ast.unparse(call)
        if called == "torch.manual_seed" and not ast.unparse(call.args[0]).startswith("seed("):
            yield ast.unparse(call)


def generators_made(module: Module) -> Iterator[str]:
    if module.name == MAKES_GENERATORS:
        return
    making = {"np.random.Generator", "np.random.default_rng", "torch.seed", "random.seed", "random.Random"}
    allowed = {"random.Random"} if module.name == SEEDS_ALBUMENTATIONS else set()
    yield from (called for called, _ in module.calls if called in making - allowed)


def attributes_assigned_from_outside(module: Module) -> Iterator[str]:
    """An object changes its own attributes; others ask it to. Libraries want some of theirs to be set."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if not own and node.attr not in SET_BY_CUSTOM:
                yield f"{ast.unparse(node)} in line {node.lineno}"


def grab_bags(module: Module) -> Iterator[str]:
    yield from sorted(set(module.name.split(".")) & GRAB_BAGS)


def long_files(module: Module) -> Iterator[str]:
    if (lines := len(module.source.splitlines())) > MAX_LINES:
        yield f"{lines} lines, at most {MAX_LINES}"


def files_that_do_not_say_why_they_exist(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield "no docstring"


def errors_not_documented(module: Module) -> Iterator[str]:
    """Errors of our own that a public function raises itself. On the command line a docstring is the text of --help."""
    if module.room == COMMAND_LINE:
        return
    for node in _public_functions(module.tree):
        raises = [each.exc for each in _own(node) if isinstance(each, ast.Raise)]
        raised = {_dotted(error.func) for error in raises if isinstance(error, ast.Call)}
        documented = (ast.get_docstring(node) or "").partition("Raises:")[2]
        for name in sorted(raised):
            if name.endswith("Error") and not hasattr(builtins, name) and name not in documented:
                yield f"{node.name} does not say under Raises: that it raises {name}"


def _public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Functions and methods, but for those whose name, or whose class's name, begins with ``_``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and child.name.startswith("_"):
            continue
        if isinstance(child, ast.FunctionDef):
            yield child
        else:
            yield from _public_functions(child)


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """All that stands in a function, but not in the functions and classes inside of it."""
    left: list[ast.AST] = list(function.body)
    while left:
        node = left.pop()
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            yield node
            left += ast.iter_child_nodes(node)


def dataclasses_that_can_be_changed(module: Module) -> Iterator[str]:
    """Whoever is handed one could change it for all others that hold it."""
    for node in ast.walk(module.tree):
        for each in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            words = each.keywords if isinstance(each, ast.Call) else []
            name = _dotted(each.func if isinstance(each, ast.Call) else each)
            frozen = [word.value for word in words if word.arg == "frozen"]
            is_frozen = bool(frozen) and isinstance(frozen[0], ast.Constant) and frozen[0].value is True
            if name.rpartition(".")[2] == "dataclass" and not is_frozen:
                yield f"{node.name} is not frozen"


def long_functions(module: Module) -> Iterator[str]:
    for node in module.functions:
        lines = module.code_lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if len(lines) > MAX_FUNCTION_LINES:
            yield f"{node.name} has {len(lines)} lines of code, at most {MAX_FUNCTION_LINES}"


def functions_of_many_parameters(module: Module) -> Iterator[str]:
    """On the command line every parameter is an option, and its function has as many as there are options."""
    if module.room == COMMAND_LINE:
        return
    for node in module.functions:
        given = node.args
        names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        names += [each.arg for each in (given.vararg, given.kwarg) if each is not None]
        number = len(names) - (names[:1] in (["self"], ["cls"]))
        if number > MAX_PARAMETERS:
            yield f"{node.name} has {number} parameters, at most {MAX_PARAMETERS}"
