"""Heterogeneity, ladder and bias downstream: the comparisons on hand-made pictures, the figures on a few rows."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from feddiff.data.image_partitions import ClientClasses
from feddiff.data.image_set import ImageSet
from feddiff.experiments import (
    figures_pfdm, figures_pfdm_downstream, figures_pfdm_ladder, pfdm_compare, pfdm_downstream, pfdm_ladder, pfdm_study,
    pictures, records, style,
)
from feddiff.experiments.pfdm_study import Setting
from feddiff.systems import pfdm
from feddiff.systems.image_clients import ImageClient
from feddiff.systems.pfdm import PFDMConfig

CONFIG = PFDMConfig(network="tiny", images=64, batch=32, t0=100, C=None, clip_mixing=0.0, classes=2)
NOTEBOOK = "20_pfdm_heterogeneity"


@dataclass
class Bright:
    """A judge that knows the classes of `bars`: class 1 is bright on the right."""

    dimension: int = 2
    classes: int = 2

    def predict(self, given):
        given = torch.as_tensor(given)
        return (given[..., 4:].mean((1, 2, 3)) > given[..., :4].mean((1, 2, 3))).long().numpy()

    def features(self, given):
        given = torch.as_tensor(given).double()
        return torch.stack([given[..., :4].mean((1, 2, 3)), given[..., 4:].mean((1, 2, 3))], 1).numpy()


def bars(count, seed):
    """Pictures of two classes, bright left or right, with a little noise; uint8 (n, 8, 8, 1) and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = np.full((count, 8, 8, 1), 40.0)
    for row, label in enumerate(labels):
        images[row, :, 4 * label : 4 * label + 4] = 210
    return np.clip(images + generator.normal(0, 20, images.shape), 0, 255).astype(np.uint8), labels


def whole(count, seed):
    images, labels = bars(count, seed)
    return ImageSet(images, labels, ("left", "right"), "bars", "embedded", "cd" * 32)


@pytest.fixture
def setting():
    """Client 0 has 40 pictures of class 0 and 6 of class 1, client 1 the other way round; 54 are left over."""
    train, test, parts, clients = whole(200, 1), whole(160, 2), [], []
    places = {label: np.flatnonzero(train.labels == label) for label in (0, 1)}
    for many in (0, 1):
        few = 1 - many
        rows = np.sort(np.concatenate([places[many][:40], places[few][60:66]]))
        parts.append(ClientClasses(rows=rows, majority=(many,), minority=(few,)))
        own = pfdm_study.images.to_tensor(train.images[rows])
        clients.append(ImageClient(own, torch.from_numpy(train.labels[rows]), name=f"client-{many}"))
    held = np.concatenate([part.rows for part in parts])
    return Setting(train=train, test=test, parts=tuple(parts), clients=tuple(clients),
                   spare=np.setdiff1d(np.arange(200), held), judge=Bright(), per_class=30, seed=0, identity="toy")


@pytest.fixture
def run():
    return records.start(notebook=NOTEBOOK, scale="standard", parameters={"dataset": "bars"}, seed=0)


def recorded(run, name, **labels):
    run.save()
    frame = records.load_records(run.notebook, "standard")
    frame = frame[frame["name"] == name]
    for label, text in labels.items():
        frame = frame[frame[label] == text]
    return frame


def test_difference_is_of_less_minus_and_leaves_other_metrics_alone(run):
    of = {("frechet", "minority"): 5.0, ("kid", "minority"): 1.0, ("label_accuracy", "minority"): 0.7}
    minus = {("frechet", "minority"): 8.0, ("kid", "minority"): 2.0, ("label_accuracy", "minority"): 0.4}
    found = pfdm_compare.difference(run, of, minus, minus="local", method="pfdm_v1")
    assert found[("frechet", "minority")] == -3 and found[("label_accuracy", "minority")] == pytest.approx(0.3)
    assert set(found) == {("frechet", "minority"), ("label_accuracy", "minority")}
    assert recorded(run, "frechet_difference", minus="local")["value"].tolist() == [-3]


def test_confusions_are_shares_of_the_class_that_was_asked_for(run, setting):
    images, labels = bars(60, 3)
    given = pfdm_study.images.to_tensor(images[np.argsort(labels, kind="stable")])
    given[:10] = given[-10:]
    shares = pfdm_compare.confusions(run, setting, given, client=0, method="local")
    assert shares == pytest.approx(np.array([[2 / 3, 1 / 3], [0, 1]]))
    assert recorded(run, "confusion", asked="0", read="1")["value"].tolist() == pytest.approx([1 / 3])


def test_holdings_count_what_each_client_has(run, setting):
    pfdm_compare.holdings(run, setting)
    held = recorded(run, "pictures_held")
    assert {(c, a): v for c, a, v in zip(held["client"], held["asked"], held["value"], strict=True)} == {
        ("0", "0"): 40, ("0", "1"): 6, ("1", "0"): 6, ("1", "1"): 40,
    }
    assert figures_pfdm.few(records.load_records(NOTEBOOK, "standard"), "bars", "0") == {"1"}


