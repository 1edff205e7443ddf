import subprocess

import pytest

from pipeline.provenance.patch_scan import find_secret
from support.scripts import ROOT

WORD = "tr0ub4dor" + "and3"  # a password


def make_patch(file: str, text: str, sign: str = "+") -> bytes:
    """Return a patch of one line."""
    counts = {"+": "-0,0 +1,1", "-": "-1,1 +0,0", " ": "-1,1 +1,1"}[sign]
    header = f"diff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n@@ {counts} @@\n"
    return f"{header}{sign}{text}\n".encode()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", f"password = '{WORD}'"),
        ("a.py", f'    "api_key": "{WORD}",'),
        ("a.py", f"connect(token='{WORD}')"),
        ("a.yaml", f"  db_password: {WORD}"),
        ("a.toml", f'secret = "{WORD}"'),
        ("a.sh", f"export MYSQL_PWD={WORD}"),
        ("a.md", f"run it with --password {WORD}"),
        ("a.py", f"uri = 'mysql://me:{WORD}@host/db'"),
        ("a.md", f"git clone https://{WORD}@github.com/me/demo"),
        ("a.md", f"curl -H 'Authorization: Bearer {WORD}'"),
        ("a.md", f"https://a.blob.core.windows.net/c?sv=1&sig={WORD}"),
    ],
)
def test_added_credentials_are_found(file: str, text: str) -> None:
    problem = find_secret(make_patch(file, text), {})
    assert problem is not None
    assert problem.startswith(f"{file}:1 looks like a")
    assert WORD not in problem


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", "password = options.password"),
        ("a.py", "token: str = read_token()"),
        ("a.py", "password = os.environ['DB_PASSWORD']"),
        ("a.yaml", "  MYSQL_PASSWORD: ${MYSQL_PASSWORD:?}"),
        ("a.yaml", "  id-token: write"),
        ("a.md", "MLFLOW_TRACKING_PASSWORD=<token>"),
        ("a.md", "http://127.0.0.1:5000/api and me@example.com"),
        ("a.toml", 'signing_public_key = "keys/signing.pub"'),
    ],
)
def test_stand_ins_are_no_secrets(file: str, text: str) -> None:
    assert find_secret(make_patch(file, text), {}) is None


@pytest.mark.parametrize("sign", ["-", " "])
def test_credentials_of_the_commit_do_not_count(sign: str) -> None:
    assert find_secret(make_patch("a.py", f"password = '{WORD}'", sign), {}) is None


def test_line_is_named_by_its_number_in_the_file() -> None:
    header = b"diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -10,3 +10,4 @@ def f():\n"
    lines = f" x = 1\n-y = 2\n+y = 3\n+password = '{WORD}'\n z = 4\n".encode()
    assert find_secret(header + lines, {}) == "a.py:12 looks like a password or token"


def test_own_code_holds_nothing_that_looks_like_a_secret() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True)
    problems = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not name or name.startswith("tests/") or path.suffix == ".png" or not path.exists():
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            problem = find_secret(make_patch(name, line), {})
            if problem:
                problems.append(f"{problem}: {line}")
    assert "\n".join(problems) == ""
