"""Membership on every view of PFDM: who plays, what is asked, what is recorded and drawn."""

import numpy as np
import pytest
import torch

from feddiff.experiments import attack_images as attack
from feddiff.experiments import figures_attacks_images as figures
from feddiff.experiments import pfdm_study, records
from feddiff.systems import pfdm


class NoJudge:
    """In the place of a judge that these tests do not ask."""

    def to_state(self):
        return {}


@pytest.fixture
def setting(monkeypatch):
    monkeypatch.setattr(pfdm_study, "train_judge", lambda *a, **k: NoJudge())
    monkeypatch.setattr(pfdm_study.Judge, "from_state", staticmethod(lambda state: NoJudge()))
    return pfdm_study.split("digits", majority=6, minority=2, seed=0, per_class=2, progress=False)


@pytest.fixture
def run():
    return records.start(notebook="41_membership_images", scale="quick", parameters=dict(dataset="digits"), seed=0)


def small(setting, epochs=1, **changes):
    config = pfdm.v1(t0=100, network="tiny", batch=16, warmup=1, **changes)
    return attack.epochs_of(config, setting, epochs)


def test_members_are_held_and_others_are_not(setting):
    played, held = attack.game(setting, 0), torch.cat([client.images for client in setting.clients])
    assert played.members.shape == played.others.shape == (40, 1, 8, 8)
    counts = {name: int(mask.sum()) for name, mask in played.groups.items()}
    assert counts == {"majority": 30, "minority": 10, "all": 40}
    seen = {one.numpy().tobytes() for one in held}
    assert all(one.numpy().tobytes() in seen for one in played.members)
    assert not any(one.numpy().tobytes() in seen for one in played.others)
    assert len(played.pictures) == len(played.both_labels) == 80
    labels = setting.clients[0].labels
    assert torch.equal(played.labels.bincount(), labels.bincount())


def test_epochs_are_equal(setting):
    config = small(setting, epochs=3)
    assert (config.images, config.global_images) == (3 * 40, 3 * 80)


def test_the_local_denoiser_is_the_clients_own(setting):
    played = attack.game(setting, 0)
    for config in (small(setting), attack.epochs_of(pfdm.cvpr(t0=300, network="tiny", batch=16, warmup=1), setting, 1)):
        model = pfdm_study.trained(setting, config, first=1, progress=False)
        released = attack.local_denoiser(model, 0)
        t, noise = torch.full((80, 1), 40), torch.randn((80, 1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        mine = model.clients[0].loss_per_record(played.pictures, played.both_labels, t, noise)
        assert torch.equal(released.loss_per_record(played.pictures, played.both_labels, t, noise), mine)
        predicted = attack.predictor(released)
        found = attack.attack.losses(predicted, played.pictures, played.both_labels, released.schedule, times=(40,),
                                     noises=noise[:, 0][:, None])
        assert found[:, 0] == pytest.approx(mine.numpy(), rel=1e-4)


def test_noised_queries_are_the_uploads_themselves(setting):
    model, played = pfdm_study.trained(setting, small(setting), first=0, progress=False), attack.game(setting, 0)
    asked = attack.noised_queries(setting, model, played, 0)
    sent = {one.numpy().tobytes() for one in model.uploads.images}
    assert all(one.numpy().tobytes() in sent for one in asked[:40])
    residual = asked[40:] - model.config.alpha_bar**0.5 * played.others
    assert float(residual.std()) == pytest.approx((1 - model.config.alpha_bar) ** 0.5, rel=0.05)
    found = attack.on_uploads(model, played)["posterior"]
    assert found[:40].min() > np.median(found[40:])


def test_shadows_share_out_the_pictures(setting):
    config, played = small(setting), attack.game(setting, 0)
    target = np.zeros(80)
    found = attack.with_shadows(setting, config, played, target, seed=0, draws=2, shadows=2, progress=False)
    assert found.shape == (80,) and np.isfinite(found).all()
    with pytest.raises(ValueError, match="pairs"):
        attack.with_shadows(setting, config, played, target, seed=0, draws=2, shadows=3)


def test_records_hold_attacks_groups_and_a_control(setting, run):
    played = attack.game(setting, 0)
    scores = np.r_[np.ones(40), np.zeros(40)]
    attack.record(run, played, {"loss": scores}, seed=0, view="local", t0=100)
    rows = {(row["name"], row["labels"]["attack"], row["labels"]["group"]): row["value"]
            for row in run._metrics.values()}
    assert rows["membership_auc", "loss", "minority"] == 1 and rows["tpr_at_10_percent", "loss", "all"] == 1
    assert 0.25 < rows["membership_auc", "permuted", "all"] < 0.75
    assert not any(name == "tpr_at_1_percent" for name, *_ in rows), "40 non-members do not resolve 1 %"
    attack.memorised(run, played.members, played.members, played.others, sampler="composed", t0=100)
    found = {(row["name"], row["labels"].get("criterion")): row["value"] for row in run._metrics.values()}
    assert found["memorised", "ratio"] == found["memorised", "extraction"] == found["extracted_share", "ratio"] == 1
    assert found["memorised_control", "ratio"] < 0.2
    assert attack.black_box(played.members, played)["nearest"][:40].max() == 0


def test_figures_show_every_view_and_sampler(toy):
    rows = []
    for place, view in enumerate(figures.VIEWS):
        for t0 in ("100", "690") if not view.startswith("centralised") else ("",):
            for group in ("all", "majority", "minority"):
                where = dict(view=view, attack="loss", group=group, t0=t0)
                rows += [("toy", seed, "membership_auc", 0.5 + 0.03 * place, where) for seed in range(2)]
            rows += [("toy", seed, "tpr_at_1_percent", 0.02, where | {"group": "all"}) for seed in range(2)]
    for t0 in ("100", "690"):
        rows += [("toy", seed, f"bound_{name}", 0.9, dict(t0=t0)) for name in ("auc", "tpr") for seed in range(2)]
        rows += [("toy", seed, name, 0.1, dict(t0=t0, sampler=sampler, criterion=criterion))
                 for name in ("memorised", "memorised_control") for sampler in figures.SAMPLERS
                 for criterion in figures.CRITERIA for seed in range(2)]
    frame = toy(rows, notebook="41_membership_images")
    panel = figures.views(frame).axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == list(figures.VIEWS.values())
    drawn = {round(float(x), 6) for line in panel.get_lines() for x in line.get_xdata()}
    assert {round(0.5 + 0.03 * place, 6) for place in range(len(figures.VIEWS))} <= drawn
    assert len(figures.power(frame).axes) == len(figures.groups(frame).axes) == 2
    assert len(figures.memorised(frame).axes[0].patches) == 12
