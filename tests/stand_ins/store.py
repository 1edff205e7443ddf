"""An S3 server (moto) with RustFS's address for health checks. It keeps its files in RUSTFS_VOLUMES.

moto keeps files in memory, so they are written when the server is stopped and read when it starts.
"""

import os
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


@Request.application
def app(request: Request) -> Any:
    """Answer /health as RustFS does: only a server that has its files is healthy. Leave all else to moto."""
    if request.path == "/health":
        return Response(status=200 if is_loaded.is_set() else 503)
    return moto_app


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
