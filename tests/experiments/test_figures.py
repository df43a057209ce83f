"""Figures: not empty on a few rows, data on the axes, quick ones marked, files byte-identical, collate complete."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

from feddiff.experiments import collate, figures_claims, figures_engine, figures_findiff, figures_quickstart, style

STATEMENT = {
    "unit": "record", "adjacency": "add-remove", "sampling": "Poisson", "delta": 1e-5, "accountant": "pld", "epsilon": 1.0
}
EPSILONS = ("0.2", "1", "10", "inf")


def budget_rows(seeds=2, datasets=("adult", "credit")):
    rows = []
    for dataset in datasets:
        for seed in range(seeds):
            for place, epsilon in enumerate(EPSILONS):
                for method, base in (("ours", 0.8), ("dp_given_label", 0.78)):
                    labels = {"method": method, "epsilon": epsilon}
                    value = base + 0.03 * place + 0.001 * seed
                    rows += [(dataset, seed, name, value, labels) for name in ("column_shapes", "pair_trends")]
                    rows.append((dataset, seed, "roc_auc", value, {**labels, "classifier": "boosting"}))
                    rows.append((dataset, seed, "attack_risk", 0.001 * (place + 1), labels))
            for method, value in (("real", 0.95), ("independent", 0.7)):
                rows.append((dataset, seed, "pair_trends", value, {"method": method}))
                rows.append((dataset, seed, "roc_auc", value, {"method": method, "classifier": "boosting"}))
    return rows


def engine_rows():
    for seed in range(2):
        for place, name in enumerate(figures_engine.CALIBRATIONS):
            yield ("credit", seed, "true_epsilon", 1.0 + place, {"calibration": name})
            yield ("credit", seed, "pair_trends", 0.9 + 0.01 * place + 0.001 * seed, {"calibration": name})
        yield ("credit", seed, "nominal_epsilon", 1.0, {})
        for codec, value in (("pooled", 4.0), ("private", 0.1)):
            yield ("credit", seed, "leak_epsilon_lower", value, {"channel": "quantile_knots", "codec": codec})
        for variant, value in (("correct", 0.8), ("noise_halved", 3.0)):
            yield ("credit", seed, "epsilon_lower", value, {"variant": variant, "sigma": "1"})
            yield ("credit", seed, "epsilon", 1.0, {"variant": variant, "sigma": "1"})
        yield ("credit", seed, "run_epsilon", 4.0, {"sigma": "1"})
        for bound in figures_engine.BOUNDS:
            yield ("credit", seed, "run_epsilon_lower", 1.0 + 0.1 * seed, {"sigma": "1", "bound": bound})
        for place, sampling in enumerate(figures_engine.SAMPLINGS):
            for number in ("10", "100"):
                labels = {"sampling": sampling, "batches": number, "sigma": "1"}
                yield ("credit", seed, "batch_epsilon", 1.0 + place, labels)


def codec_rows():
    for seed in range(2):
        for name in ("column_shapes", "pair_trends"):
            yield ("credit", seed, name, 0.9 + 0.001 * seed, {"codec": "pooled"})
        for classifier in ("boosting", "naive_bayes"):
            yield ("credit", seed, "roc_auc", 0.8, {"codec": "pooled", "classifier": classifier})


def drawn_points(figure):
    total = 0
    for axes in figure.axes:
        total += sum(len(line.get_xdata()) for line in axes.lines) + len(axes.patches)
    return total


@pytest.mark.parametrize("name", ["budget", "methods", "floors", "relative_change"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_budget_figures_draw(toy, name, seeds):
    figure = getattr(figures_findiff, name)(toy(budget_rows(seeds)))
    assert drawn_points(figure) > 6
    assert any(axes.get_xlabel() for axes in figure.axes) or any(axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize("name", ["horizon", "leaks", "audit"])
def test_engine_figures_draw(toy, name):
    assert drawn_points(getattr(figures_engine, name)(toy(engine_rows()))) >= 2


@pytest.mark.parametrize(("name", "rows", "points"), [
    ("codec_cost", codec_rows, 3), ("audit_run", engine_rows, 4), ("batches", engine_rows, 6),
])
def test_engine_figures_draw_the_numbers_of_their_notebooks(toy, name, rows, points):
    assert drawn_points(getattr(figures_engine, name)(toy(rows()))) >= points


def test_leaks_draw_a_panel_for_each_data_set(toy):
    labels = {"channel": "vocabulary", "codec": "pooled"}
    figure = figures_engine.leaks(toy([(name, 0, "leak_epsilon_lower", 4.0, labels) for name in ("adult", "credit")]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["adult", "credit"]


def test_horizon_draws_a_row_of_panels_for_each_data_set(toy):
    rows = [
        (name, 0, metric, value, {"calibration": reading})
        for name in ("adult", "credit")
        for metric, value in (("true_epsilon", 2.0), ("pair_trends", 0.9))
        for reading in ("whole_run", "per_round")
    ]
    titles = [axes.get_title(loc="left") for axes in figures_engine.horizon(toy(rows)).axes]
    assert titles[::2] == ["adult: what is spent", "credit: what is spent"]


def test_meanings_are_sorted_by_value(toy):
    frame = toy([("t", 0, "epsilon", value, {"meaning": name}) for name, value in (("b", 3.0), ("a", 9.0), ("c", 1.0))])
    axes = figures_engine.meanings(frame).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["c", "b", "a"]


def test_budget_draws_the_means_of_the_seeds(toy):
    axes = figures_findiff.budget(toy(budget_rows())).axes[0]
    heights = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == len(EPSILONS)]
    assert any(np.allclose(y, [0.8005, 0.8305, 0.8605, 0.8905]) for y in heights)


def test_change_is_relative_to_the_twin_and_an_empty_base_is_not_a_number(toy):
    frame = toy(budget_rows(seeds=1))
    change = figures_findiff.changes(frame).set_index(["dataset", "name"])["value"]
    assert change["adult", "Fidelity"] == pytest.approx(100 * (0.83 / 0.89 - 1))
    assert change["adult", "Privacy"] == pytest.approx(50)
    zero = frame.assign(value=frame["value"].where(frame["name"] != "attack_risk", 0.0))
    rows = figures_findiff.changes(zero)
    assert rows.loc[rows["name"] == "Privacy", "value"].isna().all()
    assert set(rows.loc[rows["name"] == "Privacy", "reason"]) == {"the non-DP twin is exactly 0"}


def test_nothing_to_draw_says_what_is_there(toy):
    frame = toy([("t", 0, "accuracy", 0.5, {"method": "ours", "epsilon": "1"})])
    with pytest.raises(style.NothingToDraw, match="no pair_trends.*accuracy"):
        figures_findiff.budget(frame)


def test_shares_sum_to_one_and_see_a_difference(toy):
    generator = np.random.default_rng(0)
    real = pd.DataFrame({"age": generator.normal(size=500), "job": generator.choice(list("abcdefghijkl"), 500)})
    other = pd.DataFrame({"age": generator.normal(3, 1, 400), "job": ["new"] * 400})
    kinds = {"age": "numeric", "job": "categorical"}
    shares = figures_quickstart.shares(real, other, kinds)
    assert np.allclose(shares.groupby("column")[["share_real", "share_synthetic"]].sum(), 1)
    apart = shares.groupby("column")[["share_real", "share_synthetic"]].apply(
        lambda part: (part["share_real"] - part["share_synthetic"]).abs().sum() / 2
    )
    assert apart["age"] > 0.6 and apart["job"] > 0.5
    same = figures_quickstart.shares(real, real, kinds)
    assert (same["share_real"] == same["share_synthetic"]).all()
    long = shares.melt(["column", "place", "level"], var_name="name")
    rows = [
        ("t", 0, row["name"], row["value"], {label: row[label] for label in ("column", "place", "level")})
        for row in long.to_dict("records")
    ]
    assert drawn_points(figures_quickstart.columns(toy(rows))) == len(long)


def test_quick_figures_say_so_and_only_the_others_can_be_printed(toy):
    for scale, expected in (("quick", True), ("standard", False)):
        figure = figures_findiff.relative_change(toy(budget_rows(1)))
        paths = style.finish(figure, "10_x", "change", scale)
        assert [path.suffix for path in paths] == ([".png"] if expected else [".pdf", ".png"])
        assert all(path.stat().st_size > 1000 for path in paths)
        texts = [text.get_text() for text in figure.texts]
        assert ("quick scale: not a result" in texts) is expected


def test_the_callers_style_changes_nothing_and_is_not_changed(toy):
    frame = toy(budget_rows(1))
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        figure = figures_findiff.relative_change(frame)
        first = style.finish(figure, "10_x", "a", "standard")[1].read_bytes()
        assert dict(matplotlib.rcParams) == before
    assert style.finish(figures_findiff.relative_change(frame), "10_x", "b", "standard")[1].read_bytes() == first


# Machado et al. (2009), full deficiency, on linear RGB.
DEFICIENT = {
    "none": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(colour, eye):
    """Return CIE L*a*b* (D65) of a colour as an eye sees it."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    seen = np.clip(DEFICIENT[eye] @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ seen / [0.9505, 1, 1.089], 1e-3))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", DEFICIENT)
