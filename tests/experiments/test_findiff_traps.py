"""The list of traps: every test it names exists, every number it shows has a known value somewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from feddiff.data.tables import Table
from feddiff.experiments import findiff_anchors as anchors
from feddiff.experiments import findiff_details as details
from feddiff.experiments import findiff_study as study
from feddiff.experiments import findiff_traps as traps
from feddiff.privacy import accounting
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setting():
    g = numpy_generator(0, "table")
    frame = pd.DataFrame({"x": g.normal(size=300), "c": g.choice(["a", "b"], 300), "d": g.choice([1, 2, 3], 300),
                          "y": g.choice(["no", "yes"], 300)})
    frame.loc[7, "c"] = "once"
    kinds = dict(x="numeric", c="categorical", d="categorical", y="categorical")
    whole = Table(frame, "y", kinds, name="toy", source="file", sha256="0" * 64)
    return study.split(whole, clients=2, seed=0, rows=100)


CONFIG = details.recipe(T=30, R=2, S=1, B=32, hidden=(8, 8))


def test_all_seventeen_are_listed_and_every_named_test_exists():
    assert [trap.id for trap in traps.TRAPS] == [f"D{i}" for i in range(1, 18)]
    for trap in traps.TRAPS:
        file, name = trap.ruled_out.split("::")
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.M), trap.ruled_out


def test_labels_have_one_dimension(setting):
    run = findiff.train(setting.clients, CONFIG, progress=False)
    assert all(rows.labels.dim() == 1 for rows in run.prepared.rows)
    assert traps.condition_rows(torch.zeros(5, dtype=torch.int64)) == 5
    assert traps.condition_rows(torch.zeros(5, 1, dtype=torch.int64)) == 25


def test_timesteps_are_uniform_over_the_whole_chain(setting):
    run = findiff.train(setting.clients, CONFIG, progress=False)
    assert traps.timestep_distance(run) < 0.03
    assert not run.federation.clients[0].network._forward_pre_hooks


def test_the_divisor_of_a_loader_jumps_with_one_row():
    assert traps.divisor(8_000, 128) == 126 and traps.divisor(8_064, 128) == 128
    assert traps.largest_jump(129, 128) == pytest.approx((128 - 64) / 128)


def test_a_short_run_measures_what_no_other_cell_does(new_run, setting):
    run = new_run()
    traps.model_traps(run, setting, CONFIG)
    traps.accounting_traps(run)
    synthetic, _ = study.floor(setting, "independent")
    assert traps.misread_trap(run, setting, synthetic) > 0.3
    found = {row["labels"]["trap"]: row["value"] for row in run._metrics.values()}
    assert found["D2"] > 1.1 * anchors.TARGET and found["D11"] > 0.5 and 0 < found["D17"] < 1
    assert found["D15"] == 0 and 0 < found["D3"] < 1 and found["D5"] >= 2 and found["D9"] > 2
    assert (found["D6"], found["D16"]) in ((1, 0), (0, 1)), "one row holds the label that occurs once"


def test_the_table_has_a_row_a_trap_and_a_column_a_data_set(toy):
    rows = [("adult", seed, "trap", 2.0, {"trap": "D8"}) for seed in (0, 1)]
    rows += [("adult", 0, "epsilon_spent", 10.18, {"round": "200"})]
    full, read = traps.table(toy(rows))
    told = read.set_index("trap")["adult"]
    assert len(read) == 17 and told["D8"] == "2.000 ± 0.000" and told["D1"] == "10.180" and told["D7"] == ""
    assert set(full["trap"]) == {"D1", "D8"}


def test_the_calibrated_noise_gives_the_authors_trace(new_run):
    sigma = anchors.calibrated()
    assert sigma == pytest.approx(0.5036, abs=1e-3)
    trace = anchors.epsilon_trace(new_run(), sigma)
    for step, (_, logged) in anchors.LOGGED.items():
        assert trace[step] == pytest.approx(logged, rel=0.01)
    rdp = accounting.epsilon(sample_rate=1 / 63, noise_multiplier=sigma, steps=1, delta=1e-5, accountant="rdp")
    assert rdp > 4.2, "Renyi accounting of the same noise would have logged more"


def test_the_federated_anchor_records_errors_and_both_readings(new_run, setting):
    run = new_run()
    config = anchors.federated_config(2.0, rows=120, rounds=4, hidden=(8, 8))
    errors = anchors.federated(run, setting, config, state="keep")
    assert sum(anchors.unseen(setting)) in (0, 1) and list(errors) == [1, 2, 3, 4] and config.B == 2 and config.freeze_condition
    shapes = {row["labels"]["read"]: row["value"] for row in run._metrics.values() if row["name"] == "sdv_shapes"}
    assert shapes["right"] > shapes["as_text"] + 0.2


def test_the_central_anchor_types_adult_and_needs_it(setting):
    with pytest.raises(ValueError, match="no column 'fnlwgt'"):
        anchors.central_table(setting.train)
    config = anchors.central_config(1280, epsilon=None, epochs=3)
    assert (config.R, config.S, config.reduction, config.numerics) == (3, 10, "sum", "standard")
    assert anchors.central_config(1280, epsilon=10.0, epochs=3).freeze_condition and not config.freeze_condition
