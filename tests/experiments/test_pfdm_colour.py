"""PFDM on colours and CIFAR-10: reported numbers have one place and a source, ours stand beside them, figures draw."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from feddiff.evaluation.image_features import Judge
from feddiff.evaluation.image_inks import InkJudge
from feddiff.experiments import (
    cache, claims, collate, figures_pfdm_colour, pfdm_inks, pfdm_reported, pfdm_study, pictures, style,
)

NOTEBOOK = "25_pfdm_colour_and_cifar"
# (method, group) -> Fréchet distance of the first seed.
OURS = {
    ("centralised", "majority"): 5.0, ("centralised", "minority"): 6.0, ("local", "majority"): 8.0,
    ("local", "minority"): 40.0, ("pfdm_cvpr", "majority"): 8.0, ("pfdm_cvpr", "minority"): 30.0,
    ("pfdm_v1", "majority"): 7.0, ("pfdm_v1", "minority"): 10.0, ("local_balanced", "minority"): 12.0,
}


def rows(dataset="cifar-10", seeds=3):
    for seed in range(seeds):
        yield (dataset, seed, "side", 16, {"edition": "FEDDIFF_DATA, lossy JPEG edition"})
        for label in range(10):
            yield (dataset, seed, "pictures_held", 50 if label > 4 else 4500, {"client": "0", "asked": str(label)})
        for (method, group), value in OURS.items():
            place = {"method": method, "group": group}
            # Noise that local and PFDM share: their ratio is the same in every seed.
            for client in ("0", "all"):
                yield (dataset, seed, "frechet", value * (1 + 0.1 * seed), {**place, "client": client, "share": "99"})
                yield (dataset, seed, "label_accuracy", 0.5, {**place, "client": client, "share": "99"})
        for (of, minus), gain in zip(figures_pfdm_colour.CREDIT, (-30, -2, -10, 1, 18), strict=True):
            place = {"method": of, "minus": minus, "share": "99"}
            yield (dataset, seed, "frechet_difference", gain + seed, {**place, "group": "minority"})
        for t0, value in (("50", 9.0), ("100", 10.0), ("400", 35.0)):
            place = {"method": "pfdm_at_t0", "t0": t0}
            for group in ("majority", "minority"):
                yield (dataset, seed, "frechet", value + seed, {**place, "client": "0", "group": group})
                yield (dataset, seed, "label_accuracy", 0.4, {**place, "client": "0", "group": group})
            for unit, spent in (("value", 41.8), ("pixel", 95.0), ("image", 4862.0)):
                yield (dataset, seed, f"epsilon_{unit}", spent, place)


@pytest.fixture
def frame(toy):
    return toy(list(rows()), notebook=NOTEBOOK)


def points(figure, axes):
    """Return every x and y at which something was drawn on one axes."""
    lines = figure.axes[axes].get_lines()
    return {round(float(value), 4) for line in lines for value in (*line.get_xdata(), *line.get_ydata())}


def test_every_reported_number_has_a_source_and_is_that_of_the_ledger():
    told, ledger = pfdm_reported.load(), {claim.id: claim for claim in claims.load()}
    assert set(told["status"]) == {"as notes on the paper report", "as a summary of the paper says"}
    for row in told.itertuples():
        assert ("summary" in row.status) == ("summary" in ledger[row.claim].source)
        if row.claim != "P8" or row.group == "mean":
            numbers = [float(text) for text in re.findall(r"\d+\.\d+", ledger[row.claim].claim)]
            assert row.fid in numbers, f"{row.claim}: {row.fid} is not in the ledger's claim"
        if row.group == "mean":
            own = told[(told["dataset"] == row.dataset) & (told["method"] == row.method) & (told["group"] != "mean")
                       & (told["version"] == row.version)]
            # One printed average (centralised, Colorized MNIST) is off by .01.
            assert own["fid"].mean() == pytest.approx(row.fid, abs=0.0101)


@pytest.mark.parametrize(("change", "words"), [
    (lambda entry: entry.pop("source"), "exactly the fields"),
    (lambda entry: entry.update(source="hearsay"), "hearsay"),
    (lambda entry: entry.update(method="magic"), "magic"),
    (lambda entry: entry.update(claim="5"), "claim"),
    (lambda entry: entry.update(fid={"minority": 0}), "numbers > 0"),
    (lambda entry: entry.update(fid={"rare": 3.0}), "rare"),
    (lambda entry: entry.update(method="local"), "reported twice"),
])
def test_a_spoilt_file_of_reported_numbers_is_refused(tmp_path, change, words):
    entries = [
        {"claim": "P5", "version": "cvpr", "dataset": "cifar-10", "method": method, "fid": {"minority": 3.5},
         "source": "notes A"} for method in ("local", "pfdm_cvpr")
    ]
    path = tmp_path / "reported.yaml"
    change(entries[1])
    sources = {"notes A": {"status": "as notes on the paper report", "what": "notes"}}
    path.write_text(yaml.safe_dump({"sources": sources, "reported": entries}))
    with pytest.raises(ValueError, match=words):
        pfdm_reported.load(path)


def test_shares_are_of_training_alone_in_the_same_source_and_group(frame):
    found = pfdm_reported.beside(frame).set_index(["version", "dataset", "method", "group"])
    row = found.loc[("cvpr", "cifar-10", "pfdm_cvpr", "minority")]
    assert row["reported_share"] == pytest.approx(35.78 / 36.44)
    assert (row["measured"], row["runs"]) == (pytest.approx(33.0), 3)
    assert row["share"] == pytest.approx(0.75) and row["share_low"] == pytest.approx(0.75)
    assert row["measured_on"] == "cifar-10, 16 × 16, lossy JPEG edition"
    early = found.loc[("v1", "cifar-10", "pfdm_v1", "minority")]
    assert early["reported_share"] == pytest.approx(17.31 / 23.67) and early["share"] == pytest.approx(0.25)
    assert math.isnan(found.loc[("v1", "cifar-10", "pfdm_v1", "majority")]["reported_share"])
    assert found.loc[("cvpr", "cifar-10", "centralised", "mean")]["measured"] == pytest.approx(5.5 * 1.1)
    assert found.loc[("cvpr", "celeba-64", "pfdm_cvpr", "minority")]["runs"] == 0


def test_the_table_sets_reported_and_measured_side_by_side(frame):
    full, short = pfdm_reported.table(frame)
    assert len(full) == len(pfdm_reported.load())
    assert (short["source"] != "").all() and short["status"].str.startswith("as ").all()
    row = short[(short["data set"] == "cifar-10") & (short["method"] == "PFDM cvpr")].iloc[0]
    assert (row["many"], row["few"], row["few, of local"]) == ("19.85", "35.78", "98 %")
    assert (row["our few, of local"], row["runs"]) == ("75 %", "3")
    absent = short[short["data set"] == "celeba-64"]
    assert set(absent["measured on"]) == {"not measured"} and set(absent["our few"]) == {"–"}


def test_one_seed_has_no_interval(toy):
    _, short = pfdm_reported.table(toy(list(rows(seeds=1)), notebook=NOTEBOOK))
    assert short[short["method"] == "PFDM v1"]["our few"].tolist() == ["10.000"]


def test_reported_draws_both_sides_and_says_what_was_not_measured(frame):
    figure = figures_pfdm_colour.reported(frame)
    left, right = points(figure, 0), points(figure, 1)
    assert round(100 * 35.78 / 36.44, 4) in left and 75.0 in right and 25.0 in right
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts.count("not measured") == 4  # CelebA and, here, Colorized MNIST: both groups
    with pytest.raises(style.NothingToDraw, match="sources report on"):
        figures_pfdm_colour.reported(frame.assign(dataset="own"))


def test_credit_draws_every_comparison(frame):
    assert {-29.0, -1.0, -9.0, 2.0, 19.0} <= points(figures_pfdm_colour.credit(frame), 0)


def test_steps_name_three_units_and_need_two_steps(frame):
    figure = figures_pfdm_colour.steps(frame)
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels[1] == "100\n41.8\n95\n4,862"
    assert {10.0, 11.0, 36.0} <= points(figure, 0)
    other = frame[~frame["t0"].isin(["50", "400"])].assign(dataset="colour-mnist")
    assert len(figures_pfdm_colour.steps(pd.concat([frame, other])).axes) == 2, "one t0 is no curve"
    with pytest.raises(style.NothingToDraw, match="one t0"):
        figures_pfdm_colour.steps(frame[~frame["t0"].isin(["50", "400"])])


def test_samples_name_the_classes_of_cifar(new_run, frame):
    run = new_run(notebook=NOTEBOOK, dataset="cifar-10")
    pictures.save(run, "samples", {method: torch.zeros(20, 3, 4, 4) for method in ("real_pictures", "pfdm_v1")})
    labels = [text.get_text() for text in figures_pfdm_colour.samples(frame).axes[0].get_xticklabels()]
    assert labels[0] == "airplane" and labels[9] == "truck\nfew"


def test_the_report_has_the_table(new_run, frame):
    run = new_run(notebook=NOTEBOOK, dataset="cifar-10")
    for row in frame[(frame["seed"] == 0)].itertuples():
        names = ("method", "group", "client", "share", "minus", "t0", "asked", "edition")
        run.metric(row.name, row.value, **{name: getattr(row, name) for name in names if getattr(row, name)})
    run.save()
    made = collate.report(NOTEBOOK, "standard")
    assert len(made.table("reported")) == 14 and "side" not in set(made.table("metrics").columns)
    assert any(path.name == f"{NOTEBOOK}--reported.csv" for path in made.files)


def test_a_coloured_set_is_another_set_than_its_grey_twin(monkeypatch):
    def without_training(kind, config, data, build, code):
        return type("Entry", (), {"state": (kind, data, tuple(code))})

    monkeypatch.setattr(cache, "cached", without_training)
    for kind in (Judge, InkJudge):
        monkeypatch.setattr(kind, "from_state", classmethod(lambda cls, state: (cls, state)))
    grey, colour = (pfdm_study.split(name, majority=20, minority=2, seed=0, per_class=2, size=8, progress=False)
                    for name in ("mnist-5k", "colour-mnist-5k"))
    assert grey.train.sha256 == colour.train.sha256 and np.array_equal(grey.train.labels, colour.train.labels)
    assert grey.identity != colour.identity
    assert (grey.judge[0], colour.judge[0]) == (Judge, InkJudge) and grey.judge[1][1] != colour.judge[1][1]


def colours(*inks):
    """Return full pictures of 2 x 2, each of one ink (r, g, b in 0..1), on the scale [-1, 1]."""
    return (2 * torch.tensor(inks, dtype=torch.float32) - 1)[:, :, None, None].expand(-1, 3, 2, 2)


def test_purity_is_the_share_of_the_strongest_channel():
    found = pfdm_inks.purity(colours((1, 0, 0), (0.5, 0.5, 0), (1, 1, 1), (0, 0, 0), (0.2, 0.6, 0.2), (2, -1, 0)))
    assert found == pytest.approx([1, 1 / 2, 1 / 3, 1 / 3, 0.6, 1])


class ReadsTheStrongestChannel:
    """Stands for the judge's network: class 0 always, and the ink of the strongest channel."""

    inks = 3

    def __call__(self, images):
        pairs = torch.zeros(len(images), 2 * self.inks)
        pairs[:, : self.inks] = images.mean(dim=(2, 3)) * 50
        return pairs