def test_nine_data_sets_can_be_told_apart(eye):
    looks = style.colours(f"set {index}" for index in range(9))
    assert len(set(looks.values())) == len({colour for colour, _ in looks.values()}) == 9
    assert len({marker for _, marker in looks.values()}) == 9
    seen = [lab(colour, eye) for colour, _ in looks.values()]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 14
    with pytest.raises(ValueError, match="10 series"):
        style.colours(f"set {index}" for index in range(10))


def test_verdict_bar_shows_every_count():
    counts = pd.DataFrame({"paper": ["A", "B"], "claims": [5, 3], "reproduced": [1, 0], "partly": [1, 0],
                           "not reproduced": [1, 0], "not testable here": [1, 0], "pending": [1, 3]})
    axes = figures_claims.verdicts(counts).axes[0]
    assert sum(patch.get_width() for patch in axes.patches) == 8


def write_runs(new_run, scale, seeds=2):
    for seed in range(seeds):
        run = new_run(scale=scale, seed=seed, dataset="adult")
        for dataset, own, name, value, labels in budget_rows(seeds, ("adult",)):
            if own == seed:
                run.metric(name, value, **labels)
        run.metric("seconds", 1.0 + seed, method="ours")
        run.privacy(STATEMENT, method="ours")
        run.save()


