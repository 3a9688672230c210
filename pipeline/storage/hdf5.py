"""HDF5 files that are written once and read by mapping.

A live HDF5 file does not survive kill -9, so none is ever open for writing on disk: a file is built in memory and
written in one piece. Its data sets are contiguous, which lets a reader map them instead of going through HDF5 for
every row: random rows are then 50 to 150 times faster than h5py's fancy indexing.
"""

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py._objects import phil
from nstudent.errors import ArtifactError, NstudentError, summary
from nstudent.storage.files import atomic_write
from nstudent.storage.hdf5_guard import HeapGuard

# Superblock 3: metadata with checksums, readable from HDF5 1.10 on.
_VERSION = ("v110", "v110")

# Limits on files of strangers; SECURITY.md lists them.
_MAX_COMPRESSION = 1032
"""As far as deflate can shrink anything."""
_MAX_UNMAPPED_BYTES = 1 << 30
"""Bytes of one file, for data that cannot be mapped and so has to be held in memory."""
_MAX_OBJECTS = 1_000
_MAX_DEPTH = 8
_MAX_ATTRIBUTES = 100
_MAX_ATTRIBUTE_BYTES = 16 << 20
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
"""Compressions that need no code from elsewhere."""

Array = npt.NDArray[Any]


def write(path: Path, arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> None:
    """Write contiguous data sets and the root's attributes as one new file."""
    atomic_write(path, encoded(arrays, attributes))


def encoded(arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> bytes:
    """The content of a file with contiguous data sets and attributes of the root."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=_VERSION) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs.update(attributes)
    return buffer.getvalue()


def write_joined(path: Path, parts: list[Path], attributes: Mapping[str, Any]) -> None:
    """Write a file of virtual data sets that shows ``parts``, which lie in the same folder, end to end."""
    pieces: dict[str, list[tuple[str, h5py.h5s.SpaceID, tuple[int, ...], Any]]] = {}
    for part in parts:
        with h5py.File(part, "r") as file:
            for name, item in _datasets(file).items():
                pieces.setdefault(name, []).append((part.name, item.id.get_space(), item.shape, item.dtype))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=_VERSION) as file:
        for name, sources in pieces.items():
            _create_joined(file, name, sources)
        file.attrs.update(attributes)
    atomic_write(path, buffer.getvalue())


def _create_joined(
    file: h5py.File, name: str, sources: list[tuple[str, h5py.h5s.SpaceID, tuple[int, ...], Any]]
) -> None:
    """One virtual data set. By h5py's low-level interface: the other one writes the time into the file."""
    rows = sum(shape[0] for _, _, shape, _ in sources)
    _, _, shape, dtype = sources[0]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_layout(h5py.h5d.VIRTUAL)
    space = h5py.h5s.create_simple((rows, *shape[1:]))
    at = 0
    for part, source, part_shape, _ in sources:
        space.select_hyperslab((at, *(0 for _ in shape[1:])), part_shape)
        properties.set_virtual(space, part.encode(), name.encode(), source)
        at += part_shape[0]
    space.select_all()
    if "/" in name:
        file.require_group(name.rpartition("/")[0])
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, dcpl=properties)


def attributes(path: Path) -> dict[str, Any]:
    """Attributes of the root of a file.

    Raises:
        ArtifactError: not an HDF5 file, or attributes that are too many, too large, or of a type nobody needs.
    """
    with _opened(path, texts=True) as file:
        if len(file.attrs) > _MAX_ATTRIBUTES:
            raise ArtifactError(f"{path} has {len(file.attrs):,} attributes, more than {_MAX_ATTRIBUTES}: refused")
        for name in file.attrs:
            _refuse_attribute(path, name, file.attrs.get_id(name))
        return dict(file.attrs)


def mapped(path: Path) -> dict[str, Array]:
    """Every data set of a file as a read-only array, mapped from disk where it is contiguous.

    Raises:
        ArtifactError: not an HDF5 file, or one that would read other files or claims more than it holds.
    """
    with _opened(path) as file:
        items = _datasets(file)
        for name, item in items.items():
            _refuse_foreign(path, name, item)
        # All are added up before the first is read.
        unmapped_bytes = sum(_read_bytes(item) for item in items.values() if not _can_be_mapped(item))
        if unmapped_bytes > _MAX_UNMAPPED_BYTES:
            raise ArtifactError(
                f"{path} would fill {unmapped_bytes:,} bytes of memory, more than {_MAX_UNMAPPED_BYTES:,}: "
                "refused; write its data sets contiguous and without compression"
            )
        # One map for the whole file: each map keeps a file open, and a store has hundreds of shards.
        content = np.memmap(path, np.uint8, "r")
        return {name: _array(content, item) for name, item in items.items()}


def _array(content: Array, item: h5py.Dataset) -> Array:
    if _can_be_mapped(item):
        first = item.id.get_offset()
        found: Array = content[first : first + _claimed_bytes(item)].view(item.dtype).reshape(item.shape)
        return found
    array = np.asarray(item[()])
    array.flags.writeable = False
    return array


def _can_be_mapped(item: h5py.Dataset) -> bool:
    """Contiguous, and its bytes on disk are those of the numpy array: HDF5 also knows integers of 12 bits in 16."""
    if item.id.get_offset() is None or math.prod(item.shape) == 0:
        return False
    return bool(item.id.get_type().equal(h5py.h5t.py_create(item.dtype, logical=True)))


@contextmanager
def _opened(path: Path, *, texts: bool = False) -> Iterator[h5py.File]:
    """Open for reading; whatever HDF5 stumbles over in a damaged or hostile file becomes one kind of error.

    Args:
        path: The file.
        texts: Texts of any length are read from it.
    """
    # A named pipe would keep us waiting for ever.
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    try:
        with HeapGuard(path) as guarded, _without_plugins(), h5py.File(guarded if texts else path, "r") as file:
            if file.id.get_create_plist().get_sizes() != (8, 8):
                raise ArtifactError(f"{path} has addresses or sizes of other than 8 bytes: refused")
            yield file
    except NstudentError:
        raise
    except Exception as error:
        # Damage makes h5py raise nearly anything: KeyError, RuntimeError, OverflowError, SystemError.
        said = summary(error)
        raise ArtifactError(f"{path} is not a readable HDF5 file: {said}") from error


@contextmanager
def _without_plugins() -> Iterator[None]:
    """HDF5 that loads no library for an unknown compression, whatever HDF5_PLUGIN_PATH says.

    The search paths belong to the whole process, so other threads are kept out of HDF5 meanwhile, by the lock that h5py
    takes for every call of its own except these (h5py 3.16): without it, HDF5 that writes in another thread crashes.
    """
    plugins = h5py.h5pl
    with phil:
        paths = [plugins.get(i) for i in range(plugins.size())]
        for _ in paths:
            plugins.remove(0)
        try:
            yield
        finally:
            for path in paths:
                plugins.append(path)


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    # A group can contain itself.
    waiting: list[tuple[h5py.Group, str]] = [(file, "")]
    seen = set()
    num_objects = 0
    while waiting:
        group, prefix = waiting.pop()
        if group.id in seen:
            raise ArtifactError(f"{file.filename}: the group '{prefix}' stands twice in the file: refused")
        seen.add(group.id)
        num_objects += len(group)
        if num_objects > _MAX_OBJECTS or prefix.count("/") > _MAX_DEPTH:
            raise ArtifactError(
                f"{file.filename} holds more than {_MAX_OBJECTS} objects or {_MAX_DEPTH} levels of groups: refused"
            )
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ArtifactError(f"{file.filename}: '{prefix}{name}' is a link out of the file: refused")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append((item, f"{prefix}{name}/"))
            elif isinstance(item, h5py.Dataset):
                found[f"{prefix}{name}"] = item
            else:
                raise ArtifactError(f"{file.filename}: '{prefix}{name}' is neither a data set nor a group: refused")
    return dict(sorted(found.items()))


def _refuse_foreign(path: Path, name: str, item: h5py.Dataset) -> None:
    if item.external or item.is_virtual:
        raise ArtifactError(f"{path}: '{name}' keeps its data in another file: refused")
    if item.shape is None:
        raise ArtifactError(f"{path}: '{name}' is no array: refused")
    if item.dtype.hasobject:
        raise ArtifactError(f"{path}: '{name}' has a type that cannot be mapped: refused")
    properties = item.id.get_create_plist()
    if not {properties.get_filter(i)[0] for i in range(properties.get_nfilters())} <= _FILTERS:
        raise ArtifactError(f"{path}: '{name}' is compressed in a way that needs a plug-in: refused")
    # Compression may shrink a chunked data set, by no more than deflate can.
    most = item.id.get_storage_size() * (1 if item.chunks is None else _MAX_COMPRESSION)
    claimed = _claimed_bytes(item)
    if most < claimed:
        raise ArtifactError(f"{path}: '{name}' claims {claimed:,} bytes and holds fewer: refused")


def _refuse_attribute(path: Path, name: str, attribute: h5py.h5a.AttrID) -> None:
    elements = math.prod(attribute.shape)
    objects = attribute.dtype.hasobject
    if objects and h5py.check_string_dtype(attribute.dtype) is None:
        raise ArtifactError(f"{path}: the attribute '{name}' is neither text nor numbers: refused")
    # Strings lie in a heap, and all of them may be the same long one.
    largest = elements * path.stat().st_size if objects and elements > 1 else attribute.get_storage_size()
    if largest > (_MAX_UNMAPPED_BYTES if objects else _MAX_ATTRIBUTE_BYTES):
        raise ArtifactError(f"{path}: the attribute '{name}' is larger than {_MAX_ATTRIBUTE_BYTES:,} bytes: refused")


def _claimed_bytes(item: h5py.Dataset) -> int:
    # Not item.nbytes: that wraps round at 64 bits.
    return int(math.prod(item.shape)) * int(item.dtype.itemsize)


def _read_bytes(item: h5py.Dataset) -> int:
    """Memory that reading takes: of the array, or of one chunk where that is larger."""
    chunk: tuple[int, ...] | None = item.chunks
    return max(_claimed_bytes(item), math.prod(chunk) * int(item.dtype.itemsize) if chunk else 0)
