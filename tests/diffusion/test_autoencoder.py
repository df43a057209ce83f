"""The autoencoder of pictures: shapes, standardised latents, reconstruction, resumption, bad input."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from feddiff.diffusion.autoencoder import ConvAutoencoder, fit_autoencoder
from feddiff.diffusion.descent import Descent
from feddiff.seeds import torch_generator

CONFIG = Descent(steps=250, batch=32, lr=5e-3, warmup=20, ema=0.9)


def autoencoder(**options):
    options = {"widths": (16,), "latent": 3, "groups": 4} | options
    return ConvAutoencoder(1, 8, generator=torch_generator(0, "init"), **options)


def digits(n=400):
    return torch.from_numpy(load_digits().images[:n]).float().unsqueeze(1) / 8 - 1


def train(model, config=CONFIG, **options):
    return fit_autoencoder(model, digits(), config, seed=0, progress=False, **options)


@pytest.mark.parametrize(("widths", "side"), [((16,), 4), ((8, 16), 2), ((4, 8, 8), 1)])
def test_every_width_halves_the_side(widths, side):
    model = autoencoder(widths=widths)
    code = model.encode(digits(5))
    assert code.shape == (5, 3, side, side) == (5, *model.latent_shape)
    assert model.decode(code).shape == (5, 1, 8, 8) and not code.requires_grad


def test_weights_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    one, two = autoencoder(), autoencoder()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def test_training_reconstructs_and_standardises_the_latents():
    model, images = autoencoder(), digits()
    fitted = train(model)
    error = float((model.decode(model.encode(images)) - images).square().mean())
    assert error < 0.15 * float((images - images.mean(0)).square().mean()), "hardly better than the mean picture"
    code = model.encode(images)
    assert torch.allclose(code.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(code.std((0, 2, 3)), torch.ones(3), atol=1e-4)
    fresh = autoencoder()
    fresh.load_state_dict(fitted.state)
    assert torch.allclose(fresh.encode(images), code, atol=1e-4)
    assert fitted.images_seen == 250 * 32 and fitted.history.loss.iloc[-1] < fitted.history.loss.iloc[0]


def test_same_seed_same_bits_resumed_or_not(tmp_path):
    short = Descent(steps=20, batch=16, warmup=2)
    whole = train(autoencoder(), short)
    file = tmp_path / "autoencoder.pt"
    for _ in range(2):
        again = train(autoencoder(), short, checkpoint=file, checkpoint_every=10)
        assert all(torch.equal(a, b) for a, b in zip(whole.state.values(), again.state.values(), strict=True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvAutoencoder(1, 10, generator=torch_generator(0, "init"), widths=(8, 8)), "multiple of 4"),
        (lambda: autoencoder(widths=()), "widths must be multiples of groups=4"),
        (lambda: autoencoder(widths=(6,)), "widths must be multiples of groups=4"),
        (lambda: autoencoder(latent=0), "latent must be at least 1 channel"),
        (lambda: train(autoencoder(), jitter=-1.0), "jitter must be >= 0"),
        (lambda: train(autoencoder(), Descent(steps=1, balanced=True)), "balanced batches need labels"),
        (lambda: fit_autoencoder(autoencoder(), digits() * math.nan, CONFIG, seed=0), "not finite"),
        (lambda: fit_autoencoder(autoencoder(), digits()[..., :4], CONFIG, seed=0), "images must be float32"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