def test_separation_falls_to_chance_with_the_noise(run, setting):
    found = pfdm_compare.separation(run, setting, CONFIG, [0, 1000], steps=60)
    assert found[0][1] > 0.9 and 0.7 < found[0][0] < 1, "clean pictures show their class, and through it their client"
    assert abs(found[1000][0] - 0.5) < 0.25 and abs(found[1000][1] - 0.5) < 0.25
    with pytest.raises(ValueError, match="0..1000"):
        pfdm_compare.separation(run, setting, CONFIG, [1001])


def test_halves_are_disjoint_and_cut_every_class(setting):
    first, second = pfdm_compare._halves(setting, 0)
    labels = setting.clients[0].labels.numpy()
    assert sorted(np.concatenate([first, second])) == list(range(46))
    assert np.bincount(labels[first]).tolist() == np.bincount(labels[second]).tolist() == [20, 3]


def test_training_sets_are_the_own_pictures_repeated_or_nobodys(setting):
    sets = pfdm_downstream.training_sets(setting)
    own, labels = sets["own_pictures"][0]
    assert torch.equal(own, setting.clients[0].images) and np.bincount(labels).tolist() == [40, 6]
    repeated, labels = sets["own_repeated"][0]
    assert np.bincount(labels).tolist() == [30, 30] and len(repeated[30:].unique(dim=0)) <= 6
    assert [len(sets[name]) for name in sets] == [2, 2, 2]


def test_classify_records_each_client_and_their_mean(run, setting):
    sets = pfdm_downstream.training_sets(setting)["real_pictures"]
    broken = (sets[1][0], 1 - sets[1][1])
    found = pfdm_downstream.classify(run, setting, [sets[0], broken], steps=40, method="m")
    assert recorded(run, "accuracy", client="0")["value"].item() > 0.9
    assert recorded(run, "accuracy", client="1")["value"].item() < 0.1
    assert 0.4 < found["accuracy"] < 0.6
    assert recorded(run, "accuracy", client="all")["value"].item() == found["accuracy"]
    assert set(recorded(run, "class_recall", client="0")["asked"]) == {"0", "1"}


def test_the_ladder_exchanges_the_start_alone(run, setting):
    model = pfdm.train(setting.clients, CONFIG, progress=False)
    reference = pfdm_study.baselines_images.centralised(setting.clients, CONFIG, progress=False)
    rungs = pfdm_ladder.climb(run, setting, model, reference=reference, steps=3, local_steps=3, first=1)
    plain = model.sample(0, setting.labels, seed=0, steps=3, local_steps=3)
    assert torch.equal(rungs["global"].samples[0], plain), "rung (d) is what PFDM itself draws"
    assert list(rungs) == list(style.STARTS) and len(rungs["noise"].samples) == 1
    assert float(rungs["noise"].starts[0].std()) == pytest.approx(1, abs=0.05)
    change = recorded(run, "frechet_change_percent", of="global", minus="noise", group="minority")["value"].item()
    pair = [rungs[name].scores["frechet", "minority"] for name in ("global", "noise")]
    assert change == pytest.approx(100 * (pair[0] / pair[1] - 1))
    assert recorded(run, "start_bytes", start="uploads")["value"].item() > recorded(
        run, "start_bytes", start="class_mean")["value"].item()
    assert recorded(run, "start_bytes", start="oracle").empty


def heterogeneity_rows(seeds=2, methods=("centralised", "local", "pfdm_v1")):
    for seed in range(seeds):
        for place, method in enumerate(methods):
            for group, value in (("majority", 5.0), ("minority", 20.0)):
                labels = {"method": method, "group": group, "client": "all", "share": "99"}
                for metric in ("frechet", "label_accuracy", "closer_to_train"):
                    yield ("mnist", seed, metric, value / 25 + 0.1 * place + 0.01 * seed, labels)
            for asked in "0147":
                for read in "0147":
                    labels = {"method": method, "client": "1", "asked": asked, "read": read}
                    yield ("mnist", seed, "confusion", float(asked == read), labels)
        yield ("mnist", seed, "epsilon_image", 4862.0, {"method": "pfdm_v1"})
        for client in "01":
            for asked in "0147":
                held = 5000 if (asked in "01") == (client == "0") else 50
                yield ("mnist", seed, "pictures_held", held, {"client": client, "asked": asked})
        for share, gain in (("50", -1.0), ("99", -9.0)):
            for group in ("majority", "minority"):
                labels = {"method": "pfdm_v1", "minus": "local", "share": share, "group": group}
                yield ("mnist", seed, "frechet_difference", gain - 0.1 * seed, labels)
                yield ("mnist", seed, "label_accuracy_difference", -gain / 10, labels)
        for t, value in (("0", 0.9), ("400", 0.7), ("1000", 0.5)):
            yield ("mnist", seed, "client_accuracy", value, {"t": t})
            yield ("mnist", seed, "class_accuracy", value - 0.2, {"t": t})


