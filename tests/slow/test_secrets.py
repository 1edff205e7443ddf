"""Secrets on all their ways into the pipeline: none is in the store, the artifacts, the logs, or any file afterwards.

Each test asserts that the secret was in place: a harmless text that came in beside it is found where it belongs.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from support.accounts import act_as, create_account
from support.git import run_git
from support.scripts import Result, run_script
from support.secrets import TOKENS
from support.servers import run_mlflow_server
from support.stack import TeamServer
from support.stores import open_store

MARKER = "harmless-marker"
TRAINING = ("--dataset", "digits", "--epochs", 1)
PASSWORD = "c0rrect/" + "h@rse#5%"
SKIPPED_FOLDERS = (".git", "__pycache__")


@dataclass
class Outcome:
    """What runs of scripts have left.

    Attributes
    ----------
    folder : in which they ran.
    results : of each.
    """

    folder: Path
    results: list[Result] = field(default_factory=list)

    def iterate_texts(self) -> Iterator[tuple[str, str]]:
        """Yield everything as text, by where it is: streams, files, and the content of the database."""
        for number, result in enumerate(self.results):
            yield f"stdout {number}", result.stdout
            yield f"stderr {number}", result.stderr
        for path in self.folder.rglob("*"):
            if path.is_file() and not set(SKIPPED_FOLDERS) & set(path.parts):
                yield str(path.relative_to(self.folder)), path.read_bytes().decode("utf-8", "replace")
        database = self.folder / "mlflow.db"
        if database.exists():
            yield "dump", "\n".join(sqlite3.connect(database).iterdump())

    def find(self, text: str, inputs: Sequence[str] = ()) -> list[str]:
        """Return where the text is, in any of its forms, besides in the files that the test itself wrote."""
        forms = {text, quote(text, safe=""), json.dumps(text)[1:-1], *text.strip().splitlines()}
        places = []
        for place, content in self.iterate_texts():
            if place not in inputs and any(form in content for form in forms):
                places.append(place)
        return places


def run_pipeline(
    checkout: Path,
    env: Mapping[str, str] | None = None,
    options: Sequence[object] = (),
    folder: Path | None = None,
) -> Outcome:
    """Train, evaluate, promote, compare and trace in ``folder``, with the code of the checkout."""
    outcome = Outcome(folder or checkout)
    trained = run_script(outcome.folder, "pytorch_demo.py", *TRAINING, *options, root=checkout, env=env)
    outcome.results.append(trained)
    assert trained.code == 0, trained.stderr
    run_id = trained.json["run_id"]
    calls: list[tuple[object, ...]] = [
        ("evaluate.py", "--run-id", run_id, "--log-mlflow"),
        ("promote.py", "--run-id", run_id, "--reason", MARKER),
        ("compare.py", "--csv", "compare.csv"),
        ("lineage.py", "--run-id", run_id, "--prov", "lineage.json", "--json"),
        ("promote.py", "--history", "--model-name", trained.json["model_name"]),
    ]
    for script, *arguments in calls:
        result = run_script(outcome.folder, str(script), *arguments, root=checkout, env=env)
        outcome.results.append(result)
        assert result.code in (0, 1), result.stderr  # one epoch is not enough for the gate
    return outcome


def read_tags(outcome: Outcome) -> dict[str, str]:
    """Return the tags of the training's run in the local store."""
    tags: dict[str, str] = open_store(outcome.folder).get_run(outcome.results[0].json["run_id"]).data.tags
    return tags


# --- variables and options ------------------------------------------------------------------------------------------

VARIABLES = {
    "MYSQL_PWD": "pw12x",
    "REGISTRY_PAT": "pat-" + "of the registry",
    "PROXY_AUTH": "me:" + "of the proxy",
    "DEPLOY_KEY": "line one of the key\nline two of the key",
    "SENTRY_DSN": "dsn-" + "0123456789",
    "db_password": PASSWORD,
    "A_TOKEN": "battery-" + "staple",
    "B_TOKEN": "battery-" + "staple-and-more",
}


