"""One trained network, decoded in every way that there is: a row of benchmarks/rows/ladder.jsonl each."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import rows
from nstudent.config.types import DecoderName
from pool import Code, run_environment


def decode_in_every_way(setting: str, words: Sequence[str], seed: int, code: Code, out: Path, work: Path) -> None:
    """Make the rows that are missing: the first run trains, the others take its network and only decode anew.

    Raises:
        SystemExit: a run has failed; the message is the end of what it said.
    """
    made = {rows.Key.of(row) for row in rows.read([out])}
    folder = work / f"{setting}-decoders-{seed}-{code.name}"
    for decoder in get_args(DecoderName):
        key = rows.Key(setting, f"decoder {decoder}", seed, code.name)
        if key in made:
            continue
        began = time.monotonic()
        asked = [*words, f"decoder={decoder}", f"seed={seed}", "device=cpu", "--run-dir", str(folder)]
        command = [sys.executable, "-m", "nstudent", "run-all", *asked]
        done = subprocess.run(command, env=run_environment(code.folder), cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{setting}, decoder {decoder}: {done.stderr[-2000:]}")
        what = {"setting": setting, "variant": key.variant, "seed": seed, "commit": code.name}
        took = {"words": [f"decoder={decoder}"], "device": "cpu", "wall": round(time.monotonic() - began, 1)}
        rows.append(out, {**what, **took, **rows.of_run(folder)})
        print(f"{setting}, seed {seed}, decoder {decoder}", flush=True)
