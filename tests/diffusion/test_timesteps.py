"""Laws of the timesteps that training draws: closed form at start, middle and end, and nothing but the progress."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from feddiff.diffusion import timesteps
from feddiff.seeds import torch_generator

T, DRAWS = 20, 40_000
PROGRESS = {0.0: 3.0, 0.5: 1.0, 0.75: 0.0, 1.0: -1.0}  # progress -> exponent


def counts(law, progress):
    drawn = timesteps.draw(law, T, (DRAWS // 4, 4), progress, torch_generator(0, law, progress))
    assert drawn.shape == (DRAWS // 4, 4) and drawn.dtype == torch.int64
    return np.bincount(drawn.flatten(), minlength=T)


@pytest.mark.parametrize("progress, exponent", PROGRESS.items())
def test_adaptive_draws_follow_the_power_law_and_never_the_first_step(progress, exponent):
    closed = np.array([0.0] + [(t + 1) ** exponent for t in range(1, T)])
    closed /= closed.sum()
    assert timesteps.adaptive_weights(T, progress).numpy() == pytest.approx(closed)
    found = counts("adaptive", progress)
    assert found[0] == 0 and len(found) == T
    # Two-sided: too good a fit would be no draw at all.
    assert 1e-3 < chisquare(found[1:], DRAWS * closed[1:]).pvalue < 1 - 1e-3


@pytest.mark.parametrize("other", [exponent for progress, exponent in PROGRESS.items() if progress != 0.5])
def test_the_test_tells_the_exponents_apart(other):
    wrong = np.arange(2, T + 1, dtype=float) ** other
    assert chisquare(counts("adaptive", 0.5)[1:], DRAWS * wrong / wrong.sum()).pvalue < 1e-6


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_uniform_draws_are_those_of_before_at_any_progress(progress):
    drawn = timesteps.draw("uniform", T, (50, 3), progress, torch_generator(0, "draws"))
    assert torch.equal(drawn, torch.randint(T, (50, 3), generator=torch_generator(0, "draws")))
    assert chisquare(counts("uniform", progress)).pvalue > 1e-3


@pytest.mark.parametrize("law", timesteps.LAWS)
def test_an_empty_batch_draws_nothing(law):
    assert timesteps.draw(law, T, (0, 2), 0.3, torch_generator(0, "draws")).shape == (0, 2)


def test_another_law_is_refused():
    with pytest.raises(ValueError, match="law must be one of"):
        timesteps.draw("early", T, (3, 1), 0.0, torch_generator(0, "draws"))
