"""nstudent: noisy-student training for hierarchical image classification.

>>> import nstudent
>>> folder = nstudent.run_all(nstudent.load_config())        # doctest: +SKIP
>>> nstudent.Classifier.load(folder).predict(["photo.jpg"])  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "nstudent":
    # A second copy of every class under another name would make isinstance() lie.
    raise ImportError(f"this package is 'nstudent', not {__name__!r}: install it with pip and import nstudent")

if TYPE_CHECKING:
    from nstudent.classifier import Classifier
    from nstudent.errors import NstudentError
    from nstudent.runs.plan import plan
    from nstudent.runs.run import run_all, run_stage
    from nstudent.runs.sized_config import load_config
    from nstudent.screen.bars import Screen
    from nstudent.session import Session
    from nstudent.taxonomy.tree import Taxonomy

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "NstudentError",
    "Screen",
    "Session",
    "Taxonomy",
    "load_config",
    "plan",
    "run_all",
    "run_stage",
]

_HOMES = {
    "Classifier": "nstudent.classifier",
    "NstudentError": "nstudent.errors",
    "Screen": "nstudent.screen.bars",
    "Session": "nstudent.session",
    "Taxonomy": "nstudent.taxonomy.tree",
    "load_config": "nstudent.runs.sized_config",
    "plan": "nstudent.runs.plan",
    "run_all": "nstudent.runs.run",
    "run_stage": "nstudent.runs.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: ``import nstudent`` costs milliseconds, torch seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nstudent' has no attribute '{name}'")
    from nstudent.machine import out_of_working_folder

    with out_of_working_folder():
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
