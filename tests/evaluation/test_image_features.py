"""The judge: what it reaches, that it is a function of its arguments, what it refuses; Inception on random weights."""

import hashlib
import io

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import inception_v3

from feddiff.data.images import load_images
from feddiff.evaluation import image_classifier, image_features, image_inception


def digits():
    loaded = load_images("digits")
    pictures = torch.from_numpy(loaded.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    order = np.random.default_rng(0).permutation(len(pictures))
    return pictures[order], loaded.labels[order]


PICTURES, LABELS = digits()
TRAIN, TEST = slice(0, 1300), slice(1300, None)


def judge_of(seed, epochs=12, **options):
    return image_features.train_judge(PICTURES[TRAIN], LABELS[TRAIN], PICTURES[TEST], LABELS[TEST], seed=seed,
                                      epochs=epochs, data="digits", progress=False, **options)


@pytest.fixture(scope="module")
def judge():
    return judge_of(0)


def test_the_judge_reads_digits_and_says_how_well(judge):
    right = judge.predict(PICTURES[TEST]) == LABELS[TEST]
    assert judge.accuracy == right.mean() > 0.93
    assert judge.recalls == tuple(right[LABELS[TEST] == one].mean() for one in range(10))
    assert judge.name == f"LeNet-64 trained on digits, test accuracy {judge.accuracy:.3f}"
    assert (judge.dimension, judge.classes, judge.test_count) == (64, 10, 497)


def test_features_are_the_last_hidden_layer_at_mean_variance_one(judge):
    features = judge.features(PICTURES[TEST])
    assert features.shape == (497, 64) and features.dtype == np.float64 and features.min() >= 0
    assert features.var(axis=0).mean() == pytest.approx(1.0)
    weight, bias = (value.double().numpy() for value in judge.network.output.parameters())
    logits = features / judge.scale @ weight.T + bias
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(judge.probabilities(PICTURES[TEST]), chances, atol=1e-5)
    np.testing.assert_array_equal(judge.predict(PICTURES[TEST]), chances.argmax(1))
    many = PICTURES[:1100]  # three portions
    np.testing.assert_allclose(judge.features(many)[::100], judge.features(many[::100]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(judge.features(many[:9].numpy()), judge.features(many[:9]))


def test_the_judge_is_a_function_of_its_arguments_and_touches_no_global_generator():
    before = torch.get_rng_state()
    first, again, other = (judge_of(seed, epochs=1, device="cpu") for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [judge.to_state()["weights"] for judge in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["dense.weight"], weights[2]["dense.weight"])


def test_a_stored_judge_is_the_same_judge(judge):
    buffer = io.BytesIO()
    torch.save(judge.to_state(), buffer)
    restored = image_features.Judge.from_state(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    np.testing.assert_array_equal(restored.features(PICTURES[:50]), judge.features(PICTURES[:50]))
    assert restored.name == judge.name and restored.recalls == judge.recalls
    assert restored.test_count == judge.test_count and restored.scale == judge.scale


def test_overshoot_is_clamped_and_inputs_stay(judge):
    over = PICTURES[:20] * 1.5
    kept = over.clone()
    np.testing.assert_array_equal(judge.features(over), judge.features(over.clamp(-1, 1)))
    assert torch.equal(over, kept)


@pytest.mark.parametrize(("pictures", "error", "message"), [
    (torch.zeros(3, 1, 8, 8, dtype=torch.uint8), TypeError, "data.images.to_tensor"),
    (torch.zeros(3, 8, 8), ValueError, r"\(n, channels, height, width\), got \(3, 8, 8\)"),
    (torch.zeros(0, 1, 8, 8), ValueError, "non-empty"),
    (torch.tensor([0.0, np.nan]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8), ValueError, "1 of 2 pictures .*diverged"),
    (torch.full((3, 1, 8, 8), 255.0), ValueError, r"lie in \[255, 255\]; rescale them"),
    (torch.zeros(3, 1, 16, 16), ValueError, "reads pictures of 1 x 8 x 8, got 1 x 16 x 16"),
    (torch.zeros(3, 3, 8, 8), ValueError, "reads pictures of 1 x 8 x 8, got 3 x 8 x 8"),
])
def test_bad_pictures_are_named(judge, pictures, error, message):
    with pytest.raises(error, match=message):
        judge.features(pictures)


@pytest.mark.parametrize(("train", "test", "message"), [
    ((PICTURES[:30], np.arange(30) % 9 * 2), (PICTURES[:30], np.arange(30) % 9 * 2), r"no training picture .*\[1, 3"),
    ((PICTURES[:30], np.arange(30) % 3), (PICTURES[:30], np.zeros(30, dtype=int)), r"no test picture .* \[1, 2\]"),
    ((PICTURES[:30], np.arange(30) % 3), (PICTURES[:30], np.arange(30) % 4), r"test labels must lie in \[0, 3\)"),
    ((PICTURES[:30], np.arange(29) % 3), (PICTURES[:30], np.arange(30) % 3), "one label for each of 30"),
    ((PICTURES[:30], np.arange(30) % 3 - 1), (PICTURES[:30], np.arange(30) % 3), "must be >= 0, got -1"),
    ((PICTURES[:30], np.arange(30) % 3), (torch.zeros(30, 1, 9, 8), np.arange(30) % 3), "resize one of the two"),
])
def test_a_judge_needs_every_class_on_both_sides(train, test, message):
    with pytest.raises(ValueError, match=message):
        image_features.train_judge(*train, *test, seed=0, progress=False)


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="training labels must be integers, got float64"):
        image_features.train_judge(PICTURES[:9], np.zeros(9), PICTURES[:9], np.zeros(9, dtype=int), seed=0)


def test_a_diverging_classifier_says_so():
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        image_classifier.fit(PICTURES[:200], LABELS[:200], classes=10, seed=0, steps=40, learning_rate=1e30,
                             progress=False)
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        image_classifier.fit(PICTURES[:9], LABELS[:9], classes=10, seed=0, steps=0)


def test_pictures_too_small_for_two_poolings_are_refused():
    with pytest.raises(ValueError, match="3 x 8 are too small"):
        image_classifier.LeNet((1, 3, 8), 10, generator=torch.Generator())


def test_every_pass_shows_every_picture_once():
    batches = image_classifier._batches(10, 4, torch.Generator())
    seen = torch.cat([next(batches) for _ in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_warping_is_small_and_different_for_every_picture():
    generator = torch.Generator()
    flat = torch.full((5, 3, 16, 16), 0.3)
    torch.testing.assert_close(image_classifier._warped(flat, generator), flat)
    spot = torch.full((200, 1, 16, 16), -1.0)
    spot[:, :, 7:9, 7:9] = 1.0
    moved = image_classifier._warped(spot, generator)
    weight = (moved + 1).squeeze(1)
    centres = torch.stack([
        (weight.sum(3 - axis) * torch.arange(16)).sum(1) / weight.sum((1, 2)) for axis in (1, 2)
    ])
    # A move of .125 half sides is 1 of 16 pixels; the centre of turn, shear and scale stays.
    assert (centres - 7.5).abs().max() < 1.3 and centres.std(1).min() > 0.4
    assert abs(float(centres.mean()) - 7.5) < 0.15


# Inception-v3


@pytest.fixture(scope="module")
def weights():
    """Random weights in the layout of the published file (no file of the real ones comes with the package)."""
    with torch.device("meta"):
        network = inception_v3(weights=None, init_weights=False)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
        elif value.ndim > 1:
            state[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        else:
            state[name] = torch.randn(value.shape, generator=generator) * 0.1 + name.endswith("bn.weight")
    return state


@pytest.fixture(scope="module")
def weights_file(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "images"
    folder.mkdir()
    path = folder / "inception_v3_random.pth"
    torch.save(weights, path)
    yield path
    path.unlink()


def test_inception_gives_the_layer_before_the_last_of_torchvisions_network(weights, weights_file, monkeypatch):
    monkeypatch.setenv("FEDDIFF_DATA", str(weights_file.parents[1]))
    before = torch.get_rng_state()
    inception = image_inception.load()
    assert torch.equal(torch.get_rng_state(), before)
    assert inception.name.startswith("Inception-v3 (torchvision, inception_v3_random.pth, sha256 ")
    colour = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = inception.features(colour)
    assert features.shape == (2, inception.dimension) == (2, 2048)

    # torchvision's own way: ImageNet's mean and spread, undone inside by transform_input.
    network = inception_v3(weights=None, init_weights=False, transform_input=True)
    network.load_state_dict(weights)
    network.eval()
    caught = []
    network.avgpool.register_forward_hook(lambda module, given, result: caught.append(result.flatten(1)))
    mean, spread = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    sized = nn.functional.interpolate(colour, (299, 299), mode="bilinear", antialias=True)
    with torch.no_grad():
        network(((sized + 1) / 2 - mean) / spread)
    np.testing.assert_allclose(features, caught[0].numpy(), rtol=1e-3, atol=1e-4 * features.max())
    assert features.std() > 0.1 * features.mean()

    grey = colour[:1, :1]
    np.testing.assert_allclose(inception.features(grey), inception.features(grey.expand(1, 3, 32, 32)))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        inception.features(colour[:, :2])


def test_a_file_is_held_to_the_checksum_in_its_name(weights_file, tmp_path):
    wrong = tmp_path / "inception_v3_google-01234567.pth"
    wrong.hardlink_to(weights_file)
    with pytest.raises(ValueError, match="not with 01234567 as its name says; the file is damaged"):
        image_inception.load(wrong)
    begin = hashlib.sha256(weights_file.read_bytes()).hexdigest()[:8]
    kept = tmp_path / f"inception_v3_google-{begin}.pth"
    kept.hardlink_to(weights_file)
    assert f"sha256 {begin}" in image_inception.load(kept).name


def test_files_that_are_something_else_are_refused(tmp_path, weights):
    text = tmp_path / "inception_v3_text.pth"
    text.write_text("no weights")
    other = tmp_path / "inception_v3_other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    fewer = tmp_path / "inception_v3_fewer.pth"
    torch.save([1, 2], fewer)
    narrow = tmp_path / "inception_v3_narrow.pth"
    torch.save({**{name: value for name, value in weights.items() if value.ndim < 2}}, narrow)
    for path in (text, other, fewer, narrow):
        with pytest.raises(ValueError, match=f"{path.name}: not the weights of torchvision's inception_v3"):
            image_inception.load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        image_inception.load(tmp_path / "absent.pth")


def test_without_weights_the_message_says_where_to_put_them(tmp_path, monkeypatch, weights_file):
    monkeypatch.delenv("FEDDIFF_DATA", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="folder images of FEDDIFF_DATA or .*train_judge"):
        image_inception.load()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "inception_v3_google.pth").hardlink_to(weights_file)
    assert image_inception.find() == folder / "inception_v3_google.pth"
    monkeypatch.setenv("FEDDIFF_DATA", str(weights_file.parents[1]))
    assert image_inception.find() == weights_file
