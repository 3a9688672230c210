"""Pictures of a run's images for contact sheets: small, and inside the page."""

from __future__ import annotations

import base64
import io
from functools import cached_property
from pathlib import Path

import numpy as np
from nstudent.config.data import DataConfig
from nstudent.data.dataset import PIXELS, PixelStore
from nstudent.errors import ArtifactError, ConfigError, DataError
from nstudent.storage.artifact import Artifact
from nstudent.storage.hdf5 import mapped
from PIL import Image

_QUALITY = 82


class Pictures:
    """The images of a data step as small pictures, by id."""

    def __init__(self, artifact: Artifact, data: DataConfig, side_px: int) -> None:
        """``side_px``: the longer side of a picture; smaller images stay as they are."""
        self._artifact = artifact
        self._side = side_px
        self._store = PixelStore([artifact.folder / name for name in artifact.matching(PIXELS)], data)
        self._made: dict[int, str | None] = {}
        self.missing = ""
        """Why some pictures are not there; empty if all are."""

    def uri(self, image: int) -> str | None:
        """A picture as the address of an image that lies in the page; ``None`` if it cannot be read."""
        if image not in self._made:
            self._made[image] = self._uri(image)
        return self._made[image]

    def _uri(self, image: int) -> str | None:
        try:
            # A report needs few of the shards: only those are hashed.
            self._artifact.path(self._shard(image))
            (pixels,) = self._store[np.array([image])]
        except (ArtifactError, ConfigError, DataError) as error:
            self.missing = self.missing or str(error)
            return None
        picture = Image.fromarray(pixels)
        picture.thumbnail((self._side, self._side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def _shard(self, image: int) -> str:
        names = self._artifact.matching(PIXELS)
        return names[min(image // self._rows, len(names) - 1)]

    @cached_property
    def _rows(self) -> int:
        """Number of images of every shard but the last."""
        first: Path = self._artifact.folder / self._artifact.matching(PIXELS)[0]
        return max(1, len(mapped(first)["digest"]))
