"""Where a model comes from: with Git, on the full data, and for a model of another script."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

import lineage
from support.git import run_git
from support.scripts import call_main, run_script

FOREIGN_SCRIPT = """
import mlflow, numpy
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
model = LogisticRegression().fit(numpy.eye(2), [0, 1])
with mlflow.start_run():
    mlflow.sklearn.log_model(model, name="model", registered_model_name="foreign",
                             signature=infer_signature(numpy.eye(2)), pip_requirements=["scikit-learn"])
"""


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a checkout, by its path."""
    contents = {}
    for path in folder.rglob("*"):
        if path.is_file() and not {".git", "__pycache__"} & set(path.parts):
            contents[str(path.relative_to(folder))] = path.read_bytes()
    return contents


def test_patch_restores_the_code_that_ran(checkout: Path, tmp_path: Path) -> None:
    commit = run_git(checkout, "rev-parse", "HEAD")
    script = checkout / "pytorch_demo.py"
    script.write_text(script.read_text() + "# changed\r\n")
    (checkout / "new.py").write_text("x = 1\n")
    (checkout / "evaluate.py").unlink()
    options = ("--dataset", "digits", "--epochs", 1, "--no-register")
    run_id = run_script(tmp_path, "pytorch_demo.py", *options, root=checkout).json["run_id"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    tags = client.get_run(run_id).data.tags
    assert (tags["code.commit"], tags["code.dirty"], tags["code.patch"]) == (commit, "true", "complete")

    patch = client.download_artifacts(run_id, "provenance/source.patch", str(tmp_path))
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "--quiet", tags["code.remote"], str(clone))
    run_git(clone, "checkout", "--quiet", tags["code.commit"])
    run_git(clone, "apply", patch)
    files = read_files(clone)
    assert files == read_files(checkout)
    assert "new.py" in files
    assert "evaluate.py" not in files


@pytest.mark.parametrize("model", ["cnn", "mlp"])  # the residual net takes a minute
def test_mnist_training_is_reproduced(model: str, real_data: Path, tmp_path: Path) -> None:
    data = ("--data-dir", real_data)
    recipe = f"--model {model} --epochs 1 --limit 2000 --seed 5 --lr 0.002"
    run_id = run_script(tmp_path, "pytorch_demo.py", *recipe.split(), *data).json["run_id"]
    result = run_script(tmp_path, "pytorch_demo.py", "--reproduce", run_id, *data)
    assert (result.code, result.json["identical"]) == (0, True), result.stderr


def test_same_code_gives_no_warning(checkout: Path, tmp_path: Path) -> None:
    options = ("--dataset", "digits", "--epochs", 2)
    run_id = run_script(tmp_path, "pytorch_demo.py", *options, root=checkout).json["run_id"]
    result = run_script(tmp_path, "pytorch_demo.py", "--reproduce", run_id, root=checkout)
    assert (result.code, result.json["identical"]) == (0, True), result.stderr
    assert "identical" in result.stderr.splitlines()
    assert "warning" not in result.stderr


def test_lineage_of_a_scikit_learn_model(store: Path) -> None:
    subprocess.run([sys.executable, "-c", FOREIGN_SCRIPT], cwd=store, check=True, capture_output=True)
    answers = call_main(lineage.main, "--model", "foreign", "--version", 1, "--json", folder=store).json
    assert answers["what"]["model"] == "foreign version 1, None"
    assert answers["what"]["files, SHA-256"].endswith(" (nobody recorded it)")
    assert {"what: data", "how: code", "why: decision"} < set(answers["unanswered"])
