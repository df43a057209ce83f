"""What was spent on one person's records, in the form the accountants compose.

A workload is the multiset of mechanisms that one adversary sees together: subsampled Gaussian steps, Gaussian
releases and pure-DP releases. Full-batch steps and releases of Gaussian noise are one Gaussian (their mu add in
squares), so they are merged exactly. `delta` is the chance that a threshold release shows a row; it adds up.
"""

import math
from dataclasses import dataclass, field

from feddiff.privacy.arguments import count, real


@dataclass
class Workload:
    """Composed events: `sampled` maps (rate, noise multiplier, rows of the person) to steps; `pure` epsilon to count.

    `gaussian_mu2` is the sum of (sensitivity / noise)^2 for adding or removing; `infinite` says that something was
    published without noise.
    """

    adjacency: str = "add-remove"
    sampled: dict[tuple[float, float, int], int] = field(default_factory=dict)
    gaussian_mu2: float = 0.0
    pure: dict[float, int] = field(default_factory=dict)
    infinite: bool = False
    delta: float = 0.0

    def add_sampled(self, *, sample_rate: float, noise_multiplier: float, steps: int, records: int = 1) -> "Workload":
        """Add Poisson-subsampled Gaussian steps that see up to `records` rows of one person; returns self."""
        rate = real("sample_rate", sample_rate, high=1.0)
        noise = real("noise_multiplier", noise_multiplier)
        steps, records = count("steps", steps), count("records", records, low=1)
        if rate == 0 or steps == 0 or noise == math.inf:
            return self
        if noise == 0:
            self.infinite = True
        elif rate == 1:
            self.gaussian_mu2 += steps * (self._shift() * records / noise) ** 2
        else:
            key = (rate, noise, records)
            self.sampled[key] = self.sampled.get(key, 0) + steps
        return self

    def add_gaussian(self, *, noise_over_sensitivity: float, records: int = 1) -> "Workload":
        """Add one Gaussian release; sensitivity = L2 change when one row is added or removed; returns self."""
        ratio = real("noise_over_sensitivity", noise_over_sensitivity)
        return self.add_sampled(sample_rate=1.0, noise_multiplier=ratio, steps=1, records=records)

    def add_pure(self, *, epsilon: float, records: int = 1) -> "Workload":
        """Add one release that is epsilon-DP when one row is added or removed; returns self."""
        spent = real("epsilon", epsilon) * count("records", records, low=1) * self._shift()
        if spent == math.inf:
            self.infinite = True
        elif spent > 0:
            self.pure[spent] = self.pure.get(spent, 0) + 1
        return self

    def add_delta(self, *, delta: float, records: int = 1) -> "Workload":
        """Add one release that shows a row with probability at most `delta`; returns self."""
        if count("records", records, low=1) > 1 and delta > 0:
            raise ValueError(
                "a threshold release says nothing about several rows of one person: what k rows share passes it more "
                "easily; give the vocabulary as public, or state the record level only"
            )
        self.delta += delta * self._shift()
        return self

    def _shift(self) -> int:
        # Replacing a row is removing one and adding another: twice the sensitivity (triangle inequality).
        return 1 if self.adjacency == "add-remove" else 2

    @property
    def empty(self) -> bool:
        """Whether nothing was spent."""
        return not (self.infinite or self.sampled or self.pure or self.gaussian_mu2)

    def key(self) -> dict:
        """Return the workload as plain JSON values, equal for equal workloads (the key of the cache)."""
        return {
            "adjacency": self.adjacency,
            "sampled": sorted([*term, steps] for term, steps in self.sampled.items()),
            "gaussian_mu2": self.gaussian_mu2,
            "pure": sorted([spent, times] for spent, times in self.pure.items()),
        }