def ladder_rows(seeds=2):
    for seed in range(seeds):
        for t0 in ("100", "690"):
            yield ("mnist", seed, "epsilon_image", 9.0, {"t0": t0})
            for asked in "0147":
                yield ("mnist", seed, "pictures_held", 50 if asked in "47" else 5000, {"client": "0", "asked": asked})
            for place, start in enumerate(style.STARTS):
                yield ("mnist", seed, "start_std", 1.0, {"t0": t0, "start": start})
                for group in ("majority", "minority"):
                    labels = {"t0": t0, "start": start, "group": group, "client": "all"}
                    yield ("mnist", seed, "frechet", 10.0 + place + seed, labels)
                    yield ("mnist", seed, "label_accuracy", 0.5, labels)
            for of, minus in pfdm_ladder.PAIRS:
                labels = {"t0": t0, "of": of, "minus": minus, "group": "minority"}
                yield ("mnist", seed, "frechet_difference", -2.0 + seed, labels)


def downstream_rows(seeds=2):
    for seed in range(seeds):
        for asked in "01":
            yield ("mnist", seed, "pictures_held", 50 if asked == "1" else 5000, {"client": "0", "asked": asked})
        for place, method in enumerate(("real_pictures", "own_repeated", "pfdm_v1")):
            for metric in ("worst_recall", "recall_gap", "majority_recall", "minority_recall"):
                yield ("mnist", seed, metric, 0.9 - 0.2 * place, {"method": method, "client": "all"})
            for asked in "01":
                yield ("mnist", seed, "class_recall", 0.4, {"method": method, "client": "0", "asked": asked})


FIGURES = [
    (figures_pfdm.groups, heterogeneity_rows, 3 * 3 * 2), (figures_pfdm.heterogeneity, heterogeneity_rows, 8),
    (figures_pfdm.states, heterogeneity_rows, 6), (figures_pfdm_ladder.ladder, ladder_rows, 2 * 2 * 7 * 2),
    (figures_pfdm_ladder.differences, ladder_rows, 10), (figures_pfdm_downstream.fairness, downstream_rows, 12),
]


@pytest.mark.parametrize(("draw", "rows", "points"), FIGURES)
@pytest.mark.parametrize("seeds", [1, 2])
def test_figures_draw_every_point(toy, draw, rows, points, seeds):
    figure = draw(toy(rows(seeds)))
    assert sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines) >= points


@pytest.mark.parametrize(("draw", "rows"), [
    *(entry[:2] for entry in FIGURES), (figures_pfdm.confusion, heterogeneity_rows),
    (figures_pfdm_downstream.recalls, downstream_rows),
])
def test_figures_say_what_is_missing(toy, draw, rows):
    with pytest.raises(style.NothingToDraw, match="the records hold no"):
        draw(toy([row for row in rows() if row[2] in ("pictures_held", "epsilon_image")]))


def test_confusion_and_recalls_are_matrices_of_shares(toy):
    panels = figures_pfdm.confusion(toy(heterogeneity_rows())).axes
    assert np.array_equal(panels[0].images[0].get_array(), np.eye(4))
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["few  0", "few  1", "4", "7"]
    drawn = figures_pfdm_downstream.recalls(toy(downstream_rows())).axes[0].images[0].get_array()
    assert drawn.shape == (3, 2) and np.allclose(drawn, 0.4)


def test_sample_grids_read_the_pictures_beside_the_record(run, setting, toy):
    sheet = {name: torch.full((4, 1, 8, 8), value) for name, value in (("real_pictures", 1.0), ("local", -1.0))}
    pictures.save(run, "samples", sheet)
    for kind in ("starts_100", "samples_100", "starts_690", "samples_690"):
        pictures.save(run, kind, {"noise": sheet["local"], "global": sheet["local"]})
    rows = [("bars", *row[1:]) for row in [*heterogeneity_rows(1), *ladder_rows(1)]]
    frame = toy(rows, notebook=NOTEBOOK).assign(key=run.key)
    axes = figures_pfdm.samples(frame).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["real pictures", "local"]
    drawn = axes.images[0].get_array()
    assert drawn.shape == (17, 35) and drawn[:8, :8].min() == 255 and drawn[9:, :8].max() == 0
    titles = [panel.get_title(loc="left") for panel in figures_pfdm_ladder.samples(frame).axes]
    assert titles[1] == "bars, t0 = 100: the result" and len(titles) == 4
    with pytest.raises(style.NothingToDraw, match="no pictures"):
        figures_pfdm.samples(frame.assign(key="another"))


def test_epsilon_is_written_with_three_digits():
    assert [figures_pfdm.epsilon(value) for value in (8.774, 4862.3, 95.75)] == ["8.77", "4,862", "95.8"]
    assert math.isclose(figures_pfdm.sheet_height({"a": np.zeros((10, 8, 8, 1))}, 5.0), 0.5)
