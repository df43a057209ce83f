"""Numbers of clients: splits of the same rows, controls, and the promise to a whole client."""

import math

import numpy as np
import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import figures_findiff_clients as figures, findiff_clients as study
from feddiff.experiments.frames import load_records
from feddiff.experiments.style import NothingToDraw
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.systems import findiff


@pytest.fixture(scope="module")
def table():
    generator = np.random.default_rng(0)
    group = generator.integers(0, 4, 900)
    frame = pd.DataFrame({
        "a": group + 0.1 * generator.normal(size=900), "b": np.array(list("uvxy"))[group],
        "label": np.where(generator.random(900) > 0.4, "yes", "no"),
    })
    kinds = {"a": "numeric", "b": "categorical", "label": "categorical"}
    return Table(frame=frame, target="label", kinds=kinds, name="toy", source="embedded", sha256="ab" * 32)


def test_splits_share_their_rows_and_leave_out_what_is_too_small(table):
    found = study.splits(table, [1, 3], [2, 4, 5], category="b", seed=0, rows=50, max_rows=None)
    assert list(found) == [("iid", 1), ("iid", 3), ("by_category", 2), ("by_category", 4)]
    for setting in found.values():
        assert setting.train.frame.equals(found["iid", 1].train.frame) and setting.rows == 50
    assert all(client.frame["b"].nunique() == 1 for client in found["by_category", 4].clients)
    few = study.splits(table, [1], [4], category="b", seed=0, rows=50, max_rows=500)
    assert list(few) == [("iid", 1)], "100 rows a client are too few"
    for name in ("", "a", "label"):
        with pytest.raises(ValueError, match="no categorical feature"):
            study.category_of(table, name)


def test_a_whole_run_with_its_controls(table, new_run):
    run = new_run(notebook="11_findiff_clients", scale="quick")
    found = study.splits(table, [1, 3], [3], category="b", seed=0, rows=60, max_rows=None)
    base = findiff.ours(epsilon=1.0, R=2, S=2, B=16, hidden=(8,), ema=0.0)
    first, _ = study.federated(run, found["iid", 1], base, method="ours", partition="iid", clients=1,
                               **study.label(base, "epsilon"))
    arms = study.arms(base, first.prepared.noise_multipliers[0])
    assert arms["none"].private is False and arms["sigma"].noise_multiplier == first.prepared.noise_multipliers[0]
    for budget, config in arms.items():
        model, _ = study.federated(run, found["iid", 3], config, method="ours", partition="iid", clients=3,
                                   **study.label(config, budget))
        assert (model.privacy["epsilon"] == math.inf) == (budget == "none")
    _, release = study.federated(run, found["by_category", 3], base, method="ours", partition="by_category", clients=3,
                                 **study.label(base, "epsilon"))
    told = study.local_only(run, found["by_category", 3], base, partition="by_category", clients=3,
                            **study.label(base, "epsilon"))
    assert set(told) == {"local", "local_pooled"} and set(told["local"]) == set(study.HEADLINE)
    seen = study.presence(run, found["by_category", 3], base, release, "b", chunk=10, clients=3)
    assert 0 <= seen.absent <= 1 and 0 <= seen.advantage <= 1
    fed = study.federated(run, found["iid", 3], base, method="ours", partition="iid", clients=3,
                          **study.label(base, "epsilon"))[0]
    assert study.promise(run, found["iid", 3], base, fed, [1, 2], clients=3)["client_level_epsilon"] > 10
    run.save()
    frame = load_records("11_findiff_clients", "quick")
    spent = frame[frame["name"] == "client_epsilon"].groupby("budget")["value"]
    assert spent.max()["epsilon"] <= 1 < spent.min()["sigma"]
    own = frame[(frame["name"] == "pair_trends") & (frame["method"] == "local")].set_index("client")["value"]
    assert own[""] == pytest.approx(own[["0", "1", "2"]].mean())
    pairs = figures.differences(frame, "pair_trends", "3")
    value = pairs.query("of == 'ours' and minus == 'local'")["value"]
    assert len(value) == 1 and len(pairs.query("of == 'centralised'")) == 2
    for draw in (figures.clients, figures.noise, figures.alone, figures.unit):
        assert draw(frame).axes
    with pytest.raises(NothingToDraw):
        figures.clients(frame[frame["name"] != "pair_trends"])


@pytest.mark.parametrize(("rows", "rate", "noise", "steps"), [(4, 0.5, 10.0, 20), (8, 0.25, 6.0, 5)])
def test_the_bound_for_a_whole_client_lies_above_exact_composition(rows, rate, noise, steps):
    ledger = PrivacyLedger(clients=["a"], delta=1e-5)
    ledger.spend_sgm("a", sample_rate=rate, noise_multiplier=noise, steps=steps)
    bound = study.whole_client_epsilon(rows=rows, sample_rate=rate, noise_multiplier=noise, steps=steps, delta=1e-5)
    assert ledger.group(rows) <= bound < 5 * ledger.group(rows)


def test_full_batches_make_the_bound_exact():
    one = dict(rows=10, sample_rate=1.0, steps=9, delta=1e-5)
    sigma = study.whole_client_noise(target_epsilon=1.0, **one)
    assert study.whole_client_epsilon(noise_multiplier=sigma, **one) == pytest.approx(1.0)
    # 10 rows in every one of 9 steps: sensitivity 10 sqrt(9), at delta / 2.
    from feddiff.privacy.accounting import gaussian_noise
    assert sigma == pytest.approx(30 * gaussian_noise(target_epsilon=1.0, delta=5e-6))


def test_group_privacy_ends_where_its_delta_reaches_one():
    count = study.largest_group(epsilon=1.0, delta=1e-5)
    delta = [1e-5 * math.expm1(k) / math.expm1(1.0) for k in (count, count + 1)]
    assert delta[0] < 1 <= delta[1]
