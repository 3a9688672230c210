"""Rows and tables of docs/RESULTS.md: settings and variants by name, several seeds, this commit or another.

    python benchmarks/results.py --data FOLDER                                    # the defaults on the core settings
    python benchmarks/results.py --data FOLDER --settings digits grocery --variants null balance --seeds 0
    python benchmarks/results.py --settings digits --as flipped data.label_noise=0.4 filter.labelled=true
    python benchmarks/results.py --settings digits --checkout PATH                # the code of another checkout
    python benchmarks/results.py --tables --against defaults 8b18941              # Markdown, from the rows alone

Settings and variants are listed in ``settings.py``. Every (setting, variant, seed, commit) has one row in a file of
benchmarks/rows, which is committed; a run whose row is there is not made again. A row is appended when its run ends. A
benchmark that is stopped goes on where it was: run folders without a row stay in --work. Every seed draws its own
split, networks and noise, and a run has one thread, so that as many run at once as --jobs says. Many at once on a GPU:
``gpu/core.py``.
"""

import argparse
import subprocess
from pathlib import Path

import rows
from checkouts import HERE, name_of, package
from pool import Asked, Code, Pool, tasks
from settings import CORE, SETTINGS, VARIANTS, Data
from tables import all_tables

ROWS = HERE / "benchmarks" / "rows"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=Path, default=ROWS / "core.jsonl", help="file that rows are read from and added to"
    )
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with files of the settings")
    parser.add_argument("--settings", nargs="+", default=list(CORE), choices=list(SETTINGS))
    parser.add_argument("--variants", nargs="+", default=["defaults"], choices=list(VARIANTS))
    parser.add_argument("--as", dest="name", help="name of a variant of these words, on top of the one of --variants")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--checkout", type=Path, default=HERE, help="whose code makes the runs")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="folder for the runs")
    parser.add_argument(
        "--tables", action="store_true", help="make no run: print the tables of all rows of these settings"
    )
    parser.add_argument(
        "--against", nargs=2, metavar=("VARIANT", "COMMIT"), help="compare final classifiers with these"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    if bool(arguments.overrides) != bool(arguments.name):
        parser.error("--as NAME and KEY=VALUE words belong together")
    if not arguments.tables:
        measure(arguments)
    shown = [row for row in rows.read([arguments.rows]) if row["setting"] in arguments.settings]
    against = tuple(arguments.against) if arguments.against else None
    print(all_tables(shown, against))


def measure(arguments: argparse.Namespace) -> None:
    """Make the runs that have no row.

    Raises:
        SystemExit: a run has failed.
    """
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    commit = commit_of(arguments.checkout.resolve())
    code = Code(commit, package(arguments.checkout.resolve(), work / f"code-{commit}"))
    variants = {name: VARIANTS[name] for name in arguments.variants}
    if arguments.name:
        variants = {
            arguments.name: [word for name in arguments.variants for word in VARIANTS[name]] + arguments.overrides
        }
    asked = Asked(arguments.settings, variants, arguments.seeds, [code])
    data = Data.of([path.resolve() for path in arguments.data], work / "data")
    waiting = tasks(asked, rows.read([arguments.rows]), data, arguments.device)
    pool = Pool({arguments.device: arguments.jobs}, {commit: code.folder}, work, arguments.rows.resolve())
    pool.work(waiting)
    if pool.missing:
        raise SystemExit(f"{len(pool.missing)} of {len(waiting)} runs have no row")


def commit_of(checkout: Path) -> str:
    """Name of a checkout's commit, with a ``+`` where its code has changes that are not committed."""
    command = ["git", "-C", str(checkout), "status", "--porcelain", "--", "pipeline", "stages"]
    changed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{name_of(checkout)}{'+' if changed else ''}"


if __name__ == "__main__":
    main()
