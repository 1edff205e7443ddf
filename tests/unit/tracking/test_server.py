"""Servers that are no MLflow, too old, or elsewhere: known at once, from answers as such servers give them."""

import pytest

from pipeline.errors import UserError
from pipeline.tracking import store as tracking_store
from pipeline.tracking.store import connect
from support.servers import find_free_port
from support.web_server import EMPTY, LOGIN_PAGE, NOT_FOUND, Answer, run_web_server

NO_SUCH_MODEL = Answer(404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}')
HIDDEN_NAME = "http://store.invalid:5000"  # only a proxy knows it: https://www.rfc-editor.org/rfc/rfc6761#section-6.4


def fail_to_connect(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return why a script cannot use the store at ``uri``, without the address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(tracking_store, "FIRST_REQUEST_TIMEOUT", 1)
    with pytest.raises(UserError) as error, connect():
        pass
    return str(error.value).removeprefix(f"{uri}: ")


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.7.1", "2.22.0", "1.30.1"])
def test_old_server_is_refused_at_once(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({"/version": Answer(200, version)}) as uri:
        error = fail_to_connect(uri, monkeypatch)
    assert error.startswith(f"this server is MLflow {version}, and the scripts need MLflow")


@pytest.mark.parametrize("version", ["3.14.0", "3.17.2", "3.18.0.dev0", "4.0.0rc1"])
def test_server_of_this_age_is_used(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({"/version": Answer(200, version)}) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with connect() as address:
            assert address == uri


def test_server_without_version_needs_logged_models(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"/version": NOT_FOUND, "/logged-models/": NOT_FOUND}
    with run_web_server(answers) as uri:
        error = fail_to_connect(uri, monkeypatch)
    assert error.startswith("this server is older than MLflow 3, and the scripts need MLflow")


@pytest.mark.parametrize("version", [NOT_FOUND, LOGIN_PAGE, Answer(403, "no"), Answer(500)])
def test_hosted_server_may_hide_its_version(version: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({"/version": version, "/logged-models/": NO_SUCH_MODEL}) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with connect() as address:
            assert address == uri


def test_version_is_asked_below_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({"^/my/mlflow/version$": Answer(200, "2.22.0")}) as uri:
        assert "this server is MLflow 2.22.0" in fail_to_connect(f"{uri}/my/mlflow", monkeypatch)


# --- other servers --------------------------------------------------------------------------------------------------


def test_page_to_log_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({}, LOGIN_PAGE) as uri:
        error = fail_to_connect(uri, monkeypatch)
    assert error.startswith("a web page answers there, and no MLflow server: 'Sign in'; check MLFLOW_TRACKING_URI")
    assert "MLFLOW_TRACKING_TOKEN" in error


def test_redirect_to_a_page_to_log_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({"/login": LOGIN_PAGE}, Answer(302, headers={"Location": "/login"})) as uri:
        assert fail_to_connect(uri, monkeypatch).startswith("a web page answers there, and no MLflow server: 'Sign in'")


@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirect_that_loses_requests_is_named(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({"/version": Answer(200, "3.17.2")}) as target:
        forward = Answer(status, headers={"Location": f"{target}{{path}}"})
        with run_web_server({}, forward) as uri:
            error = fail_to_connect(uri, monkeypatch)
    assert error.startswith(f"it sends requests on to {target} (HTTP {status})")
    assert error.endswith(f"set MLFLOW_TRACKING_URI to {target}")


def test_redirect_that_keeps_requests_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        run_web_server({"/version": Answer(200, "3.17.2")}) as target,
        run_web_server({}, Answer(308, headers={"Location": f"{target}{{path}}"})) as uri,
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with connect() as address:
            assert address == uri


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("Permission denied", "your account may not do this"),
        ("Invalid Host header - possible DNS rebinding attack detected", "the server does not know the name"),
        ("Cross-origin request blocked", "the server refuses the header Origin"),
        (
            "<html><head><title>Blocked\x1b by policy</title></head></html>",
            r"a proxy or a firewall before the store refuses it (HTTP 403: 'Blocked\\x1b by policy')",
        ),
    ],
)
def test_refusal_tells_who_refuses(body: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({}, Answer(403, body)) as uri:
        assert fail_to_connect(uri, monkeypatch).startswith(reason)


# --- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_store_behind_a_proxy_is_found(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({"/version": Answer(200, "3.17.2")}) as proxy:
        monkeypatch.setenv(variable, proxy)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", HIDDEN_NAME)
        with connect() as address:
            assert address == HIDDEN_NAME


def test_exception_from_the_proxy_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with run_web_server({"/version": Answer(200, "3.17.2")}) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with connect() as address:
            assert address == uri


def test_dead_proxy_is_named_without_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{find_free_port()}")
    error = fail_to_connect(HIDDEN_NAME, monkeypatch)
    assert error.startswith("the HTTP proxy of the environment does not answer; start it, or check HTTP_PROXY")
    assert "secret" not in error


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (407, "the HTTP proxy wants a user and a password (HTTP 407)"),
        (403, "the HTTP proxy refuses to connect to the store (HTTP 403)"),
        (502, "the HTTP proxy does not reach the store (HTTP 502)"),
    ],
)
def test_proxy_that_opens_no_tunnel_is_named(status: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({}, Answer(status)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert fail_to_connect(HIDDEN_NAME.replace("http", "https"), monkeypatch).startswith(reason)


def test_missing_support_for_socks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{find_free_port()}")
    assert "pip install 'requests[socks]'" in fail_to_connect(HIDDEN_NAME, monkeypatch)


def test_empty_answers_are_an_empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_web_server({}, EMPTY) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with connect() as address:
            assert address == uri
