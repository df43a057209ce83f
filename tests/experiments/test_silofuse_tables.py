"""Tables of reconstruction and of rivals: what they average, what they call clear, and in which order they stand."""

import pytest

from feddiff.experiments import silofuse_tables


def rival_rows():
    rows = []
    for seed in range(3):
        for dataset, shift in (("loan", 0.0), ("cardio", 4.0)):
            for minus, gain in (("gan_conv", 6.0), ("latent_diff", -5.0)):
                labels = dict(of="silofuse", minus=minus)
                rows += [(dataset, seed, "resemblance_difference", gain + shift + seed / 10, labels),
                         (dataset, seed, "utility_difference", gain + shift + 9 * seed, labels),
                         (dataset, seed, "association_across_difference", -(gain + shift + seed / 10) / 100, labels)]
            rows.append((dataset, seed, "resemblance_difference", 77.0, dict(of="tab_ddpm_best", minus="tab_ddpm")))
    return rows


def test_rivals_have_sets_their_mean_the_best_and_the_clear_ones(toy):
    full, short = silofuse_tables.rivals(toy(rival_rows()))
    assert list(zip(short["metric"], short["rival"])) == [
        (metric, rival) for metric in silofuse_tables.BETTER for rival in ("latent_diff", "gan_conv")]
    row = short.set_index(["metric", "rival"]).loc["resemblance", "gan_conv"]
    assert row["loan"].startswith("6.100 ± ") and row["cardio"].startswith("10.100 ± ")
    assert row["mean of sets"].startswith("8.100 ± ") and row["best"] == "cardio 10.100"
    assert row["clear in"] == "2 of 2" and row["runs"] == "3"
    # nine points a seed are no clear difference, and four worse is not better
    clear = short.set_index(["metric", "rival"])["clear in"]
    assert clear["utility", "gan_conv"] == "0 of 2" and clear["resemblance", "latent_diff"] == "0 of 2"
    # less association error is better: the lower end of a negative difference
    assert clear["association_across", "gan_conv"] == "2 of 2"
    assert short.set_index(["metric", "rival"]).loc["association_across", "gan_conv"]["best"] == "cardio -0.101"
    mean = full[(full["dataset"] == "mean of sets") & (full["name"] == "resemblance") & (full["minus"] == "gan_conv")]
    assert mean["mean"].item() == pytest.approx(8.1) and mean["n"].item() == 2 and mean["half_width"].item() > 20


def test_reconstruction_names_every_column_the_worst_first(toy):
    rows = []
    for seed in range(3):
        for place, (column, kind) in enumerate((("age", "numeric"), ("sex", "categorical"))):
            for order, silo in (("contiguous", "silo 0"), ("random", f"silo {seed % 2}")):
                rows.append(("loan", seed, "reconstruction", 0.9 - place / 2 + seed / 100,
                             dict(method="silofuse", column=column, kind=kind, silo=silo, order=order)))
        rows.append(("loan", seed, "reconstruction_mean", 0.1, dict(method="silofuse", order="contiguous")))
    full, short = silofuse_tables.reconstruction(toy(rows))
    assert list(short["column"]) == ["sex", "sex", "age", "age"] and set(short["runs"]) == {3}
    assert list(short.columns) == ["dataset", "method", "column", "kind", "order", "silo", "score", "runs"]
    assert short["score"][0].startswith("0.410 ± ") and len(full) == 4
    assert dict(zip(short["order"], short["silo"])) == {"contiguous": "silo 0", "random": "varies"}
