"""Folders as splits and classes, and what among them would be read wrong."""

from collections import Counter
from collections.abc import Iterable, Iterator

from nstudent.data.sources.kinds import IMAGE_SUFFIXES, suffix_of
from nstudent.data.sources.listing import Listing, summary_of
from nstudent.data.sources.source import SPLITS, Split, printable
from nstudent.data.sources.splits import all_say_splits, ambiguous_split, paired, says_split, split_in, split_named
from nstudent.errors import DataError
from nstudent.taxonomy.reading import is_name
from nstudent.taxonomy.spelling import spelled

_TO_CLASSES = "data.split_folders=none makes classes of all of them"


class FolderTree:
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

    def refuse_crossed(self, levels: tuple[str, ...]) -> None:
        """Refuse a tree in which each folder at the top holds the same folders, as folds and cameras do.

        Raises:
            DataError: It is one.
        """
        inside: dict[str, set[str]] = {}
        for _, folders, split in self.images():
            if folders and split != "unlabelled":
                inside.setdefault(folders[0], set()).update(map(spelled, folders[1:2]))
        found = list(inside.values())
        if len(found) > 1 and len(found[0]) > 1 and all(names == found[0] for names in found):
            one, other = list(inside)[:2]
            raise DataError(
                f"{printable(one)}, {printable(other)} and all others at the top hold the same folders: if they are "
                f"classes, write data.levels=[{', '.join(levels)}]; if not, make one folder of each class"
            )

    def notes_on_levels(self, levels: tuple[str, ...]) -> list[str]:
        """A line about levels that follow from the folders, with what may be odd about these."""
        depths = Counter(len(folders) for _, folders, split in self.images() if split != "unlabelled" and folders)
        tops = {folders[0] for _, folders, split in self.images() if split != "unlabelled" and folders}
        said = f"data.levels=[{', '.join(levels)}], by the depth of the class folders"
        ending = sum(depths.values()) - depths[len(levels)]
        if ending:
            said += f"; {ending:,} of {sum(depths.values()):,} images lie above the deepest"
        if len(levels) > 1 and len(tops) == 1:
            said += f"; all lie in '{printable(min(tops))}', which should go if it is no class"
        return [said]

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
