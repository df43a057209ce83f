"""The diffusion of latent vectors: its loss by the definition, a known law learnt, seeds, resumption, refusals."""

import math

import pytest
import torch

from feddiff.diffusion.descent import Descent
from feddiff.diffusion.latent_diffusion import PREDICTIONS, LatentDiffusion
from feddiff.seeds import torch_generator

QUICK = Descent(steps=30, batch=64, warmup=3)
# A correlated pair, a third place of its own: variances 1, correlation .8.
COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])


def gaussian(n=4000, seed=0):
    z = torch.randn(n, 3, generator=torch_generator(seed, "gaussian"))
    z = (z - z.mean(0)) / z.std(0)
    return z @ torch.linalg.cholesky(COVARIANCE).T


def model(seed=0, **options):
    options = {"width": 32, "blocks": 2, "T": 50} | options
    return LatentDiffusion(3, generator=torch_generator(seed, "init"), **options)


def exact_epsilon(net):
    """Return E[noise | z_t] for vectors of law N(0, COVARIANCE), the function that training tends to."""
    def epsilon(z, t):
        bar = net.schedule.alpha_bar[t].float()
        marginal = bar * COVARIANCE + (1 - bar) * torch.eye(3)
        return (1 - bar).sqrt() * torch.linalg.solve(marginal, z.T).T
    return epsilon


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_the_error_of_what_is_predicted(prediction):
    net, z = model(prediction=prediction), gaussian(40)
    t = torch.randint(0, 50, (40,), generator=torch_generator(0, "t"))
    noise = torch.randn(40, 3, generator=torch_generator(0, "noise"))
    bar = net.schedule.alpha_bar[t, None].float()
    noisy = bar.sqrt() * z + (1 - bar).sqrt() * noise
    target = {"epsilon": noise, "x0": z, "v": bar.sqrt() * noise - (1 - bar).sqrt() * z}[prediction]
    expected = (net(noisy, t) - target).square().mean(dim=1)
    torch.testing.assert_close(net.loss_per_record(z, t, noise), expected)
    # What is true is said by the perfect network, whatever it predicts.
    net.forward = lambda x, at: target
    torch.testing.assert_close(net.denoised(noisy, t), z, atol=1e-2, rtol=1e-2)
    assert net.loss_per_record(z, t, noise).max() < 1e-10


def test_sampling_with_the_exact_noise_gives_the_gaussian():
    """Closed form: with E[noise | z_t] and all steps the samples have the law of the data."""
    net = model(T=200)
    exact = exact_epsilon(net)
    net.forward = lambda z, t: exact(z, int(t))
    z = net.sample(8000, torch_generator(0, "sample"), steps=None)
    assert z.mean(0).abs().max() < 0.05
    torch.testing.assert_close(z.T.cov(), COVARIANCE, atol=0.07, rtol=0)
    strided = net.sample(8000, torch_generator(0, "sample"), steps=25)
    # Few steps lose spread; known_noise=1 is exact where the variance is 1 (the third place).
    assert 0.7 < float(strided[:, 2].var()) < 0.92
    mended = net.sample(8000, torch_generator(0, "sample"), steps=25, known_noise=1.0)
    assert float(mended[:, 2].var()) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_a_trained_model_recovers_mean_and_covariance(prediction):
    shift = torch.tensor([0.5, 0.0, -0.5])
    net = model(prediction=prediction, width=64)
    net.fit(gaussian() + shift, Descent(steps=700, batch=128, lr=5e-3, ema=0.99), seed=0, progress=False)
    z = net.sample(6000, torch_generator(0, "sample"), steps=None)
    torch.testing.assert_close(z.mean(0), shift, atol=0.12, rtol=0)
    torch.testing.assert_close(z.T.cov(), COVARIANCE, atol=0.17, rtol=0)
    assert not net.training


def test_samples_stay_in_the_range_of_what_was_fitted():
    net, data = model(), gaussian(200)
    net.fit(data, QUICK, seed=0, progress=False)
    z = net.sample(500, torch_generator(0), steps=5)
    assert (z >= data.amin(0)).all() and (z <= data.amax(0)).all() and z.dtype == torch.float32
    unfitted = model().sample(500, torch_generator(0), steps=5)
    assert unfitted.abs().max() > data.abs().max()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_same_seed_same_bits_and_no_global_generator(dropout):
    before = torch.random.get_rng_state()
    nets = [model(dropout=dropout) for _ in range(3)]
    fits = [net.fit(gaussian(), QUICK, seed=seed, progress=False) for net, seed in zip(nets, (0, 0, 1))]
    samples = [net.sample(20, torch_generator(0, "s")) for net in nets]
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was drawn from"
    assert all(torch.equal(a, b) for a, b in zip(fits[0].state.values(), fits[1].state.values(), strict=True))
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])
    assert not torch.equal(samples[0], nets[0].sample(20, torch_generator(1, "s")))
    other = model(seed=5, dropout=dropout)
    other.load_state_dict(fits[0].state)
    assert torch.equal(other.eval().sample(20, torch_generator(0, "s")), samples[0])


def test_dropout_masks_training_only():
    net, z, t = model(dropout=0.5), gaussian(50), torch.zeros(50, dtype=torch.int64)
    with torch.no_grad():
        net.network.output.weight.fill_(1.0)
    net.eval()
    assert torch.equal(net(z, t), net(z, t))
    net.train()
    with pytest.raises(ValueError, match="set_dropout_generator"):
        net(z, t)
    net.set_dropout_generator(torch_generator(0, "masks"))
    assert not torch.equal(net(z, t), net(z, t))


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    class Stopped(Exception):
        pass

    class Stopping(Descent):
        def lr_at(self, step):
            if step == 17:
                raise Stopped
            return super().lr_at(step)

    file, data = tmp_path / "latents.pt", gaussian(300)
    options = {"seed": 0, "progress": False, "checkpoint": file, "checkpoint_every": 10}
    whole = model(dropout=0.1).fit(data, QUICK, seed=0, progress=False)
    with pytest.raises(Stopped):
        model(dropout=0.1).fit(data, Stopping(steps=30, batch=64, warmup=3), **options)
    resumed = model(dropout=0.1).fit(data, QUICK, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole.state.values(), resumed.state.values(), strict=True))
    assert whole.history.equals(resumed.history)
    with pytest.raises(ValueError, match="another training"):
        model(dropout=0.1).fit(data + 1, QUICK, **options)


@pytest.mark.parametrize(("data", "message"), [
    (torch.zeros(5, 2), r"float32 \(n, 3\)"), (torch.zeros(5, 3).double(), r"float32"),
    (torch.zeros(0, 3), "n >= 1"), (torch.zeros(3), r"\(n, 3\)"),
    (torch.tensor([[0.0, 0, 0], [0, math.nan, 0]]), "1 latents are not finite, the first is latent 1 of row 1"),
])
def test_latents_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        model().fit(data, QUICK, seed=0, progress=False)


def test_other_bad_input_is_refused():
    for options in ({"width": 0}, {"blocks": 0}, {"T": 0}, {"schedule": "sigmoid"}, {"prediction": "score"},
                    {"dropout": 1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            model(**options)
    with pytest.raises(ValueError, match="balanced"):
        model().fit(gaussian(50), Descent(steps=1, balanced=True), seed=0, progress=False)
    for options, message in (({"rows": 0}, "rows"), ({"rows": 5, "steps": 51}, "1..50")):
        with pytest.raises(ValueError, match=message):
            model().sample(generator=torch_generator(0), **options)
