"""Three systems on one scale: slots of two persons, planted leaks and none, matched utility, the figure."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from feddiff.experiments import attack_scale as scale
from feddiff.experiments import attack_scale_systems as systems
from feddiff.experiments import figures_attacks_scale as figures
from feddiff.experiments import records
from feddiff.experiments.figures_pfdm import ends
from feddiff.systems import findiff, pfdm, silofuse


@pytest.fixture(scope="module")
def drawn():
    return scale.persons("digits", slots=60, reference=120, test=80, clients=2, side=8, seed=0)


@pytest.fixture
def run():
    return records.start(notebook="49_one_scale", scale="quick", parameters=dict(dataset="digits"), seed=0)


def value(run, name, **labels):
    found = [row["value"] for row in run._metrics.values()
             if row["name"] == name and labels.items() <= row["labels"].items()]
    assert len(found) == 1
    return found[0]


def test_slots_hide_classes_and_everybody_is_one_person(drawn):
    assert np.array_equal(drawn.members.labels, drawn.others.labels) and 15 < drawn.coins.sum() < 45
    everybody = np.concatenate([part.images for part in (drawn.members, drawn.others, drawn.reference, drawn.test)])
    assert len(np.unique(everybody.reshape(len(everybody), -1), axis=0)) == len(everybody) == 320
    assert sorted(np.concatenate(drawn.parts)) == list(range(60))
    rows, pictures = scale.table(drawn.members), drawn.members.images
    assert np.array_equal(rows.frame[rows.features].to_numpy().reshape(pictures.shape), pictures)
    assert list(rows.frame["class"]) == [drawn.members.class_names[k] for k in drawn.members.labels]
    with pytest.raises(ValueError, match="too few"):
        scale.persons("digits", slots=700, reference=200, test=10, clients=2, side=8, seed=0)


def test_a_perfect_attack_reaches_the_ceiling_and_none_proves_nothing():
    generator = np.random.default_rng(0)
    coins, proved = generator.random(400) < 0.5, []
    lower, most = scale.lower_bound({"all": np.arange(1.0, 401.0)}, coins)
    assert lower == most and 3.9 < most < 5
    assert scale.lower_bound({"all": -np.arange(1.0, 401.0)}, coins)[0] == 0
    assert scale.lower_bound({"a": np.ones(100), "b": np.ones(100)}, coins[:100])[1] < most - 1
    for _ in range(12):
        proved.append(scale.lower_bound({"noise": generator.standard_normal(400)}, coins)[0])
    assert sum(found > 0 for found in proved) <= 3  # 0.6 expected
    # Randomised response of epsilon = 1 in every slot: above it in 5 % at most.
    right = np.where(generator.random((12, 400)) < np.e / (1 + np.e), 1.0, -1.0) * generator.uniform(1, 2, (12, 400))
    proved = np.array([scale.lower_bound({"answers": margin}, coins)[0] for margin in right])
    assert np.sum(proved > 1) <= 3 and np.median(proved) > 0.3


def test_planted_leaks_are_found_and_fresh_rows_show_nobody(drawn, monkeypatch):
    monkeypatch.setattr(scale, "RATE", 0.05)  # 60 do not resolve 1 %
    own, fresh = scale.table(drawn.members).frame, scale.table(drawn.test).frame[:60]
    assert min(scale.power(scale.by_rows(drawn, own)).values()) > 0.7 and scale.linked(drawn, own).risk > 0.85
    assert max(scale.power(scale.by_rows(drawn, fresh)).values()) < 0.2 and scale.linked(drawn, fresh).risk < 0.15
    place = np.arange(60)
    guesses = place, place + 60, np.where(place % 2, place, place + 60)
    right, wrong, even = (scale.named(drawn, best) for best in guesses)
    assert right.risk > 0.9 and wrong.risk == 0 and even.risk == 0
    swapped = scale.power({"perfect": np.repeat([1.0, 0.0], 60)}, swap=place % 2 == 0)
    assert swapped["perfect"] == 0  # half of the others now score as members do
    assert (scale.margins_of({"perfect": np.repeat([1.0, 0.0], 60)})["perfect"] == 1).all()


def test_a_view_is_recorded_whole(drawn, run):
    scores = {"perfect": np.repeat([1.0, 0.0], 60), "blind": np.zeros(120)}
    seen = scale.View("toy", "1", "server", scores, scale.margins_of(scores), scale.named(drawn, np.arange(60)), None)
    found = scale.record(run, drawn, seen)
    assert found["epsilon_lower"] == found["epsilon_ceiling"] and found["anonymity_risk"] > 0.9
    assert found["epsilon_stated"] is None and found["tpr_at_1_percent"] is None  # 60 cannot resolve 1 %
    reasons = {row["name"]: row["reason"] for row in run._metrics.values()}
    assert "cannot resolve" in reasons["tpr_at_1_percent"] and "no finite epsilon" in reasons["epsilon_stated"]


def test_matched_utility_is_read_between_settings_or_at_the_least_useful(run):
    def row(system, choice, share, leak):
        return dict(system=system, choice=choice, view="server", utility_share=share, epsilon_lower=leak,
                    tpr_at_1_percent=None if system == "a" else leak, anonymity_risk=leak / 2)

    seen = pd.DataFrame([row("a", "1", 0.5, 1.0), row("a", "2", 0.6, 2.0), row("a", "3", 0.9, 4.0),
                         row("b", "1", 0.8, 3.0), row("b", "2", 0.9, 5.0),
                         row("c", "1", 0.2, 0.1)])
    found = scale.at_matched(run, seen, 0.75).set_index("system")
    assert found.loc["a", "epsilon_lower"] == pytest.approx(3)
    assert found.loc["a", "anonymity_risk"] == pytest.approx(1.5)
    assert found.loc["b", "epsilon_lower"] == 3, "all are more useful: the least useful setting stands in"
    assert found["epsilon_lower"].isna().to_dict() == {"a": False, "b": False, "c": True}
    reasons = {row["labels"]["system"]: row["reason"] for row in run._metrics.values()
               if row["name"] == "matched_tpr_at_1_percent"}
    assert reasons == {"a": "tpr_at_1_percent is not resolved", "b": None, "c": "no setting is so useful"}
    assert value(run, "matched_gap", system="b") == pytest.approx(0.05)


def test_the_three_systems_are_trained_and_attacked(drawn, run):
    ceiling = scale.worth(drawn, scale.table(drawn.members).frame)
    small = dict(R=2, S=2, B=16, T=25, hidden=(16,))
    seen = []
    for choice, epsilon in (("inf", None), ("5", 5.0)):
        config = findiff.ours(epsilon=epsilon, **small)
        seen += systems.findiff_views(run, drawn, config, choice, ceiling=ceiling, draws=2)
    assert seen[0]["epsilon_stated"] is None and 5 < seen[2]["epsilon_stated"] < 25  # replaced costs more than added
    config = silofuse.ours(alarm=-1e9, latent=5, hidden=32, ae_batch=32, ae_steps=300, dm_steps=100, dm_width=32,
                            dm_batch=32, ema=0.9)
    seen += systems.silofuse_views(run, drawn, config, ["inf", "10"], ceiling=ceiling)
    latents = {row["choice"]: row for row in seen if row["system"] == "silofuse" and row["view"] == "server"}
    assert latents["inf"]["anonymity_risk"] > latents["10"]["anonymity_risk"] + 0.2
    for t0 in (50, 900):
        config = pfdm.v1(t0=t0, network="tiny", images=32, batch=16, warmup=1, ema=0.5)
        seen += systems.pfdm_views(run, drawn, config, ceiling=ceiling, steps=2)
    uploads = {row["choice"]: row for row in seen if row["system"] == "pfdm" and row["view"] == "server"}
    assert uploads["50"]["anonymity_risk"] > 0.9 and uploads["900"]["anonymity_risk"] < 0.2
    assert uploads["50"]["epsilon_lower"] == uploads["50"]["epsilon_ceiling"]
    assert len(seen) == 12 and all(row["epsilon_lower"] <= row["epsilon_ceiling"] for row in seen)


def test_the_figure_shows_every_setting_and_view(toy):
    rows, bounds = [("toy", 0, "matched_target", 0.7, {})], set()
    for system, choices in (("findiff", ("inf", "10")), ("silofuse", ("inf", "100")), ("pfdm", ("100", "690"))):
        for place, choice in enumerate(choices):
            rows.append(("toy", 0, "utility_share", 0.9 - 0.1 * place, dict(system=system, choice=choice)))
            for view in figures.VIEWS:
                where = dict(system=system, choice=choice, view=view)
                bounds.add(round(len(rows) / 10, 6))
                rows += [("toy", 0, "epsilon_lower", len(rows) / 10, where), ("toy", 0, "epsilon_ceiling", 5.0, where),
                         ("toy", 0, "tpr_at_1_percent", 0.0, where), ("toy", 0, "anonymity_risk", 0.5, where),
                         ("toy", 0, "tpr_swapped", 0.01 + 0.001 * place, where)]
                if choice != "inf" and view == "server":
                    rows.append(("toy", 0, "epsilon_stated", 12.0, where))
    drawn = figures.scale(toy(rows, notebook="49_one_scale"))
    found = {round(float(y), 6) for line in drawn.axes[0].get_lines() for y in line.get_ydata()}
    assert len(bounds) == 12 and bounds <= found and len(drawn.axes) == 3
    band = drawn.axes[1].patches[0].get_window_extent().transformed(drawn.axes[1].transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((0.01, 0.011)), "what chance finds is what was recorded of it"
    texts = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert "SiloFuse, latents as they are: ∞" in texts and "DP-Fed-FinDiff, budget ε = 10: 12" in texts


def test_bars_end_where_the_range_of_a_metric_ends():
    rows = [SimpleNamespace(mean=mean, half_width=width) for mean, width in ((0.9, 0.3), (0.0, 0.2), (0.5, math.nan))]
    down, up = ends(*rows)
    assert down == pytest.approx([0.3, 0.0, 0.0]) and up == pytest.approx([0.1, 0.2, 0.0])
    down, up = ends(rows[0], low=0.8, high=math.inf)
    assert (down, up) == (pytest.approx([0.1]), pytest.approx([0.3]))
