"""Is the MLflow server at the address one that this project can use? Asked once, before anything is written."""

from typing import Any
from urllib.parse import urlsplit

import mlflow
import requests
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from packaging.version import InvalidVersion, Version

from pipeline.documents import DamagedError, parse_json
from pipeline.errors import UserError
from pipeline.redact import redact_address

MINIMUM_SERVER = Version("3.0")  # MLflow 2 has no logged models, to which models and their metrics belong
VERSION_ENDPOINT = "/version"
ABSENT_MODEL = "/api/2.0/mlflow/logged-models/m-00000000000000000000000000000000"
LOSING_REDIRECTS = (301, 302, 303)  # after these, HTTP clients send a GET instead of the POST, without its content
MAX_VERSION_LENGTH = 30  # characters


def is_server(uri: str) -> bool:
    """Return whether the store at ``uri`` is a server that is asked over HTTP."""
    return urlsplit(uri).scheme in ("http", "https")


def ask_server(endpoint: str, **params: str) -> requests.Response:
    """Return the answer of the current store's server, whatever its status is.

    It is asked as MLflow asks it: with the same account, proxies, certificates and time-out.

    Raises
    ------
    MlflowException
        There is no answer.
    """
    credentials = get_default_host_creds(mlflow.get_tracking_uri())
    answer: requests.Response = http_request(
        credentials, endpoint, "GET", max_retries=0, raise_on_status=False, params=params
    )
    return answer


def check_server() -> None:
    """Check that the current store's server has what a training and a promotion need; a store of another kind has.

    A hosted server may not tell its version. Then it is asked for what MLflow 2 lacks.

    Raises
    ------
    UserError
        It is too old, or it sends requests on to another address.
    MlflowException
        It does not answer.
    """
    uri = mlflow.get_tracking_uri()
    if not is_server(uri):
        return
    answer = ask_server(VERSION_ENDPOINT)
    _check_redirects(uri, answer)
    version = _parse_version(answer)
    if version is None and _lacks_logged_models():
        raise _too_old(uri, "is older than MLflow 3")
    if version is not None and version.release < MINIMUM_SERVER.release:
        raise _too_old(uri, f"is MLflow {version}")


def _check_redirects(uri: str, answer: requests.Response) -> None:
    """Refuse an address that sends requests on, as from http to https: what is to be written would not arrive."""
    statuses = [step.status_code for step in answer.history]
    if not set(statuses) & set(LOSING_REDIRECTS) or not answer.url.endswith(VERSION_ENDPOINT):
        return
    target = redact_address(answer.url.removesuffix(VERSION_ENDPOINT))
    raise UserError(
        f"{redact_address(uri)}: it sends requests on to {target} (HTTP {statuses[0]}), where nothing can be written "
        f"this way; set MLFLOW_TRACKING_URI to {target}"
    )


def _parse_version(answer: requests.Response) -> Version | None:
    """Return the version that the server tells; None if it tells none."""
    if answer.status_code != 200 or len(answer.content) > MAX_VERSION_LENGTH:
        return None
    try:
        return Version(answer.text)
    except InvalidVersion:
        return None


def _lacks_logged_models() -> bool:
    """Return whether the server has no such endpoint: MLflow 3 answers that there is no such model, in JSON."""
    answer = ask_server(ABSENT_MODEL)
    if answer.status_code != 404:
        return False
    try:
        content: Any = parse_json(answer.text)
    except DamagedError:  # an error page
        return True
    return not isinstance(content, dict) or content.get("error_code") in (None, "ENDPOINT_NOT_FOUND")


def _too_old(uri: str, what: str) -> UserError:
    return UserError(
        f"{redact_address(uri)}: this server {what}, and the scripts need MLflow {MINIMUM_SERVER} or later there; "
        "let its administrator upgrade it, or choose another with MLFLOW_TRACKING_URI"
    )
