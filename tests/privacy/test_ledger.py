"""The ledger: composition, clients, persons, resets, persistence; every rule against a closed form or an accountant."""

import json
import math

import pytest
from scipy.integrate import quad
from scipy.stats import norm

from feddiff.privacy import accounting, pld
from feddiff.privacy.ledger import PrivacyLedger, true_epsilon_of_reset_ledgers
from feddiff.privacy.workload import Workload

DELTA = 1e-5


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path))


def opened(clients=("a", "b"), **settings):
    return PrivacyLedger(clients=clients, **{"delta": DELTA, **settings})


def trained(steps=400, **settings):
    ledger = opened(**settings)
    ledger.spend_sgm("a", sample_rate=0.05, noise_multiplier=2.0, steps=steps)
    ledger.spend_sgm("b", sample_rate=0.10, noise_multiplier=2.0, steps=steps)
    return ledger


def test_nothing_spent_is_zero_and_no_noise_is_infinite():
    ledger = opened()
    assert ledger.epsilon() == ledger.epsilon("a") == 0.0
    ledger.spend_sgm("a", sample_rate=0.1, noise_multiplier=0.0, steps=0)
    assert ledger.epsilon() == 0.0
    ledger.spend_sgm("a", sample_rate=0.1, noise_multiplier=0.0, steps=1)
    assert ledger.epsilon("a") == math.inf and ledger.epsilon("b") == 0.0 and ledger.epsilon() == math.inf


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("adjacency", ["add-remove", "replace-one"])
def test_clients_compose_in_parallel_each_with_its_own_rate(accountant, adjacency):
    ledger = trained(accountant=accountant, adjacency=adjacency)
    for name, rate in (("a", 0.05), ("b", 0.10)):
        expected = accounting.epsilon(
            sample_rate=rate, noise_multiplier=2.0, steps=400, delta=DELTA, accountant=accountant, adjacency=adjacency
        )
        assert ledger.epsilon(name) == pytest.approx(expected, rel=1e-9)
    assert ledger.epsilon() == ledger.epsilon("b") > ledger.epsilon("a")


def test_equal_steps_merge_and_different_ones_do_not():
    ledger = opened()
    for steps in (100, 150):
        ledger.spend_sgm("a", sample_rate=0.05, noise_multiplier=2.0, steps=steps)
    ledger.spend_sgm("a", sample_rate=0.05, noise_multiplier=3.0, steps=10)
    ledger.spend_sgm("a", sample_rate=0.05, noise_multiplier=2.0, steps=5)
    assert [event.steps for event in ledger.events("a")] == [250, 10, 5]


def test_gaussian_releases_add_their_mu_in_squares():
    ledger = opened(["a"])
    for noise in (3.0, 4.0, 12.0):
        ledger.spend_gaussian("a", noise_over_sensitivity=noise, what="histogram")
    mu = math.sqrt(1 / 9 + 1 / 16 + 1 / 144)
    exact = accounting.gaussian_epsilon(noise_over_sensitivity=1 / mu, delta=DELTA)
    assert ledger.epsilon() == pytest.approx(exact, rel=1e-12)


def test_one_gaussian_and_one_pure_release_by_definition():
    # Losses add: eps0 with probability e^eps0 / (1 + e^eps0), -eps0 otherwise, on top of a Gaussian's. So
    # delta(eps) = p delta_G(eps - eps0) + (1 - p) delta_G(eps + eps0).
    ledger = opened(["a"])
    ledger.spend_gaussian("a", noise_over_sensitivity=2.0, what="counts")
    ledger.spend_pure("a", epsilon=0.5, what="quantile")
    epsilon = ledger.epsilon()
    share = 1 / (1 + math.exp(-0.5))
    parts = [accounting.gaussian_delta(noise_over_sensitivity=2.0, epsilon=epsilon + shift) for shift in (-0.5, 0.5)]
    assert share * parts[0] + (1 - share) * parts[1] == pytest.approx(DELTA, rel=2e-3)


def test_pure_releases_never_exceed_their_sum():
    ledger = opened(["a"])
    ledger.spend_pure("a", epsilon=0.3, what="first")
    assert ledger.epsilon() == 0.3
    ledger.spend_pure("a", epsilon=0.2, what="second")
    assert 0.3 < ledger.epsilon() <= 0.5
    for _ in range(200):
        ledger.spend_pure("a", epsilon=0.01, what="many small ones")
    assert ledger.epsilon() < 1.5  # 2.5 if they were simply added


def test_training_and_releases_compose_below_the_sum_and_above_each_part():
    for accountant in ("pld", "rdp"):
        ledger = trained(accountant=accountant)
        training = ledger.epsilon("a")
        ledger.spend_gaussian("a", noise_over_sensitivity=5.0, what="quantiles")
        release = accounting.gaussian_epsilon(noise_over_sensitivity=5.0, delta=DELTA)
        assert max(training, release) < ledger.epsilon("a") < training + release + 0.2


