"""What of a source is not used, and why: one line for a person, and ``left_out.json`` with every file and image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nstudent.data.sources.listing import PassedOver, summary_of
from nstudent.data.sources.source import Catalogue, Record, printable
from nstudent.progress import Progress
from nstudent.storage.files import write_json

LEFT_OUT = "left_out.json"


def announce(found: Catalogue, progress: Progress) -> None:
    """Say how a source was understood, and in one line which files of it were not taken."""
    for note in found.notes:
        progress.say(f"  {note}")
    if found.passed_over:
        progress.say(f"  files not taken: {summary_of(found.passed_over)}; each is listed in {LEFT_OUT}")


def write_left_out(
    folder: Path, records: Sequence[Record], reasons: Mapping[int, str], passed_over: Sequence[PassedOver] = ()
) -> None:
    """Write ``left_out.json``: images that are not used, by id, and then files that were not taken.

    Args:
        folder: Where to.
        records: Every image.
        reasons: Why some are not used, by their place in ``records``.
        passed_over: Files that are no images of the source.
    """
    images = [{"name": printable(records[i].name), "reason": reasons[i]} for i in sorted(reasons)]
    files: list[dict[str, object]] = []
    for each in passed_over:
        entry: dict[str, object] = {"name": printable(each.name), "reason": f"not taken: {printable(each.reason)}"}
        files.append(entry if each.files == 1 else entry | {"files": each.files})
    write_json(folder / LEFT_OUT, [*images, *files])
