"""Accounts of the team's server, and clients that use them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from unittest.mock import patch

import mlflow
from mlflow.server import get_app_client

import pipeline.tracking.store  # noqa: F401 - the settings that it writes into the environment outlive act_as

ACCOUNT_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


class ServerWithAccounts(Protocol):
    """A running MLflow server with accounts."""

    @property
    def uri(self) -> str:
        """The address for clients."""

    @property
    def admin(self) -> dict[str, str]:
        """The environment of the administrator's client."""

    def client(self, name: str, password: str) -> dict[str, str]:
        """Return the environment of a client with that account."""


@contextmanager
def act_as(client: Mapping[str, str]) -> Iterator[None]:
    """Make this process a client with that environment, until the end of the block."""
    with patch.dict(os.environ):
        for name in ACCOUNT_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(client)
        mlflow.set_tracking_uri(client["MLFLOW_TRACKING_URI"])
        yield


def create_account(server: ServerWithAccounts, name: str) -> dict[str, str]:
    """Create an ordinary account; return the environment of its client."""
    password = f"{name}'s long password"
    with act_as(server.admin):
        get_app_client("basic-auth", tracking_uri=server.uri).create_user(name, password)
    return server.client(name, password)


def grant_edit(server: ServerWithAccounts, name: str, model_name: str) -> None:
    """Let an account promote, as docs/server.md says: it may edit the model."""
    with act_as(server.admin):
        administrator: Any = get_app_client("basic-auth", tracking_uri=server.uri)
        administrator.grant_user_permission(name, "registered_model", model_name, "EDIT")
