"""The models in Production, loaded from a real server that is sometimes silent."""

import threading
import time
from collections.abc import Iterator

import mlflow
import pytest
from mlflow import MlflowClient

from pipeline.errors import UserError
from pipeline.production import service as service_module
from pipeline.production.page import describe_model
from pipeline.production.service import ModelService
from pipeline.tracking import registry
from support.pipelines import PipelineRun, copy_digits_pipeline
from support.proxy import Proxy, run_proxy
from support.servers import run_mlflow_server

NAME = "digits-classifier"


@pytest.fixture
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> PipelineRun:
    return copy_digits_pipeline(tmp_path_factory)


@pytest.fixture
def proxy(pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Serve the store; requests go through a proxy that can be silent."""
    with run_mlflow_server(pipeline.folder) as uri, run_proxy(uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        mlflow.set_tracking_uri(proxy.uri)
        yield proxy


def register_again(pipeline: PipelineRun, name: str, alias: str | None = registry.CHAMPION) -> int:
    """Register the model of the pipeline as the next version of ``name``."""
    client = MlflowClient()
    model_id = pipeline.model_uri.removeprefix("models:/")
    version = client.create_model_version(name, pipeline.model_uri, pipeline.run_id, model_id=model_id).version
    if alias:
        client.set_registered_model_alias(name, alias, version)
    return int(version)


def test_silent_server_delays_no_answer_and_trouble_stays_shown(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "REFRESH_SECONDS", 0.1)
    service = ModelService(None)
    proxy.be_silent()
    with service.refreshed():
        deadline = time.monotonic() + 60
        while not any(thread.name == "registry" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
        model = service.get(NAME)  # would wait for the server if it asked
        assert model.version == 1
        while not service.problem(NAME) and time.monotonic() < deadline:
            time.sleep(0.1)
        title, problem = describe_model(service, NAME)
        assert title == f"**{NAME}**, version 1, in Production"
        assert problem.startswith("The loaded version answers, but it may not be the newest one: http")
        proxy.pass_everything()
        while service.problem(NAME) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert describe_model(service, NAME) == (title, "")


def test_new_version_is_loaded_by_the_thread(
    proxy: Proxy, pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "REFRESH_SECONDS", 0.1)
    service = ModelService(None)
    version = register_again(pipeline, NAME)
    with service.refreshed():
        deadline = time.monotonic() + 60
        while service.get(NAME).version != version:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_models_without_a_version_in_production_are_not_offered(proxy: Proxy, pipeline: PipelineRun) -> None:
    client = MlflowClient()
    for name, alias in (("a-waits", None), ("b-serves", registry.CHAMPION)):
        client.create_registered_model(name)
        register_again(pipeline, name, alias)
    service = ModelService(None)
    assert service.names == ("b-serves", NAME)
    assert service.get(NAME).name == NAME
    with pytest.raises(UserError, match="'a-waits' is not offered here; choose one of b-serves, digits-classifier"):
        service.get("a-waits")


def test_store_without_a_model_in_production_is_an_error(proxy: Proxy) -> None:
    MlflowClient().delete_registered_model_alias(NAME, registry.CHAMPION)
    with pytest.raises(UserError, match=f"no version of '{NAME}' is in Production"):
        ModelService(None)
    MlflowClient().create_registered_model("another")
    with pytest.raises(UserError, match=r"no model of this store is in Production; promote one with promote\.py"):
        ModelService(None)
