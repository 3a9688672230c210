"""The section `data`: everything a user can set about images and labels."""

import json
from typing import Annotated, Any, Literal

from nstudent.config.types import Amount, Bits, ImageSize, Later, MaxPixels, Section, Share, Whole
from nstudent.taxonomy.spelling import alike
from pydantic import Field, model_validator

USUAL_LEVELS = (("class",), ("coarse", "fine"), ("coarse", "mid", "fine"))
"""Names of the levels where nobody names them, by their number: one, two, three."""


class DataConfig(Section):
    """Where the images and labels come from, and how they are divided."""

    source: Literal["digits", "folder", "csv", "idx", "hdf5", "packed"] = "digits"
    """digits: scikit-learn's handwritten digits. The others: docs/DATA.md."""
    root: str | None = None
    """Folder of the images (folder, csv, idx, packed) or file (hdf5). Relative to where the run is started."""
    table: str | None = None
    """csv only: the table, relative to `root`. Columns: path, one per level (`levels`), and optionally split."""
    path_column: Annotated[str, Later("path")] = "path"
    """csv only: name of the column of the images' paths."""
    split_column: Annotated[str, Later("split")] = "split"
    """csv only: name of the column of the splits, which a table may lack."""
    unlabelled_root: str | None = None
    """folder and csv: a further folder whose images, at any depth, are all unlabelled."""
    levels: tuple[str, ...] | None = None
    """Names of the levels, coarse first. null: they follow from the data (depth of the class folders, columns of the
    table, lists of classes): [class], [coarse, fine] or [coarse, mid, fine]."""
    split_folders: Annotated[Literal["auto", "none"], Later("auto")] = "auto"
    """folder only. auto: folders at the top with the usual name of a split (train, val, Testing, unlabeled ...) are
    splits. none: they are classes."""
    allow_case: Annotated[bool, Later(False)] = False
    """Names of classes that differ in case (A, a) or width (Ａ, A) alone are classes of their own. false: they are an
    error."""
    taxonomy: dict[str, object] | str | None = None
    """A tree of class names, or the path of a YAML page with one. Inferred from the labels where it is not given."""
    class_paths: tuple[str, ...] | None = None
    """idx only: the label 'coarse/mid/fine' of each integer class; a shorter path ends there."""
    image_size: ImageSize = 32
    """Side of the square image that the networks see, in pixels. A page or a word may say auto: the largest multiple of
    32 at which the networks of the teacher need no more than teacher.max_gmacs."""
    storage: Literal["auto", "pixels", "jpeg", "original"] = "auto"
    """How the squares are kept: as they are, or as JPEG, in a third of the bytes or less. auto: pixels up to 8 GiB.
    original: not at all; whoever looks at an image decodes its original anew, which has to stay where it is."""
    jpeg_quality: Annotated[Whole, Field(ge=50, le=100)] = 95
    """JPEG quality of squares that are kept as JPEG."""
    labelled: Amount | Literal["all"] | None = None
    """Training images that keep their labels; the others join the heap. null: all, but 100 of the embedded digits."""
    unlabelled: Amount | None = None
    """Largest number of unlabelled images, or their share. null: all of them."""
    validation: Amount = 0.1
    """Images for choosing (classifiers, temperatures, when a filter stops), where the source has no such split."""
    test: Amount = 0.2
    """Images that are looked at once, at the end, where the source has no such split."""
    folds: Annotated[Whole, Field(ge=0, le=1000), Later(0)] = 0
    """Number of parts into which the labelled training images are divided, class by class, copies in one part; 0: none.
    They are written down with the data; `teacher.cross_fit` trains by them."""
    duplicates: Literal["error", "drop"] = "error"
    """The same image in train and in validation or test of the source's own split: stop, or drop the training one."""
    near_duplicates: Literal["drop", "report", "ignore"] = "drop"
    """A copy (encoded again, resized) of a validation or test image in train or the heap: leave it out, or list it."""
    near_duplicate_distance: Annotated[Whole, Field(ge=0, le=16)] = 4
    """Images whose perceptual hashes differ in at most so many of 64 bits are compared pixel by pixel."""
    conflicting_labels: Literal["error", "drop"] = "error"
    """The same image under two labels: stop, or leave out those of train."""
    max_bad_share: Share = 0.001
    """More than this share of unreadable images, if they are also more than `max_bad_images`, stops the run. They are
    listed and left out in any case."""
    max_bad_images: Annotated[Whole, Field(ge=0), Later(5)] = 5
    """Number of unreadable images that stop no run, whatever share of all images they are."""
    max_pixels: MaxPixels = 64_000_000
    """Larger images are refused from their header, before they are decoded (178 million is Pillow's own limit)."""
    bits: Annotated[Bits | None, Later(None)] = None
    """Depth of images whose files have more than 8 bits and do not say how many of them are used: the 12 of a camera in
    16-bit TIFF, say. null: all 16; an image that leaves the upper three quarters of that range empty is refused."""
    label_noise: Share = 0.0
    """For studies: this share of the labels is replaced by another, and the truth kept for scoring."""

    @property
    def labelled_amount(self) -> float | None:
        """``labelled`` with its default filled in; ``None``: all."""
        if self.labelled is None:
            return 100 if self.source == "digits" else None
        return None if self.labelled == "all" else self.labelled

    @property
    def known_levels(self) -> tuple[str, ...] | None:
        """Names of the levels as far as the configuration alone says them; ``None``: they follow from the data."""
        if self.levels is None and self.source == "digits":
            return USUAL_LEVELS[2]
        return self.levels

    @model_validator(mode="before")
    @classmethod
    def _clear_amounts(cls, given: Any) -> Any:
        for key in ("labelled", "unlabelled", "validation", "test"):
            if isinstance(given, dict) and type(given.get(key)) is float and given[key] == 1.0:
                raise ValueError(
                    f"data.{key} is 1.0, which could mean all or one: write 1 for one image, or a share below 1"
                )
        return given

    @model_validator(mode="after")
    def _complete(self) -> "DataConfig":
        for key in ("levels", "class_paths", "taxonomy"):
            if not _is_text(getattr(self, key)):
                raise ValueError(f"data.{key} holds a name that is no text in UTF-8: rename it")
        if self.folds == 1:
            raise ValueError("data.folds is 1: write 0 for none, or 2 and more")
        if self.source != "digits" and self.root is None:
            raise ValueError(f"data.source {self.source} needs data.root, the path of its files")
        if self.source == "csv" and self.table is None:
            raise ValueError("data.source csv needs data.table, the table's path below data.root")
        if self.source == "idx" and self.class_paths is None:
            raise ValueError("data.source idx needs data.class_paths, one 'coarse/mid/fine' per integer class")
        if self.levels is not None and not 0 < len(self.levels) == len({*map(alike, self.levels)} - {""}):
            raise ValueError("data.levels needs at least one name, each once and none of them empty")
        return self


def _is_text(value: Any) -> bool:
    """Whether names can be written to a file: arguments of a command may hold bytes that are no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
