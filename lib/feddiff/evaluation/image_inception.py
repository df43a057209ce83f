"""Features of Inception-v3 as torchvision has it, from a file of weights that is at hand; nothing is downloaded.

Published FIDs mostly use another Inception: the TensorFlow network of 2015 with its own pooling and resizing. Values
under the two are not comparable, so the name of these features says which they are, down to the file.
"""

import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import inception_v3

from feddiff.data.download import digest
from feddiff.evaluation.image_classifier import pictures

PATTERN = "inception_v3*.pth"
SIDE = 299
CHUNK = 32


@dataclass(frozen=True, eq=False)
class Inception:
    """Inception-v3 without its last layer: 2,048 features after the average pooling (Szegedy et al., 2016)."""

    network: nn.Module
    name: str
    dimension: int = 2048

    def features(self, images: torch.Tensor | np.ndarray) -> np.ndarray:
        """Return the features of pictures in [-1, 1] (n, 1 or 3, h, w), float64 (n, 2048), >= 0.

        Pictures are resized to 299 x 299 (bilinear, antialiased); grey ones fill the three channels.
        """
        images = pictures(images, "pictures")
        if images.shape[1] not in (1, 3):
            raise ValueError(f"Inception reads pictures of 1 or 3 channels, got {images.shape[1]}")
        device = self.network.Conv2d_1a_3x3.conv.weight.device
        parts = []
        with torch.inference_mode():
            for portion in images.split(CHUNK):
                sized = nn.functional.interpolate(portion.to(device), (SIDE, SIDE), mode="bilinear", antialias=True)
                parts.append(self.network(sized.expand(-1, 3, -1, -1)).double().cpu())
        return torch.cat(parts).numpy()


def load(path: str | Path | None = None, *, device: str | torch.device = "cpu") -> Inception:
    """Return Inception-v3 with the weights of `path`, or of the first file `find` knows.

    A file that ends in "-" and eight hexadecimal digits (torchvision's habit) must have a SHA-256 that begins so.
    Raises FileNotFoundError saying where to put the file; ValueError for a file that is something else.
    """
    path = find() if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of Inception-v3 weights")
    checksum = digest(path)
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if promised and not checksum.startswith(promised[1]):
        raise ValueError(f"{path.name}: its SHA-256 begins with {checksum[:8]}, not with {promised[1]} as its name "
                         "says; the file is damaged: fetch it again")
    # Built without storage, then given the file's tensors: no time for initial weights, no draw from a generator.
    with torch.device("meta"):
        network = inception_v3(weights=None, init_weights=False, aux_logits=True, transform_input=False)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(weights, assign=True)
    except (RuntimeError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path.name}: not the weights of torchvision's inception_v3 ({reason})") from error
    network.AuxLogits, network.fc = None, nn.Identity()
    network = network.requires_grad_(False).eval().to(device)
    return Inception(network, f"Inception-v3 (torchvision, {path.name}, sha256 {checksum[:8]}), 2048 features")


def find() -> Path:
    """Return the file of weights: FEDDIFF_DATA/images/inception_v3*.pth, else the one in torch.hub's folder."""
    data = os.environ.get("FEDDIFF_DATA", "")
    folders = [Path(data).expanduser() / "images"] if data else []
    folders.append(Path(torch.hub.get_dir()) / "checkpoints")
    for folder in folders:
        files = sorted(folder.glob(PATTERN))
        if files:
            return files[0]
    raise FileNotFoundError(
        f"no weights of Inception-v3 ({PATTERN}) in the folder images of FEDDIFF_DATA or in torch.hub's folder of "
        "checkpoints; where there is a network, torchvision.models.Inception_V3_Weights.IMAGENET1K_V1.get_state_dict() "
        "fetches them; otherwise use a judge trained on the real set (image_features.train_judge)"
    )
