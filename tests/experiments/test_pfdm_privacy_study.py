"""Privacy frontier of PFDM: the quoted epsilons, an audit near them that sees too little noise, clips, blur, codes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from feddiff.data.images import ImageSet
from feddiff.experiments import pfdm_privacy_study as study
from feddiff.experiments import pfdm_study
from feddiff.privacy.noise import GaussianNoise
from feddiff.seeds import torch_generator
from feddiff.systems import pfdm


def test_the_table_holds_the_papers_numbers():
    table = study.bounds([100, 400, 690]).set_index(["t0", "unit"])
    for place, theorem, analytic in (
        ((100, "one value"), 45.75, 41.84), ((400, "one value"), 5.211, 4.300), ((400, "RGB pixel"), 9.640, 8.231),
        ((400, "picture, C = 10"), 95.75, 89.66), ((690, "picture, C = 10"), 10.24, 8.774),
        ((400, "32 x 32 RGB picture"), 1752, 1722),
    ):
        assert table.loc[place].tolist() == pytest.approx([theorem, analytic], rel=1e-3)


@pytest.mark.parametrize("config", [
    pfdm.cvpr(t0=690, C=8.0), pfdm.cvpr(t0=690, C=3.0), pfdm.v1(t0=400), pfdm.cvpr(t0=600, C=4.0, values="[0, 1]"),
])
def test_an_audit_comes_near_the_exact_epsilon_and_does_not_pass_it(config):
    found = study.audit(config, side=8, trials=8000, seed=0)
    exact = study.pfdm.UploadPrivacy(config=config, shape=(1, 8, 8)).epsilon()
    assert all(0 <= value <= exact for value in found.values())
    assert found["fit"] > 0.75 * exact
    assert found["counting"] < math.log(8000)


def test_an_audit_sees_too_little_noise(monkeypatch):
    fill = GaussianNoise.fill_
    monkeypatch.setattr(GaussianNoise, "fill_", lambda self, tensor, std: fill(self, tensor, 0.7 * std))
    config = pfdm.cvpr(t0=690, C=8.0)
    exact = study.pfdm.UploadPrivacy(config=config, shape=(1, 8, 8)).epsilon()
    assert study.audit(config, side=8, trials=8000, seed=0)["fit"] > exact


def test_an_audit_repeats_with_its_seed():
    config = pfdm.cvpr(t0=690, C=8.0)
    one, again, other = (study.audit(config, side=8, trials=500, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert one == study.audit(replace(config, seed=9, images=5, network="patch"), side=8, trials=500, seed=1)


def test_contrast_is_what_clipping_leaves():
    stored = np.stack([np.full((4, 4, 1), 255), np.zeros((4, 4, 1))]).astype(np.uint8)
    pictures = ImageSet(stored, np.array([0, 0]), ("a",), "toy", "file", "0" * 64)
    assert study.contrast(pictures, 1.0) == pytest.approx(0.25)
    assert study.contrast(pictures, 9.0) == 1
    assert study.contrast(pictures, 2.0, "[0, 1]") == pytest.approx((0.5 + 1) / 2)


def test_sharpness_falls_with_blur_and_rises_with_noise():
    real = torch.rand(50, 1, 8, 8, generator=torch_generator(0, "real"))
    blurred = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    noisy = real + torch.randn(real.shape, generator=torch_generator(0, "noise"))
    assert study.sharpness(real, real) == 1
    assert study.sharpness(blurred, real) < 0.5 and study.sharpness(noisy, real) > 2


class NoJudge:
    """In the place of a judge that these tests do not ask."""

    def to_state(self):
        return {}


def test_latent_pfdm_sends_codes_and_repeats_from_the_cache(monkeypatch):
    monkeypatch.setattr(pfdm_study, "train_judge", lambda *a, **k: NoJudge())
    monkeypatch.setattr(pfdm_study.Judge, "from_state", staticmethod(lambda state: NoJudge()))
    setting = pfdm_study.split("digits", majority=20, minority=3, seed=0, per_class=4, progress=False)
    config = pfdm.cvpr(t0=400, C=4.0, network="tiny", images=24, batch=8, warmup=1)
    run, error = study.in_latent_space(setting, config, latent=2, steps=20, progress=False)
    again, same = study.in_latent_space(setting, config, latent=2, steps=20, progress=False)
    pixels = pfdm.train(setting.clients, replace(config, classes=10), fit_clients=(), progress=False)
    assert error == same and 0 < error < 1.5
    assert run.uploads.images.shape[1:] == (2, 4, 4) and torch.equal(run.uploads.images, again.uploads.images)
    assert study.upload_nbytes(run) < 0.7 * study.upload_nbytes(pixels)
    assert run.privacy["epsilon"] == pixels.privacy["epsilon"], "the same clip norm, in another space"
    drawn = run.sample(0, [0, 7], seed=0, steps=3, local_steps=3)
    assert drawn.shape == (2, 1, 8, 8)
    assert torch.equal(drawn, again.sample(0, [0, 7], seed=0, steps=3, local_steps=3))
