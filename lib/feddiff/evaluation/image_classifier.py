"""A small picture classifier: what judges generated pictures, and what is trained on them and tested on real ones.

Pictures are float32 (n, c, h, w) in [-1, 1], as everywhere in the library. A sampler may overshoot that range by a
little; here values are clamped to it, as saving the picture would.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.utils import skip_init
from tqdm.auto import tqdm

from feddiff import seeds
from feddiff.diffusion.denoisers import linear_layer

# Pictures are read in portions of this many: their activations stay in the cache.
CHUNK = 512
KERNEL = 5
LARGEST_OVERSHOOT = 2.0
# Up to so much each way: turn (radians), shear, scale, move right and down (in half sides).
WARP = (0.2, 0.2, 0.12, 0.125, 0.125)


class LeNet(nn.Module):
    """Two 5 x 5 convolutions with max pooling, a hidden layer, one output per class (after LeCun et al., 1998).

    shape: (channels, height, width) of the pictures, sides >= 4. features: units of the hidden layer (ReLU), what
    `hidden` returns. ReLU and max pooling where the original has tanh and averages. Initial weights come from
    `generator`, U(+-1 / sqrt(inputs)).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        generator: torch.Generator,
        features: int = 64,
        widths: tuple[int, int] = (16, 32),
    ):
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 4:
            raise ValueError(f"pictures of {height} x {width} are too small for two poolings; sides of 4 or more")
        self.shape, self.classes, self.features, self.widths = tuple(shape), classes, features, tuple(widths)
        self.first = _conv_layer(channels, widths[0], generator)
        self.second = _conv_layer(widths[0], widths[1], generator)
        self.dense = linear_layer(widths[1] * (height // 4) * (width // 4), features, generator)
        self.output = linear_layer(features, classes, generator)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer (n, features), >= 0."""
        for layer in (self.first, self.second):
            x = nn.functional.max_pool2d(nn.functional.relu(layer(x)), 2)
        return nn.functional.relu(self.dense(x.flatten(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, classes)."""
        return self.output(self.hidden(x))


def pictures(images: torch.Tensor | np.ndarray, name: str) -> torch.Tensor:
    """Return `images` as float32 (n, c, h, w) clamped to [-1, 1]; a copy wherever something changes.

    Refuses what is no such set, naming it: TypeError for integers (bytes: data.images.to_tensor), ValueError for
    another number of axes, an empty set, values that are not finite, or a scale of 0..255.
    """
    images = torch.as_tensor(images).detach()
    if not images.is_floating_point():
        raise TypeError(f"{name} are {images.dtype}: convert them to floats in [-1, 1] with data.images.to_tensor")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{name} must be non-empty (n, channels, height, width), got {tuple(images.shape)}")
    images = images.float()
    broken = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if broken:
        raise ValueError(f"{broken} of {len(images)} {name} hold values that are not finite: the sampler diverged; "
                         "train longer, or lower the learning rate")
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high > LARGEST_OVERSHOOT:
        raise ValueError(f"{name} lie in [{low:g}, {high:g}]; rescale them to [-1, 1] (x / 127.5 - 1 for 0..255)")
    return images.clamp(-1, 1)


def class_labels(labels: torch.Tensor | np.ndarray, count: int, classes: int | None, name: str) -> np.ndarray:
    """Return `labels` as int64 (count,) in [0, classes); TypeError or ValueError naming them otherwise."""
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(f"{name} must be one label for each of {count} pictures, got shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got {labels.dtype}")
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        wanted = "be >= 0" if classes is None else f"lie in [0, {classes})"
        raise ValueError(f"{name} must {wanted}, got {labels.min()}..{labels.max()}")
    return labels.astype(np.int64)


def fit(
    images: torch.Tensor | np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    seed: int,
    steps: int,
    batch: int = 128,
    learning_rate: float = 3e-3,
    features: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> LeNet:
    """Train a LeNet on `images` for `steps` batches (shuffled passes; Adam, cosine decay to 0) and return it.

    Every use of a picture warps it a little (WARP), so that a few thousand pictures suffice. Same arguments, same
    machine: same weights. FloatingPointError where the loss is no longer finite.
    """
    images = pictures(images, "training pictures")
    labels = class_labels(labels, len(images), classes, "training labels")
    for value, name in ((steps, "steps"), (batch, "batch"), (classes, "classes")):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    network = LeNet(tuple(images.shape[1:]), classes, features=features,
                    generator=seeds.torch_generator(seed, "classifier", "init")).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    images, targets = images.to(device), torch.from_numpy(labels).to(device)
    stream = seeds.torch_generator(seed, "classifier", "batches")
    batches = _batches(len(images), min(batch, len(images)), stream)
    for step in tqdm(range(steps), desc="classifier", disable=not progress, leave=False):
        rows = next(batches)
        warped = _warped(images[rows.to(device)], stream)
        loss = nn.functional.cross_entropy(network(warped), targets[rows.to(device)])
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the classifier's loss is {loss.item()} at step {step}; lower learning_rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.requires_grad_(False).eval()


def in_portions(function, network: LeNet, images: torch.Tensor | np.ndarray) -> np.ndarray:
    """Return `function(portion)` over all of `images`, joined, as a float64 array; refuses pictures of another size."""
    images = pictures(images, "pictures")
    if tuple(images.shape[1:]) != network.shape:
        wanted, got = (" x ".join(map(str, shape)) for shape in (network.shape, images.shape[1:]))
        raise ValueError(f"the classifier reads pictures of {wanted}, got {got}; resize them (data.images.resize) or "
                         "train one for that size")
    device = network.output.weight.device
    with torch.inference_mode():
        parts = [function(portion.to(device)).double().cpu() for portion in images.split(CHUNK)]
    return torch.cat(parts).numpy()


def _conv_layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Conv2d:
    layer = skip_init(nn.Conv2d, inputs, outputs, KERNEL, padding=KERNEL // 2)
    bound = 1 / math.sqrt(inputs * KERNEL**2)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def _batches(rows: int, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield full batches of shuffled passes for ever; what a pass leaves over opens the next."""
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(rows, generator=generator)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def _warped(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return each picture turned, sheared, scaled and moved by its own draws within WARP, edges repeated."""
    turn, shear, scale, right, down = (
        (2 * torch.rand(len(images), generator=generator) - 1) * limit for limit in WARP
    )
    cosine, sine = (1 + scale) * turn.cos(), (1 + scale) * turn.sin()
    maps = torch.stack([cosine, shear - sine, right, sine, cosine, down], 1).reshape(-1, 2, 3).to(images.device)
    grid = nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
