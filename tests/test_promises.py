"""Every fault that is promised against has a test that exists, and docs/RELIABILITY.md shows them all.

`python tests/test_promises.py` writes the table of the page anew. With the file that `pytest --junitxml=FILE` wrote it
takes the results from there, and keeps them in tests/promises_results.json.
"""

import ast
import json
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "RELIABILITY.md"
BEGIN = "<!-- The table is written by `python tests/test_promises.py` from tests/promises.toml. -->\n"

ROWS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "tests" / "promises.toml").read_text(encoding="utf-8"))
RESULTS = ROOT / "tests" / "promises_results.json"
_FIRST_AND_LAST = [(1, 18), (20, 25), (30, 38), (40, 53), (60, 68), (70, 84), (90, 108)]


@cache
def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def _table() -> str:
    results: dict[str, str] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    lines = ["| | fault | promise | held by | last result |", "|---|---|---|---|---|"]
    for name, row in ROWS.items():
        lines.append(f"| {name} | {row['fault']} | {row['promise']} | {_held_by(row)} | {results.get(name, '')} |")
    return "\n".join(lines) + "\n"


def _held_by(row: dict[str, Any]) -> str:
    if "struck" in row:
        return f"struck: {row['struck']}"
    if "open" in row:
        return f"open: {row['open']}"
    return "<br>".join(f"`{test.removeprefix('tests/')}`" for test in row["tests"])


def _results(report: Path) -> dict[str, str]:
    """Per row: how many of its tests, each parameter counted, passed, failed or were skipped."""
    outcomes: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        path = str(case.get("classname")).replace(".", "/") + ".py"
        test = f"{path}::{str(case.get('name')).partition('[')[0]}"
        how = {child.tag for child in case} & {"failure", "error", "skipped"}
        outcome = "skipped" if how == {"skipped"} else "failed" if how else "passed"
        outcomes.setdefault(test, Counter())[outcome] += 1
    found = {}
    for name, row in ROWS.items():
        total = sum((outcomes.get(test, Counter(missing=1)) for test in row.get("tests", [])), Counter())
        found[name] = ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items()))
    return {name: result for name, result in found.items() if result}


def test_every_fault_of_the_matrix_has_its_row() -> None:
    assert list(ROWS) == [f"F{n:02d}" for first, last in _FIRST_AND_LAST for n in range(first, last + 1)]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_tests_that_exist_or_says_why_not(name: str) -> None:
    row = ROWS[name]
    assert row.keys() - {"tests", "struck", "open"} == {"fault", "promise"}
    assert len(row.keys() & {"tests", "struck", "open"}) == 1
    assert row.get("tests", row.get("struck", row.get("open")))
    for test in row.get("tests", []):
        path, _, function = test.partition("::")
        assert function in _tests_of(ROOT / path), test


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2] == _table()


def _write(reports: list[str]) -> None:
    for report in reports:
        RESULTS.write_text(json.dumps(_results(Path(report)), indent=2) + "\n", encoding="utf-8")
    prose, found, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(prose + found + _table(), encoding="utf-8")


if __name__ == "__main__":
    _write(sys.argv[1:])
