"""A folder whose tree is the taxonomy: ``root/coarse/mid/fine/x.jpg``; the depth of an image is the depth of its label.

``root/train``, ``root/val`` and the like, in any usual spelling, give the division where ``root`` holds them and
nothing else but images and ``root/unlabelled``; images directly under ``root`` have no label.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nstudent.config.schema import DataConfig
from nstudent.data.sources.kinds import IMAGE_SUFFIXES, suffix_of
from nstudent.data.sources.listing import Listing, PassedOver, list_folder, summary_of
from nstudent.data.sources.seen import Seen, seen_files
from nstudent.data.sources.source import (
    SPLITS,
    Catalogue,
    Label,
    Record,
    Split,
    existing,
    levels_of,
    printable,
    read_file,
)
from nstudent.data.sources.splits import all_say_splits, ambiguous_split, paired, says_split, split_in, split_named
from nstudent.errors import DataError
from nstudent.taxonomy.reading import ABSENT_ENTRY, UNKNOWN_ENTRY, is_name
from nstudent.taxonomy.spelling import spelled

_TO_CLASSES = "data.split_folders=none makes classes of all of them"


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
        tree = _Tree(listings[0], self._config.split_folders == "auto")
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
        notes = [] if self._config.levels else [f"data.levels=[{', '.join(levels)}], by the depth of the class folders"]
        return Catalogue(records, levels, passed_over, (*notes, *tree.notes()))

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        root, name = self._files[index]
        return read_file(root / name, root)

    def _listings(self) -> list[Listing]:
        """Of the root, without the heap where that lies within, and of the heap, likewise."""
        if self._heap is None:
            return [list_folder(self._root)]
        return [list_folder(self._root, [self._heap]), list_folder(self._heap, [self._root])]

    def _levels(self, tree: "_Tree") -> tuple[str, ...]:
        deepest, name = tree.deepest()
        named = self._config.levels
        if named is not None and deepest > len(named):
            raise DataError(f"{printable(name)} lies {deepest} folders deep, but data.levels names {len(named)}")
        if not deepest and named is None:
            raise DataError(
                f"{printable(self._root)} holds no image in a class folder: put them in {self._root}/class/image.jpg"
            )
        return levels_of(named, deepest, f"{printable(name)} lies {deepest} folders deep, and the tree")


class _Tree:
    """The images of a listing, sorted into splits and classes by the names of their folders."""

    def __init__(self, listing: Listing, look_for_splits: bool) -> None:
        self._listing = listing
        self._auto = look_for_splits
        tops = dict.fromkeys(name.partition("/")[0] for name in listing.images if "/" in name)
        tops |= dict.fromkeys(name for name in listing.folders if "/" not in name and says_split(name))
        self._tops = list(tops)
        self._splits: dict[str, Split] = self._found_splits() if look_for_splits else {}

    def images(self) -> Iterator[tuple[str, list[str], Split | None]]:
        """(path, folders of classes, split) of each image, split by split."""
        of_split: dict[Split | None, list[str]] = {split: [] for split in (None, *SPLITS)}
        for name in self._listing.images:
            top, below, _ = name.partition("/")
            of_split[self._splits.get(top) if below else None].append(name)
        for split, names in of_split.items():
            for name in names:
                folders = name.split("/")[:-1]
                yield name, folders[1:] if split else folders, split

    def deepest(self) -> tuple[int, str]:
        """The greatest number of class folders above an image, and the path of the first such image."""
        deepest, first = 0, ""
        for name, folders, split in self.images():
            if split != "unlabelled" and len(folders) > deepest:
                deepest, first = len(folders), str(self._listing.root / name)
        return deepest, first

    def notes(self) -> list[str]:
        """A line about folders that are splits under another name than ours."""
        renamed = [f"{printable(top)} as {split}" for top, split in self._splits.items() if top != split]
        beside = [top for top in self._tops if top not in self._splits]
        if beside and self._splits:
            renamed = [f"{printable(top)} as {split}" for top, split in self._splits.items()]
        return [f"folders taken as splits: {', '.join(renamed)}"] if renamed else []

    def check(self) -> None:
        """Refuse what would be read wrong.

        Raises:
            DataError: A class folder is empty, has a name that no class can have, or is a split in a wrong place.
        """
        self._refuse_empty()
        classes: set[tuple[str, ...]] = set()
        for name, folders, split in self.images():
            if not folders and split in ("validation", "test"):
                raise DataError(
                    f"{printable(self._listing.root / name)} is for {split} and lies in no class folder: put it in "
                    "one, or rename its folder to unlabelled"
                )
            if split != "unlabelled":
                classes.add(tuple(folders))
        for folders_of_class in sorted(classes):
            self._check_names(folders_of_class)
        if self._auto:
            self._refuse_inner_splits(classes)

    def _refuse_empty(self) -> None:
        # Beside folders of splits there may be others, such as those of annotations.
        in_splits = any(split != "unlabelled" for split in self._splits.values())
        for name in self._listing.empty_folders():
            top = name.partition("/")[0]
            if self._splits.get(top) == "unlabelled" or (in_splits and top not in self._splits):
                continue
            inside = [each for each in self._listing.passed_over if each.name.startswith(f"{name}/")]
            held = f" (not taken there: {printable(summary_of(inside))})" if inside else ""
            path = printable(self._listing.root / name)
            what = "folder" if name in self._splits else "class folder"
            raise DataError(f"the {what} {path} holds no image{held}: fill it or remove it")

    def _check_names(self, folders: Iterable[str]) -> None:
        for folder in folders:
            said = f"the class folder '{printable(folder)}' in {printable(self._listing.root)}"
            if suffix_of(folder) in IMAGE_SUFFIXES:
                raise DataError(f"{said} is named like an image: rename it if it is a class, or remove it")
            if not is_name(spelled(folder)):
                raise DataError(f"{said} has a name that means absent or unknown: rename it")

    def _refuse_inner_splits(self, classes: Iterable[tuple[str, ...]]) -> None:
        """Splits below a class or below a further folder would become classes themselves."""
        names: dict[int, set[str]] = {}
        example: dict[int, str] = {}
        for folders in classes:
            for level, folder in enumerate(folders):
                if level or self._splits:
                    names.setdefault(level, set()).add(folder)
                    example.setdefault(level, "/".join(folders[: level + 1]))
        for level, found in names.items():
            said = found if all_say_splits(found) else paired(found)
            if said:
                listed = " and ".join(printable(name) for name in sorted(said)[:3])
                raise DataError(
                    f"{listed} below the top of {printable(self._listing.root)} (such as {printable(example[level])}) "
                    f"look like splits: move them to the top, or set data.root to the folder that holds them; "
                    f"{_TO_CLASSES}"
                )

    def _found_splits(self) -> dict[str, Split]:
        root = printable(self._listing.root)
        for top in self._tops:
            better = ambiguous_split(top)
            if better:
                raise DataError(
                    f"{printable(top)} in {root} looks like a split, and not which: rename it to {better}; "
                    f"{_TO_CLASSES}"
                )
        pair = paired(self._tops)
        if pair:
            raise DataError(
                f"{printable(pair[0])} and {printable(pair[1])} in {root} look like splits: rename them to "
                f"{split_in(pair[0])} and {split_in(pair[1])}; {_TO_CLASSES}"
            )
        splits = {top: split for top in self._tops if (split := split_named(top)) is not None}
        beside = [top for top in self._tops if top not in splits]
        if beside and set(splits.values()) - {"unlabelled"}:
            taken = next(top for top, split in splits.items() if split != "unlabelled")
            raise DataError(
                f"{printable(beside[0])} lies beside the split folders of {root}, for {printable(taken)} was taken for "
                f"a split: move {printable(beside[0])} into one of them, or, if {printable(taken)} is a class as well, "
                "set data.split_folders=none"
            )
        for top, split in splits.items():
            twin = next((other for other in splits if splits[other] == split and other != top), None)
            if twin is not None:
                raise DataError(
                    f"{printable(top)} and {printable(twin)} in {root} both say {split}: make them one folder; "
                    f"{_TO_CLASSES}"
                )
        return splits


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
