"""Create MLflow's bucket in the object store, and a key that is good for this bucket only.

The store's own key (STORE_ACCESS_KEY, STORE_SECRET_KEY) may do everything. compose.yaml gives it to this script and to
the store; the MLflow server gets the key that is made here. It is made again at every start, with the same result.

The addresses and bodies are RustFS's: https://docs.rustfs.com/administration/iam/policies
"""

import json
import os
import urllib.request
from urllib.parse import urlencode, urlsplit

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

POLICY = "mlflow-bucket"
TIMEOUT = 30  # seconds
BUCKET_ACTIONS = ("s3:GetBucketLocation", "s3:ListBucket")
OBJECT_ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def main() -> None:
    """Create bucket, policy and key."""
    bucket = urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]).netloc
    user = os.environ["BUCKET_USER"]
    create_bucket(bucket)
    call("add-canned-policy", {"name": POLICY}, make_policy(bucket))
    call("add-user", {"accessKey": user}, {"secretKey": os.environ["BUCKET_SECRET_KEY"], "status": "enabled"})
    call("set-user-or-group-policy", {"policyName": POLICY, "userOrGroup": user, "isGroup": "false"})


def create_bucket(name: str) -> None:
    """Create the bucket if it does not exist."""
    store = boto3.client(
        "s3",
        endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=os.environ["STORE_ACCESS_KEY"],
        aws_secret_access_key=os.environ["STORE_SECRET_KEY"],
    )
    try:
        store.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        store.create_bucket(Bucket=name)


def make_policy(bucket: str) -> dict[str, object]:
    """Return what MLflow and the backup need: list the bucket; read, write and delete its objects."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(BUCKET_ACTIONS), "Resource": [f"arn:aws:s3:::{bucket}"]},
            {"Effect": "Allow", "Action": list(OBJECT_ACTIONS), "Resource": [f"arn:aws:s3:::{bucket}/*"]},
        ],
    }


def call(action: str, parameters: dict[str, str], body: dict[str, object] | None = None) -> None:
    """Send a request to the store's administration, signed with its own key."""
    url = f"{os.environ['MLFLOW_S3_ENDPOINT_URL']}/rustfs/admin/v3/{action}?{urlencode(parameters)}"
    data = json.dumps(body).encode() if body else b""
    request = AWSRequest("PUT", url, data=data, headers={"Content-Type": "application/json"})
    key = Credentials(os.environ["STORE_ACCESS_KEY"], os.environ["STORE_SECRET_KEY"])
    S3SigV4Auth(key, "s3", os.environ["AWS_DEFAULT_REGION"]).add_auth(request)
    signed = urllib.request.Request(url, data=data, headers=dict(request.headers), method="PUT")  # noqa: S310 - http
    with urllib.request.urlopen(signed, timeout=TIMEOUT):  # noqa: S310 - http; any other status than 2xx raises
        pass


if __name__ == "__main__":
    main()
