"""Models in Unity Catalog, the registry of Databricks: what it does not have is made up for here.

It takes no tags whose names have a dot, as ours do, and it leaves tags and aliases out of every list.
https://docs.databricks.com/aws/en/database-objects/tags has the limits: 50 tags a thing, 1,000 characters a value.
"""

from collections.abc import Mapping
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.store.entities import PagedList
from mlflow.utils.uri import is_databricks_unity_catalog_uri

from pipeline.errors import UserError
from pipeline.tracking.client import RedactingClient
from pipeline.tracking.pages import iterate_pages

DOT = "__"  # what a dot becomes in the name of a tag; no name of ours has two underscores in a row
MAX_TAG_LENGTH = 1000  # characters
LEVELS = 3  # of a name: catalog.schema.model


def is_unity_catalog() -> bool:
    """Return whether the registered models are in Unity Catalog: so it is on Databricks unless it is told otherwise."""
    return bool(is_databricks_unity_catalog_uri(mlflow.get_registry_uri()))


def check_levels(name: str) -> None:
    """Check that ``name`` says in which schema a new model is.

    Raises
    ------
    UserError
        It does not.
    """
    parts = name.split(".")
    if len(parts) != LEVELS or not all(parts):
        raise UserError(
            f"models in Unity Catalog have names of three levels, and {name!r} is none; choose one with --model-name "
            "catalog.schema.model, or use the registry of the workspace with MLFLOW_REGISTRY_URI=databricks"
        )


class UnityCatalogClient(RedactingClient):
    """MLflow's client, for which Unity Catalog has tags and lists as other stores have them."""

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a model."""
        super().set_registered_model_tag(name, _encode(key), value)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag of a model."""
        super().delete_registered_model_tag(name, _encode(key))

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:  # type: ignore[override]
        """Set a tag of a version."""
        super().set_model_version_tag(name, version, _encode(key), value)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:  # type: ignore[override]
        """Remove a tag of a version."""
        super().delete_model_version_tag(name, version, _encode(key))

    def create_model_version(self, *arguments: Any, **options: Any) -> ModelVersion:
        """Create a version with tags."""
        tags: Mapping[str, str] = options.pop("tags", None) or {}
        options["tags"] = {_encode(key): value for key, value in tags.items()}
        return super().create_model_version(*arguments, **options)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a model with its tags and aliases."""
        model = super().get_registered_model(name)
        model._tags = _decode_names(model._tags)
        return model

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """Return a version with its tags and aliases."""
        found = super().get_model_version(name, version)
        found._tags = _decode_names(found._tags)
        return found

    def search_registered_models(self, *arguments: Any, **options: Any) -> PagedList[RegisteredModel]:
        """Return a page of models with their tags and aliases, for which each is asked for."""
        page = super().search_registered_models(*arguments, **options)
        return PagedList([self.get_registered_model(model.name) for model in page], page.token)

    def search_model_versions(self, filter_string: str | None = None, **options: Any) -> PagedList[ModelVersion]:  # type: ignore[override]
        """Return a page of versions with their tags and aliases, for which each is asked for; without a filter, all."""
        if not filter_string:
            return self._list_all_versions()
        page = super().search_model_versions(filter_string, **options)
        return PagedList([self.get_model_version(version.name, version.version) for version in page], page.token)

    def _list_all_versions(self) -> PagedList[ModelVersion]:
        """Return the versions of all models: Unity Catalog lists those of one model, or of one run."""
        versions: list[ModelVersion] = []
        search = super().search_registered_models
        for model in iterate_pages(lambda token: search(page_token=token)):
            versions += self.search_model_versions(f"name='{model.name}'")
        return PagedList(versions, None)


def _encode(key: str) -> str:
    return key.replace(".", DOT)


def _decode_names(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.replace(DOT, "."): value for key, value in tags.items()}
