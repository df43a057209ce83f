"""Pictures that belong to a record: results/<scale>/pictures/<notebook>--<key>--<name>.png, rows of equal tiles.

A record holds numbers. What generated pictures look like is kept beside it, small and without loss, so that a figure of
samples is a function of files that a run left, too.
"""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from feddiff.data.images import to_uint8
from feddiff.experiments import files, scales
from feddiff.experiments.records import Run

_NAME = re.compile(r"[a-z][a-z0-9_]*")
# The entry of the PNG that says how the tiles lie.
_LAYOUT = "feddiff tiles"


def path_of(notebook: str, scale: str, key: str, name: str) -> Path:
    """Return where the pictures `name` of one run lie."""
    return scales.records_folder(scale).parent / "pictures" / f"{notebook}--{key}--{name}.png"


def save(run: Run, name: str, rows: Mapping[str, torch.Tensor]) -> Path:
    """Write rows of pictures, label -> float (n, c, h, w) in [-1, 1] (clamped), atomically, and return the path.

    Every row has the same number of pictures of one shape with 1 or 3 channels. ValueError otherwise.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r} of pictures must be lower case words joined by underscores")
    shapes = {label: tuple(images.shape) for label, images in rows.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"rows of pictures must have one shape (n, c, h, w), got {shapes or 'no row'}")
    n, channels, height, width = next(iter(shapes.values()))
    if channels not in (1, 3) or n < 1:
        raise ValueError(f"pictures must have 1 or 3 channels, and a row at least one, got {n} of {channels} channels")
    tiles = np.stack([to_uint8(images) for images in rows.values()])
    sheet = tiles.transpose(0, 2, 1, 3, 4).reshape(len(rows) * height, n * width, channels)
    layout = PngImagePlugin.PngInfo()
    layout.add_text(_LAYOUT, json.dumps({"rows": list(rows), "tiles": [n, height, width, channels]}))
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "PNG", pnginfo=layout)
    return files.write_bytes(path_of(run.notebook, run.scale, run.key, name), buffer.getvalue())


def load(notebook: str, scale: str, key: str, name: str) -> dict[str, np.ndarray]:
    """Return label -> uint8 (n, h, w, c) as `save` wrote them; FileNotFoundError, or ValueError for a foreign file."""
    path = path_of(notebook, scale, key, name)
    with Image.open(path) as picture:
        text = getattr(picture, "text", {}).get(_LAYOUT)
        if text is None:
            raise ValueError(f"{path.name} was not written by this library; delete it and run its notebook again")
        layout, sheet = json.loads(text), np.asarray(picture)
    n, height, width, channels = layout["tiles"]
    tiles = sheet.reshape(len(layout["rows"]), height, n, width, channels).transpose(0, 2, 1, 3, 4)
    return dict(zip(layout["rows"], tiles, strict=True))
