"""The study of rivals: equal rows and budgets for all, a ledger that is asked again, tables and figures of who wins."""

import numpy as np
import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import figures_findiff_rivals as figures
from feddiff.experiments import findiff_rivals as rivals
from feddiff.experiments import findiff_rivals_tables as told
from feddiff.experiments import style

TINY = dict(
    diffusion=dict(R=1, S=1, B=16, hidden=(8,), T=25), dp_gan=dict(steps=1, critic_steps=1, batch=16, width=8),
    gan_linear=dict(steps=1, batch=16, width=8), gan_conv=dict(steps=1, batch=16, width=8),
    tab_ddpm=dict(steps=1, batch=16, width=8, T=25),
)
HOW = dict(scale="quick", delta=1e-5, changes=TINY)
# What each method is worth in the drawn figures; only their order matters.
WORTH = {"independent": 0.6, "given_label": 0.7, "copula": 0.8, "gan_linear": 0.65, "gan_conv": 0.62, "tab_ddpm": 0.82,
         "dp_marginals": 0.55, "dp_given_label": 0.68, "dp_copula": 0.78, "privbayes": 0.6, "privbayes_gaussian": 0.7,
         "dp_gan": 0.5, "ours": 0.72, "centralised": 0.75, "local": 0.66,
         "strongest": 0.74, "strongest_start": 0.73, "strongest_private": 0.71, "paper": 0.45}


def table(rows=150):
    g = np.random.default_rng(0)
    group = g.integers(0, 3, rows)
    frame = pd.DataFrame({"a": group + g.normal(size=rows), "b": np.array(["x", "y", "z"])[group],
                          "y": np.where(group + g.normal(size=rows) > 1, "yes", "no")})
    kinds = {"a": "numeric", "b": "categorical", "y": "categorical"}
    return Table(frame=frame, target="y", kinds=kinds, name="toy", source="embedded", sha256="ab" * 32)


@pytest.fixture(scope="module")
def setting():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rivals.privacy_study.BOUNDS, "toy", {"a": (-5, 7)})
        yield rivals.split(table(), clients=2, seed=0, rows=60, max_rows=None)


@pytest.mark.parametrize("method", sorted(set(rivals.PRIVATE) | set(rivals.FREE)))
def test_every_method_draws_equally_many_rows_within_its_budget(setting, method):
    for epsilon in [None] * (method in rivals.FREE) + [1.0] * (method in rivals.PRIVATE):
        drawn = rivals.release(setting, method, epsilon=epsilon, **HOW)
        assert len(drawn.frame) == 60 and list(drawn.frame.columns) == ["a", "b", "y"]
        assert drawn.settings["rows_seen"] == len(setting.train) and drawn.seconds >= 0
        assert (drawn.privacy is None) == (epsilon is None)
        if epsilon is not None:
            assert 0.97 < rivals.epsilon_of(drawn.privacy) <= 1 + 1e-9
            inside = method == "strongest_private"
            assert any("codec" in what for what in drawn.privacy["outside"]) != inside


def test_trust_and_clients(setting, monkeypatch):
    timed = rivals.study.timed
    assert len(rivals.view(setting, "centralised").clients) == 1
    assert len(rivals.view(setting, "centralised").clients[0]) == len(setting.train)
    own = rivals.view(setting, "local", 1)
    assert own.clients[0].frame.equals(setting.clients[1].frame)
    assert len({rivals.view(setting, m, c).identity for m, c in (("ours", None), ("centralised", None), ("local", 0),
                                                                 ("local", 1))}) == 4
    seen = []
    monkeypatch.setattr(rivals.study, "timed", lambda part, config, **how: seen.append(config.B) or timed(part, config))
    for method in ("ours", "centralised"):
        rivals.release(setting, method, epsilon=1.0, **HOW)
    assert seen == [16, 32], "a curator's batch is that of all clients together"
    drawn = rivals.release(setting, "local", client=0, **HOW)
    assert drawn.settings["rows_seen"] == len(setting.clients[0])
    shorter = HOW | dict(changes=TINY | dict(diffusion_without_dp=dict(R=2)))
    steps = [rivals.release(setting, "ours", epsilon=epsilon, **shorter).settings["training_steps"]
             for epsilon in (None, 1.0)]
    assert steps == [2, 1], "what is changed without DP leaves the private run alone"
    with pytest.raises(ValueError, match="only 'local' has a client"):
        rivals.release(setting, "local", **HOW)
    with pytest.raises(ValueError, match="method must be one of"):
        rivals.release(setting, "nobody", **HOW)


def test_the_ledger_is_asked_again(setting, new_run, monkeypatch):
    run = new_run("14_findiff_rivals")
    found = rivals.compete(run, setting, "dp_copula", epsilon=1.0, **HOW)
    assert found["spent_epsilon"] == pytest.approx(1.0, abs=1e-6)
    true = rivals.release
    monkeypatch.setattr(rivals, "release", lambda *given, **how: true(*given, **how | {"epsilon": 2.0}))
    with pytest.raises(ValueError, match="more than its budget"):
        rivals.compete(new_run("14_findiff_rivals"), setting, "dp_copula", epsilon=1.0, **HOW)


def test_clients_alone_are_recorded_one_by_one_and_as_a_mean(setting, new_run):
    run = new_run("14_findiff_rivals")
    found = rivals.alone(run, setting, clients=2, **HOW)
    rows = [row for row in run._metrics.values() if row["name"] == "pair_trends"]
    assert sorted(row["labels"].get("client", "mean") for row in rows) == ["0", "1", "mean"]
    each = [row["value"] for row in rows if "client" in row["labels"]]
    assert found["pair_trends"] == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match="between 1 and 2"):
        rivals.alone(run, setting, clients=3, **HOW)


