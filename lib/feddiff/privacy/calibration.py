"""Noise for training steps on top of what a client has spent already: the whole stays within the target."""

import math

from scipy.optimize import brentq

from feddiff.privacy import accounting
from feddiff.privacy.ledger import PrivacyLedger

# Aim this far below the target, and accept what the root finder leaves, so that the result never passes it.
MARGIN, TOLERANCE = 1e-3, 2e-4


def share_of_budget(*, target_epsilon: float, delta: float, share: float) -> float:
    """Return the noise over sensitivity of a Gaussian release that takes `share` of the budget's squared mu.

    The budget (epsilon, delta) is that of one Gaussian release with mu = sensitivity / noise; squared mu add up under
    composition (Dong, Roth & Su 2022), so shares of mu^2 split it. share lies in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}")
    return accounting.gaussian_noise(target_epsilon=target_epsilon, delta=delta) / math.sqrt(share)


def remaining_noise_multiplier(
    ledger: PrivacyLedger, client: str, *, target_epsilon: float, sample_rate: float, steps: int
) -> float:
    """Return the noise multiplier with which `steps` more steps bring a client to the target, never past it.

    Without earlier events this is accounting.noise_multiplier. ValueError when the target is already spent.
    """
    plain = dict(sample_rate=sample_rate, steps=steps, delta=ledger.delta, adjacency=ledger.adjacency)
    if not ledger.events(client):
        return accounting.noise_multiplier(target_epsilon=target_epsilon, accountant=ledger.accountant, **plain)
    spent = ledger.epsilon(client)
    if spent >= target_epsilon:
        raise ValueError(
            f"{client} has spent epsilon {spent:.4g} of {target_epsilon:.4g} before training: lower the shares"
        )

    def excess(log_noise: float) -> float:
        trial = PrivacyLedger.from_json(ledger.to_json())
        trial.spend_sgm(client, sample_rate=sample_rate, noise_multiplier=math.exp(log_noise), steps=steps)
        return math.log(trial.epsilon(client) / (target_epsilon * (1 - MARGIN)))

    low = math.log(accounting.noise_multiplier(target_epsilon=target_epsilon, accountant=ledger.accountant, **plain))
    high = low + 0.1
    while excess(high) > 0:
        high += 2 * (high - low)
    return math.exp(brentq(excess, low, high, xtol=TOLERANCE) + TOLERANCE)
