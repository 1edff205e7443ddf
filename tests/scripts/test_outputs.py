"""Where the scripts write to: links are followed, and nothing but a regular file is replaced."""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

import compare
import evaluate
import lineage
import predict
from support.pipelines import PipelineRun
from support.scripts import call_main

OUTPUTS = pytest.mark.parametrize(
    ("main", "option", "name"),
    [(compare.main, "--csv", "x.csv"), (compare.main, "--plot", "x.png"), (lineage.main, "--prov", "x.json")],
)
Main = Callable[[Sequence[str]], int]


@OUTPUTS
def test_link_to_a_file_is_followed(
    main: Main, option: str, name: str, digits_pipeline: PipelineRun, tmp_path: Path
) -> None:
    link = tmp_path / name
    link.symlink_to(tmp_path / "real")
    assert call_main(main, option, link, folder=digits_pipeline.folder).code == 0
    assert link.is_symlink()
    assert (tmp_path / "real").stat().st_size > 100
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o666 & ~read_umask()


def read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@OUTPUTS
@pytest.mark.parametrize("kind", ["a directory", "a named pipe", "a device"])
def test_special_file_is_refused_in_one_line(
    main: Main, option: str, name: str, kind: str, digits_pipeline: PipelineRun, tmp_path: Path
) -> None:
    path = tmp_path / name
    if kind == "a directory":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    else:
        _, slave = os.openpty()
        path.symlink_to(os.ttyname(slave))
    before = path.lstat()
    error = call_main(main, option, path, folder=digits_pipeline.folder).error
    assert error == f"error: cannot write to {path} (it is {kind}); choose another file"
    assert path.lstat().st_ino == before.st_ino


def test_output_directory_may_be_a_link(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    (tmp_path / "reports").symlink_to("elsewhere")  # it is missing
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "predictions.csv").symlink_to(tmp_path / "kept.csv")
    options = ("--run-id", digits_pipeline.run_id, "--output-dir", tmp_path / "reports")
    for _ in range(2):
        assert call_main(evaluate.main, *options, folder=digits_pipeline.folder).code == 0
    assert (tmp_path / "reports").is_symlink()
    assert (tmp_path / "elsewhere" / "predictions.csv").is_symlink()
    assert (tmp_path / "kept.csv").read_text().startswith("index,")


def test_evaluation_refuses_a_pipe_before_it_scores(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "confusions.png")
    (tmp_path / "evaluation.json").write_text("of an earlier evaluation")
    options = ("--run-id", digits_pipeline.run_id, "--output-dir", tmp_path)
    result = call_main(evaluate.main, *options, folder=digits_pipeline.folder)
    assert "confusions.png (it is a named pipe)" in result.error
    assert (tmp_path / "evaluation.json").read_text() == "of an earlier evaluation"


def test_long_name_of_a_picture_is_cut(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    picture = tmp_path / f"{'七' * 80}.png"
    drawing = Image.new("L", (28, 28))
    drawing.paste(255, (12, 4, 16, 24))
    drawing.save(picture)
    options = (picture, "--save", tmp_path / "answers")
    assert call_main(predict.main, *options, folder=digits_pipeline.folder).code == 0
    (figure,) = (tmp_path / "answers").iterdir()
    assert figure.name == f"0-{'七' * 60}.png"
