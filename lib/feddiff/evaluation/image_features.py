"""Named features for distances between sets of pictures: a classifier of the real set, stored with its accuracy.

Where the weights of Inception-v3 cannot be had, or pictures are digits of 16 x 16 for which they mean little, the last
hidden layer of a small classifier does (as DPDM and others do for MNIST). Distances in such features compare models
under one judge and nothing else: two judges, two scales of truth. Train one judge for a data set, keep it
(`to_state`), and record its name with every number. `image_inception` has the features of Inception-v3.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from feddiff.evaluation import image_classifier
from feddiff.evaluation.image_classifier import LeNet, class_labels, in_portions, pictures

# Enough that LeNet reaches its plateau on digits of 8 to 28 pixels; a small set needs no more than 40 passes.
SEEN_PICTURES = 120_000
FEWEST_EPOCHS, MOST_EPOCHS = 2, 40


@dataclass(frozen=True, eq=False)
class Judge:
    """A classifier of real pictures: features (last hidden layer), predictions, and how far it can be believed.

    data: what it was trained on, in words. accuracy, recalls: share of `test_count` real test pictures (of each
    class) that it names rightly, in [0, 1]. scale: factor on the hidden layer that gives the test pictures' features
    a mean variance of 1, so that a squared Fréchet distance of `dimension` is one total variance of the real set.
    """

    network: LeNet
    data: str
    accuracy: float
    recalls: tuple[float, ...]
    test_count: int
    scale: float

    @property
    def dimension(self) -> int:
        """Return the number of features."""
        return self.network.features

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return self.network.classes

    @property
    def name(self) -> str:
        """Return what a record says of these features."""
        return f"LeNet-{self.dimension} trained on {self.data}, test accuracy {self.accuracy:.3f}"

    def features(self, images: torch.Tensor | np.ndarray) -> np.ndarray:
        """Return the features of pictures in [-1, 1] (n, c, h, w), float64 (n, dimension), >= 0."""
        return self.scale * in_portions(self.network.hidden, self.network, images)

    def probabilities(self, images: torch.Tensor | np.ndarray) -> np.ndarray:
        """Return the class probabilities, float64 (n, classes); rows sum to 1."""
        return in_portions(lambda portion: self.network(portion).double().softmax(1), self.network, images)

    def predict(self, images: torch.Tensor | np.ndarray) -> np.ndarray:
        """Return the most probable class of each picture, int64 (n,)."""
        return self.probabilities(images).argmax(1)

    def to_state(self) -> dict:
        """Return tensors and plain values from which `from_state` rebuilds this judge exactly."""
        return {
            "weights": {name: value.cpu() for name, value in self.network.state_dict().items()},
            "shape": list(self.network.shape), "classes": self.classes, "features": self.dimension,
            "widths": list(self.network.widths), "data": self.data, "accuracy": self.accuracy,
            "recalls": list(self.recalls), "test_count": self.test_count, "scale": self.scale,
        }

    @classmethod
    def from_state(cls, state: dict, *, device: str | torch.device = "cpu") -> "Judge":
        """Return the judge that `to_state` described."""
        network = LeNet(tuple(state["shape"]), state["classes"], features=state["features"],
                        widths=tuple(state["widths"]), generator=torch.Generator())
        network.load_state_dict(state["weights"])
        network = network.requires_grad_(False).eval().to(device)
        return cls(network, state["data"], state["accuracy"], tuple(state["recalls"]), state["test_count"],
                   state["scale"])


def train_judge(
    images: torch.Tensor | np.ndarray,
    labels: np.ndarray,
    test_images: torch.Tensor | np.ndarray,
    test_labels: np.ndarray,
    *,
    seed: int,
    data: str = "the real training set",
    epochs: int | None = None,
    features: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Judge:
    """Train a judge on real pictures and weigh it on real test pictures that it has not seen.

    images (n, c, h, w) in [-1, 1], labels (n,) from 0 without a gap. epochs: passes over the training pictures; None
    for as many as show it SEEN_PICTURES, 2 to 40. Train it on pictures that no generative model under test is compared
    with, and compare those with the test pictures: a classifier's features of its own training pictures are a little
    too tidy. Raises ValueError naming a class without training or test pictures, and sizes that differ.
    """
    images, test_images = pictures(images, "training pictures"), pictures(test_images, "test pictures")
    if images.shape[1:] != test_images.shape[1:]:
        shapes = f"{tuple(images.shape[1:])}, test pictures {tuple(test_images.shape[1:])}"
        raise ValueError(f"training pictures are {shapes} (channels, height, width); resize one of the two")
    labels = class_labels(labels, len(images), None, "training labels")
    classes = int(labels.max()) + 1
    test_labels = class_labels(test_labels, len(test_images), classes, "test labels")
    for side, given in (("training", labels), ("test", test_labels)):
        absent = np.flatnonzero(np.bincount(given, minlength=classes) == 0)
        if len(absent):
            raise ValueError(f"no {side} picture of the classes {absent.tolist()}: a judge needs some of every class")
    if epochs is None:
        epochs = min(max(FEWEST_EPOCHS, math.ceil(SEEN_PICTURES / len(images))), MOST_EPOCHS)
    batch = 128
    network = image_classifier.fit(images, labels, classes=classes, seed=seed, batch=batch, features=features,
                                   steps=math.ceil(epochs * len(images) / batch), device=device, progress=progress)
    right = in_portions(network, network, test_images).argmax(1) == test_labels
    spread = float(in_portions(network.hidden, network, test_images).var(axis=0).sum())
    if spread == 0:
        raise ValueError("the judge's features are the same for every test picture: it learned nothing; more epochs")
    return Judge(
        network=network, data=data, accuracy=float(right.mean()),
        recalls=tuple(float(right[test_labels == one].mean()) for one in range(classes)),
        test_count=len(test_labels), scale=math.sqrt(features / spread),
    )