def test_replace_one_doubles_one_shot_releases():
    ledger = opened(["a"], adjacency="replace-one")
    ledger.spend_gaussian("a", noise_over_sensitivity=4.0, what="histogram")
    exact = accounting.gaussian_epsilon(noise_over_sensitivity=2.0, delta=DELTA)
    assert ledger.epsilon() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("records", [1, 2, 4, 8])
def test_group_of_full_batch_steps_is_exact(records):
    ledger = opened(["a"])
    ledger.spend_sgm("a", sample_rate=1.0, noise_multiplier=40.0, steps=25)
    exact = accounting.gaussian_epsilon(noise_over_sensitivity=40.0 / 5 / records, delta=DELTA)
    assert ledger.group(records) == pytest.approx(exact, rel=1e-9)


def test_group_at_low_rates_lies_between_one_row_and_the_group_inequality():
    ledger = opened(["a"])
    ledger.spend_sgm("a", sample_rate=0.05, noise_multiplier=3.0, steps=50)
    one, two = ledger.group(1), ledger.group(2)
    assert one == pytest.approx(ledger.epsilon(), rel=1e-12)
    # (eps, d) for one row is (2 eps, d (1 + e^eps)) for two: at delta / (1 + e^eps) that is an upper bound.
    strict = accounting.epsilon(
        sample_rate=0.05, noise_multiplier=3.0, steps=50, delta=DELTA / (1 + math.exp(2 * one))
    )
    assert 1.5 * one < two < 2 * strict
    # All rows in every batch that holds one of them is worse still.
    together = accounting.epsilon(
        sample_rate=1 - 0.95**2, noise_multiplier=1.5, steps=50, delta=DELTA
    )
    assert two < together


def test_group_of_two_for_one_step_by_definition():
    rate, noise = 0.3, 1.5
    ledger = opened(["a"], delta=1e-3)
    ledger.spend_sgm("a", sample_rate=rate, noise_multiplier=noise, steps=1)
    epsilon = ledger.group(2)
    weights = [(1 - rate) ** 2, 2 * rate * (1 - rate), rate**2]

    def removal(x):
        mixture = sum(weight * norm.pdf(x, mean, noise) for mean, weight in enumerate(weights))
        return max(0.0, mixture - math.exp(epsilon) * norm.pdf(x, 0, noise))

    assert quad(removal, -15, 20, limit=400, points=[0, 1, 2, 3, 5])[0] == pytest.approx(1e-3, rel=2e-3)


def test_groups_are_refused_where_no_mixture_is_known():
    for settings in ({"accountant": "rdp"}, {"adjacency": "replace-one"}):
        with pytest.raises(ValueError, match="several rows of one person"):
            trained(**settings).group(2)


def test_a_person_at_two_clients_composes_over_them():
    ledger = trained()
    alone = ledger.epsilon()
    ledger.declare_overlap({"a": 1, "b": 1})
    both = Workload()
    both.add_sampled(sample_rate=0.05, noise_multiplier=2.0, steps=400)
    both.add_sampled(sample_rate=0.10, noise_multiplier=2.0, steps=400)
    assert ledger.epsilon() == pytest.approx(pld.workload_epsilon(both, DELTA), rel=1e-9)
    assert alone < ledger.epsilon() < alone + ledger.epsilon("a")
    statement = ledger.statement()
    assert statement["overlaps"][0]["rows"] == {"a": 1, "b": 1}
    assert "composed over the clients" in statement["composition"]
    with pytest.raises(ValueError, match="at least two clients"):
        ledger.declare_overlap({"a": 2})


def test_a_row_that_moves_between_clients_breaks_the_maximum():
    within = trained(adjacency="replace-one")
    across = trained(adjacency="replace-one", replacement="across")
    added = trained(delta=DELTA / 2)
    moved = added.epsilon("a") + added.epsilon("b")
    assert across.epsilon() == pytest.approx(max(within.epsilon(), moved), rel=1e-9)
    assert "sum of the two largest" in across.statement()["composition"]


def test_user_and_client_level_are_units_of_one_ledger():
    ledger = opened([f"silo {index}" for index in range(5)], unit="client")
    for name in ledger.clients:
        ledger.spend_sgm(name, sample_rate=1.0, noise_multiplier=204.336, steps=3000)
    assert ledger.epsilon() == pytest.approx(1.0, abs=1e-4)
    assert ledger.statement()["unit"] == "client"


def test_the_statement_is_complete():
    ledger = trained(unit="record")
    ledger.declare_outside("quantile knots of the codec")
    ledger.declare_outside("quantile knots of the codec")
    statement = ledger.statement()
    wanted = {
        "unit": "record",
        "adjacency": "add-remove",
        "sampling": "Poisson",
        "delta": DELTA,
        "accountant": "pld",
        "outside": ["quantile knots of the codec"],
        "covers_everything": False,
    }
    assert {key: statement[key] for key in wanted} == wanted
    assert "maximum over clients" in statement["composition"]
    assert statement["epsilon"] == ledger.epsilon()
    assert statement["clients"]["a"]["steps"] == 400
    assert statement["clients"]["a"]["events"][0]["sample_rate"] == 0.05
    json.dumps(statement, allow_nan=False)


