"""Bytes hit at random: an image or an ImageError, never a crash, never a hang.

NSTUDENT_FUZZ_CASES sets how many; 200 is what every run of the tests can afford.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

CASES = int(os.environ.get("NSTUDENT_FUZZ_CASES", "200"))


def test_damaged_images_give_an_image_or_an_image_error_and_never_a_crash() -> None:
    program = Path(__file__).with_name("pictures.py")
    kinds = program.read_text().count(": lambda: ")
    each = -(-CASES // kinds)

    ran = subprocess.run(
        [sys.executable, str(program), str(each)],
        capture_output=True,
        text=True,
        timeout=60 + CASES,  # a hang, not a speed
        check=False,
    )

    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    outcomes = found["kinds"].values()
    assert sum(outcome["decoded"] + outcome["refused"] for outcome in outcomes) >= CASES
    assert all(outcome["refused"] for outcome in outcomes), "the mutants were too tame to show anything"
    assert any(outcome["decoded"] for outcome in outcomes), "the mutants were too wild to get past the header"
    assert found["grown_mib"] < 100
