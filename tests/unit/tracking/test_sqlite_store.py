"""What is asked of a SQLite store before MLflow opens it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.errors import UserError
from pipeline.tracking import runs
from pipeline.tracking.store import connect, get_client
from support.stores import MODEL_NAME, create_older_store, read_revision, register_version


@pytest.fixture
def project(store: Path) -> Path:
    """Return the directory of a store with a run, its model and their files."""
    with connect(creates=True):
        register_version()
        get_client().log_text(runs_of(store)[0], "x", "x.txt")
        folder = store / "mlruns" / "1" / "models"
        folder.mkdir()
        folder.joinpath(read_values(store, "SELECT model_id FROM logged_models")[0]).mkdir()
    return store


def runs_of(folder: Path) -> list[str]:
    return read_values(folder, "SELECT run_uuid FROM runs")


def read_values(folder: Path, statement: str) -> list[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [row[0] for row in database.execute(statement)]


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")


# --- is there one ---------------------------------------------------------------------------------------------------


def test_read_leaves_no_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"there is no store at /.*/mlflow\.db yet; train first"), connect():
        pass
    assert not list(tmp_path.iterdir())


def test_empty_file_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").touch()
    use(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="there is no store at"), connect(writes=True):
        pass
    assert (tmp_path / "mlflow.db").stat().st_size == 0


def test_database_of_another_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("CREATE TABLE studies (study_id INTEGER)")
    use(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="this is the database of another program"), connect(creates=True):
        pass
    assert read_values(tmp_path, "SELECT name FROM sqlite_master") == ["studies"]


# --- of which version -----------------------------------------------------------------------------------------------


def test_read_does_not_upgrade_an_older_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_older_store(tmp_path / "mlflow.db")
    before = (tmp_path / "mlflow.db").read_bytes()
    use(tmp_path, monkeypatch)
    for writes in (False, True):
        with (
            pytest.raises(UserError, match=r"an older MLflow made .*maintain_store\.py --upgrade"),
            connect(writes=writes),
        ):
            pass
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_training_upgrades_an_older_store_after_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create_older_store(tmp_path / "mlflow.db")
    use(tmp_path, monkeypatch)
    with connect(creates=True):
        get_client().search_logged_models(["0"])
    (copy,) = tmp_path.glob("mlflow.db.*.backup")
    assert read_revision(copy) == "0584bdc529eb"
    assert str(copy) in caplog.text


def test_newer_store_asks_for_a_newer_mlflow(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
    with pytest.raises(UserError, match=r"fedcba987654, which MLflow 3\S+ does not know\); upgrade MLflow"), connect():
        pass


# --- where are its files --------------------------------------------------------------------------------------------


def test_files_go_beside_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    use(tmp_path / "store", monkeypatch)
    with connect(creates=True), runs.start_run("new", None) as run_id:
        get_client().log_text(run_id, "x", "x.txt")
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"mlflow.db", "mlflow.db.lock", "mlruns"}
    assert not list((tmp_path / "clone").iterdir())
    locations = read_values(tmp_path / "store", "SELECT artifact_location FROM experiments")
    assert locations == [f"{tmp_path}/store/mlruns/{number}" for number in range(2)]


@pytest.mark.parametrize("change", ["copied", "moved", "database only"])
def test_copied_or_moved_store_refuses_to_be_written(
    change: str, project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other") / "project"
    if change == "copied":
        shutil.copytree(project, other)
    elif change == "moved":
        monkeypatch.chdir("/")
        project.rename(other)
    else:
        other.mkdir()
        shutil.copy(project / "mlflow.db", other)
    use(other, monkeypatch)
    expected = r"experiment 'demo' keeps its files in .*/mlruns/1, but .*; run: python maintain_store.py --relocate"
    with pytest.raises(UserError, match=expected), connect(writes=True):
        pass


def test_copied_store_can_be_read_with_a_warning(
    project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = tmp_path_factory.mktemp("other") / "project"
    shutil.copytree(project, other)
    use(other, monkeypatch)
    with connect():
        assert get_client().get_registered_model(MODEL_NAME)
    assert "which was copied or moved; before you write to it, run: python maintain_store.py --relocate" in caplog.text


def test_store_used_from_another_directory_goes_on(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("store", "scripts"):
        (tmp_path / name).mkdir()
    file = shutil.copy(empty_store, tmp_path / "store" / "mlflow.db")
    client = MlflowClient(f"sqlite:///{file}")  # as before the place was fixed
    experiment = client.create_experiment("old", artifact_location=f"{tmp_path}/scripts/mlruns/1")
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "x", "x.txt")
    client.set_terminated(run_id)
    use(tmp_path / "store", monkeypatch)
    with connect(writes=True):
        assert [file.path for file in get_client().list_artifacts(run_id)] == ["x.txt"]
    assert "warning" not in caplog.text


def test_experiment_without_runs_moves_beside_the_database(store: Path) -> None:
    by_hand = MlflowClient().create_experiment("by hand", artifact_location="/elsewhere/mlruns/1")
    chosen = MlflowClient().create_experiment("chosen", artifact_location="/elsewhere/chosen")
    with connect(creates=True):
        pass
    assert MlflowClient().get_experiment(by_hand).artifact_location == f"{store}/mlruns/1"
    assert MlflowClient().get_experiment(chosen).artifact_location == "/elsewhere/chosen"


# --- which one is it ------------------------------------------------------------------------------------------------


def test_store_of_another_directory_is_named(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with connect():
        pass
    assert "the store is" not in caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with connect():
        pass
    assert f"the store is {store}/mlflow.db" in caplog.text
