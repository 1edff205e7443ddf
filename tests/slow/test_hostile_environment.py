"""Hostile environment variables and .env files: a script prints one line and exits with code 2, or does its work."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

import compare
from support.mutations import HOSTILE_TEXTS, as_bug_of, damage_bytes, is_harmless
from support.scripts import ROOT, Result, call_main

ADDRESSES = (
    "http://",
    "http:///x",
    "http://[::1",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:x",
    "http://127.0.0.1:1/\n",
    "http://" + "x" * 300,
    "http://x..y/",
    "https://user:pass@[v1.x]/",
    "sqlite://",
    "sqlite:///",
    "sqlite:///.",
    "sqlite:///no/such/folder/mlflow.db",
    "sqlite:///" + "x" * 300,
    "sqlite:///file.txt",
    "sqlite:///%00",
    "sqlite:///%ff?mode=no",
    "sqlite:///mlflow.db?timeout=x",
    "mysql://",
    "mysql+pymysql://u:p@127.0.0.1:x/db",
    "mysql+nothing://u:p@127.0.0.1:1/db",
    "postgresql://u:p@[::1/db",
    "mssql://x",
    "oracle://x",
    "databricks",
    "databricks://x",
    "uc:x",
    "s3://x",
    "file:///nowhere/x",
    "file://host/x",
    "file.txt",
    "plugin-that-nobody-has://x",
    ":",
    "//",
    "@",
)
# As the environment can hold them: it has no null characters.
TEXTS = [text for text in HOSTILE_TEXTS if "\0" not in text and text.isprintable()]
NAMES = (
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
    "MLFLOW_RUN_ID",
    "GITHUB_ACTOR",
    "GITHUB_SERVER_URL",
    "COLUMNS",
    "SIGNING_KEY_PASSWORD",
    "LOGNAME",
)


def call_compare(folder: Path, **environment: str) -> Result:
    with patch.dict(os.environ, {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **environment}):
        return call_main(compare.main)


@pytest.mark.parametrize("address", [*ADDRESSES, *TEXTS])
def test_hostile_address_of_the_store_is_one_line(store: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / "file.txt").write_text("text")
    monkeypatch.setattr("pipeline.tracking.store.FIRST_REQUEST_TIMEOUT", 1)
    with as_bug_of(ascii(address)):
        result = call_compare(store, MLFLOW_TRACKING_URI=address)
    assert is_harmless(result), result


@pytest.mark.parametrize("name", NAMES)
def test_hostile_variable_is_one_line(store: Path, name: str) -> None:
    bugs = []
    for text in TEXTS:
        with as_bug_of(f"{name}={text[:50]!a}"):
            result = call_compare(store, **{name: text})
        if not is_harmless(result):
            bugs.append(f"{name}={text[:50]!a}: {result.stderr[-300:]}")
    assert not bugs, "\n".join(bugs)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_settings_are_one_line(tmp_path: Path, seed: int) -> None:
    for name in ("compare.py", "gates.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    random = Random(seed)
    content = b"MLFLOW_TRACKING_URI=sqlite:///x.db\nA='b'\nexport C=\"d\"\n"
    (tmp_path / ".env").write_bytes(
        random.choice((b"\xff\xfe\x00", b"A=x\0y\n", b"A=\x80", damage_bytes(random, content)))
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHON_DOTENV_DISABLED"}
    done = subprocess.run([sys.executable, "compare.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert is_harmless(Result(done.returncode, done.stdout, done.stderr)), done
