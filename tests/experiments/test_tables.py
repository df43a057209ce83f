"""Tables: the interval is the textbook's, nothing is averaged by mistake, files are byte-identical and escaped."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feddiff.experiments import tables


def runs(values, **labels):
    return [("toy", seed, "pair_trends", value, {"method": "ours", **labels}) for seed, value in enumerate(values)]


def test_interval_over_seeds_is_the_t_interval(toy):
    values = [0.91, 0.93, 0.90, 0.95]
    row = tables.summarise(toy(runs(values))).iloc[0]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (row["n"], row["mean"]) == (4, pytest.approx(np.mean(values), rel=1e-14))
    assert (row["low"], row["high"]) == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))


def test_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(4000, 3))
    half = stats.t.ppf(0.975, 2) * draws.std(axis=1, ddof=1) / math.sqrt(3)
    frame = pd.DataFrame({"dataset": np.repeat(np.arange(4000).astype(str), 3), "seed": np.tile(range(3), 4000),
                          "name": "pair_trends", "value": draws.ravel(), "reason": ""})
    summary = tables.summarise(frame, ["dataset"])
    assert np.allclose(np.sort(summary["half_width"]), np.sort(half))
    covered = ((summary["low"] <= 0) & (0 <= summary["high"])).mean()
    # 4,000 trials at 95 %: four standard errors.
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_one_seed_has_no_interval_and_a_missing_value_is_not_zero(toy):
    frame = toy(runs([0.9]) + [("toy", 0, "roc_auc", math.nan, {"method": "ours"})])
    frame.loc[frame["name"] == "roc_auc", "reason"] = "one class"
    summary = tables.summarise(frame).set_index("name")
    assert summary.loc["pair_trends", "n"] == 1 and math.isnan(summary.loc["pair_trends", "half_width"])
    assert summary.loc["roc_auc", "n"] == 0 and summary.loc["roc_auc", "reason"] == "one class"
    wide = tables.wide(tables.summarise(frame))
    assert wide.iloc[0][["pair_trends", "roc_auc", "runs"]].tolist() == ["0.900", "–", "1"]


def test_counts_have_no_decimals_and_scores_that_happen_to_be_whole_keep_theirs(toy):
    rows = [("toy", seed, name, value, {"method": method}) for seed in range(2) for name, method, value in [
        ("rounds", "one", 1.0), ("rounds", "many", 64.0), ("bytes", "one", 1_345_024.0), ("bytes", "many", 2.0 + seed),
        ("roc_auc", "one", 1.0), ("roc_auc", "many", 1.0), ("distance", "one", 4.0), ("distance", "many", 2.5)]]
    wide = tables.wide(tables.summarise(toy(rows))).set_index("method")
    assert wide["rounds"].to_dict() == {"one": "1", "many": "64"}
    assert wide.loc["one", "bytes"] == "1,345,024 ± 0.000" and wide.loc["many", "bytes"].startswith("2.500 ± ")
    assert wide["roc_auc"].to_dict() == {"one": "1.000 ± 0.000", "many": "1.000 ± 0.000"}
    assert wide["distance"].to_dict() == {"one": "4.000 ± 0.000", "many": "2.500 ± 0.000"}


def test_a_label_that_is_left_out_is_refused(toy):
    frame = toy(runs([0.9], classifier="a") + runs([0.8], classifier="b"))
    with pytest.raises(ValueError, match="classifier"):
        tables.summarise(frame, ["dataset", "method"])
    assert len(tables.summarise(tables.pinned(frame, {"classifier": "b"}))) == 1


def test_order_is_stable_and_natural(toy):
    rows = [
        ("toy", 0, name, 0.5, {"method": method, "epsilon": epsilon})
        for method in ("independent", "ours", "real") for epsilon in ("inf", "10", "0.2", "1")
        for name in ("roc_auc", "column_shapes")
    ]
    frame = toy(rows)
    wide = tables.wide(tables.summarise(frame))
    assert wide["method"].tolist() == ["real"] * 4 + ["ours"] * 4 + ["independent"] * 4
    assert wide["epsilon"].tolist() == ["0.2", "1", "10", "inf"] * 3
    assert list(wide.columns) == ["dataset", "method", "epsilon", "column_shapes", "roc_auc", "runs"]
    shuffled = tables.wide(tables.summarise(frame.sample(frac=1, random_state=1)))
    assert wide.equals(shuffled)


def test_files_are_byte_identical_whatever_the_order_and_full_precision(toy, home):
    frame = toy(runs([0.1 + 0.2, 1 / 3, 0.7]))
    kept = []
    for part in (frame, frame.iloc[::-1]):
        full = tables.summarise(part)
        kept.append([path.read_bytes() for path in tables.write(full, tables.wide(full), "10_x", "metrics", "quick")])
    assert kept[0] == kept[1]
    back = pd.read_csv(home / "results/quick/tables/10_x--metrics.csv")
    assert back["mean"].iloc[0] == full["mean"].iloc[0]


def test_blocks_part_a_table_by_its_labels_and_lose_no_cell(toy):
    frame = toy([
        ("adult", 0, "pair_trends", 0.9, {"scaler": "quantile"}), ("adult", 0, "pair_trends", 0.8, {"scaler": "standard"}),
        ("adult", 0, "roc_auc", 0.7, {"typing": "number"}), ("adult", 1, "roc_auc", 0.7, {"typing": "number"}),
    ])
    short = tables.wide(tables.summarise(frame))
    parts = tables.blocks(short, ["dataset", "scaler", "typing"])
    assert [list(part.columns) for part in parts] == [
        ["dataset", "typing", "roc_auc", "runs"], ["dataset", "scaler", "pair_trends", "runs"],
    ]
    filled = sorted(text for part in parts for text in part.to_numpy().ravel())
    assert filled == sorted(text for text in short.to_numpy().ravel() if text)


def test_several_tables_are_written_one_below_another(toy, home):
    full = tables.summarise(toy([("adult", 0, "roc_auc", 0.7, {})]))
    one = tables.wide(full)
    _, markdown, latex = tables.write(full, [one, one], "10_x", "headline", "quick")
    assert markdown.read_text() == tables.markdown(one) + "\n" + tables.markdown(one)
    assert latex.read_text().count(r"\begin{tabular}") == 2


def test_markdown_and_latex_escape():
    table = pd.DataFrame({"what_is": [r"a|b_c & 50 % $x$ {y} #1 ~ ^ \ <3", "line\nend"], "ε": ["0.9 ± 0.1", "∞"]})
    assert r"a\|b_c" in tables.markdown(table) and tables.markdown(table).count("\n") == 4
    text = tables.latex(table)
    assert r"a|b\_c \& 50 \% \$x\$ \{y\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{} $<$3" in text
    assert r"0.9 $\pm$ 0.1" in text and r"$\infty$" in text and r"\toprule" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.91234, "0.912"), (0.0, "0.000"), (1e-5, "1.0e-05"), (-0.25, "-0.250"), (123.46, "123.5"), (30000, "30,000")],
)
def test_rounding(value, text):
    assert tables.number(value) == text
