"""Cost of large tables: points along axes, a process of its own, exponents of known laws, the figures."""

import pytest

from feddiff.data import tables
from feddiff.experiments import figures_findiff_large as figures
from feddiff.experiments import findiff_growth as growth
from feddiff.experiments import style

BASE = growth.Point(rows=1200, clients=2, width=8, rounds=1, updates=1)


def test_each_axis_moves_one_size():
    points = growth.axes(BASE, rows=[1200, 2400], clients=[1], widths=[16])
    assert [axis for axis, _ in points] == ["rows", "rows", "clients", "width"]
    assert [(p.rows, p.clients, p.width) for _, p in points] == [(1200, 2, 8), (2400, 2, 8), (1200, 1, 8), (1200, 2, 16)]


def test_rows_are_repeated_only_beyond_the_table():
    table = tables.load("iris")
    few, all_, many = (growth.resampled(table, n, 0) for n in (50, 150, 400))
    assert len(few) == 50 and all_.frame.equals(table.frame) and len(many) == 400
    assert few.frame.equals(growth.resampled(table, 50, 0).frame)
    assert set(map(tuple, many.frame.to_numpy())) <= set(map(tuple, table.frame.to_numpy()))


@pytest.fixture(scope="module")
def table():
    return tables.load("bank-marketing")


def test_a_point_has_every_cost_and_bytes_of_one_model_a_client_and_direction(table, tmp_path):
    own = growth.resampled(table, BASE.rows, 0)
    own.frame.to_parquet(tmp_path / "rows.parquet")
    found = growth.cost(BASE, own.select([]), tmp_path / "rows.parquet")
    assert set(growth.COSTS) < set(found) and all(value >= 0 for value in found.values())
    assert found["peak_megabytes"] >= found["table_megabytes"]
    assert found["megabytes_a_round"] * growth.MEGABYTE > 2 * 2 * 4 * found["parameters"]


def test_costs_are_recorded_under_their_axis(new_run, table):
    run = new_run()
    growth.measure(run, table, BASE, axis="rows", known={"step_cpu_ms": 2.0})
    (row,) = run._metrics.values()
    assert row["labels"] == {"axis": "rows", "clients": "2", "recipe": "ours", "rows": "1200", "width": "8"}


@pytest.mark.slow
def test_each_point_has_a_process_of_its_own(new_run, table):
    small, large, again = (growth.measure(new_run(), table, growth.replace(BASE, rows=n), axis="rows")
                           for n in (1200, 400_000, 1200))
    assert large["peak_megabytes"] > 2 * small["peak_megabytes"]
    assert again["peak_megabytes"] < 1.5 * small["peak_megabytes"], "the larger point must leave no trace"


def test_exponents_and_lines_of_known_laws(new_run):
    sizes = [10, 100, 1000]
    costs = [{name: size**power for name, power in (("peak_megabytes", 1), ("step_cpu_ms", 0), ("round_cpu_ms", 2))}
             for size in sizes]
    full = [dict.fromkeys((*growth.COSTS, "megabytes_a_round", "parameters"), 1.0) | cost for cost in costs]
    found = growth.growth(new_run(), "rows", sizes, full)
    assert (found["peak_megabytes"], found["step_cpu_ms"], found["round_cpu_ms"]) == pytest.approx((1, 0, 2))
    assert growth.line([1, 2, 3], [5, 7, 9], 10) == pytest.approx(23) and growth.line([1, 2], [5, 1], 10) == 0


@pytest.fixture
def frame(toy):
    rows = []
    for seed in (0, 1):
        for axis, sizes in (("rows", (2000, 20000)), ("clients", (3, 6)), ("width", (128, 512))):
            for size in sizes:
                labels = {"axis": axis, "recipe": "ours", "rows": "2000", "clients": "3", "width": "128"}
                labels |= {axis: str(size)}
                rows += [("adult", seed, name, size / 100 + seed, labels) for name in (*growth.COSTS, "parameters")]
        for method, epsilon, kept in (("real", "inf", "all"), ("ours", "1", "all"), ("ours", "1", "2000")):
            labels = {"method": method, "epsilon": epsilon, "kept": kept}
            for name in ("column_shapes", "pair_trends", "pair_trends_quantile"):
                rows.append(("adult", seed, name, 0.9, labels))
            rows.append(("adult", seed, "roc_auc", 0.8, labels | {"classifier": "boosting"}))
    return toy(rows)


def test_figures_and_the_table_of_costs(frame):
    assert all(axes.has_data() for axes in figures.cost(frame).axes)
    assert "extrapolated" in " ".join(text.get_text() for text in figures.cost(frame).legends[0].get_texts())
    assert [label.get_text() for label in figures.quality(frame).axes[0].get_yticklabels()] == [
        "real training rows, no DP", "diffusion, recipe “ours”, ε = 1, 2,000 rows", "diffusion, recipe “ours”, ε = 1"]
    full, read = figures.cost_table(frame)
    assert len(read) == 6 and set(full["n"]) == {2}
    for draw in (figures.cost, figures.quality):
        with pytest.raises(style.NothingToDraw):
            draw(frame[frame["name"] == "nothing"])
