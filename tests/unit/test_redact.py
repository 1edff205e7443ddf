import pytest

from pipeline.redact import redact, secret_values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:secret@server:5000/api", "http://server:5000/api"),
        ("https://token@github.com/me/demo.git", "https://github.com/me/demo.git"),
        ("mysql+pymysql://u:p@host/db and sqlite:///mlflow.db", "mysql+pymysql://host/db and sqlite:///mlflow.db"),
        ("write to me@example.com", "write to me@example.com"),
    ],
)
def test_credentials_in_addresses_disappear(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_values_of_secret_variables_disappear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("API_TOKEN", "short")
    assert redact("it is correct horse, not short") == "it is ***, not short"
    assert "API_TOKEN" not in secret_values()
