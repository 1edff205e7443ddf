"""Start the MLflow server of compose.yaml: make the bucket, say where the accounts are, run `mlflow server`.

python start.py --host=0.0.0.0 --port=5000 ...           options of mlflow server; the rest comes from the environment
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError

# A password is hashed anew for every request unless MLflow may remember it, here for a minute.
# The tables of accounts have a SQLite file of their own: they use the name of a constraint twice, which MySQL refuses.
ACCOUNTS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{file}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


def main() -> None:
    """Become the server."""
    make_bucket(urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]).netloc)
    settings = Path(os.environ["ACCOUNTS"]).with_suffix(".ini")
    settings.write_text(ACCOUNTS.format(file=os.environ["ACCOUNTS"]), encoding="utf-8")
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(settings)
    os.execvp("mlflow", ["mlflow", "server", *sys.argv[1:]])  # noqa: S606, S607 - there is no shell to start it with


def make_bucket(name: str) -> None:
    """Make the bucket where it is not there yet."""
    store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    try:
        store.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        store.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
