"""Everything that talks to MLflow. The only package that imports it.

MLflow reads its settings from the environment when it is imported, so they are set here, before any module below.
MLflow reports its use to its makers unless it is told not to; here it is told not to.
"""

import os
from pathlib import Path

from dotenv import load_dotenv

from pipeline.documents import describe_error
from pipeline.errors import UserError

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for our own JSON
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DEFAULT_PREDICTION_DEVICE": "cpu",  # where MLflow tries the input example; models are saved on the CPU
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # seconds; by default, a silent server holds a training for 40 minutes
    # Five retries with the pauses of this factor (0, 4, 8, 16, 32 seconds) outlast a server that restarts for a minute.
    # A silent server costs a request six timeouts more: two and a half minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "2",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a server could ask for hours
    "GIT_PYTHON_REFRESH": "quiet",  # without Git, as in an image, MLflow would print sixty lines about it
}

# The environment wins over .env, and .env wins over the settings.
_file = Path(__file__).parent.parent.parent / ".env"
try:
    load_dotenv(_file)
except (OSError, ValueError) as error:
    raise UserError(f"{_file} is not a file of lines NAME=VALUE ({describe_error(error)}); correct it") from None
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
# Not a default: no environment may turn it on. The scripts let MLflow load no model; this is for what it does itself.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
