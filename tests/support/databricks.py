"""What Databricks refuses, before a real MLflow server: names of experiments that are no paths, and Unity Catalog.

    with run_databricks(folder) as databricks:
        os.environ |= databricks.environment

The clients are MLflow's own for ``databricks`` and ``databricks-uc``. Files of runs are in a folder of this machine.
The refusals are those of MLflow's client and of public reports: mlflow/mlflow issues 8269 (paths) and 9730 (stages),
mlflow/recipes-examples issue 58 (names of tags), and
https://docs.databricks.com/aws/en/database-objects/tags (their number and length). Nobody has tried it on Databricks.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from support.proxy import Proxy, _Handler
from support.servers import find_free_port, is_listening, run_server

CATALOG = "/api/2.0/mlflow/unity-catalog/"
RESERVED = re.compile(r"[.,=/:-]")
LEVELS = 3  # of a name
MAX_TAGS = 50
MAX_VALUE_LENGTH = 1000
Answer = tuple[int, dict[str, Any]]


class RefusalError(Exception):
    """The code and the text of an error that the server answers."""


class Databricks(Proxy):
    """The proxy; see the module.

    Attributes
    ----------
    files : what was uploaded to Unity Catalog, by its address.
    """

    def __init__(self, target_uri: str) -> None:
        self.files: dict[str, bytes] = {}
        super().__init__(target_uri)

    @property
    def environment(self) -> dict[str, str]:
        """What the clients need."""
        return {
            "MLFLOW_TRACKING_URI": "databricks",
            "DATABRICKS_HOST": self.uri,
            "DATABRICKS_TOKEN": "dapi-stand-in",
        }

    def handle(self, handler: _Handler) -> None:
        """Answer one request as Databricks does, or let the server answer it."""
        parts = urlsplit(handler.path)
        body = handler.read_body()
        if handler.command == "PUT" and parts.path.startswith("/files/"):
            self.files[parts.path] = body
            self._send(handler, 200, {})
            return
        if parts.path == "/.well-known/databricks-config":
            self._send(handler, 200, {"oidc_endpoint": f"{self.uri}/oidc", "account_id": "1", "workspace_id": "1"})
            return
        is_known = parts.path.startswith(("/api/2.0/fs/", CATALOG, CATALOG.rstrip("/")))
        if not is_known and not parts.path.endswith("/experiments/create"):
            self._pass_on(handler, body)
            return
        request = json.loads(body or b"{}") or dict(parse_qsl(parts.query))
        try:
            self._send(handler, *self._answer(handler.command, parts.path, request))
        except RefusalError as error:
            code, message = error.args
            self._send(handler, 400, {"error_code": code, "message": message})

    def _answer(self, method: str, path: str, request: dict[str, Any]) -> Answer:
        if path.endswith("/experiments/create"):
            _check_path(request["name"])
            return self._ask(method, path, request)
        if path.startswith("/api/2.0/fs/"):
            return 200, {"url": f"{self.uri}/files{request['path']}", "headers": []}
        return self._answer_catalog(method, path.removeprefix(CATALOG), request)

    def _answer_catalog(self, method: str, action: str, request: dict[str, Any]) -> Answer:
        if "is-databricks-sdk" in action:
            return 200, {"is_databricks_sdk_models_artifact_repository_enabled": False}
        if action.endswith("generate-temporary-credentials"):
            return 200, {"credentials": {"storage_mode": "DEFAULT_STORAGE"}}
        if action.endswith("emit-lineage"):
            return 200, {}
        if "name" in request:
            _check_levels(request["name"])
        for tag in request.get("tags", []):
            _check_tag(tag)
        if action.endswith("set-tag"):
            _check_tag(request)
            self._check_count(action, request)
        if action == "model-versions/search" and not request.get("filter"):
            raise RefusalError("INVALID_PARAMETER_VALUE", "Missing filter: specify name = '...' or run_id = '...'")
        if action == "model-versions/finalize":
            method, action = "GET", "model-versions/get"
        fields = ("name", "source", "run_id", "description", "tags", "model_id", "version", "alias", "key", "value")
        known = {
            key: value for key, value in request.items() if key in (*fields, "filter", "max_results", "page_token")
        }
        status, answer = self._ask(method, f"/api/2.0/mlflow/{action}", known)
        return status, _hide(answer, is_list=action.endswith("search"))

    def _check_count(self, action: str, request: Mapping[str, Any]) -> None:
        """Refuse the tag if its owner has as many as it can have."""
        kind = action.partition("/")[0]
        owner = {key: request[key] for key in ("name", "version") if key in request}
        _, answer = self._ask("GET", f"/api/2.0/mlflow/{kind}/get", owner)
        (found,) = answer.values()
        keys = {tag["key"] for tag in found.get("tags", [])} | {request["key"]}
        if len(keys) > MAX_TAGS:
            raise RefusalError("INVALID_PARAMETER_VALUE", f"more than {MAX_TAGS} tags")

    def _ask(self, method: str, path: str, request: Mapping[str, Any]) -> Answer:
        """Return the status and the JSON that the server answers."""
        body = None
        if method == "GET":
            path = f"{path}?{urlencode(request)}"
        else:
            body = json.dumps(request)
        connection = HTTPConnection(*self._target, timeout=60)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read() or b"{}")
        connection.close()
        return answer.status, content

    def _pass_on(self, handler: _Handler, body: bytes) -> None:
        connection = HTTPConnection(*self._target, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "connection"}
        connection.request(handler.command, handler.path, body, headers)
        answer = connection.getresponse()
        handler.send_answer(answer, answer.read())
        connection.close()

    def _send(self, handler: _Handler, status: int, content: Mapping[str, Any]) -> None:
        handler.send_response_only(status)
        handler.send_header("Content-Type", "application/json")
        handler._send_content(json.dumps(content).encode())


def _check_path(name: str) -> None:
    if not name.startswith("/"):
        raise RefusalError(
            "INVALID_PARAMETER_VALUE",
            f"Got an invalid experiment name '{name}'. An experiment name must be an absolute path within the "
            "Databricks workspace, e.g. '/Users/<some-username>/my-experiment'.",
        )


def _check_levels(name: str) -> None:
    if name.count(".") != LEVELS - 1:
        raise RefusalError("INVALID_PARAMETER_VALUE", f"Model name '{name}': specify all three levels of the name")


def _check_tag(tag: Mapping[str, str]) -> None:
    if RESERVED.search(tag["key"]):
        reserved = "List(., ,, -, =, /, :)"
        message = f"Tag name {tag['key']} contains one or more of the reserved characters: {reserved}"
        raise RefusalError("INVALID_PARAMETER_VALUE", message)
    if len(tag.get("value", "")) > MAX_VALUE_LENGTH:
        raise RefusalError("INVALID_PARAMETER_VALUE", f"Tag value exceeds {MAX_VALUE_LENGTH} characters")


def _hide(answer: dict[str, Any], *, is_list: bool) -> dict[str, Any]:
    """Return the answer without stages, and a list without tags and aliases."""
    hidden = {"current_stage", "latest_versions"} | ({"tags", "aliases"} if is_list else set())
    for kind in ("registered_model", "model_version", "registered_models", "model_versions"):
        items = answer.get(kind, [])
        if isinstance(items, list):  # the rest is in the registry of the workspace
            items[:] = [item for item in items if item["name"].count(".") == LEVELS - 1]
        for item in items if isinstance(items, list) else [items]:
            for field in hidden:
                item.pop(field, None)
    return answer


@contextmanager
def run_databricks(folder: Path) -> Iterator[Databricks]:
    """Run the stand-in before a server over the SQLite store in ``folder``; close both at the end of the block."""
    port = find_free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", str(folder / "mlruns")]
    with run_server(command, folder, lambda: is_listening(port)):
        databricks = Databricks(f"http://127.0.0.1:{port}")
        try:
            yield databricks
        finally:
            databricks.close()
