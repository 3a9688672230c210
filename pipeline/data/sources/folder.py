"""A folder whose tree is the taxonomy: ``root/coarse/mid/fine/x.jpg``; the depth of an image is the depth of its label.

``root/train``, ``root/validation``, ``root/test`` and ``root/unlabelled`` give the division where ``root`` holds them;
images directly under ``root`` have no label.
"""

from collections.abc import Iterator
from pathlib import Path

from nstudent.config.schema import DataConfig
from nstudent.data.sources.source import (
    SPLITS,
    Record,
    Split,
    existing,
    images_below,
    printable,
    read_file,
    refuse_linked_folders,
    stamp_files,
)
from nstudent.errors import DataError
from nstudent.taxonomy.reading import ABSENT_ENTRY, UNKNOWN_ENTRY


class Folder:
    """Images in a tree of folders."""

    encoded = True

    def __init__(self, root: Path, unlabelled_root: Path | None, num_levels: int) -> None:
        self._root = root
        self._unlabelled_root = unlabelled_root
        self._num_levels = num_levels
        self._files: list[Path] = []

    def stamp(self) -> str:
        """Names, sizes and times of change of all images."""
        stamps = [stamp_files(root, images_below(root)) for root in self._roots()]
        return " ".join(stamps)

    def records(self) -> list[Record]:
        """Every image, with the label its folders spell.

        Raises:
            DataError: There is no image, a class folder is empty, or a folder is a link.
        """
        records = list(self._labelled())
        if self._unlabelled_root is not None:
            unknown = (UNKNOWN_ENTRY,) * self._num_levels
            refuse_linked_folders(self._unlabelled_root)
            for path in images_below(self._unlabelled_root):
                self._files.append(path)
                name = f"unlabelled:{path.relative_to(self._unlabelled_root).as_posix()}"
                records.append(Record(name, unknown, "unlabelled"))
        if not records:
            raise DataError(f"{printable(self._root)} holds no image: put them in {self._root}/class/…/image.jpg")
        return records

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        path = self._files[index]
        return read_file(path, next(root for root in self._roots() if path.is_relative_to(root)))

    def _roots(self) -> Iterator[Path]:
        yield self._root
        if self._unlabelled_root is not None:
            yield self._unlabelled_root

    def _labelled(self) -> Iterator[Record]:
        refuse_linked_folders(self._root)
        splits = {split: self._root / split for split in SPLITS if (self._root / split).is_dir()}
        if not splits:
            self._check_empty(self._root)
            yield from self._below(self._root, None)
        stray = sorted(path for path in self._root.iterdir() if path.is_dir() and path.name not in SPLITS)
        stray = [path for path in stray if splits and images_below(path)]
        if stray:
            raise DataError(
                f"{printable(stray[0])} lies beside the split folders of {printable(self._root)}: "
                "move it into one of them"
            )
        for split, root in splits.items():
            if split != "unlabelled":
                self._check_empty(root)
            yield from self._below(root, split)

    def _below(self, root: Path, split: Split | None) -> Iterator[Record]:
        for path in images_below(root):
            folders = path.relative_to(root).parts[:-1]
            if split == "unlabelled" or not folders:
                label = (UNKNOWN_ENTRY,) * self._num_levels
            elif len(folders) > self._num_levels:
                raise DataError(
                    f"{printable(path)} lies {len(folders)} folders deep, but data.levels names {self._num_levels}"
                )
            else:
                label = (*folders, *(ABSENT_ENTRY,) * (self._num_levels - len(folders)))
            self._files.append(path)
            yield Record(path.relative_to(self._root).as_posix(), label, split)

    def _check_empty(self, root: Path) -> None:
        occupied = {folder for path in images_below(root) for folder in path.relative_to(root).parents}
        for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
            hidden = any(part.startswith(".") for part in folder.relative_to(root).parts)
            if folder.relative_to(root) not in occupied and not hidden:
                raise DataError(f"the class folder {printable(folder)} holds no image: fill it or remove it")


def open_source(config: DataConfig) -> Folder:
    """Check that the folders are there."""
    root = existing(config.root, "data.root", folder=True)
    more = config.unlabelled_root
    unlabelled = existing(more, "data.unlabelled_root", folder=True) if more is not None else None
    return Folder(root, unlabelled, len(config.levels))
