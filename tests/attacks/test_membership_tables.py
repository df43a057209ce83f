"""White-box attacks on denoisers of tables: an over-fitted one is found, a fresh one is chance (privacy.md, 2.6)."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.attacks import membership_tables as attack
from feddiff.diffusion.denoisers import MLPDenoiser
from feddiff.diffusion.process import q_sample
from feddiff.diffusion.schedules import linear
from feddiff.evaluation.membership import auc, tpr_at_fpr
from feddiff.seeds import numpy_generator, torch_generator

SCHEDULE = linear(200, beta_T=0.05)
N, WIDTH, TIMES = 100, 32, (10, 20, 40, 60)
# 2.5 standard errors of an AUC at chance.
BAND = 2.5 * math.sqrt((2 * N + 1) / (12 * N * N))


def population(rows, *names):
    """Return draws of a mixture of five Gaussians in WIDTH columns, as the toy of the reference with more columns."""
    centres = 2 * numpy_generator(0, "centres").standard_normal((5, WIDTH))
    draw = numpy_generator(0, "rows", *names)
    x = centres[draw.integers(5, size=rows)] + draw.standard_normal((rows, WIDTH))
    return (x / 2).astype(np.float32)


def fitted(rows, steps, seed):
    """Return the loss callable of a small denoiser trained on `rows`."""
    x = torch.from_numpy(rows)
    model = MLPDenoiser(WIDTH, WIDTH, hidden=(192, 192), classes=1, generator=torch_generator(seed, "init"),
                        conditioning="features")
    optimiser, draw = torch.optim.Adam(model.parameters(), lr=2e-3), torch_generator(seed, "training")
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        t, noise = torch.randint(100, (len(x),), generator=draw), torch.randn(x.shape, generator=draw)
        loss = (model(q_sample(x, t, noise, SCHEDULE), t, torch.zeros_like(t)) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()

    @torch.no_grad()
    def loss_per_record(records, t, noise):
        n, k = t.shape
        x = torch.from_numpy(records).repeat_interleave(k, 0)
        t, z = torch.from_numpy(t).flatten(), torch.from_numpy(noise).flatten(0, 1)
        error = model(q_sample(x, t, z, SCHEDULE), t, torch.zeros_like(t)) - z
        return error.square().mean(1).reshape(n, k).mean(1).numpy()

    return loss_per_record


@pytest.fixture(scope="module")
def sets():
    members, others, fresh = (population(N, name) for name in ("members", "others", "fresh"))
    return members, others, fresh, fitted(members, 900, 0)


@pytest.fixture(scope="module")
def noises():
    return attack.fixed_noises(WIDTH, 20, numpy_generator(0, "noises"))


def scores_of(model, records, noises):
    return attack.loss_scores(attack.losses(model, records, times=TIMES, noises=noises))


def test_an_overfitted_model_is_found_and_a_fresh_one_is_not(sets, noises):
    members, others, fresh, model = sets
    inside, outside, unseen = (scores_of(model, side, noises) for side in (members, others, fresh))
    assert auc(inside, outside) >= 0.95 and tpr_at_fpr(inside, outside, 0.01) >= 0.4
    assert abs(auc(outside, unseen) - 0.5) < BAND, "of rows that it never saw the model knows nothing"
    both = np.concatenate([inside, outside])
    dealt = [auc(*np.split(numpy_generator(game, "permuted").permutation(both), 2)) for game in range(60)]
    assert abs(np.mean(dealt) - 0.5) < 0.02


def test_fixed_noises_beat_random_ones(sets):
    members, others, _, model = sets
    both, areas = np.concatenate([members, others]), {"fixed": [], "random": []}
    for game in range(12):
        draw = numpy_generator(game, "one noise")
        fixed = attack.fixed_noises(WIDTH, 1, draw)
        own = draw.standard_normal((len(both), 1, WIDTH), dtype=np.float32)
        for name, noise in (("fixed", fixed), ("random", own)):
            areas[name].append(auc(*np.split(scores_of(model, both, noise), 2)))
    assert np.mean(areas["fixed"]) > np.mean(areas["random"]) + 0.01


def test_calibration_and_shadows_find_members_that_the_loss_finds(sets, noises):
    members, others, _, model = sets
    both = np.concatenate([members, others])
    shadows = []
    for place in range(2):
        own, unseen = population(N, "shadow", place), population(N, "shadow others", place)
        shadows.append(attack.Shadow(fitted(own, 500, place + 1), own, unseen))
    found = attack.losses(model, both, times=TIMES, noises=noises)
    reference = np.mean([attack.losses(s.per_record, both, times=TIMES, noises=noises) for s in shadows], axis=0)
    assert auc(*np.split(attack.loss_scores(found, reference), 2)) > 0.8
    asked = dict(times=TIMES, noises=noises)
    for classifier in attack.CLASSIFIERS:
        learned = attack.shadow_trained(model, both, shadows, classifier=classifier, **asked)
        assert auc(*np.split(learned, 2)) > 0.85
        nobody = attack.shadow_trained(shadows[0].per_record, both, shadows[1:], classifier=classifier, **asked)
        assert abs(auc(*np.split(nobody, 2)) - 0.5) < BAND, "two sets that the model never saw"


def test_losses_are_what_they_are_said_to_be():
    noises = attack.fixed_noises(3, 4, numpy_generator(0, "z"))

    def model(records, t, noise):
        return (noise.sum(2) + t).mean(1) + records["x"].to_numpy()

    records = pd.DataFrame({"x": [0.0, 10.0]})
    found = attack.losses(model, records, times=(0, 7), noises=noises)
    assert found == pytest.approx(noises.sum(1).mean() + np.array([[0.0, 7.0], [10.0, 17.0]]), rel=1e-5)
    apart = attack.losses(model, records, times=(0, 7), noises=noises, apart=True)
    assert apart.shape == (2, 8) and apart.reshape(2, 2, 4).mean(2) == pytest.approx(found, rel=1e-5)
    assert apart[0, :4] == pytest.approx(noises.sum(1), rel=1e-5)
    own = np.stack([noises, 2 * noises])
    assert attack.losses(model, records, times=(1,), noises=own)[:, 0] == pytest.approx(
        own.sum(2).mean(1) + [1, 11], rel=1e-5
    )
    assert attack.loss_scores(found, found).tolist() == [0, 0]


def test_gradient_norms_take_the_place_of_losses():
    # A linear model that fits its members exactly has no gradient there: of (x w - y)^2 it is 2 x (x w - y).
    draw = numpy_generator(0, "linear")
    x, w = draw.standard_normal((40, 5)), draw.standard_normal(5)
    y = x @ w + np.repeat([0.0, 1.0], 20) * draw.standard_normal(40)

    def norms(records, t, noise):
        x, y = records[:, :-1], records[:, -1]
        gradient = 2 * x * (x @ w - y)[:, None]
        return np.stack([np.linalg.norm(gradient[:, :2], axis=1), np.linalg.norm(gradient[:, 2:], axis=1)], axis=1)

    records = np.column_stack([x, y])
    found = attack.losses(norms, records, times=(3, 5), noises=np.zeros((1, 1), dtype=np.float32))
    assert found.shape == (40, 4) and auc(*np.split(attack.loss_scores(found), 2)) == 1
    learned = attack.shadow_scores(found, [tuple(np.split(found, 2))], classifier="logistic")
    assert auc(*np.split(learned, 2)) == 1


@pytest.mark.parametrize(("change", "words"), [
    (dict(times=()), "timesteps"), (dict(times=(-1,)), "timesteps"), (dict(noises=np.zeros((3, 1, 2))), "noises"),
    (dict(noises=np.zeros(4)), "noises"), (dict(records=np.zeros((0, 2))), "0 records"),
])
def test_bad_input_of_losses_is_named(change, words):
    given = dict(records=np.zeros((2, 2)), times=(1,), noises=np.zeros((1, 2))) | change
    with pytest.raises(ValueError, match=words):
        attack.losses(lambda r, t, z: np.zeros(len(r)), given.pop("records"), **given)


def test_bad_input_of_the_others_is_named():
    vectors = np.zeros((4, 2))
    with pytest.raises(ValueError, match="not finite"):
        attack.losses(lambda r, t, z: np.full(len(r), np.nan), vectors, times=(1,), noises=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="at least one shadow"):
        attack.shadow_scores(vectors, [])
    with pytest.raises(ValueError, match="vectors"):
        attack.shadow_scores(vectors, [(vectors, np.zeros((4, 3)))])
    with pytest.raises(ValueError, match="classifier"):
        attack.shadow_scores(vectors, [(vectors, vectors)], classifier="forest")
    with pytest.raises(ValueError, match="draws"):
        attack.fixed_noises(2, 0, numpy_generator(0))
