import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline import UserError, data, model, training
from pipeline.evaluation import predict
from pipeline.training import Epoch

SPLITS = data.load("digits", Path())
CPU = torch.device("cpu")


def fit(limit: int = 300, lr: float = 0.01, **options: Any) -> tuple[torch.nn.Module, list[Epoch]]:
    train = SPLITS.train.take(slice(limit))
    torch.manual_seed(0)
    network = model.build(options.pop("model", "cnn"), 10, train.images)
    optimizer = training.optimizer(network, lr, 0.05)
    defaults: dict[str, Any] = {"epochs": 2, "batch_size": 64, "seed": 0, "device": CPU}
    return network, list(training.fit(network, optimizer, train, SPLITS.validation, **defaults | options))


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


@pytest.mark.parametrize("name", model.NAMES)
def test_training_learns_the_digits(name: str) -> None:
    _, epochs = fit(model=name, limit=1257, epochs=8)
    assert epochs[-1].validation_accuracy > 0.9
    assert epochs[-1].train_loss < epochs[0].train_loss / 2


@pytest.mark.parametrize("name", model.NAMES)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(name: str) -> None:
    assert torch.equal(weights(fit(model=name)[0]), weights(fit(model=name)[0]))


def test_another_seed_gives_other_weights() -> None:
    assert not torch.equal(weights(fit(seed=0)[0]), weights(fit(seed=1)[0]))


def test_every_image_is_used_once_an_epoch_whatever_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def record(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(images)
        return images

    monkeypatch.setitem(training.AUGMENTATIONS, "none", record)
    for batch_size in (1, 64, 299, 300, 5_000):
        seen.clear()
        fit(epochs=1, batch_size=batch_size, augment=["none"])
        rows = sorted(image.numpy().tobytes() for image in torch.cat(seen))
        assert rows == sorted(image.numpy().tobytes() for image in SPLITS.train.images[:300])
        assert max(len(batch) for batch in seen) <= batch_size


def test_the_learning_rate_rises_and_falls_to_near_zero() -> None:
    _, epochs = fit(epochs=10, lr=0.01)
    rates = [epoch.learning_rate for epoch in epochs]
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 2  # of ten epochs the first three rise
    assert 0 < rates[-1] < 0.001


def test_one_step_trains_at_the_full_rate() -> None:
    _, epochs = fit(limit=1, epochs=1)
    assert epochs[0].learning_rate == 0.01


def test_metrics_of_an_epoch_are_those_of_the_contract() -> None:
    network, epochs = fit()
    assert set(epochs[0].metrics()) == {
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
        "images_per_second",
    }
    logits = network.eval()(SPLITS.validation.images.float())
    assert epochs[-1].validation_loss == pytest.approx(F.cross_entropy(logits, SPLITS.validation.labels).item(), 1e-4)
    accuracy = (logits.argmax(1) == SPLITS.validation.labels).double().mean().item()
    assert epochs[-1].validation_accuracy == pytest.approx(accuracy)


def test_label_smoothing_makes_the_model_less_sure_and_the_reported_loss_stays_the_plain_one() -> None:
    smoothed, sure = fit(epochs=8, label_smoothing=0.3), fit(epochs=8)
    images = SPLITS.train.images[:300].float()
    confidence = [network.eval()(images).softmax(1).amax(1).mean().item() for network, _ in (smoothed, sure)]
    assert 0.6 < confidence[0] < 0.8  # 0.73 would be perfect: the true class keeps 0.7 and a tenth of 0.3
    assert confidence[1] > 0.9
    assert smoothed[1][-1].train_loss < 0.6  # the smoothed loss cannot fall below 1.17, the entropy of such labels


def test_training_that_diverges_says_so_and_names_the_learning_rate() -> None:
    with pytest.raises(UserError, match=r"diverged in epoch \d.*--lr"):
        fit(lr=1e30, model="mlp", epochs=3)


def test_affine_moves_turns_stretches_and_slants_each_image_by_its_own_and_little() -> None:
    images = torch.zeros(2_000, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 8:20, 10:18] = 200  # a block, 12 high and 8 wide, in the middle
    varied = training.affine(images, torch.Generator().manual_seed(0))
    assert (varied.shape, varied.dtype) == (images.shape, torch.float32)
    assert varied.max() <= 200.01
    ink = varied.squeeze(1).double()
    places = torch.arange(28.0, dtype=torch.float64) - 13.5
    mass = ink.sum((1, 2))
    right, down = (ink.sum(1) * places).sum(1) / mass, (ink.sum(2) * places).sum(1) / mass
    for moved in (right, down):  # by a pixel at most, and 10% more where the image is stretched
        assert 0.8 < moved.abs().max() < 1.3
        assert moved.mean().abs() < 0.05
    assert mass.min() > 12 * 8 * 200 * 0.75
    assert mass.max() < 12 * 8 * 200 * 1.4
    slope = (ink * (places[:, None] - down[:, None, None]) * (places - right[:, None, None])).sum((1, 2))
    assert 0.3 < (slope > 0).double().mean() < 0.7  # turned to either side
    assert len(varied.flatten(1).unique(dim=0)) == 2_000


def test_flipped_images_are_mirrored_or_as_they_were_about_half_each() -> None:
    images = SPLITS.train.images[:400]
    flipped = training.flip(images, torch.Generator().manual_seed(0))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_erased_images_lose_one_square_of_8x8_pixels_anywhere() -> None:
    images = torch.full((5_000, 1, 28, 28), 200, dtype=torch.uint8)
    erased = training.erase(images, torch.Generator().manual_seed(0))
    assert erased.unique().tolist() == [0, 200]
    assert ((erased == 0).flatten(1).sum(1) == 64).all()
    for axis in (2, 3):  # in a row and in a column of eight each
        counts = (erased == 0).squeeze(1).sum(axis - 1)
        assert set(counts.flatten().tolist()) == {0, 8}
    assert ((erased == 0).any(0)).all()  # no place is safe


def test_augmentations_are_applied_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def brighten(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return images // 2 + 128

    def check(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        assert images.min() >= 128
        return images

    monkeypatch.setitem(training.AUGMENTATIONS, "flip", brighten)
    monkeypatch.setitem(training.AUGMENTATIONS, "erase", check)
    fit(augment=["flip", "erase"])
    with pytest.raises(AssertionError):
        fit(augment=["erase", "flip"])


def test_without_augmentation_the_images_are_used_as_they_are() -> None:
    images = SPLITS.train.images[:10]
    assert torch.equal(training.AUGMENTATIONS["none"](images, torch.Generator()), images)


@pytest.mark.parametrize("augment", training.AUGMENTATIONS)
def test_every_augmentation_trains(augment: str) -> None:
    assert fit(augment=[augment], epochs=4)[1][-1].train_accuracy > 0.5


def test_bfloat16_is_used_where_the_hardware_has_it_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native})
        with training.autocast(CPU):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if native else torch.float32)
        _, epochs = fit()
        assert math.isfinite(epochs[-1].train_loss)


