"""Epsilon of DP-SGD and its calibration: reference grid, identities, degenerate cases, monotonicity, overshoot."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from opacus.accountants import RDPAccountant
from scipy.integrate import quad
from scipy.stats import norm

from feddiff.privacy import accounting, cache, pld, renyi
from feddiff.seeds import numpy_generator

ROWS = json.loads(Path(__file__).with_name("reference_epsilon.json").read_text())["rows"]
DP = {"sample_rate": 0.01, "noise_multiplier": 1.0, "steps": 1000, "delta": 1e-5}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path))
    accounting._epsilon.cache_clear()


def of(row, accountant="pld"):
    rate, noise, steps = row[:3]
    return accounting.epsilon(
        sample_rate=float(Fraction(rate)), noise_multiplier=noise, steps=steps, delta=1e-5, accountant=accountant
    )


def test_the_grid_is_whole():
    assert len(ROWS) == 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
def test_reference_grid(row):
    tight, rdp = of(row), of(row, "rdp")
    assert tight == pytest.approx(row[3], rel=1e-3)
    assert rdp == pytest.approx(row[4], rel=1e-6)
    assert tight <= rdp


def test_rdp_is_what_opacus_reports():
    accountant = RDPAccountant()
    accountant.history = [(1.5, 0.04, 2250)]
    ours = accounting.epsilon(sample_rate=0.04, noise_multiplier=1.5, steps=2250, delta=1e-5, accountant="rdp")
    assert ours == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    assert ours == pytest.approx(7.32911117143, rel=1e-9)
    np.testing.assert_allclose(renyi.ORDERS, RDPAccountant.DEFAULT_ALPHAS, rtol=1e-12)


def test_prv_stands_beside_the_pld():
    row = next(row for row in ROWS if row[:3] == ["16/1000", 1.0, 1000])
    assert of(row, "prv") == pytest.approx(row[5], abs=2e-3)
    assert 0 < of(row, "prv") - of(row) < 0.02


def test_prv_refuses_what_would_exhaust_the_memory():
    with pytest.raises(ValueError, match="grid points"):
        of(["512/24000", 0.5, 50000], "prv")
    with pytest.raises(ValueError, match="add-remove"):
        accounting.epsilon(**DP, accountant="prv", adjacency="replace-one")


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (10.0, 100), (5.0, 1), (50.0, 100), (0.3, 7)])
@pytest.mark.parametrize("adjacency", ["add-remove", "replace-one"])
def test_full_batch_steps_are_one_gaussian(noise, steps, adjacency):
    setting = {"sample_rate": 1.0, "delta": 1e-5, "adjacency": adjacency}
    many = accounting.epsilon(noise_multiplier=noise, steps=steps, **setting)
    once = accounting.epsilon(noise_multiplier=noise / math.sqrt(steps), steps=1, **setting)
    shift = 1 if adjacency == "add-remove" else 2
    exact = accounting.gaussian_epsilon(noise_over_sensitivity=noise / math.sqrt(steps) / shift, delta=1e-5)
    assert many == pytest.approx(once, rel=1e-9)
    assert many == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("adjacency", ["add-remove", "replace-one"])
def test_sampling_nearly_everything_nears_the_full_batch(adjacency):
    near = accounting.epsilon(sample_rate=0.99999, noise_multiplier=3, steps=5, delta=1e-5, adjacency=adjacency)
    full = accounting.epsilon(sample_rate=1.0, noise_multiplier=3, steps=5, delta=1e-5, adjacency=adjacency)
    assert near == pytest.approx(full, rel=1e-3)


def test_one_subsampled_step_by_its_definition():
    rate, noise, delta = 0.2, 0.8, 1e-3
    epsilon = accounting.epsilon(sample_rate=rate, noise_multiplier=noise, steps=1, delta=delta)

    def removal(x):
        mixture = (1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, 1, noise)
        return max(0.0, mixture - math.exp(epsilon) * norm.pdf(x, 0, noise))

    assert quad(removal, -8, 10, limit=400, points=[0, 1, 2])[0] == pytest.approx(delta, rel=1e-3)


def test_rdp_of_replace_one_by_its_definition():
    rate, noise, order = 0.3, 1.2, 4.0
    ours = renyi.sampled_gaussian_rdp(
        sample_rate=rate, noise_multiplier=noise, adjacency="replace-one", orders=np.array([order])
    )[0]

    def integrand(x):
        first = (1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, 1, noise)
        second = (1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, -1, noise)
        return first**order * second ** (1 - order)

    assert ours == pytest.approx(math.log(quad(integrand, -12, 20, limit=400)[0]) / (order - 1), rel=1e-8)


@pytest.mark.parametrize(("rate", "steps", "expected"), [(512 / 6000, 1000, 37.377), (0.01, 10000, 10.881)])
def test_replace_one_costs_more(rate, steps, expected):
    setting = {"sample_rate": rate, "noise_multiplier": 1.0, "steps": steps, "delta": 1e-5}
    replaced = accounting.epsilon(**setting, adjacency="replace-one")
    assert replaced == pytest.approx(expected, rel=1e-3)
    assert accounting.epsilon(**setting) < replaced
    assert replaced <= accounting.epsilon(**setting, adjacency="replace-one", accountant="rdp")


@pytest.mark.parametrize("accountant", ["pld", "rdp", "prv"])
def test_degenerate_cases(accountant):
    for change, expected in [
        ({"sample_rate": 0.0}, 0.0),
        ({"sample_rate": 0.0, "noise_multiplier": 0.0}, 0.0),
        ({"steps": 0}, 0.0),
        ({"steps": 0, "noise_multiplier": 0.0}, 0.0),
        ({"noise_multiplier": 0.0}, math.inf),
        ({"noise_multiplier": math.inf}, 0.0),
    ]:
        assert accounting.epsilon(**{**DP, **change}, accountant=accountant) == expected
    assert accounting.noise_multiplier(target_epsilon=1, sample_rate=0, steps=9, delta=1e-5, accountant=accountant) == 0
    assert accounting.noise_multiplier(target_epsilon=1, sample_rate=1, steps=0, delta=1e-5, accountant=accountant) == 0


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"sample_rate": 1.2}, ValueError, "sample_rate"),
        ({"sample_rate": math.nan}, ValueError, "sample_rate"),
        ({"sample_rate": True}, TypeError, "sample_rate"),
        ({"noise_multiplier": -1}, ValueError, "noise_multiplier"),
        ({"noise_multiplier": "1"}, TypeError, "noise_multiplier"),
        ({"steps": 2.5}, TypeError, "steps"),
        ({"steps": -1}, ValueError, "steps"),
        ({"delta": 0.0}, ValueError, "delta"),
        ({"delta": 1.0}, ValueError, "delta"),
        ({"accountant": "moments"}, ValueError, "accountant"),
        ({"adjacency": "zero-out"}, ValueError, "adjacency"),
        ({"delta": 1e-14}, ValueError, "delta"),
    ],
)
def test_bad_input_is_named(change, error, named):
    with pytest.raises(error, match=named):
        accounting.epsilon(**{**DP, **change})


@pytest.mark.parametrize("accountant", ["gdp", "GDP", "clt"])
def test_the_central_limit_is_refused_with_its_number(accountant):
    with pytest.raises(ValueError, match=r"9\.847 where the true epsilon is 11\.774"):
        accounting.epsilon(**DP, accountant=accountant)
    with pytest.raises(ValueError, match="refused"):
        accounting.noise_multiplier(target_epsilon=1, sample_rate=0.1, steps=5, delta=1e-5, accountant=accountant)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_monotone_in_every_argument(accountant):
    base = {"sample_rate": 0.02, "noise_multiplier": 2.0, "steps": 300, "delta": 1e-5}
    for name, values, rising in [
        ("sample_rate", [0.002, 0.005, 0.01, 0.03, 0.1], True),
        ("steps", [1, 10, 100, 1000, 10000], True),
        ("noise_multiplier", [0.7, 1.0, 2.0, 5.0, 20.0], False),
        ("delta", [1e-9, 1e-7, 1e-5, 1e-3], False),
    ]:
        spent = [accounting.epsilon(**{**base, name: value}, accountant=accountant) for value in values]
        assert spent == sorted(spent, reverse=not rising) and spent[0] != spent[-1], name


@pytest.mark.parametrize(
    ("rate", "steps", "target", "by_pld", "by_rdp"),
    [(0.01, 1000, 1, 1.4146, 1.5131), (0.01, 10000, 8, 0.8825, 0.9169), (512 / 6000, 1000, 8, 1.7906, 1.8945)],
)
def test_calibration_table(rate, steps, target, by_pld, by_rdp):
    setting = {"target_epsilon": target, "sample_rate": rate, "steps": steps, "delta": 1e-5}
    tight = accounting.noise_multiplier(**setting)
    assert tight == pytest.approx(by_pld, rel=6e-4)
    assert accounting.noise_multiplier(**setting, accountant="rdp") == pytest.approx(by_rdp, rel=3e-4)
    spent = accounting.epsilon(sample_rate=rate, noise_multiplier=tight, steps=steps, delta=1e-5)
    assert 0.999 * target < spent <= target


def test_calibration_needs_few_distributions():
    before = pld._step.cache_info().misses
    accounting.noise_multiplier(target_epsilon=2.0, sample_rate=0.03, steps=400, delta=1e-6)
    assert pld._step.cache_info().misses - before <= 4


def configurations(number: int, name: str):
    generator = numpy_generator(20, "overshoot", name)
    for _ in range(number):
        rate = float(10 ** generator.uniform(-3, 0))
        yield {
            "target_epsilon": float(10 ** generator.uniform(-0.5, 1.5)),
            "sample_rate": 1.0 if generator.random() < 0.05 else rate,
            "steps": int(10 ** generator.uniform(0.7, 5)),
            "delta": float(10 ** generator.uniform(-9, -5)),
            "adjacency": "add-remove",
        }


def never_overshoots(setting: dict, accountant: str) -> None:
    noise = accounting.noise_multiplier(**setting, accountant=accountant)
    target = setting.pop("target_epsilon")
    spent = accounting.epsilon(**setting, noise_multiplier=noise, accountant=accountant)
    assert 0.98 * target < spent <= target, (setting, noise)


def test_calibration_never_overshoots_rdp():
    for setting in configurations(330, "rdp"):
        never_overshoots(setting, "rdp")


@pytest.mark.slow
def test_calibration_never_overshoots_rdp_many():
    for setting in configurations(600, "rdp many"):
        never_overshoots(setting, "rdp")


def test_calibration_never_overshoots_pld():
    for setting in configurations(6, "pld"):
        never_overshoots(setting, "pld")


@pytest.mark.slow
def test_calibration_never_overshoots_pld_many():
    for setting in configurations(64, "pld many"):
        never_overshoots(setting, "pld")


@pytest.mark.slow
def test_calibration_never_overshoots_replace_one():
    for setting in configurations(20, "replace"):
        never_overshoots({**setting, "adjacency": "replace-one"}, "rdp")
        never_overshoots({**setting, "adjacency": "replace-one"}, "pld")


def test_small_targets_by_pld_and_the_floor_of_rdp():
    setting = {"target_epsilon": 0.05, "sample_rate": 0.05, "steps": 1500, "delta": 1e-8, "adjacency": "add-remove"}
    never_overshoots(dict(setting), "pld")
    with pytest.raises(ValueError, match="below what 'rdp' can certify"):
        accounting.noise_multiplier(**setting, accountant="rdp")


def test_an_unreachable_target_says_so():
    # delta covers the chance of ever being sampled: every noise gives epsilon 0, so epsilon 1 cannot be spent.
    with pytest.raises(ValueError, match="smaller delta"):
        accounting.noise_multiplier(target_epsilon=1.0, sample_rate=1e-6, steps=2, delta=1e-5)


def test_max_steps_is_the_last_allowed_one():
    setting = {"sample_rate": 0.02, "noise_multiplier": 2.0, "delta": 1e-5}
    for accountant in ("pld", "rdp"):
        allowed = accounting.max_steps(target_epsilon=1.0, steps=100_000, **setting, accountant=accountant)
        assert accounting.epsilon(steps=allowed, **setting, accountant=accountant) <= 1.0
        assert accounting.epsilon(steps=allowed + 1, **setting, accountant=accountant) > 1.0
    assert accounting.max_steps(target_epsilon=1.0, steps=7, **setting) == 7
    assert accounting.max_steps(target_epsilon=1.0, steps=7, **{**setting, "noise_multiplier": 0.0}) == 0


def test_federated_horizon_of_the_authors_configuration():
    rows, clients, batch, steps = 24000, 5, 16, 300_000
    delta, rate = 1 / rows, batch / (rows / clients)
    rdp = {"delta": delta, "accountant": "rdp"}
    noise = accounting.noise_multiplier(target_epsilon=1, sample_rate=rate, steps=steps, **rdp)
    assert noise == pytest.approx(6.831, abs=1e-3)
    per_round = accounting.noise_multiplier(target_epsilon=1, sample_rate=rate, steps=100, **rdp)
    assert per_round == pytest.approx(0.8618, abs=2e-4)
    spent = accounting.epsilon(sample_rate=rate, noise_multiplier=per_round, steps=steps, **rdp)
    assert spent == pytest.approx(17.50, abs=0.02)
    per_epoch = accounting.noise_multiplier(target_epsilon=1, sample_rate=rate, steps=int(1 / rate), **rdp)
    assert per_epoch == pytest.approx(0.8832, abs=2e-4)
    spent = accounting.epsilon(sample_rate=rate, noise_multiplier=per_epoch, steps=steps, **rdp)
    assert spent == pytest.approx(16.525, abs=0.02)
    wrong = accounting.noise_multiplier(target_epsilon=1, sample_rate=batch / rows, steps=steps, **rdp)
    spent = accounting.epsilon(sample_rate=rate, noise_multiplier=wrong, steps=steps, **rdp)
    assert spent == pytest.approx(6.218, abs=5e-3)
    for number, expected in [(1, 0.171), (2, 0.365), (5, 1.000), (10, 2.163), (20, 4.782)]:
        spent = accounting.epsilon(sample_rate=batch * number / rows, noise_multiplier=noise, steps=steps, **rdp)
        assert spent == pytest.approx(expected, abs=2e-3)


def test_client_level_needs_absurd_noise():
    noise = accounting.noise_multiplier(target_epsilon=1, sample_rate=1.0, steps=3000, delta=1e-5)
    assert noise == pytest.approx(3.730632 * math.sqrt(3000), rel=1e-6)


def test_disk_cache_round_trip_and_corruption(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_WORTH_KEEPING", 0.0)
    setting = {"sample_rate": 0.05, "noise_multiplier": 3.0, "steps": 50, "delta": 1e-5}
    value = accounting.epsilon(**setting)
    (entry,) = (tmp_path / "accounting").glob("*.json")
    stored = json.loads(entry.read_text())
    assert stored["value"] == value and stored["key"]["dp_accounting"]

    entry.write_text(json.dumps({**stored, "value": 123.0}))
    accounting._epsilon.cache_clear()
    assert accounting.epsilon(**setting) == 123.0  # it is the file that answers

    broken = ["{", "[]", json.dumps({"key": stored["key"]}), json.dumps({**stored, "value": -1.0}), ""]
    for text in [*broken, json.dumps({**stored, "key": {}})]:
        entry.write_text(text)
        accounting._epsilon.cache_clear()
        assert accounting.epsilon(**setting) == value
        assert json.loads(entry.read_text()) == stored
    assert not list(entry.parent.glob("*.part"))


def test_an_unwritable_cache_warns_and_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_WORTH_KEEPING", 0.0)
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    monkeypatch.setenv("FEDDIFF_CACHE", str(blocker))
    with pytest.warns(UserWarning, match="FEDDIFF_CACHE"):
        assert accounting.epsilon(sample_rate=0.05, noise_multiplier=3.0, steps=50, delta=1e-5) > 0