def test_wide_tables_are_cut_and_go_without_pictures(monkeypatch):
    monkeypatch.setattr(rivals.study, "WIDE", 2)
    monkeypatch.setattr(rivals, "WIDE_ROWS", 100)
    cut = rivals.split(table(), clients=2, seed=0, rows=5_000, max_rows=None)
    assert len(cut.train) + len(cut.test) == 100 and cut.rows == 1_000
    assert "gan_conv" not in rivals.methods(cut, None) and "gan_linear" in rivals.methods(cut, None)
    assert rivals.methods(cut, None, ["copula"]) == [m for m in rivals.methods(cut, None) if m != "copula"]


@pytest.fixture
def frame(toy):
    rows = []
    for dataset in ("adult-full", "bank-marketing", "credit-default", "philadelphia"):
        for seed in range(3):
            arms = [("real", "inf", 0.9)]
            arms += [(m, "inf", WORTH[m] + 0.05) for m in (*rivals.FREE, "local")]
            arms += [(m, e, WORTH[m] * k) for m in rivals.PRIVATE for e, k in (("0.2", 0.8), ("1", 0.9), ("10", 1.0))]
            for method, epsilon, value in arms:
                own = dict(method=method, epsilon=epsilon)
                value += 0.01 * seed * (1 + len(method) % 3)
                rows += [(dataset, seed, name, value, own) for name in ("column_shapes", "pair_trends",
                                                                       "pair_trends_quantile", "rows_seen")]
                rows.append((dataset, seed, "roc_auc", value, own | dict(classifier="boosting")))
                if method == "local":
                    rows.append((dataset, seed, "pair_trends", 0.1, own | dict(client="0")))
    return toy(rows, notebook="14_findiff_rivals")


def test_the_table_of_winners_names_the_best_and_the_best_simple_one(frame):
    full, short = told.winners(frame)
    one = full[(full["dataset"] == "adult-full") & (full["epsilon"] == "1") & (full["name"] == "pair_trends")].iloc[0]
    assert (one["best"], one["best_simple"], one["trust"]) == ("dp_copula", "dp_copula", told.FEDERATED)
    assert one["best_simple_gap"] == pytest.approx(0.9 * (0.72 - 0.78), abs=0.02) and one["n"] == 3
    words = short.iloc[0].to_dict()
    assert "DP Gaussian copula" in words["best"] and words["ours − best simple one"].startswith("−")
    assert "±" in words["ours − best rival"]
    full, short = told.settings(frame)
    assert set(short["who sees rows"]) == {told.FEDERATED, told.CURATOR, told.ALONE}


def test_the_strongest_is_set_against_the_authors_parts_its_start_and_the_rivals(frame):
    full, short = told.strongest(frame)
    assert set(full["method"]) == set(told.AGAINST) and set(full["epsilon"]) == {"0.2", "1", "10"}
    one = full[(full["dataset"] == "adult-full") & (full["method"] == "paper") & (full["epsilon"] == "10")
               & (full["name"] == "pair_trends")].iloc[0]
    # 9 and 5 letters: the paired difference moves by -2 steps of .01 a seed.
    assert one["mean"] == pytest.approx(0.74 - 0.45 - 0.02) and one["half_width"] > 0
    words = short[(short["epsilon"] == "10") & (short["metric"] == "pair_trends")].iloc[0]
    assert words[f"− {told.name_of('paper')}"].startswith("+0.270 ±")
    lost = told.strongest(frame[frame["method"] != "paper"])[1]
    assert set(lost[f"− {told.name_of('paper')}"]) == {""}


def test_who_was_tuned_on_what_is_in_the_record(new_run):
    run = new_run("14_findiff_rivals")
    rivals.disclose(run)
    assert len(run._notes) == len(told.TUNED_ON) and set(told.TUNED_ON) <= set(told.TRUST)


def test_no_bounds_no_codec_within_the_budget(setting):
    assert "strongest_private" in rivals.methods(setting, 1.0)
    unknown = rivals.split(table(), clients=2, seed=0, rows=60, max_rows=None)
    unknown = rivals.replace(unknown, train=rivals.replace(unknown.train, name="nobody's"))
    assert rivals.knowledge(unknown) is None and "strongest_private" not in rivals.methods(unknown, 1.0)


def test_differences_are_paired_by_seed(frame):
    table = told.differences(frame)
    one = table[(table["dataset"] == "adult-full") & (table["method"] == "dp_gan") & (table["epsilon"] == "10")
                & (table["name"] == "roc_auc")].iloc[0]
    # The seeds' common part falls out: (1 + 4 % 3) - (1 + 6 % 3) = 1 step of .01 a seed is left.
    assert one["mean"] == pytest.approx(0.72 - 0.5 + 0.01) and one["half_width"] == pytest.approx(0.0248, abs=1e-3)


@pytest.mark.parametrize("name", ["budgets", "ladder", "without", "differences", "alone"])
def test_figures_are_drawn_and_say_what_is_missing(frame, name, tmp_path):
    figure = getattr(figures, name)(frame)
    figure.savefig(tmp_path / f"{name}.png")
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    with pytest.raises(style.NothingToDraw):
        getattr(figures, name)(frame[frame["name"] == "rows_seen"])
