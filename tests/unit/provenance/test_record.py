import hashlib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from pipeline.provenance.record import build_run_tags, compute_weights_sha256, list_packages, write_provenance
from pipeline.provenance.source import CodeState

CODE = CodeState({"commit": "c0ffee", "dirty": "false"}, b"")
STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1, dtype=torch.int64)}


# --- the hash of weights ---------------------------------------------------------------------------------------------


def test_weights_hash_ignores_order_and_layout() -> None:
    expected = compute_weights_sha256(STATE)
    other_layout = STATE["a"].t().contiguous().t()
    assert compute_weights_sha256(dict(reversed(STATE.items()))) == expected
    assert compute_weights_sha256(STATE | {"a": other_layout}) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"a": STATE["a"]},
        {"a": STATE["a"], "c": STATE["b"]},
        STATE | {"b": torch.tensor(2)},
        STATE | {"a": STATE["a"].view(3, 2)},
        STATE | {"a": STATE["a"].double()},
    ],
    ids=["missing", "name", "value", "shape", "type"],
)
def test_weights_hash_depends_on_everything_else(other: dict[str, torch.Tensor]) -> None:
    assert compute_weights_sha256(other) != compute_weights_sha256(STATE)


# --- tags and files --------------------------------------------------------------------------------------------------


def test_tags_say_code_and_command() -> None:
    tags = build_run_tags(CODE, torch.device("cpu"), "pytorch_demo.py --run-name 'two words'")
    assert tags["code.commit"] == "c0ffee"
    assert tags["code.dirty"] == "false"
    assert tags["invocation.command"] == "pytorch_demo.py --run-name 'two words'"


def test_tags_say_the_environment() -> None:
    tags = build_run_tags(CODE, torch.device("cpu"), "pytorch_demo.py")
    assert tags["environment.threads"] == str(torch.get_num_threads())
    assert tags["environment.gpu"] == "none"
    assert tags["environment.packages_sha256"] == hashlib.sha256(list_packages().encode()).hexdigest()
    for name in ("python", "system", "cpu", "cores", "deterministic_algorithms", "cudnn_deterministic"):
        assert tags[f"environment.{name}"], name


def test_tags_say_who_and_where() -> None:
    tags = build_run_tags(CODE, torch.device("cpu"), "pytorch_demo.py")
    assert tags["invocation.user"]
    assert tags["invocation.host"]
    assert tags["invocation.job_url"] is None


def test_cleaning_report_is_hashed_and_kept(tmp_path: Path) -> None:
    report = tmp_path / "cleaning_report.json"
    report.write_text("{}")
    tags = build_run_tags(CODE, torch.device("cpu"), "pytorch_demo.py", report)
    assert tags["data.cleaning_report_sha256"] == hashlib.sha256(b"{}").hexdigest()
    folder = tmp_path / "provenance"
    folder.mkdir()
    write_provenance(folder, b"", report)
    assert (folder / "cleaning_report.json").read_text() == "{}"


def test_data_without_cleaning_report_have_no_tag() -> None:
    assert "data.cleaning_report_sha256" not in build_run_tags(CODE, torch.device("cpu"), "pytorch_demo.py")


def test_patch_is_written_if_there_is_one(tmp_path: Path) -> None:
    write_provenance(tmp_path, b"")
    assert {path.name for path in tmp_path.iterdir()} == {"packages.txt"}
    write_provenance(tmp_path, b"diff")
    assert (tmp_path / "source.patch").read_bytes() == b"diff"
    assert (tmp_path / "packages.txt").read_text() == list_packages()


def test_packages_are_the_installed_ones() -> None:
    assert f"torch=={version('torch')}\n" in list_packages()
    assert "@" not in list_packages()  # no addresses, which could hold credentials
