"""Kill a packing, and then a run of the pack, at one operation after the other; run as a program, it prints JSON.

Everything is imported once, and every attempt is a forked child: the real command line, with three shards where there
would be one. ``python pack_kills.py FOLDER EVERY`` strikes at every ``EVERY``-th operation; 1 takes some minutes.
"""

import importlib
import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from fault_injection import KILL, TEAR, Fault, Injector, recorded

SIDE = 8
NUM_IMAGES = 30


def main() -> None:
    folder, every = Path(sys.argv[1]), int(sys.argv[2])
    sources = ("data.sources.folder", "data.sources.packed")
    for name in ("cli", "cli.console", "stages.data", "data.packing.pack_folder", *sources):
        importlib.import_module(f"nstudent.{name}")
    _plant(folder / "photos")
    common = ["data.levels=[coarse]", f"data.image_size={SIDE}", "data.near_duplicates=ignore"]
    pack = [
        "data",
        "pack",
        str(folder / "packs" / "out"),
        "data.source=folder",
        f"data.root={folder / 'photos'}",
        *common,
    ]
    if _child(pack, folder / "packs", None, folder) != 0:
        raise SystemExit((folder / "said.txt").read_text())
    kept = folder / "kept"
    shutil.copytree(folder / "packs" / "out", kept)
    run = [
        "stage",
        "data",
        "rounds=0",
        "--run-dir",
        str(folder / "run"),
        "data.source=packed",
        f"data.root={kept}",
        *common,
    ]
    print(
        json.dumps(
            {
                "packing": _campaign(pack, folder, "packs", "packs/out", every),
                "running": _campaign(run, folder, "run", "run/00-data", every),
                "pack_is_untouched": _hashes(kept) == _manifest(kept),
            }
        )
    )


def _plant(root: Path) -> None:
    import numpy as np
    from PIL import Image

    for number in range(NUM_IMAGES):
        pixels = np.full((SIDE, SIDE, 3), number * 8, dtype=np.uint8)
        pixels[0, 0] = number, 99, 7
        path = root / ("one", "two", "three")[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())


def _campaign(words: list[str], folder: Path, watched: str, made: str, every: int) -> dict[str, object]:
    """Strikes at operations of a command whose files are ``made``; what was wrong after the same command again."""
    shutil.rmtree(folder / watched, ignore_errors=True)
    log = folder / "operations.txt"
    status = _child(words, folder / watched, Fault(-1), folder)
    assert status == 0, (folder / "said.txt").read_text()
    operations, expected = recorded(log), _hashes(folder / made)
    wrong, strikes = [], 0
    for at in range(0, len(operations), every):
        for kind in (KILL, TEAR) if operations[at][0] == "fsync" else (KILL,):
            strikes += 1
            shutil.rmtree(folder / watched, ignore_errors=True)
            struck = _child(words, folder / watched, Fault(at, kind), folder)
            stump = (folder / made).exists() and _hashes(folder / made) != _manifest(folder / made)
            again = _child(words, folder / watched, None, folder)
            left = [path.name for path in (folder / made).parent.glob("*.*") if path.suffix in (".partial", ".before")]
            if struck != -signal.SIGKILL or stump or again != 0 or left or _hashes(folder / made) != expected:
                wrong.append([at, kind, operations[at], struck, stump, again, left, (folder / "said.txt").read_text()])
    return {"kinds": sorted({kind for kind, _ in operations}), "strikes": strikes, "wrong": wrong}


def _hashes(folder: Path) -> dict[str, str]:
    from nstudent.storage.files import sha256_of

    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"}


def _manifest(folder: Path) -> dict[str, str]:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return {name: files[name]["sha256"] for name in sorted(files)}


def _child(words: list[str], watched: Path, fault: Fault | None, folder: Path) -> int:
    """Exit code of the command in a child; minus the signal that killed it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(said, descriptor)
        from nstudent import cli
        from nstudent.data.packing import shards

        shards.SHARD_BYTES = 12 * SIDE * SIDE * 3
        sys.argv = ["nstudent", *words]
        if fault is not None:
            Injector(watched, fault, folder / "operations.txt").install()
        cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
