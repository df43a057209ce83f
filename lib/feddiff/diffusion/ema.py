"""Exponential moving average of a flat parameter vector."""

import torch


class EMA:
    """Average of the vectors that it has seen, with the decay warmed up: min(decay, (1 + n) / (10 + n)) at the n-th.

    The warm-up keeps short runs from averaging over their own start. Post-processing: it costs no privacy.
    """

    def __init__(self, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"ema must lie in [0, 1), got {decay}")
        self.decay, self.seen, self.average = decay, 0, None

    def update(self, vector: torch.Tensor) -> None:
        """Take in the next vector."""
        decay = min(self.decay, (1 + self.seen) / (10 + self.seen)) if self.seen else 0.0
        self.average = vector.clone() if self.average is None else self.average.lerp(vector, 1 - decay)
        self.seen += 1

    def state(self) -> dict:
        """Return what a checkpoint needs."""
        return {"decay": self.decay, "seen": self.seen, "average": self.average}

    def load(self, state: dict) -> None:
        """Take up the state of a checkpoint."""
        self.decay, self.seen, self.average = state["decay"], state["seen"], state["average"]