def test_values_of_variables_are_nowhere(checkout: Path) -> None:
    name = " ".join((MARKER, *VARIABLES.values())).replace("\n", " ")
    outcome = run_pipeline(checkout, VARIABLES, ("--run-name", name))
    tags = read_tags(outcome)
    assert tags["mlflow.runName"].startswith(f"{MARKER} ***")
    assert f"{MARKER} ***" in tags["invocation.command"]
    for value in VARIABLES.values():
        assert outcome.find(value) == []
    assert outcome.find("-and-more") == []


def test_values_of_the_env_file_are_nowhere(checkout: Path) -> None:
    (checkout / ".env").write_text(f"SERVICE_PASSWORD='{PASSWORD}'\n")
    env = {"SERVICE_PASSWORD": "of the environment"}
    outcome = run_pipeline(checkout, env, ("--run-name", f"{MARKER} {PASSWORD}"))
    assert read_tags(outcome)["mlflow.runName"] == f"{MARKER} ***"
    assert outcome.find(PASSWORD, inputs=[".env"]) == []


def test_tokens_in_an_option_are_nowhere(checkout: Path) -> None:
    tokens = [token.strip().splitlines()[0] for token in TOKENS.values()]
    tokens.sort(key=lambda token: "PRIVATE KEY" in token)  # all that follows is taken for a part of the key
    outcome = Outcome(checkout)
    options = (*TRAINING, "--no-register", "--run-name", " ".join((MARKER, *tokens)))
    outcome.results.append(run_script(checkout, "pytorch_demo.py", *options, root=checkout))
    assert read_tags(outcome)["mlflow.runName"].startswith(f"{MARKER} *** ***")
    for token in tokens:
        assert outcome.find(token) == []


@pytest.mark.parametrize("option", ["--experiment", "--model-name"])
def test_name_with_a_secret_is_refused(option: str, checkout: Path) -> None:
    result = run_script(checkout, "pytorch_demo.py", *TRAINING, option, "with pw12x", root=checkout, env=VARIABLES)
    assert result.error.startswith(f"error: {option} holds a secret")
    assert not (checkout / "mlflow.db").exists()


def test_secret_in_a_mistyped_command_is_not_repeated(checkout: Path) -> None:
    options = ("--password", PASSWORD, f"--token={PASSWORD}")
    result = run_script(checkout, "pytorch_demo.py", *TRAINING, *options, root=checkout)
    assert "unrecognized arguments: --password" in result.error
    assert PASSWORD not in result.error


# --- Git ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        (f"https://me:{PASSWORD}@{MARKER}/demo.git", f"https://{MARKER}/demo.git"),
        (f"https://x-access-token:{TOKENS['a GitHub token']}@{MARKER}/demo.git", f"https://{MARKER}/demo.git"),
        (f"me:tok3n-of-mine@{MARKER}:me/demo.git", f"{MARKER}:me/demo.git"),
        (f"https://{MARKER}/demo.git?private_token=tok3n-of-mine", f"https://{MARKER}/demo.git?private_token=***"),
    ],
)
def test_credentials_of_the_remote_are_nowhere(remote: str, expected: str, checkout: Path) -> None:
    run_git(checkout, "remote", "set-url", "origin", remote)
    outcome = run_pipeline(checkout)
    tags = read_tags(outcome)
    assert tags["code.remote"] == expected
    assert tags["mlflow.source.git.repoURL"] == expected
    for secret in (PASSWORD, TOKENS["a GitHub token"], "tok3n-of-mine", "h@rse"):
        assert outcome.find(secret) == []


def test_tokens_in_changed_code_are_nowhere(checkout: Path) -> None:
    """Each kind alone is a case of tests/unit/provenance/test_patch_scan.py."""
    file = checkout / "evaluate.py"
    file.write_text("\n".join((file.read_text(), "TEXT = '''", MARKER, *TOKENS.values(), "'''\n")))
    outcome = Outcome(checkout)
    outcome.results.append(run_script(checkout, "pytorch_demo.py", *TRAINING, "--no-register", root=checkout))
    tags = read_tags(outcome)
    assert tags["code.dirty"] == "true"
    assert tags["code.patch"].startswith("left out: evaluate.py:")
    for token in TOKENS.values():
        assert outcome.find(token.strip(), inputs=["evaluate.py"]) == []
    assert outcome.find(MARKER) == ["evaluate.py"]


