import pytest

from pipeline.data.class_names import check_class_names, find_class_difference
from pipeline.errors import UserError


def test_different_names_are_accepted() -> None:
    check_class_names(["1", "01", "8 ", "cat", "Cat"], "own")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog", "cat"], "own: two classes are called 'cat' and 'cat'; give every class a name of its own"),
        (["cat", "dog", " cat\t"], r"own: two classes are called 'cat' and ' cat\\t'"),
        (["cat", ""], r"own: the class of label 1 has no name \(''\); give every class a name of its own"),
        ([" ", "cat"], r"own: the class of label 0 has no name \(' '\)"),
    ],
)
def test_equal_and_empty_names_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_class_names(names, "own")


@pytest.mark.parametrize(
    ("names", "expected", "difference"),
    [
        (("cat", "dog"), ("cat", "dog"), None),
        (("cat", "dog"), ("dog", "cat"), "label 0 means 'cat', not 'dog'"),
        (("cat", "dog"), ("cat",), "label 1, 'dog', is one too many"),
        (("cat",), ("cat", "dog"), "label 1, 'dog', is missing"),
    ],
)
def test_first_difference_is_named(names: tuple[str, ...], expected: tuple[str, ...], difference: str | None) -> None:
    assert find_class_difference(names, expected) == difference
