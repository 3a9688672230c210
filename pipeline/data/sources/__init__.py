"""Where images and labels come from. A source is read once, into the packed data set; nothing opens it again, unless
its images are not to be kept (``data.storage=original``).

Light to import: ``status`` and ``--dry-run`` ask a source for its stamp without decoding an image.
"""

import importlib

from nstudent.config.schema import DataConfig
from nstudent.data.sources.class_names import spelled_alike
from nstudent.data.sources.seen import Seen
from nstudent.data.sources.source import Catalogue, KnowsHeap, Record, Source

__all__ = ["NO_HEAP", "Catalogue", "Record", "Source", "catalogue_of", "may_have_heap", "open_source", "source_seen"]

NO_HEAP = (
    "there are no unlabelled images to learn from: give data.unlabelled_root, lower data.labelled, "
    "or set rounds=0 to train a teacher alone"
)
"""What a run with rounds says of a source without unlabelled images."""


def open_source(config: DataConfig) -> Source:
    """The source that the configuration names.

    Raises:
        DataError: its files are not there.
    """
    module = importlib.import_module(f"nstudent.data.sources.{config.source}")
    source: Source = module.open_source(config)
    return source


def catalogue_of(source: Source, config: DataConfig) -> Catalogue:
    """What a source holds, each name of a class in its one spelling, whichever source it is.

    Raises:
        DataError: What it holds cannot be read, or names of classes differ in case alone.
    """
    return spelled_alike(source.catalogue(), allow_case=config.allow_case)


def may_have_heap(config: DataConfig) -> bool:
    """Whether a source may give unlabelled images, as far as that is known without listing it; ``False`` is certain.

    Raises:
        DataError: its files are not there.
    """
    if config.unlabelled_root is not None or config.labelled_amount is not None:
        return True
    source = open_source(config)
    return source.may_have_heap() if isinstance(source, KnowsHeap) else True


def source_seen(config: DataConfig) -> Seen:
    """What the source looks like on disk now: another stamp if the data may have changed.

    Raises:
        DataError: its files are not there.
    """
    return open_source(config).seen()
