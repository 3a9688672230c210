"""Settings of the labels that are made for the heap."""

from typing import Annotated, Literal

from nstudent.config.types import Count, Number, Section, Share
from pydantic import Field


class PseudolabelConfig(Section):
    """How the heap is labelled."""

    threshold: tuple[Share, ...] | Share = 0.0
    """A level is kept where its probability, and that of those above, reaches this. One number, or one a level. 0: all
    of them; the images that a threshold leaves out are the hard ones, and soft targets say how doubtful they are."""
    balance: bool = False
    """Bring every class to the same number of images among those whose label ends at its level, by dropping the least
    sure and copying."""
    images_per_class: Count | None = None
    """What `balance` aims at; null: the mean over the classes of a level."""
    confidence_floor: Share = 0.3
    """`balance` takes no image below this confidence, even where a class is short of images. A lower `threshold` is the
    floor in its place."""
    max_copies: Annotated[Number, Field(ge=1)] = 4.0
    """`balance` shows an image at most so many times an epoch."""
    targets: Literal["soft", "under_path", "hard"] = "soft"
    """What a student learns of a kept level. soft: the labeller's distribution; under_path: what of it lies below the
    class that is kept one level above, made one again; hard: the class on the label's path."""
    top_k: Count | None = None
    """Classes a level whose probabilities are stored; the others share what is left. null: all of up to 256, or 64."""
    shard_rows: Count = 65_536
    """Images a file of the store."""
    batch_size: Count | None = None
    """Largest number of images labelled at once; null: by their size and the device. Labels change by rounding."""