def test_untracked_files_are_nowhere(checkout: Path, tmp_path: Path) -> None:
    files = ("credentials.json", "aws", "monday.tar", "notes.bin", "photos/a.png", ".netrc", "id_ed25519")
    for name in files:
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text(f"password hash pbkdf2:{PASSWORD}\n")
    (tmp_path / "id_rsa").write_text(PASSWORD)
    (checkout / "link.py").symlink_to(tmp_path / "id_rsa")
    (checkout / "code.py").write_text(f"x = '{MARKER}'\n")
    outcome = run_pipeline(checkout)
    assert read_tags(outcome)["code.patch"] == "without 1 links or repositories"
    assert any(place.endswith("source.patch") for place in outcome.find(MARKER))
    assert outcome.find(PASSWORD, inputs=[*files, "link.py"]) == []


# --- the store ------------------------------------------------------------------------------------------------------


def test_password_of_a_server_is_nowhere(checkout: Path, tmp_path: Path) -> None:
    work, store = tmp_path / "work", tmp_path / "store"
    work.mkdir()
    store.mkdir()
    with run_mlflow_server(store) as uri:
        address = uri.replace("://", f"://me:{quote(PASSWORD, safe='')}@")
        outcome = run_pipeline(checkout, {"MLFLOW_TRACKING_URI": address}, ("--run-name", f"{MARKER} {PASSWORD}"), work)
    assert outcome.results[0].json["tracking_uri"] == uri
    assert "dump" in Outcome(store).find(MARKER)
    for folder in (store, work):
        assert Outcome(folder, outcome.results).find(PASSWORD) == []


@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{PASSWORD}@127.0.0.1:1",
        f"http://me:{PASSWORD}@127.0.0.1:port",
        f"http://me:{PASSWORD} x@[::1/api",
        f"mysql+pymysql://me:{PASSWORD}@127.0.0.1:1/db",
        f"mysql+pymysql://me:{PASSWORD}@127.0.0.1:port/db",
        f"nonsense://me:{PASSWORD}@host",
        f"http://127.0.0.1:1/?token={quote(PASSWORD, safe='')}",
    ],
)
def test_password_of_an_unreachable_store_is_not_repeated(address: str, checkout: Path) -> None:
    result = run_script(checkout, "pytorch_demo.py", *TRAINING, root=checkout, env={"MLFLOW_TRACKING_URI": address})
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "c0rrect", "h@rse", "rse#5"):
        assert secret not in result.error


def test_password_of_an_account_is_nowhere(server: TeamServer, checkout: Path, tmp_path: Path) -> None:
    account = create_account(server, "dora")
    password = account["MLFLOW_TRACKING_PASSWORD"]
    work = tmp_path / "work"
    work.mkdir()
    outcome = run_pipeline(checkout, account, ("--run-name", f"{MARKER} {password}"), work)
    assert outcome.find(password) == []
    (row,) = server.query(f"SELECT name FROM runs WHERE run_uuid = '{outcome.results[0].json['run_id']}'")
    assert row[0] == f"{MARKER} ***"
    for table in ("tags", "params", "runs", "model_version_tags", "registered_model_tags", "experiments"):
        assert password not in str(server.query(f"SELECT * FROM {table}"))
    with act_as(account):
        MlflowClient().download_artifacts(outcome.results[0].json["run_id"], "", str(work))
    assert any(place.endswith("packages.txt") for place in outcome.find("torch=="))
    assert outcome.find(password) == []


def test_address_given_to_mlflow_run_is_cleaned(checkout: Path) -> None:
    client = open_store(checkout)
    secret = TOKENS["a GitHub token"]
    tags = {name: f"https://me:{secret}@{MARKER}/demo" for name in ("mlflow.source.name", "mlflow.gitRepoURL")}
    run = client.create_run(client.create_experiment("demo"), tags=tags)
    env = {"MLFLOW_RUN_ID": run.info.run_id}
    result = run_script(checkout, "pytorch_demo.py", *TRAINING, "--no-register", root=checkout, env=env)
    assert result.json["run_id"] == run.info.run_id, result.stderr
    after = client.get_run(run.info.run_id).data.tags
    assert {name: after[name] for name in tags} == dict.fromkeys(tags, f"https://{MARKER}/demo")
