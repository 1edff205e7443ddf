import base64
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from pipeline import secret_values
from pipeline.redact import redact, redact_address, redact_file, redact_value
from pipeline.text import escape_markdown
from support.secrets import TOKENS

PASSWORD = "c0rrect/h@rse#5%"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:secret@server:5000/api", "http://server:5000/api"),
        ("https://token@github.com/me/demo.git", "https://github.com/me/demo.git"),
        ("mysql+pymysql://u:p@host/db and sqlite:///mlflow.db", "mysql+pymysql://host/db and sqlite:///mlflow.db"),
        ("http://me:a/b@c#d%e@server:5000/api", "http://server:5000/api"),
        ("http://me:se cret@server/api", "http://server/api"),
        ("http://me:'a\"b'@server/api", "http://server/api"),
        ("me:token@github.com:me/demo.git", "github.com:me/demo.git"),
        ("next=http%3A%2F%2Fme%3Asecret%40server", "next=http%3A%2F%2Fserver"),
        ("https://h/?user=me&password=hidden&x=1", "https://h/?user=me&password=***&x=1"),
        ("https://a.blob.core.windows.net/c?sv=2020&sig=a%2Bb", "https://a.blob.core.windows.net/c?sv=2020&sig=***"),
        ("https://s3/k?X-Amz-Credential=A&X-Amz-Signature=b", "https://s3/k?X-Amz-Credential=***&X-Amz-Signature=***"),
    ],
)
def test_credentials_in_addresses_disappear(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.py --password x --lr 0.1", "train.py --password *** --lr 0.1"),
        ("train.py --api-token=x", "train.py --api-token=***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('{"Authorization": "Basic bWU6cHc="}', '{"Authorization": "Basic ***"}'),
        ("GITHUB_PAT=x1 DB_DSN=x2", "GITHUB_PAT=*** DB_DSN=***"),
        ("password = 'a b'", "password = '***'"),
        ('{"token": "a b"}', '{"token": "***"}'),
    ],
)
def test_assigned_secrets_disappear(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "write to me@example.com",
        "http://server:5000 and me@example.com",
        "https://github.com/actions/checkout@v4",
        "models:/digits-classifier@champion",
        "git@github.com:me/demo.git",
        "it does not accept your name and password; check MLFLOW_TRACKING_USERNAME and _PASSWORD",
        "promote.py --signing-key signing.key",
        "tokenizers==0.21.0",
        "8f14e45fceea167a5a36dedd4bea2543ae1b3f0a9c0d2b7e8f14e45fceea167a",
        "file:///home/me/checkpoints/3b3c/last.pt",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_tokens_of_known_forms_disappear(token: str) -> None:
    assert redact(f"it is {token} here").split("***")[0] == "it is "
    assert token.strip() not in redact(f"it is {token} here")


@pytest.mark.parametrize(
    "name",
    [
        *("MLFLOW_TRACKING_PASSWORD", "MYSQL_PWD", "GITHUB_PAT", "REGISTRY_AUTH", "OPENAI_KEY", "SENTRY_DSN"),
        *("api_token", "Db_Password", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_SAS"),
    ],
)
def test_values_of_secret_variables_disappear(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct horse")
    assert redact("it is correct horse here") == "it is *** here"


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "SSH_AUTH_SOCK", "TOKEN_FILE", "PATTERN", "KEYBOARD", "API_TOKEN_USERNAME"]
)
def test_other_variables_stay_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct horse")
    assert redact("it is correct horse here") == "it is correct horse here"


def test_short_value_disappears_where_it_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_PWD", "pw12")
    assert redact("pw12, (pw12) but pw123") == "***, (***) but pw123"


@pytest.mark.parametrize("value", ["1", "abc", "true", "mlflow", "digits", "Fashion-MNIST", "12345"])
def test_common_words_and_numbers_are_no_secrets(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", value)
    assert redact(f"run on {value}") == f"run on {value}"


def test_longer_secret_is_replaced_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "battery-staple")
    monkeypatch.setenv("B_TOKEN", "battery-staple-and-more")
    assert redact("battery-staple-and-more battery-staple") == "*** ***"


@pytest.mark.parametrize(
    "form",
    [
        PASSWORD,
        quote(PASSWORD, safe=""),
        quote_plus(PASSWORD).lower(),
        json.dumps(PASSWORD),
        base64.b64encode(f"me:{PASSWORD}".encode()).decode(),
        base64.urlsafe_b64encode(f"user:{PASSWORD}!".encode()).decode(),
    ],
)
def test_encoded_forms_of_a_secret_disappear(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    redacted = redact(form)
    assert "***" in redacted
    assert len(redacted) <= 15  # base64 keeps what stands before and after


def test_each_line_of_a_secret_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_KEY", "first line of it\nsecond line of it\n")
    assert redact("second line of it") == "***"
    assert redact("first line of it second line of it") == "***"
    assert redact(json.dumps("first line of it\nsecond line of it\n")) == '"***"'


def test_password_of_an_address_disappears_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"mysql://me:{quote(PASSWORD, safe='')}@host/db")
    assert redact(f"access denied for {PASSWORD}") == "access denied for ***"


def test_values_of_the_env_file_disappear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MLFLOW_TRACKING_PASSWORD='of the file'\nOTHER=harmless value\n")
    monkeypatch.setattr(secret_values, "ENV_FILES", (tmp_path / ".env",))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of the environment")
    assert redact("of the file, of the environment, harmless value") == "***, ***, harmless value"


@pytest.mark.parametrize("password", ["a b", "a/b", "a@b", "a?b", "a#b", "a:b@//"])
def test_malformed_address_loses_its_credentials(password: str) -> None:
    assert redact_address(f"http://me:{password}@server:5000/api") == "http://server:5000/api"


def test_texts_in_a_result_lose_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "correct horse")
    result = {"a": ["correct horse", 1], "correct horse!": None, "password": "x", "run_id": "0d96"}
    assert redact_value(result) == {"a": ["***", 1], "***!": None, "password": "***", "run_id": "0d96"}


def test_json_file_stays_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", 'a"b\\c d')
    content = json.dumps({"command": 'x --password 1 a"b\\c d', "lr": 0.1}).encode()
    assert json.loads(redact_file("a.json", content)) == {"command": "x --password *** ***", "lr": 0.1}


@pytest.mark.parametrize("content", [b'{"a":  1}', b"\x89PNG\xff token=abc", b"", b"[1, 2"])
def test_file_without_secrets_stays_byte_for_byte(content: bytes) -> None:
    assert redact_file("a.json", content) == content


def test_token_after_the_start_of_a_key_disappears() -> None:
    start = "-----BEGIN RSA " + "PRIVATE KEY-----"
    token = "glpat-" + "xYz123456789abcdefgh"
    assert redact(f"a {start} MIIE {token}") == "a ***"
    assert redact(f"a {start} MII-E {start.replace('BEGIN', 'END')} b {token}") == "a *** b ***"


def test_secret_in_markdown_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PASSWORD", "<b>correct|*horse")
    assert redact(f"a {escape_markdown('<b>correct|*horse')} b") == "a *** b"