def test_json_round_trip_with_every_kind_of_event():
    ledger = trained(adjacency="replace-one", replacement="across", unit="image")
    ledger.spend_gaussian("a", noise_over_sensitivity=math.inf, what="nothing really")
    ledger.spend_pure("b", epsilon=0.1, what="median")
    ledger.spend_sgm("b", sample_rate=1 / 3, noise_multiplier=0.1 + 0.2, steps=7)
    ledger.declare_overlap({"a": 2, "b": 1})
    ledger.declare_outside("class counts")
    again = PrivacyLedger.from_json(ledger.to_json())
    assert again == ledger and again.to_json() == ledger.to_json()
    again.spend_pure("a", epsilon=0.1, what="one more")
    assert again != ledger
    assert opened() != trained() and opened() == opened() and opened(delta=1e-6) != opened()
    for text in ("{", "[]", '{"format": "other"}'):
        with pytest.raises(ValueError, match="not a privacy ledger"):
            PrivacyLedger.from_json(text)


def test_a_reset_between_rounds_is_detected():
    earlier = PrivacyLedger.from_json(trained().to_json())
    later = trained()
    later.spend_sgm("a", sample_rate=0.05, noise_multiplier=2.0, steps=400)
    later.spend_gaussian("b", noise_over_sensitivity=3.0, what="histogram")
    later.check_continues(earlier)
    later.check_continues(opened())
    for reset in (opened(), trained(steps=399)):
        with pytest.raises(ValueError, match="client 'a' was reset"):
            reset.check_continues(earlier)
    forgetful = trained(steps=800)
    with pytest.raises(ValueError, match="client 'b' was reset"):
        forgetful.check_continues(later)
    with pytest.raises(ValueError, match="delta was"):
        trained(delta=1e-6).check_continues(earlier)
    earlier.declare_outside("codec")
    with pytest.raises(ValueError, match="outside"):
        trained().check_continues(earlier)


def test_true_epsilon_of_rounds_with_fresh_ledgers():
    # 24,000 rows, 5 clients, B = 16: calibrated to epsilon 1 per round of 100 steps, 3,000 rounds (privacy.md, 6.1).
    rate, delta = 16 / 4800, 1 / 24000
    rounds = []
    for _ in range(3000):
        ledger = PrivacyLedger(clients=["a"], delta=delta, accountant="rdp")
        ledger.spend_sgm("a", sample_rate=rate, noise_multiplier=0.8618, steps=100)
        rounds.append(ledger)
    assert rounds[0].epsilon() == pytest.approx(1.0, abs=1e-3)
    assert true_epsilon_of_reset_ledgers(rounds) == pytest.approx(17.50, abs=0.02)
    with pytest.raises(ValueError, match="share clients"):
        true_epsilon_of_reset_ledgers([rounds[0], PrivacyLedger(clients=["b"], delta=delta)])


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda ledger: ledger.spend_sgm("c", sample_rate=0.1, noise_multiplier=1, steps=1), "client 'c'"),
        (lambda ledger: ledger.spend_sgm("a", sample_rate=1.1, noise_multiplier=1, steps=1), "sample_rate"),
        (lambda ledger: ledger.spend_sgm("a", sample_rate=0.1, noise_multiplier=-1, steps=1), "noise_multiplier"),
        (lambda ledger: ledger.spend_gaussian("a", noise_over_sensitivity=1, what=" "), "what"),
        (lambda ledger: ledger.spend_pure("a", epsilon=-0.1, what="x"), "epsilon"),
        (lambda ledger: ledger.declare_outside(""), "what"),
        (lambda ledger: ledger.group(0), "records"),
        (lambda ledger: opened(clients="ab"), "clients"),
        (lambda ledger: opened(clients=["a", "a"]), "distinct"),
        (lambda ledger: opened(accountant="prv"), "compose"),
        (lambda ledger: opened(accountant="gdp"), "refused"),
        (lambda ledger: opened(delta=0.0), "delta"),
        (lambda ledger: opened(replacement="anywhere"), "replacement"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(act, named):
    ledger = opened()
    ledger.spend_pure("a", epsilon=0.1, what="first")
    with pytest.raises(ValueError, match=named):
        act(ledger)
    assert len(ledger.events("a")) == 1 and not ledger.events("b")


def test_a_threshold_release_takes_its_delta_off_the_rest():
    ledger = opened(["a"])
    ledger.spend_gaussian("a", noise_over_sensitivity=2.0, what="histogram")
    ledger.spend_delta("a", delta=4e-6, what="threshold")
    exact = accounting.gaussian_epsilon(noise_over_sensitivity=2.0, delta=6e-6)
    assert ledger.epsilon() == pytest.approx(exact, abs=1e-5) and ledger.epsilon() >= exact
    assert PrivacyLedger.from_json(ledger.to_json()) == ledger
    with pytest.raises(ValueError, match="threshold release"):
        ledger.group(2)
    ledger.spend_delta("a", delta=6e-6, what="another threshold")
    assert ledger.epsilon() == math.inf
