"""A folder whose tree is the taxonomy: ``root/coarse/mid/fine/x.jpg``; the depth of an image is the depth of its label.

``root/train``, ``root/val`` and the like, in any usual spelling, give the division where ``root`` holds them and
nothing else but images and ``root/unlabelled``; images directly under ``root`` have no label.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nstudent.config.schema import DataConfig
from nstudent.data.sources.folder_tree import FolderTree
from nstudent.data.sources.listing import Listing, PassedOver, list_folder
from nstudent.data.sources.seen import Seen, seen_files
from nstudent.data.sources.source import (
    Catalogue,
    Label,
    Record,
    existing,
    levels_of,
    printable,
    read_file,
)
from nstudent.data.sources.splits import says_split, split_in, split_named
from nstudent.errors import DataError
from nstudent.taxonomy.reading import ABSENT_ENTRY, UNKNOWN_ENTRY


class Folder:
    """Images in a tree of folders."""

    encoded = True

    def __init__(self, root: Path, unlabelled_root: Path | None, config: DataConfig) -> None:
        self._root = root
        self._heap = unlabelled_root
        self._config = config
        self._files: list[tuple[Path, str]] = []

    def seen(self) -> Seen:
        """Names, sizes and times of change of all images."""
        return seen_files(*((listing.root, listing.images) for listing in self._listings()))

    def catalogue(self) -> Catalogue:
        """Every image, with the label its folders spell.

        Raises:
            DataError: There is no image, a class folder is empty, a folder is a link, or it is not clear which folders
                are splits.
        """
        listings = self._listings()
        for listing in listings:
            listing.refuse_linked_folders()
        tree = FolderTree(listings[0], self._config.split_folders == "auto")
        tree.check()
        levels = self._levels(tree)
        records = [
            Record(name, _padded(folders, len(levels), split != "unlabelled"), split)
            for name, folders, split in tree.images()
        ]
        for heap in listings[1:]:
            records += heap_records(heap, len(levels))
        self._files = [(self._root, name) for name, _, _ in tree.images()]
        self._files += [(heap.root, name) for heap in listings[1:] for name in heap.images]
        if not records:
            raise DataError(f"{printable(self._root)} holds no image: put them in {self._root}/class/…/image.jpg")
        passed_over = (*listings[0].passed_over, *(each for heap in listings[1:] for each in passed_over_in_heap(heap)))
        notes = [] if self._config.levels else tree.notes_on_levels(levels)
        return Catalogue(records, levels, passed_over, (*notes, *tree.notes()))

    def may_have_heap(self) -> bool:
        """Whether a folder at the top says so, or a file lies in no folder of a class."""
        with suppress(OSError):
            tops = [entry for entry in os.scandir(self._root) if not entry.name.startswith(".")]
            splits = [entry for entry in tops if not entry.is_file() and self._may_be_split(entry.name)]
            if any(split_named(entry.name) == "unlabelled" for entry in splits):
                return True
            inside = [entry for split in splits for entry in os.scandir(split.path)]
            return any(entry.is_file() and not entry.name.startswith(".") for entry in (*tops, *inside))
        return True

    def _may_be_split(self, name: str) -> bool:
        return self._config.split_folders == "auto" and (says_split(name) or split_in(name) is not None)

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        root, name = self._files[index]
        return read_file(root / name, root)

    def _listings(self) -> list[Listing]:
        """Listings of the root, without the heap where that lies within, and of the heap, likewise."""
        if self._heap is None:
            return [list_folder(self._root)]
        return [list_folder(self._root, [self._heap]), list_folder(self._heap, [self._root])]

    def _levels(self, tree: FolderTree) -> tuple[str, ...]:
        deepest, name = tree.deepest()
        named = self._config.levels
        if named is not None and deepest > len(named):
            raise DataError(f"{printable(name)} lies {deepest} folders deep, but data.levels names {len(named)}")
        if not deepest and named is None:
            raise DataError(
                f"{printable(self._root)} holds no image in a class folder: put them in {self._root}/class/image.jpg"
            )
        levels = levels_of(named, deepest, f"{printable(name)} lies {deepest} folders deep, and the tree")
        if named is None:
            tree.refuse_crossed(levels)
        return levels


def heap_records(listing: Listing, num_levels: int) -> Iterator[Record]:
    """Records of a folder of unlabelled images."""
    unknown = (UNKNOWN_ENTRY,) * num_levels
    yield from (Record(f"unlabelled:{name}", unknown, "unlabelled") for name in listing.images)


def passed_over_in_heap(listing: Listing) -> tuple[PassedOver, ...]:
    """What was not taken of a folder of unlabelled images, named as its images are."""
    return tuple(replace(each, name=f"unlabelled:{each.name}") for each in listing.passed_over)


def _padded(folders: list[str], num_levels: int, labelled: bool) -> Label:
    if not labelled or not folders:
        return (UNKNOWN_ENTRY,) * num_levels
    return (*folders, *(ABSENT_ENTRY,) * (num_levels - len(folders)))


def open_source(config: DataConfig) -> Folder:
    """Check that the folders are there."""
    root = existing(config.root, "data.root", folder=True)
    more = config.unlabelled_root
    unlabelled = existing(more, "data.unlabelled_root", folder=True) if more is not None else None
    refuse_same(root, unlabelled)
    return Folder(root, unlabelled, config)


def refuse_same(root: Path, unlabelled_root: Path | None) -> None:
    """Refuse a heap that is the folder of the labelled images itself.

    Raises:
        DataError: It is.
    """
    if unlabelled_root is not None and unlabelled_root.samefile(root):
        raise DataError(
            "data.unlabelled_root is data.root itself: name the folder of the unlabelled images, or leave it out"
        )
