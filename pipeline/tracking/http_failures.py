"""What a server, or a proxy before it, answers instead of doing what it was asked for."""

import re

import requests
import urllib3.exceptions
from mlflow.exceptions import MlflowException

from pipeline.text import printable
from pipeline.tracking.failure_types import (
    ASK_ADMINISTRATOR,
    CHECK_ADDRESS,
    RUN_AGAIN,
    Failure,
    outage,
    refusal,
)

AWAY_STATUSES = (408, 425, 429)  # HTTP; with all from 500
# MLflow keeps the status of an error page in its text only; the third form is in its list of failed downloads.
HTTP_STATUS = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error responses|(\d{3}) \w+ Error: ")
BODY = re.compile(r"Response (?:body|text): '?(?P<body>.*)", re.DOTALL)
TITLE = re.compile(r"<title[^>]*>(?P<title>[^<]*)", re.IGNORECASE)
HTML = re.compile(r"\s*(?:<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)
MAX_TITLE_LENGTH = 60  # characters
# https://mlflow.org/docs/latest/self-hosting/security/network: texts of mlflow.server.security_utils.
INVALID_HOST, BLOCKED_ORIGIN = "Invalid Host header", "Cross-origin request blocked"
ACCOUNT_REFUSED = "Permission denied"  # of mlflow.server.auth, without error_code
TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (?P<status>\d{3})")
CHECK_PROXY = "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
CHECK_LOGIN = "check MLFLOW_TRACKING_USERNAME and _PASSWORD"


def read_status(error: BaseException) -> int | None:
    """Return the HTTP status that the error is about, or None."""
    response = getattr(error, "response", None)
    if isinstance(error, requests.HTTPError) and response is not None:
        return int(response.status_code)
    if isinstance(error, MlflowException | requests.exceptions.RetryError):
        match = HTTP_STATUS.search(str(error))
        if match:
            return int(match[1] or match[2] or match[3])
    return None


def read_body(error: BaseException) -> str:
    """Return what stands below the status, as far as the error keeps it; an empty text if it does not."""
    response = getattr(error, "response", None)
    if isinstance(error, requests.HTTPError) and response is not None:
        return str(response.text)
    match = BODY.search(str(error))
    return match["body"].removesuffix("'") if match else ""


def is_web_page(body: str) -> bool:
    """Return whether the text is a page for people."""
    return HTML.match(body) is not None


def explain_status(status: int, body: str = "") -> Failure:
    """Return what the status of an answer means; ``body`` tells MLflow's refusals from those of others."""
    if status == 401:
        return explain_login()
    if status == 403:
        return _explain_forbidden(body)
    if status == 407:
        return refusal("the HTTP proxy wants a user and a password (HTTP 407)", CHECK_PROXY)
    if status == 413:
        reason = "the server, or a proxy before it, refuses files of this size (HTTP 413)"
        return refusal(reason, "let its administrator raise the limit, such as nginx's client_max_body_size")
    if status in AWAY_STATUSES or status >= 500:
        return outage(f"the store answers HTTP {status}")
    return refusal(f"the store answers HTTP {status}", CHECK_ADDRESS)


def explain_login() -> Failure:
    """Return that the server does not know the account."""
    return refusal("it does not accept your name and password", CHECK_LOGIN)


def explain_permission() -> Failure:
    """Return that the server knows the account, and that it may not do this."""
    return refusal("your account may not do this", ASK_ADMINISTRATOR)


def explain_web_page(body: str) -> Failure:
    """Return that a page for people came with the status 200, where MLflow answers with JSON."""
    reason = f"a web page answers there, and no MLflow server{_quote_title(body)}"
    return refusal(reason, f"{CHECK_ADDRESS}; if it is a page to log in, set MLFLOW_TRACKING_TOKEN, or {CHECK_LOGIN}")


def _explain_forbidden(body: str) -> Failure:
    """Return who refuses: MLflow's middleware for hosts and origins, MLflow's accounts, or somebody before them."""
    if INVALID_HOST in body:
        return refusal(
            "the server does not know the name by which it is called (Invalid Host header)",
            "add the host of MLFLOW_TRACKING_URI to MLFLOW_SERVER_ALLOWED_HOSTS, or --allowed-hosts, of the server",
        )
    if BLOCKED_ORIGIN in body:
        return refusal(
            "the server refuses the header Origin, which a proxy before it adds (Cross-origin request blocked)",
            "let the proxy remove it, or add it to MLFLOW_SERVER_CORS_ALLOWED_ORIGINS of the server",
        )
    if not body.strip() or ACCOUNT_REFUSED in body or body.lstrip().startswith("{"):
        return explain_permission()
    return refusal(
        f"a proxy or a firewall before the store refuses it (HTTP 403{_quote_title(body)})",
        f"{CHECK_PROXY}, or ask your network's administrator",
    )


def _quote_title(body: str) -> str:
    match = TITLE.search(body)
    title = printable(" ".join(match["title"].split())) if match else ""
    return f": {title[:MAX_TITLE_LENGTH]!r}" if title else ""


# --- no answer ------------------------------------------------------------------------------------------------------


def explain_connection_error(error: requests.RequestException) -> Failure:
    """Return why there is no answer."""
    reason = _read_reason(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return _explain_proxy_error(str(error))
    if isinstance(error, requests.exceptions.SSLError):
        return explain_ssl_error(str(error))
    if isinstance(error, requests.exceptions.InvalidProxyURL) or "SOCKS" in str(error):
        return _explain_proxy_address(str(error))
    if isinstance(error, ValueError | requests.TooManyRedirects):
        return refusal("the address of the store is wrong", CHECK_ADDRESS)
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return outage("the host of the store is not found", f"{RUN_AGAIN}, or {CHECK_ADDRESS}")
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        return outage("nothing answers at the address of the store")
    if is_timeout(error):
        return outage("the store does not answer in time")
    return outage("the connection to the store broke off")


def explain_ssl_error(text: str) -> Failure:
    """Return why there is no secure connection: a certificate stays wrong, a connection that broke off does not."""
    start = max(text.find("SSLError"), text.find("SSLCertVerificationError"), 0)
    detail = text[start:].rstrip(")'\"")
    advice = "check the address, the certificate, or MLFLOW_TRACKING_SERVER_CERT_PATH"
    explain = outage if "EOF" in text else refusal
    return explain(f"no secure connection: {detail}", advice)


def is_timeout(error: requests.RequestException) -> bool:
    """Return whether the server has perhaps got the request, and had not answered in time."""
    return isinstance(error, requests.Timeout) or isinstance(_read_reason(error), urllib3.exceptions.ReadTimeoutError)


def _explain_proxy_error(text: str) -> Failure:
    """Return what the HTTP proxy of the environment did with the request for a connection."""
    match = TUNNEL_STATUS.search(text)
    if not match:
        return outage("the HTTP proxy of the environment does not answer", f"start it, or {CHECK_PROXY}")
    status = int(match["status"])
    if status == 407:
        return explain_status(status)
    if status >= 500:
        return outage(f"the HTTP proxy does not reach the store (HTTP {status})", f"{RUN_AGAIN}, or {CHECK_PROXY}")
    return refusal(f"the HTTP proxy refuses to connect to the store (HTTP {status})", CHECK_PROXY)


def _explain_proxy_address(text: str) -> Failure:
    if "SOCKS" in text:
        return refusal("the proxy of the environment is a SOCKS proxy", "install it: pip install 'requests[socks]'")
    return refusal("the address of the HTTP proxy is wrong", CHECK_PROXY)


def _read_reason(error: requests.RequestException) -> object:
    """Return the last of the errors that urllib3 counted before it gave up, or None."""
    first = error.args[0] if error.args else None
    return getattr(first, "reason", first)
