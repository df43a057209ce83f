"""PrivBayes: sensitivity and exponential mechanism by enumeration, noise against its closed form, a planted network."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score

from feddiff.privacy.ledger import PrivacyLedger
from feddiff.seeds import numpy_generator
from feddiff.systems import privbayes as pb
from feddiff.systems.privbayes import PrivBayesConfig

KINDS = {"label": "categorical", "copy": "categorical", "other": "categorical", "size": "numeric"}


def toy(rows=2000, seed=0):
    """copy is the label, size follows it, other is independent."""
    g = np.random.default_rng(seed)
    label = g.integers(0, 2, rows)
    words = np.array(["no", "yes"])
    return pd.DataFrame({
        "label": words[label], "copy": np.array(["a", "b"])[label],
        "other": np.array(["u", "v", "w"])[g.integers(0, 3, rows)], "size": g.normal(size=rows) + 4 * label,
    })


def test_the_score_has_sensitivity_2_and_attains_it():
    g = np.random.default_rng(0)
    worst = 0.0
    for shape in ((2, 2), (3, 2), (4, 3)):
        for counts in [g.integers(0, 4, shape).astype(float) for _ in range(60)]:
            for cell in itertools.product(*map(range, shape)):
                more = counts.copy()
                more[cell] += 1
                change = abs(pb.score(more) - pb.score(counts))
                n = counts.sum()
                assert change <= 2 * n / (n + 1) + 1e-9
                worst = max(worst, change)
    assert worst > 1.2
    alike = np.array([[1000.0, 0], [0, 0]])
    one_more = np.array([[1000.0, 0], [0, 1]])
    assert pb.score(one_more) - pb.score(alike) == pytest.approx(2 * 1000 / 1001)


def test_the_score_is_n_times_the_total_variation_to_independence():
    assert pb.score(np.outer([2.0, 4.0], [3.0, 5.0])) == pytest.approx(0)
    assert pb.score(np.diag([10.0, 10.0])) == pytest.approx(20 * 0.5)
    # The same pair wins by mutual information, the score of the first PrivBayes.
    frame = toy(500)
    tables = {c: pd.crosstab(frame["label"], frame[c]).to_numpy(float) for c in ("copy", "other")}
    assert pb.score(tables["copy"]) > pb.score(tables["other"])
    assert mutual_info_score(frame["label"], frame["copy"]) > mutual_info_score(frame["label"], frame["other"])


def test_selection_is_the_exponential_mechanism():
    scores, epsilon, g = np.array([0.0, 3.0, 5.0]), 0.8, numpy_generator(0, "choose")
    law = np.exp(epsilon * scores / (2 * 2.0))
    law /= law.sum()
    drawn = np.bincount([pb.choose(scores, epsilon, g) for _ in range(6000)], minlength=3) / 6000
    assert np.abs(drawn - law).max() < 4 * math.sqrt(0.25 / 6000)
    assert pb.choose(np.array([0.0, 1e6, 0.0]), 1e3, g) == 1  # an exponent of 2.5e8 must not overflow


def test_a_selection_cannot_tell_neighbours_apart_by_more_than_its_epsilon():
    g, epsilon = np.random.default_rng(1), 0.7
    for _ in range(50):
        tables = [g.integers(0, 5, (3, 3)).astype(float) for _ in range(4)]
        cells = [tuple(g.integers(0, 3, 2)) for _ in tables]
        laws = []
        for added in (0, 1):
            scores = []
            for table, cell in zip(tables, cells):
                more = table.copy()
                more[cell] += added
                scores.append(pb.score(more))
            weights = np.exp(epsilon * np.array(scores) / (2 * pb.SCORE_SENSITIVITY))
            laws.append(weights / weights.sum())
        assert np.abs(np.log(laws[0] / laws[1])).max() <= epsilon + 1e-9


def test_laplace_budget_by_hand():
    config = PrivBayesConfig(epsilon=1.0, share=0.3)
    budget = pb.budget_of(config, 11)
    assert budget.selection == pytest.approx(0.3 / 10)
    assert budget.noise == pytest.approx(11 / 0.7)  # 11 tables of sensitivity 1 share 0.7
    spent = [event.epsilon for event in budget.ledger.events("curator")]
    assert sum(spent) == pytest.approx(1.0) and 0.97 < budget.ledger.epsilon() <= 1.0


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 10.0])
def test_gaussian_budget_stays_within_the_ledger_and_uses_it(epsilon):
    budget = pb.budget_of(PrivBayesConfig(epsilon=epsilon, noise="gaussian"), 9)
    again = PrivacyLedger(clients=["curator"], delta=1e-5)
    for _ in range(8):
        again.spend_pure("curator", epsilon=budget.selection, what="selection")
    again.spend_gaussian("curator", noise_over_sensitivity=budget.noise / 3, what="9 tables")
    assert 0.98 * epsilon < again.epsilon() <= epsilon
    assert budget.noise < math.sqrt(2) * pb.budget_of(PrivBayesConfig(epsilon=epsilon), 9).noise


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_noise_in_a_table_has_the_announced_law(kind):
    flat = np.full((1, 40_000), 1e6)
    law = pb._law(flat, 50.0, kind, numpy_generator(0, kind))
    noise = law[0] * (flat.sum()) - flat[0]
    spread = 50 * math.sqrt(2) if kind == "laplace" else 50.0
    assert noise.std() == pytest.approx(spread, rel=0.03)
    assert np.mean(np.abs(noise)) == pytest.approx(50.0 if kind == "laplace" else 50 * math.sqrt(2 / math.pi), rel=0.03)


def test_maximal_parents_fit_and_cannot_grow():
    options = {0: (3,), 1: (8, 4, 2), 2: (2,)}
    found = pb.maximal_parents(options, 12)
    assert ((0, 3), (1, 4)) in found and ((1, 4), (2, 2)) in found and ((0, 3), (2, 2)) in found
    assert all(math.prod(size for _, size in own) <= 12 for own in found)
    assert ((1, 8),) in found  # finer than in any pair
    assert pb.maximal_parents(options, 1) == [()]


def test_a_planted_network_is_found_and_drawn():
    frame = toy()
    model = pb.privbayes(frame, PrivBayesConfig(epsilon=20.0), kinds=KINDS, first="label")
    names = model.names
    parents = {names[c]: {names[a] for a, _ in own} for c, own in model.parents.items()}
    assert names[model.order[0]] == "label" and parents["label"] == set()
    assert parents["copy"] & {"label", "size"}
    drawn = model.sample(2000, seed=1)
    assert list(drawn.columns) == list(frame.columns) and (drawn.dtypes == frame.dtypes).all()
    assert ((drawn["copy"] == "b") == (drawn["label"] == "yes")).mean() > 0.95
    means = drawn.groupby("label")["size"].mean()
    assert means["yes"] - means["no"] > 3
    assert drawn.equals(model.sample(2000, seed=1)) and not drawn.equals(model.sample(2000, seed=2))
    assert model.privacy["epsilon"] <= 20 and any("codec" in what for what in model.privacy["outside"])


def test_noise_of_a_small_budget_hides_the_network():
    frame = toy(200)
    model = pb.privbayes(frame, PrivBayesConfig(epsilon=0.01), kinds=KINDS, first="label")
    assert model.settings["edges"] == 0
    drawn = model.sample(2000, seed=0)
    assert abs(((drawn["copy"] == "b") == (drawn["label"] == "yes")).mean() - 0.5) < 0.35


@pytest.mark.parametrize(("bad", "words"), [
    (dict(epsilon=0.0), "epsilon"), (dict(epsilon=1.0, noise="cauchy"), "noise"),
    (dict(epsilon=1.0, bins=12), "power of 2"), (dict(epsilon=1.0, share=1.0), "share"),
])
def test_bad_settings_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        PrivBayesConfig(**bad)


def test_a_root_that_is_no_column_is_refused():
    with pytest.raises(ValueError, match="first must be a column"):
        pb.privbayes(toy(50), PrivBayesConfig(epsilon=1.0), kinds=KINDS, first="nobody")
