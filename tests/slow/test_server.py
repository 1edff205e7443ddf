"""The team's server: the processes of deploy/compose.yaml, over HTTP, with accounts; its backup."""

import base64
import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import compare
import evaluate
import lineage
import promote
import pytorch_demo
from support.accounts import act_as, create_account, grant_edit
from support.scripts import Result, call_main
from support.stack import BUCKET, TeamServer, run_team_server

MODEL_NAME = "digits-classifier"
SECRET_ENDINGS = ("PASSWORD", "SECRET_KEY", "SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Work:
    """What an ordinary account did on the server: two models promoted, then a rollback."""

    client: dict[str, str]
    folder: Path
    run_ids: list[str]
    results: list[Result]


@pytest.fixture(scope="module")
def work(server: TeamServer, tmp_path_factory: pytest.TempPathFactory) -> Work:
    ada = create_account(server, "ada")
    folder = tmp_path_factory.mktemp("work")
    run_ids, results = [], []
    with act_as(ada), chdir(folder):
        for epochs in (18, 20):
            options = ("--dataset", "digits", "--epochs", epochs, "--seed", epochs)
            results.append(call_main(pytorch_demo.main, *options))
            run_ids.append(results[-1].json["run_id"])
            results.append(call_main(evaluate.main, "--run-id", run_ids[-1], "--log-mlflow"))
            results.append(call_main(promote.main, "--run-id", run_ids[-1]))
        results.append(call_main(promote.main, "--rollback", "--reason", "to see that it works"))
    assert [result.code for result in results] == [0] * 7, results
    return Work(ada, folder, run_ids, results)


def read_history(client: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what was in Production when, as a client with that environment sees it."""
    with act_as(client):
        rows: list[dict[str, Any]] = call_main(promote.main, "--history", "--json").json["history"]
        return rows


# --- the pipeline ---------------------------------------------------------------------------------------------------


def test_an_ordinary_account_has_the_whole_pipeline(work: Work) -> None:
    assert [row["version"] for row in read_history(work.client)[:3]] == [1, 2, 1]
    with act_as(work.client):
        assert call_main(lineage.main, "--json").json["unanswered"] == []
        assert len(call_main(compare.main).stdout.splitlines()) == 4


def test_nothing_is_stored_beside_the_client(work: Work) -> None:
    assert [file.name for file in work.folder.iterdir()] == ["evaluation"]


def test_the_tables_are_in_the_database(server: TeamServer, work: Work) -> None:
    run = f"run_uuid = '{work.run_ids[0]}'"
    assert server.query(f"SELECT status FROM runs WHERE {run}") == [("FINISHED",)]
    assert server.query(f"SELECT COUNT(*) FROM metrics WHERE {run} AND `key` = 'train_loss'") == [(18,)]


def test_the_files_are_in_the_bucket(server: TeamServer, work: Work) -> None:
    objects = set(server.list_objects())
    folder = f"1/{work.run_ids[0]}/artifacts"
    assert {f"{folder}/evaluation/evaluation.json", f"{folder}/confusion_matrix.png"} < objects
    assert any(name.endswith("data/model.pt2") for name in objects)


def test_the_key_of_the_server_is_for_its_bucket(server: TeamServer, work: Work) -> None:
    root = server.connect_store("STORE_ACCESS_KEY", "STORE_SECRET_KEY")
    root.create_bucket(Bucket="another")
    mine = server.connect_store("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for refused in (
        lambda: mine.list_objects_v2(Bucket="another"),
        lambda: mine.put_object(Bucket="another", Key="x", Body=b"x"),
        lambda: mine.create_bucket(Bucket="third"),
        lambda: mine.delete_bucket(Bucket=BUCKET),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()


def test_no_secret_is_in_output_tables_or_files(server: TeamServer, work: Work) -> None:
    secrets = [work.client["MLFLOW_TRACKING_PASSWORD"]]
    secrets += [value for name, value in server.env.items() if name.endswith(SECRET_ENDINGS)]
    assert len(secrets) >= 5
    output = "".join(result.stdout + result.stderr for result in work.results)
    archive = server.run_backup("save").stdout.decode(errors="replace")
    for secret in secrets:
        assert secret not in output
        assert secret not in archive


# --- accounts -------------------------------------------------------------------------------------------------------


def test_an_account_without_permission_reads_but_changes_nothing(server: TeamServer, work: Work) -> None:
    bob = create_account(server, "bob")
    before = server.read_checksums()
    assert read_history(bob) == read_history(work.client)
    with act_as(bob):
        refused = call_main(promote.main, "--run-id", work.run_ids[1])
    assert refused.error == f"error: {server.uri}: your account may not do this; ask its administrator"
    assert server.read_checksums() == before


def test_the_administrator_lets_an_account_promote(server: TeamServer, work: Work) -> None:
    carol = create_account(server, "carol")
    grant_edit(server, "carol", MODEL_NAME)
    with act_as(carol):
        assert call_main(promote.main, "--run-id", work.run_ids[1]).json["decision"] == "promoted"
    assert read_history(carol)[-1]["version"] == 2


@pytest.mark.parametrize("account", [("ada", "not ada's password"), None], ids=["wrong password", "no account"])
def test_name_and_password_are_checked(server: TeamServer, work: Work, account: tuple[str, str] | None) -> None:
    client = server.client(*account) if account else {"MLFLOW_TRACKING_URI": server.uri}
    with act_as(client):
        error = call_main(promote.main, "--history").error
    assert error.startswith(f"error: {server.uri}: it does not accept your name and password; check MLFLOW_TRACKING_")
    assert "not ada's password" not in error


def test_https_to_an_http_server_is_one_line(server: TeamServer, work: Work) -> None:
    with act_as(work.client | {"MLFLOW_TRACKING_URI": server.uri.replace("http", "https")}):
        assert "no secure connection: SSLError" in call_main(promote.main, "--history").error


def test_the_ui_asks_for_an_account(server: TeamServer, work: Work) -> None:
    account = "{MLFLOW_TRACKING_USERNAME}:{MLFLOW_TRACKING_PASSWORD}".format(**work.client)
    headers = {"Authorization": f"Basic {base64.b64encode(account.encode()).decode()}"}
    with urllib.request.urlopen(urllib.request.Request(server.uri, headers=headers), timeout=60) as answer:
        assert b"<title>MLflow</title>" in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(server.uri, timeout=60)


# --- backup ---------------------------------------------------------------------------------------------------------


def read_archive(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: content.read() for name, content in members if content}


def write_archive(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def change_version(archive: bytes) -> bytes:
    """Return an archive that another MLflow version could have made."""
    files = read_archive(archive)
    manifest = json.loads(files["manifest.json"]) | {"alembic_version": "0123456789ab", "mlflow": "2.0.0"}
    return write_archive(files | {"manifest.json": json.dumps(manifest).encode()})


def add_wrong_statement(archive: bytes) -> bytes:
    """Return an intact archive whose last SQL statement the database refuses."""
    files = read_archive(archive)
    tables = files["tables.sql"] + b"\nINSERT INTO runs (nothing) VALUES (1);\n"
    files["tables.sql"] = tables
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["tables.sql"] = {"size": len(tables), "sha256": hashlib.sha256(tables).hexdigest()}
    return write_archive(files | {"manifest.json": json.dumps(manifest).encode()})


def test_a_server_with_data_is_not_overwritten(server: TeamServer, work: Work) -> None:
    before = server.read_checksums()
    refused = server.run_backup("restore", server.run_backup("save").stdout)
    assert refused.returncode == 2
    assert b"error: the server is not empty (table runs); make server-reset empties it" in refused.stderr
    assert server.read_checksums() == before


def test_a_backup_restores_everything_or_nothing(server: TeamServer, work: Work, tmp_path: Path) -> None:
    dora = create_account(server, "dora")
    archive = server.run_backup("save").stdout
    with run_team_server(tmp_path / "another") as another:
        empty = another.read_checksums()
        for wrong, message in (
            (change_version(archive), "is of another MLflow version ('2.0.0'; this server has "),
            (archive[: len(archive) // 2], "the archive is damaged ("),
            (archive[:-1], "its end is missing"),
            (b"", "the archive is damaged ("),
            (add_wrong_statement(archive), "mariadb failed: ERROR 1054 (42S22)"),
        ):
            refused = another.run_backup("restore", wrong)
            assert refused.returncode == 2
            assert message in refused.stderr.decode()
            assert len(refused.stderr.splitlines()) == 1
            assert another.read_checksums() == empty

        restored = another.run_backup("restore", archive)
        assert (restored.returncode, restored.stderr) == (0, b"")
        assert another.read_checksums() == server.read_checksums()
        client = dora | {"MLFLOW_TRACKING_URI": another.uri}  # the accounts are restored too
        assert read_history(client) == read_history(dora)
        with act_as(client), chdir(tmp_path):
            assert call_main(evaluate.main, "--run-id", work.run_ids[0]).code == 0
