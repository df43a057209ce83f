"""The Gaussian copula: known correlations come back, noise has the announced scale, a row moves what it may."""

import math

import numpy as np
import pandas as pd
import pytest

from feddiff.privacy.accounting import gaussian_epsilon
from feddiff.systems import copula as module
from feddiff.systems.copula import copula, latent_correlation

KINDS = {"a": "numeric", "b": "numeric", "c": "categorical", "label": "categorical"}
TRUE = np.array([[1, 0.6, 0.5, 0.4], [0.6, 1, 0.3, 0.2], [0.5, 0.3, 1, 0.7], [0.4, 0.2, 0.7, 1]])


def toy(rows=6000, seed=0):
    """Normals with correlation TRUE; c and label are cut at their medians (c into words out of order)."""
    z = np.random.default_rng(seed).normal(size=(rows, 4)) @ np.linalg.cholesky(TRUE).T
    return pd.DataFrame({
        "a": np.exp(z[:, 0]), "b": z[:, 1], "c": np.where(z[:, 2] > 0, "apple", "pear"),
        "label": np.where(z[:, 3] > 0, "yes", "no"),
    })


def clients(frame, count=3):
    return [frame.iloc[k::count].reset_index(drop=True) for k in range(count)]


def between(model, x, y):
    names = model.codec.code_columns + model.codec.number_columns
    return abs(model.correlation[names.index(x), names.index(y)])


def test_known_correlations_come_back():
    model = copula(clients(toy()), KINDS, label="label", seed=0)
    for x, y, true in (("a", "b", 0.6), ("a", "c", 0.5), ("b", "label", 0.2), ("c", "label", 0.7)):
        assert between(model, x, y) == pytest.approx(true, abs=0.04), (x, y)
    assert np.linalg.eigvalsh(model.correlation).min() > 0 and np.allclose(np.diag(model.correlation), 1)
    assert model.privacy is None and model.nbytes > 0


def test_rows_have_the_joint_and_the_dtypes_of_the_table():
    frame = toy()
    model = copula(clients(frame), KINDS, label="label", seed=0)
    drawn = model.sample(6000, seed=1)
    assert list(drawn.columns) == list(frame.columns) and (drawn.dtypes == frame.dtypes).all()
    same = [((f["c"] == "apple") == (f["label"] == "yes")).mean() for f in (frame, drawn)]
    assert same[0] == pytest.approx(same[1], abs=0.03)
    ranks = [f[["a", "b"]].corr("spearman").iloc[0, 1] for f in (frame, drawn)]
    assert ranks[0] == pytest.approx(ranks[1], abs=0.04)
    assert drawn.equals(model.sample(6000, seed=1)) and not drawn.equals(model.sample(6000, seed=2))


def test_clients_add_up_to_the_pooled_table():
    frame = toy(900)
    one, many = (copula(clients(frame, k), KINDS, label="label", seed=0) for k in (1, 3))
    # Ranks inside ties are the only draws, and these columns have none.
    assert np.allclose(one.correlation, many.correlation, atol=1e-6)


def test_two_halves_are_inverted_exactly():
    rho = 0.8
    expected = 2 / math.pi * math.asin(rho)  # correlation of two signs of normals (Sheppard 1899)
    products = 1000 * np.array([[1.0, expected], [expected, 1.0]])
    assert latent_correlation(products, np.array([2 / math.pi] * 2), 2)[0, 1] == pytest.approx(rho, abs=1e-3)


def test_a_private_copula_spends_its_budget_and_still_learns():
    model = copula(clients(toy()), KINDS, label="label", seed=0, epsilon=2.0)
    told = model.privacy
    assert told["epsilon"] == pytest.approx(2.0, abs=1e-6) and any("codec" in what for what in told["outside"])
    for client in told["clients"].values():
        mu2 = sum(1 / event["noise"] ** 2 for event in client["events"])
        assert gaussian_epsilon(noise_over_sensitivity=mu2**-0.5, delta=1e-5) == pytest.approx(2.0, abs=1e-4)
    assert between(model, "a", "b") == pytest.approx(0.6, abs=0.1)


def test_one_row_moves_the_products_by_at_most_c_squared():
    g = np.random.default_rng(0)
    for _ in range(200):
        z = g.standard_t(2, size=6) * 5
        clipped = z * min(1.0, math.sqrt(module.CLIP * 6) / np.linalg.norm(z))
        moved = np.linalg.norm(np.outer(clipped, clipped)[np.triu_indices(6)])
        assert moved <= module.CLIP * 6 + 1e-9
    axis = np.zeros((6, 6))
    axis[0, 0] = module.CLIP * 6
    assert np.linalg.norm(axis[np.triu_indices(6)]) == pytest.approx(module.CLIP * 6)


def test_noise_and_sensitivity_of_what_clients_send(monkeypatch):
    stds = []
    monkeypatch.setattr(module, "_noised", lambda values, std, noise: stds.append((values.shape, std)) or values)
    model = copula([toy(300)], KINDS, label="label", seed=0, epsilon=1.0)
    ratios = [event["noise"] for event in model.privacy["clients"]["client 0"]["events"]]
    assert stds[0][1] == pytest.approx(ratios[0] * math.sqrt(2))  # two histograms: c, label
    assert stds[-1] == ((10,), pytest.approx(ratios[1] * module.CLIP * 4))  # the upper triangle of 4 x 4


@pytest.mark.parametrize(("change", "words"), [
    (dict(clients=[]), "at least one"), (dict(label="a"), "label must be"), (dict(empty=True), "client 1 has no rows"),
])
def test_bad_input_is_refused(change, words):
    frame = toy(60)
    members = [frame, frame.iloc[:0]] if change.get("empty") else change.get("clients", [frame])
    with pytest.raises(ValueError, match=words):
        copula(members, KINDS, label=change.get("label", "label"), seed=0)
