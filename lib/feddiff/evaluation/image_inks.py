"""A judge of coloured digits whose features see the ink: it names class and ink together and is read by class.

A judge of classes alone has no reason to look at colour, and a Fréchet distance in its features would let a generator
that mixes up the inks pass.
"""

from dataclasses import dataclass

import numpy as np
import torch

from feddiff.evaluation.image_classifier import class_labels
from feddiff.evaluation.image_features import Judge, train_judge


@dataclass(frozen=True, eq=False)
class InkJudge(Judge):
    """A judge whose network names pairs of class and ink, output class * inks + ink.

    Everything but the features speaks of classes: probabilities are summed over the inks, accuracy and recalls are
    those of the class named.
    """

    inks: int = 1

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return self.network.classes // self.inks

    @property
    def name(self) -> str:
        """Return what a record says of these features."""
        return (f"LeNet-{self.dimension} trained on {self.data} to name class and ink, test accuracy of the class "
                f"{self.accuracy:.3f}")

    def probabilities(self, images: torch.Tensor | np.ndarray) -> np.ndarray:
        """Return the class probabilities, float64 (n, classes); rows sum to 1."""
        return super().probabilities(images).reshape(-1, self.classes, self.inks).sum(2)

    def to_state(self) -> dict:
        """Return tensors and plain values from which `from_state` rebuilds this judge exactly."""
        return super().to_state() | {"classes": self.network.classes, "inks": self.inks}

    @classmethod
    def from_state(cls, state: dict, *, device: str | torch.device = "cpu") -> "InkJudge":
        """Return the judge that `to_state` described."""
        return cls.of(Judge.from_state(state, device=device), state["inks"], state["accuracy"], state["recalls"])

    @classmethod
    def of(cls, pairs: Judge, inks: int, accuracy: float, recalls: tuple[float, ...]) -> "InkJudge":
        """Return a judge of pairs as a judge of classes that is right as often as given."""
        return cls(pairs.network, pairs.data, accuracy, tuple(recalls), pairs.test_count, pairs.scale, inks)


def train_ink_judge(
    images: torch.Tensor | np.ndarray,
    labels: np.ndarray,
    test_images: torch.Tensor | np.ndarray,
    test_labels: np.ndarray,
    *,
    inks: tuple[np.ndarray, np.ndarray],
    **options,
) -> InkJudge:
    """Train a judge of real coloured pictures as `train_judge` does, whose options these are.

    inks: of the training and of the test pictures, int64 (n,) from 0 without a gap. ValueError for a pair of class and
    ink without a training or a test picture.
    """
    number = int(np.max(inks[0])) + 1
    sides = []
    for name, given, own in (("training", labels, inks[0]), ("test", test_labels, inks[1])):
        own = class_labels(own, len(given), number, f"{name} inks")
        sides.append(np.asarray(given) * number + own)
    pairs = train_judge(images, sides[0], test_images, sides[1], **options)
    judge = InkJudge.of(pairs, number, pairs.accuracy, pairs.recalls)
    right = judge.predict(test_images) == test_labels
    recalls = tuple(float(right[np.asarray(test_labels) == one].mean()) for one in range(judge.classes))
    return InkJudge.of(pairs, number, float(right.mean()), recalls)
