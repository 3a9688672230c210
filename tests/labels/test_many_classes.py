"""10,000 final labels: what is made for one batch, or for many rows, has to stay small. Linux only: reads /proc."""

import subprocess
import sys

import numpy as np
import pytest
from nstudent.taxonomy.tree import Taxonomy

LEVELS = ("coarse", "mid", "fine")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")

PRELUDE = """
import re
import numpy as np
from nstudent.taxonomy.tree import Taxonomy
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
tree = Taxonomy.from_tree(
    {f"c{i}": {f"m{i}-{j}": [f"f{i}-{j}-{k}" for k in range(20)] for j in range(25)} for i in range(20)},
    ("coarse", "mid", "fine"),
)
random = np.random.default_rng(0)
assert len(tree.terminals) == 10_000
"""


def grown_mib(script: str) -> int:
    """MiB by which the peak of memory grew while ``script`` ran in a process of its own, and what it printed."""
    measured = f"{PRELUDE}\nimport torch, nstudent.labels.store\nbefore = peak()\n{script}\nprint(peak() - before)"
    found = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True, timeout=120)
    return int(found.stdout)


@pytest.mark.slow
def test_a_batch_is_calibrated_decoded_and_stored_in_little_memory() -> None:
    """Scores of 256 images for 10,000 labels, three levels at once, would be 30 MB and several copies of it."""
    grown = grown_mib("""
from nstudent.labels.decoders import build_decoder
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.labels.store import Layout, Shard
from nstudent.taxonomy.outputs import Outputs
outputs = Outputs(tree)
levels = [random.random((256, n), dtype=np.float32) for n in outputs.sizes]
levels = [torch.from_numpy(level / level.sum(axis=1, keepdims=True)) for level in levels]
layout = Layout.of(outputs, None)
posterior = PathPosterior(outputs, Calibration((2.0, 1.5, 1.0), (0.0, 0.0, 0.0)))
decoder, shard = build_decoder("expected_score", outputs), Shard(np.arange(2048), layout)
for first in range(0, 2048, 256):
    calibrated = posterior.marginals(levels)
    found = decoder.decode(calibrated)
    columns = layout.columns(calibrated, found.paths, found.confidence)
    shard.put(first, {name: tensor.numpy() for name, tensor in columns.items()})
    assert (tree.terminal_of(found.paths.numpy()) >= 0).all()
""")

    # 21 MB of distributions made here and as much calibrated, 20 MB of positions to choose the top classes by.
    assert grown < 110


@pytest.mark.slow
def test_a_million_rows_are_selected_in_little_memory() -> None:
    """A mask of all rows for each class, as one would write it first, takes hours."""
    grown = grown_mib("""
from nstudent.config.schema import PseudolabelConfig
from nstudent.labels.selection import select
terminal = random.integers(0, 10_000, 1_000_000, dtype=np.int32)
sure = random.random(1_000_000, dtype=np.float32)
keep = np.repeat((sure > 0.3)[:, None], 3, axis=1)
copies = select(terminal, sure, keep, tree, PseudolabelConfig(balance=True), (0,)).copies
each = np.bincount(terminal, copies, minlength=10_000)
assert abs(each.mean() - (sure > 0.3).sum() / 10_000) < 1
""")

    # 11 bytes a row come in and one goes out; the inputs are made here.
    assert grown < 60


def test_final_labels_are_found_as_by_name() -> None:
    """Of a tree in which some inner nodes are final labels, too; rows that are none of them give -1."""
    labels = [(f"c{i}", f"m{i}-{j}", f"f{i}-{j}-{k}") for i in range(7) for j in range(i) for k in range(j)]
    labels += [(f"c{i}", "-", "-") for i in range(0, 7, 2)] + [("c3", "m3-1", "-")]
    tree = Taxonomy.from_labels(labels, LEVELS)
    random = np.random.default_rng(0)
    rows = random.integers(-2, 40, (5000, 3)).astype(np.int32)
    rows[:4000] = tree.terminal_rows[random.integers(0, len(tree.terminals), 4000)]
    rows[2000:3000, 2] = random.integers(-2, 3, 1000)

    found = tree.terminal_of(rows)

    index = {row: i for i, row in enumerate(tree.terminals)}
    assert found.tolist() == [index.get(tuple(row), -1) for row in rows.tolist()]
