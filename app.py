"""A page to draw on: the model in Production says what it is. It loads a newly promoted model by itself.

    python app.py                                            http://127.0.0.1:7860
    python app.py --model-name letters-classifier --port 8000
    python app.py --host 0.0.0.0                             for other machines too; there is no login

Dropped pictures are deleted as soon as they are answered, drawings after a minute.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline import cli
from pipeline.errors import UserError

MAX_FILE_SIZE = "10mb"  # of a dropped picture


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--model-name", help="the registered model to ask (default: the page offers each that is in Production)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument(
        "--port", type=cli.bounded_number(int, 1, 65_535), default=7860, help="port to listen on (default: 7860)"
    )
    return parser.parse_args(argv)


@contextmanager
def serve_page(page: Any, host: str, port: int) -> Iterator[None]:
    """Show the page until the end of the block.

    Raises
    ------
    UserError
        Another program uses the port.
    """
    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=MAX_FILE_SIZE,
            share=False,
            quiet=True,
            footer_links=[],
            prevent_thread_lock=True,
        )
    except OSError:
        raise UserError(f"port {port} is taken; choose another with --port") from None
    try:
        yield
    finally:
        page.close(verbose=False)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Load the model in Production, show the page until Ctrl-C."""
    options = parse_options(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # so that nothing is left at the end
        from pipeline.production.page import build_page
        from pipeline.production.service import ModelService

        service = ModelService(options.model_name)
        with service.refreshed(), serve_page(build_page(service), options.host, options.port):
            model = service.get(service.names[0])
            address = f"http://{options.host}:{options.port}"
            cli.log(f"{address} shows version {model.version} of {model.name}; stop it with Ctrl-C")
            while True:
                signal.pause()


if __name__ == "__main__":
    sys.exit(main())
