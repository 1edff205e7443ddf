"""pytorch_demo.py with pretrained weights: a file that the test makes stands for that of ImageNet."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from torchvision.models import mobilenet_v3_small

import predict
import pytorch_demo
from support.scripts import Result, call_main

OPTIONS = "--dataset digits --model mobilenet --limit 60 --epochs 2 --batch-size 20 --no-register"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("weights") / "imagenet.pth"
    torch.save(mobilenet_v3_small().state_dict(), file)
    return file


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def train(folder: Path, *options: object) -> Result:
    return call_main(pytorch_demo.main, *OPTIONS.split(), *options, folder=folder)


def test_pretrained_training_is_logged_and_reproduced(folder: Path, weights_file: Path) -> None:
    trained = train(folder, "--weights", weights_file)
    assert trained.code == 0, trained.stderr
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    params = client.get_run(trained.json["run_id"]).data.params
    assert params["weights_sha256"] == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert params["model"] == "mobilenet"

    options = ("--reproduce", trained.json["run_id"], "--weights", weights_file)
    again = call_main(pytorch_demo.main, *options, folder=folder)
    assert (again.code, again.json["identical"]) == (0, True), again.stderr
    repeated = client.get_run(again.json["run_id"]).data.params
    assert repeated == params

    other = folder / "other.pth"
    torch.save({**torch.load(weights_file, weights_only=True), "more": torch.zeros(1)}, other)
    refused = call_main(pytorch_demo.main, *options[:3], other, folder=folder)
    assert "name their file with --weights" in refused.error


def test_logged_mobilenet_answers(folder: Path, weights_file: Path) -> None:
    trained = train(folder, "--weights", weights_file)
    picture = folder / "stroke.png"
    image = Image.new("L", (28, 28), 0)
    image.paste(255, (12, 6, 15, 22))
    image.save(picture)
    answer = call_main(predict.main, "--run-id", trained.json["run_id"], picture, folder=folder)
    assert answer.code == 0, answer.stderr


def test_no_network_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a proxy that does not exist
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    error = train(folder, "--pretrained").error
    assert "cannot download https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth" in error
    assert f"put it into {tmp_path / 'cache' / 'pytorch-demo' / 'weights'}, or name the file with --weights" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model cnn --pretrained", "--pretrained is for --model mobilenet only"),
        ("--weights x.pth", "--weights is for --model mobilenet only"),
        ("--model mobilenet --weights x.pth --resume last", "--weights does not go with --resume"),
        ("--model mobilenet --pretrained --from x", "--pretrained does not go with --from"),
        ("--pretrained --reproduce x", "--pretrained does not go with --reproduce"),
        ("--dataset digits --model mobilenet --weights nowhere.pth", "cannot read the weights nowhere.pth"),
    ],
)
def test_options_that_contradict_are_refused(options: str, message: str, folder: Path) -> None:
    assert message in call_main(pytorch_demo.main, *options.split(), folder=folder).error
