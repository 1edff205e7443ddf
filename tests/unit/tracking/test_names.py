import pytest

from pipeline.errors import UserError
from pipeline.tracking import names


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a?b", r"its character 2 is '\?'; leave out"),
        ("a#b", "its character 2 is '#'; leave out"),
        ("a\tb", r"its character 2 is '\\t'; use visible characters"),
        ("line\n", r"its character 5 is '\\n'"),
        ("\x1b[2J", r"its character 1 is '\\x1b'"),
        ("a\udcff", r"its character 2 is '\\udcff'"),
        ("a\u200bb", r"its character 2 is '\\u200b'"),
        ("end ", "it has a blank at an end"),
        ("", "it is empty"),
        ("x" * 246, "it has 246 characters; use at most"),
    ],
)
def test_name_of_a_new_model_is_refused(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=f"cannot name a registered model: {problem}"):
        names.check_name(name, names.MODEL)


@pytest.mark.parametrize("name", ["mnist-classifier", "main.default.digits", "数字 分类", "a b", "x" * 212])
def test_name_of_a_new_model_is_taken(name: str) -> None:
    assert names.check_name(name, names.MODEL) == name


@pytest.mark.parametrize("rule", [names.EXPERIMENT, names.RUN])
def test_experiments_and_runs_have_visible_names(rule: names.NameRule) -> None:
    assert names.check_name("/Shared/what? #1", rule)
    for name in ("a\nb", "x" * (rule.max_length + 1)):
        with pytest.raises(UserError, match=f"cannot name {rule.kind}"):
            names.check_name(name, rule)


def test_error_shows_the_beginning_of_a_name() -> None:
    with pytest.raises(UserError) as error:
        names.check_name("x" * 5000, names.RUN)
    assert len(str(error.value)) < 150


def test_long_list_is_shortened() -> None:
    assert names.format_names(["b", "c"]) == "b, c"
    many = [f"model-{number}" for number in range(1_234)]
    assert names.format_names(many).endswith("model-9 and 1,224 others")


def test_experiment_is_in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names.locate_experiment("demo") == "demo"
    monkeypatch.setenv("EXPERIMENT_DIR", "/Users/me@example.com/")
    assert names.locate_experiment("demo") == "/Users/me@example.com/demo"
    assert names.locate_experiment("/Shared/demo") == "/Shared/demo"


def test_folder_of_experiments_is_an_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERIMENT_DIR", "Shared")
    with pytest.raises(UserError, match="EXPERIMENT_DIR is 'Shared'; give it a path such as /Shared"):
        names.locate_experiment("demo")
