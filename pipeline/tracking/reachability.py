"""Does anything answer at the address of the store: MLflow itself would try again for minutes."""

import re
import socket
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from pipeline.errors import UserError
from pipeline.redact import redact, redact_address

# user:password@ with a character that ends the part of an address where it stands; digits alone are a port.
BARE_PASSWORD = re.compile(r"[\w+.-]+://[^\s/@:?#\[]*:(?!\d+[/?#])[^@]*(?:[\s/?#][^@]*@|@.*@)")


def check_reachable(uri: str) -> None:
    """Check that something answers at ``uri``: MLflow itself would try again for minutes.

    Raises
    ------
    UserError
        Nothing answers.
    """
    try:
        if BARE_PASSWORD.match(uri):  # a parser would take a part of it for the host, and say so
            raise ValueError("malformed")
        scheme = urlsplit(uri).scheme
        if scheme in ("http", "https"):
            _check_http(uri)
        elif scheme.partition("+")[0] in ("mysql", "postgresql", "mssql"):
            _check_database(uri)
    except ValueError:  # its message may have the password
        raise UserError(
            f"{redact_address(uri)}: the address is malformed; check MLFLOW_TRACKING_URI (special characters of a "
            "password are written as %40 for @, %2F for /)"
        ) from None
    except OSError as error:
        detail = error.strerror or redact(str(error)) or type(error).__name__
        raise UserError(
            f"nothing answers at {redact_address(uri)} ({detail}); start it or change MLFLOW_TRACKING_URI"
        ) from None


def _check_http(uri: str) -> None:
    """Connect to the host, unless requests sends what it is asked for to a proxy, which alone may reach it."""
    parts = urlsplit(uri)
    if not parts.hostname or select_proxy(uri, get_environ_proxies(uri)):
        return
    default_port = 443 if parts.scheme == "https" else 80
    socket.create_connection((parts.hostname, parts.port or default_port), timeout=5).close()


def _check_database(uri: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        create_engine(uri).connect().close()
    except ArgumentError:
        raise ValueError("malformed") from None
    except (SQLAlchemyError, ImportError) as error:  # the driver may be missing
        raise OSError(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return redact(lines[0]) if lines else type(error).__name__