@pytest.fixture
def inked():
    """Two classes: the client holds many red and green pictures of class 0, few blue ones of class 1."""
    held = np.array([0, 0, 0, 0, 1, 1])
    train = SimpleNamespace(name="toy", colours=np.array([0, 0, 1, 1, 2, 2]), colour_names=("red", "green", "blue"),
                            labels=held)
    judge = InkJudge(ReadsTheStrongestChannel(), "toy", 1.0, (1.0, 1.0), 6, 1.0, 3)
    parts = (SimpleNamespace(rows=np.arange(6)),)
    return SimpleNamespace(train=train, judge=judge, parts=parts, classes=2, labels=torch.tensor([0, 0, 1, 1]),
                           groups=lambda client: {"majority": (0,), "minority": (1,)})


def test_inks_are_those_that_the_client_holds(inked, monkeypatch, new_run):
    monkeypatch.setattr(InkJudge, "classes", 2)
    monkeypatch.setattr(Judge, "probabilities", lambda self, images: self.network(images).double().softmax(1).numpy())
    right = colours((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1))
    wrong = colours((1, 0, 0), (1, 0, 0), (1, 0, 0), (0.5, 0.5, 0.6))
    run = new_run(notebook=NOTEBOOK, dataset="colour-mnist")
    found = pfdm_inks.inks_all(run, inked, [right], method="local")
    assert found["ink_distance", "majority"] == found["ink_distance", "minority"] == 0
    assert found["ink_purity", "minority"] == pytest.approx(1)
    found = pfdm_inks.inks_all(run, inked, [wrong], method="pfdm_v1")
    assert found["ink_distance", "majority"] == pytest.approx(0.5)
    assert found["ink_distance", "minority"] == pytest.approx(0.5) and found["ink_purity", "minority"] < 0.7
    inked.train.colours = None
    with pytest.raises(ValueError, match="has no inks"):
        pfdm_inks.scores(inked, right, client=0)


def test_inks_draws_both_metrics(toy):
    made = [("colour-mnist", seed, metric, value, {"method": method, "group": group, "client": "all"})
            for seed in range(3) for metric, value in (("ink_purity", 0.8), ("ink_distance", 0.1))
            for method in ("real_pictures", "pfdm_v1") for group in ("majority", "minority")]
    figure = figures_pfdm_colour.inks(toy(made, notebook=NOTEBOOK))
    assert 0.8 in points(figure, 0) and 0.1 in points(figure, 1)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["real pictures", "PFDM v1, t0 = 100"]
