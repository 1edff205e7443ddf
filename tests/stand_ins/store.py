"""An S3 server (moto) with RustFS's address for health checks. It keeps its files in RUSTFS_VOLUMES.

moto keeps files in memory, so they are written when the server is stopped and read when it starts. As in RustFS, the
store's own key may do everything, and an account what its policy allows. Keys are compared by their names alone: no
signature is checked.
"""

import fnmatch
import json
import os
import re
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug import Request, Response
from werkzeug.serving import make_server

FOLDER = Path(os.environ["RUSTFS_VOLUMES"])
PORT = int(os.environ["RUSTFS_ADDRESS"].rpartition(":")[2])
s3 = boto3.resource(
    "s3",
    endpoint_url=f"http://127.0.0.1:{PORT}",
    aws_access_key_id=os.environ["RUSTFS_ACCESS_KEY"],
    aws_secret_access_key=os.environ["RUSTFS_SECRET_KEY"],
    region_name="us-east-1",
)
is_loaded = threading.Event()
moto_app = DomainDispatcherApplication(create_backend_app)


policies: dict[str, list[dict[str, Any]]] = {}
accounts: dict[str, str] = {}  # the policy of each

OBJECT_ACTIONS = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
BUCKET_ACTIONS = {"GET": "ListBucket", "HEAD": "ListBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}


@Request.application
def app(request: Request) -> Any:
    """Answer /health and the administration as RustFS does, refuse what is not allowed, leave all else to moto.

    Only a server that has its files is healthy.
    """
    if request.path == "/health":
        return Response(status=200 if is_loaded.is_set() else 503)
    key = find_key(request)
    is_root = key == os.environ["RUSTFS_ACCESS_KEY"]
    if request.path.startswith("/rustfs/admin/v3/"):
        return administrate(request) if is_root else Response(status=403)
    if not is_root and not is_allowed(key, request):
        return Response("<Error><Code>AccessDenied</Code></Error>", status=403)
    return moto_app


def find_key(request: Request) -> str:
    """Return the name of the key with which the request is signed."""
    match = re.search(r"Credential=([^/]+)/", request.headers.get("Authorization", ""))
    return match[1] if match else ""


def administrate(request: Request) -> Response:
    """Create a policy or an account, or give one to the other."""
    action = request.path.rpartition("/")[2]
    if action == "add-canned-policy":
        policies[request.args["name"]] = json.loads(request.data)["Statement"]
    elif action == "add-user":
        accounts.setdefault(request.args["accessKey"], "")
    elif action == "set-user-or-group-policy":
        accounts[request.args["userOrGroup"]] = request.args["policyName"]
    else:
        return Response(status=404)
    return Response(status=200)


def is_allowed(key: str, request: Request) -> bool:
    """Return whether the policy of the account allows the request; what is not listed here is not allowed."""
    bucket, _, name = request.path.strip("/").partition("/")
    action = (OBJECT_ACTIONS if name else BUCKET_ACTIONS).get(request.method, "")
    resource = f"arn:aws:s3:::{bucket}/{name}" if name else f"arn:aws:s3:::{bucket}"
    if request.method == "POST":  # a file in parts, or the names of objects to delete
        action = "PutObject" if name else "DeleteObject"
        resource = f"arn:aws:s3:::{bucket}/{name}"
    for statement in policies.get(accounts.get(key, ""), []):
        resources = statement["Resource"]
        if f"s3:{action}" in statement["Action"] and any(fnmatch.fnmatchcase(resource, text) for text in resources):
            return True
    return False


def load() -> None:
    """Put all files of the folder into the server."""
    for bucket in FOLDER.iterdir():
        s3.create_bucket(Bucket=bucket.name)
        for file in bucket.rglob("*"):
            if file.is_file():
                s3.Bucket(bucket.name).upload_file(str(file), str(file.relative_to(bucket)))
    is_loaded.set()


def save() -> None:
    """Write all files of the server into the folder."""
    for bucket in s3.buckets.all():
        (FOLDER / bucket.name).mkdir(exist_ok=True)
        for item in bucket.objects.all():
            file = FOLDER / bucket.name / item.key
            file.parent.mkdir(parents=True, exist_ok=True)
            bucket.download_file(item.key, str(file))


def stop(_signal: int, _frame: FrameType | None) -> None:
    """End the process, which makes the main thread save the files."""
    raise SystemExit


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    server = make_server("0.0.0.0", PORT, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    load()
    try:
        signal.pause()
    finally:
        save()