def test_calibration_finds_the_temperature_and_changes_no_prediction() -> None:
    network, _ = fit(limit=1257, epochs=4, label_smoothing=0.2)
    logits = predict(network, SPLITS.validation.images, device=CPU)
    before = F.cross_entropy(logits, SPLITS.validation.labels)
    temperature = training.calibrate(network, SPLITS.validation, CPU)  # type: ignore[arg-type]
    after = predict(network, SPLITS.validation.images, device=CPU)
    assert temperature < 1  # smoothed labels make a model too modest
    assert F.cross_entropy(after, SPLITS.validation.labels) < before
    assert torch.allclose(after * temperature, logits, atol=1e-5)
    for other in (0.8, 1.25):  # no other temperature nearby is better, up to the doubt that it leaves
        nearby = F.cross_entropy(after / other, SPLITS.validation.labels)
        assert F.cross_entropy(after, SPLITS.validation.labels) < nearby + 0.01


def test_calibration_does_not_become_certain_where_every_image_is_right() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10, bias=False), model.Temperature())
    images = torch.zeros(100, 1, 28, 28, dtype=torch.uint8)
    labels = torch.arange(100) % 10
    images.view(100, -1)[torch.arange(100), labels] = 8
    network[1].load_state_dict({"weight": torch.eye(10, 784)})
    validation = data.Dataset("perfect", images, labels, tuple("0123456789"), "")
    training.calibrate(network, validation, CPU)
    probabilities = predict(network, images, device=CPU).softmax(1)
    assert probabilities.max(1).values.mean().item() == pytest.approx(101 / 102, abs=1e-3)  # Platt: (N + 1) / (N + 2)
