"""Parts of PFDM taken apart: bytes that are really sent, denoisers that may be lent, clients that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from feddiff.data.images import load_images
from feddiff.experiments import pfdm_parts as parts
from feddiff.experiments import pfdm_study as study
from feddiff.systems import pfdm

SMALL = dict(T=50, beta_1=0.002, beta_T=0.3, t0=20, images=24, batch=8, warmup=1, network="tiny")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(study, "train_judge", lambda *a, **k: Reader())
        patch.setattr(study.Judge, "from_state", staticmethod(lambda state: Reader()))
        return study.split("digits", majority=20, minority=3, seed=0, per_class=4, progress=False)


class Reader:
    """A judge that knows every digit by heart."""

    classes = 10

    def __init__(self):
        digits = load_images("digits")
        self.known = {picture.tobytes(): int(label) for picture, label in zip(digits.images, digits.labels)}

    def to_state(self):
        return {}

    def predict(self, images):
        stored = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return np.array([self.known.get(np.ascontiguousarray(one).tobytes(), -1) for one in stored])


def test_bytes_of_uploads_are_pictures_and_labels():
    few, many = (parts.upload_nbytes(n, channels=3, side=8) for n in (1000, 3000))
    assert many - few == pytest.approx(2000 * (3 * 8 * 8 * 4 + 8), abs=20)
    assert 0 < few - 1000 * (3 * 8 * 8 * 4 + 8) < 1000, "what wraps the arrays is small"


def test_published_uploads_are_those_of_the_reference():
    """pfdm.md 4.3: 188 MB, 564 MB, 614 MB and 8.0 GB of float32 pictures."""
    found = [n * channels * side**2 * 4 / 1e6 for n, channels, side in parts.PUBLISHED.values()]
    assert found == pytest.approx([188, 564, 614, 8000], rel=5e-3)


def test_a_message_of_weights_is_the_one_that_is_sent(setting):
    config = pfdm.v1(**SMALL)
    run = pfdm.train(setting.clients, config, fit_clients=(), progress=False)
    sent = [message.nbytes for message in run.channel.log if message.kind == "global model"]
    assert sent == [parts.model_nbytes("tiny", channels=1, side=8)] * 2


def test_break_even_counts_both_directions():
    assert parts.break_even(600, 100, clients=2) == pytest.approx((600 + 200) / 400)
    # 35.7M parameters, two clients: 614 MB of CIFAR-10 are less than 3 rounds
    assert parts.break_even(614_400_000, 142_800_000, clients=2) == pytest.approx(1.58, abs=0.01)


def test_a_lent_denoiser_is_the_one_that_would_be_trained(setting):
    config = pfdm.v1(classes=10, **SMALL)
    whole = pfdm.train(setting.clients, config, progress=False)
    other = replace(config, stages="T - t0")
    borrowed = parts.lend(pfdm.train(setting.clients, other, fit_clients=(), progress=False), whole)
    own = pfdm.train(setting.clients, other, fit_clients=(0,), progress=False)
    walk = dict(seed=0, steps=3, local_steps=3)
    assert torch.equal(borrowed.sample(0, [1, 7], **walk), own.sample(0, [1, 7], **walk))


@pytest.mark.parametrize("change", [dict(t0=10), dict(images=32), dict(seed=3), dict(balanced=True)])
def test_a_denoiser_of_other_settings_is_not_lent(setting, change):
    config = pfdm.v1(classes=10, **SMALL)
    earlier = pfdm.train(setting.clients, config, fit_clients=(), progress=False)
    run = pfdm.train(setting.clients, replace(config, **change), fit_clients=(), progress=False)
    with pytest.raises(ValueError, match="client-0"):
        parts.lend(run, earlier)


def test_a_denoiser_of_other_pictures_is_not_lent(setting):
    config = pfdm.v1(classes=10, **SMALL)
    earlier = pfdm.train(setting.clients, config, fit_clients=(), progress=False)
    run = pfdm.train(parts.changed(setting, "inverted", 0).clients, config, fit_clients=(), progress=False)
    with pytest.raises(ValueError, match="other pictures"):
        parts.lend(run, earlier)


def test_changes_touch_one_client_and_are_known_to_the_cache(setting):
    for how in parts.CHANGES:
        found = parts.changed(setting, how)
        assert found.identity != setting.identity and found.clients[0] is setting.clients[0]
    inverted, other = parts.changed(setting, "inverted"), parts.changed(setting, "relabelled")
    assert torch.equal(inverted.clients[1].images, -setting.clients[1].images)
    assert torch.equal(other.clients[1].images, setting.clients[1].images)
    names = parts.renamed(setting)
    assert names.tolist() == [1, 2, 3, 4, 0, 6, 7, 8, 9, 5]
    assert torch.equal(other.clients[1].labels, torch.from_numpy(names)[setting.clients[1].labels])
    assert torch.bincount(other.clients[1].labels).tolist() == [3] * 5 + [20] * 5
    with pytest.raises(ValueError, match="turned"):
        parts.changed(setting, "turned")


def test_agreement_falls_when_names_or_contrast_do_not_fit(setting):
    assert parts.agreement(setting) == 1
    assert all(parts.agreement(parts.changed(setting, how)) == 0 for how in parts.CHANGES)


def test_a_class_is_thinned_at_every_client(setting):
    found = parts.thinned(setting, 9, 2)
    for before, after in zip(setting.clients, found.clients):
        kept = torch.bincount(after.labels, minlength=10)
        assert kept[9] == 2 and torch.equal(kept[:9], torch.bincount(before.labels, minlength=10)[:9])
    assert found.identity != setting.identity
    with pytest.raises(ValueError, match="label"):
        parts.thinned(setting, 10, 2)


def test_class_accuracy_reads_one_class(setting):
    samples = study.real(setting)
    assert parts.class_accuracy(setting, samples, 4) == 1
    samples[setting.labels == 4] *= -1
    assert parts.class_accuracy(setting, samples, 4) == 0 and parts.class_accuracy(setting, samples, 5) == 1
