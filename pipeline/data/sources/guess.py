"""Which source somebody's folder or file is: the keys of `data` that a person would have to write."""

from pathlib import Path
from typing import Any

from nstudent.data.sources.idx import number_of_classes
from nstudent.data.sources.listing import list_folder
from nstudent.data.sources.source import printable
from nstudent.data.sources.table_columns import column_keys
from nstudent.errors import DataError

_TABLES = (".csv",)
_HDF5 = b"\x89HDF\r\n\x1a\n"
"""The first bytes of every HDF5 file, whatever it is called."""
_PACK = ("manifest.json", "records.h5", "info.json")
_IDX = "*-idx[13]-ubyte*"


def guess(photos: Path, heap: Path | None) -> dict[str, Any]:
    """The keys of `data` for images at ``photos``, and for unlabelled ones in the folder ``heap``.

    Class folders come before a table that lies beside them; images that lie in a single folder, or in none, belong to
    the table.

    Raises:
        DataError: There is nothing at the path, or it is not clear what it is; the message says what would be.
    """
    if photos.is_file():
        found = _of_file(photos)
    elif photos.is_dir():
        found = _of_folder(photos, heap)
    else:
        raise DataError(f"there is no folder or file {printable(photos)}: correct the path or mount the disk")
    if heap is None:
        return found
    if found["source"] not in ("folder", "csv"):
        raise DataError(f"{printable(photos)} has its own unlabelled images: leave {printable(heap)} out")
    return found | {"unlabelled_root": str(heap)}


def _of_file(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in _TABLES:
        return {"source": "csv", "root": str(path.parent), "table": path.name, **column_keys(path)}
    if _is_pack(path.parent) and path.name in _PACK:
        return {"source": "packed", "root": str(path.parent)}
    if path.match(_IDX):
        return _of_idx(path.parent)
    with open(path, "rb") as file:
        if file.read(len(_HDF5)) == _HDF5:
            return {"source": "hdf5", "root": str(path)}
    raise DataError(
        f"{printable(path)} is neither a CSV table nor an HDF5 file, nor of the MNIST family: name one, or a folder of "
        "images"
    )


def _of_idx(folder: Path) -> dict[str, Any]:
    """The numbers themselves are the names of the classes until somebody writes better ones."""
    return {"source": "idx", "root": str(folder), "class_paths": [str(i) for i in range(number_of_classes(folder))]}


def _is_pack(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _PACK)


def _of_folder(path: Path, heap: Path | None) -> dict[str, Any]:
    if _is_pack(path):
        return {"source": "packed", "root": str(path)}
    tables = sorted(each for each in path.iterdir() if each.suffix.lower() in _TABLES and each.is_file())
    images = list_folder(path, [heap] if heap is not None else []).images
    folders = {name.rpartition("/")[0] for name in images} - {""}
    if len(folders) > 1 or (folders and not tables):
        return {"source": "folder", "root": str(path)}
    if len(tables) == 1:
        return _of_file(tables[0])
    if tables:
        names = ", ".join(printable(each.name) for each in tables[:3])
        raise DataError(f"{printable(path)} holds several tables ({names}): name the one with the labels")
    if any(path.glob(_IDX)):
        return _of_idx(path)
    if images:
        raise DataError(
            f"the images in {printable(path)} lie in no class folder: move them to {printable(path)}/CLASS/image.jpg, "
            "or write a CSV table with their paths and classes (docs/DATA.md)"
        )
    raise DataError(f"there is no image in {printable(path)}: name the folder that holds a folder for each class")
