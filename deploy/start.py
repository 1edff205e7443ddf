"""Start the MLflow server of compose.yaml: configure the accounts, run `mlflow server`.

python start.py --host=0.0.0.0 --port=5000 ...           options of mlflow server; the rest comes from the environment
"""

import os
import sys
from pathlib import Path

# MLflow hashes the password again for every request unless it may cache the result: here for a minute.
# The tables of the accounts are in a SQLite file: they use one constraint name twice, which MySQL refuses.
ACCOUNT_SETTINGS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{file}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


def main() -> None:
    """Replace this process by the server."""
    settings = Path(os.environ["ACCOUNTS"]).with_suffix(".ini")
    settings.write_text(ACCOUNT_SETTINGS.format(file=os.environ["ACCOUNTS"]), encoding="utf-8")
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(settings)
    os.execvp("mlflow", ["mlflow", "server", *sys.argv[1:]])  # noqa: S606, S607 - no shell is involved


if __name__ == "__main__":
    main()