@pytest.mark.slow
def test_collate_rebuilds_everything_from_records_byte_for_byte(new_run, home):
    write_runs(new_run, "quick")
    made = collate.collate("quick")
    first = {path: path.read_bytes() for path in made}
    names = {path.name for path in made}
    for stem in ("headline.csv", "metrics.tex", "timings.md", "privacy.csv", "budget.png", "methods.png", "change.png"):
        assert f"10_findiff_privacy_budget--{stem}" in names
    assert "90_claims--claims.md" in names
    for path in made:
        path.unlink()
    command = [sys.executable, "-m", "feddiff.experiments.collate", "--scale", "quick"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert {path: path.read_bytes() for path in made} == first
    assert not (home / "results/standard").exists() and not (home / "figures/standard").exists()


def test_report_shows_what_is_missing_and_why(new_run):
    new_run(scale="quick", save=True)
    report = collate.report("10_findiff_privacy_budget", "quick")
    assert report.table("headline")["pair_trends"].tolist() == ["0.900"]
    assert "budget" in report.missing
    with pytest.raises(KeyError, match="the records hold no roc_auc"):
        report.figure("budget")
    with pytest.raises(KeyError, match="headline"):
        report.table("nothing")
    assert collate.report("11_nothing", "quick").files == []


def test_collate_names_a_spoilt_record(new_run, home, capsys):
    new_run(scale="quick", save=True)
    path = next((home / "results/quick/records").glob("*.json"))
    path.write_text("{")
    assert collate.main(["--scale", "quick"]) == 1
    assert path.name in capsys.readouterr().err
