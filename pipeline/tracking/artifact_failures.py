"""Why an artifact store (S3, Google Cloud Storage, Azure, SFTP, a folder) does not take or give a file.

Each has a library of its own, which this project does not install, with exceptions of its own. MLflow passes them on,
or writes their text into an exception of its own, so they are known by their names and texts.
"""

import os
import re
from dataclasses import dataclass

from mlflow.exceptions import MlflowException

from pipeline.redact import redact, redact_address
from pipeline.tracking.failure_types import ASK_ADMINISTRATOR, RUN_AGAIN, Failure

SCHEMES = {
    "s3": "s3",
    "r2": "s3",
    "b2": "s3",
    "gs": "gs",
    "wasb": "azure",
    "wasbs": "azure",
    "abfss": "azure",
    "sftp": "sftp",
    "ftp": "ftp",
}
CREDENTIALS = {  # what to set, where a person's account stands
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "azure": "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY",
    "sftp": "the key and the host in ~/.ssh/config and ~/.ssh/known_hosts",
    "ftp": "user and password in the artifact location of the experiment",
}
ENDPOINTS = {"s3": "MLFLOW_S3_ENDPOINT_URL"}
LOCATION = "the artifact location of the experiment"
PACKAGES = {  # module -> what pip installs
    "boto3": "boto3",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "azure": "azure-storage-blob azure-identity",
    "pysftp": "pysftp",
    "paramiko": "pysftp",
    "pyarrow": "pyarrow",
    "b2sdk": "b2sdk",
}


@dataclass(frozen=True)
class _Rule:
    """What a text means; ``{credentials}``, ``{endpoint}`` and ``{location}`` in the advice are of the store."""

    pattern: re.Pattern[str]
    reason: str
    advice: str
    is_outage: bool = False


def _rule(pattern: str, reason: str, advice: str, *, is_outage: bool = False) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), reason, advice, is_outage)


# The first one that fits counts. Names: botocore.exceptions, S3's error codes, google.auth and google.api_core,
# azure.core.exceptions, paramiko, ftplib.
RULES = (
    _rule(
        "NoCredentials|PartialCredentials|CredentialRetrieval|Unable to locate credentials|DefaultCredentialsError"
        "|default credentials were not found|environment variables AZURE_STORAGE|No authentication methods"
        "|ProfileNotFound|config profile .* could not be found",
        "this machine has no credentials for it",
        "set {credentials}",
    ),
    _rule(
        "InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|RefreshError|ClientAuthenticationError"
        r"|AuthenticationFailed|AuthenticationException|Authentication failed|error_perm: 530|\b401\b",
        "it does not accept your credentials",
        "check {credentials}",
    ),
    _rule(
        r"NoSuchBucket|bucket does not exist|ContainerNotFound|container does not exist|PutObject operation: Not Found",
        "there is no such bucket",
        "create it, or check {endpoint}{location}",
    ),
    _rule(
        r"AccessDenied|Access Denied|\(403\)|Forbidden|AuthorizationFailure|AuthorizationPermissionMismatch|error_perm",
        "your credentials may not do this there",
        f"{ASK_ADMINISTRATOR}, or check {{credentials}}",
    ),
    _rule(
        "PermanentRedirect|IllegalLocationConstraint|AuthorizationHeaderMalformed|NoRegionError|must specify a region",
        "it is in another region",
        "set AWS_DEFAULT_REGION",
    ),
    _rule(
        "InvalidBucketName|Invalid bucket name|ParamValidationError|Invalid endpoint|InvalidURI|InvalidResourceName",
        "its address is wrong",
        "check {endpoint}{location}",
    ),
    _rule(
        "HostKeysException|No hostkey for host|SSHException|BadHostKeyException",
        "its host key is not known",
        "check {credentials}",
    ),
    _rule(
        "SSL validation failed|CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER",
        "there is no secure connection to it",
        "check {endpoint}AWS_CA_BUNDLE, or MLFLOW_S3_IGNORE_TLS",
    ),
    _rule(
        "EndpointConnectionError|Could not connect to the endpoint|ConnectTimeout|ReadTimeout|ConnectionClosedError"
        "|connect timeout|read timeout|TransportError|ServiceRequestError|NoValidConnectionsError|Unable to connect to"
        "|Connection was closed|ProxyConnectionError",
        "nothing answers there",
        f"{RUN_AGAIN}, or check {{endpoint}}{{location}}",
        is_outage=True,
    ),
    _rule(
        r"SlowDown|ServiceUnavailable|InternalError|RequestTimeout|TooManyRequests|ServerBusy|\((?:500|502|503|504)\)",
        "it cannot do it now",
        RUN_AGAIN,
        is_outage=True,
    ),
)
OWN_FOLDER = re.compile("/(?:models/m-)?[0-9a-f]{32}/artifacts/?$")  # of a run or a model, below the experiment's
MISSING_FILE = re.compile(r"NoSuchKey|BlobNotFound|\b404\b|HeadObject operation: Not Found|No such file", re.IGNORECASE)


class ArtifactError(MlflowException):
    """The artifact store did not take or give a file.

    Attributes
    ----------
    failure : why, with the address.
    is_general : whether the store refuses every file, and not only this one.
    """

    def __init__(self, failure: Failure, *, is_general: bool) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.is_general = is_general


def explain_artifact_text(address: str, text: str) -> Failure | None:
    """Return what the text of an exception tells about the artifact store at ``address``; None if it tells nothing."""
    if MISSING_FILE.search(text) and not re.search("bucket", text, re.IGNORECASE):
        return None
    for rule in RULES:
        if rule.pattern.search(text):
            reason = f"{describe_artifact_store(address)}: {rule.reason}"
            return Failure(rule.is_outage, reason, _complete_advice(rule.advice, address))
    return None


def explain_missing_package(address: str, error: ImportError) -> Failure:
    """Return what to install: MLflow imports the library of an artifact store when it is needed."""
    module = (error.name or str(error)).partition(".")[0]
    install = PACKAGES.get(module, module)
    reason = f"{describe_artifact_store(address)}: the package {module}, which reaches it, is not installed"
    return Failure(is_outage=False, reason=reason, advice=f"run: pip install {install}")


def describe_artifact_store(address: str) -> str:
    """Return the beginning of a sentence with the address of the artifact store, without credentials.

    It is the location of the experiment, with the endpoint if the environment names one.
    """
    variable = ENDPOINTS.get(_kind(address), "")
    endpoint = os.environ.get(variable, "") if variable else ""
    location = OWN_FOLDER.sub("", address)
    place = redact_address(location) if "://" in location else redact(location)
    return f"cannot use the artifact store {place}" + (f" at {redact_address(endpoint)}" if endpoint else "")


def _complete_advice(advice: str, address: str) -> str:
    kind = _kind(address)
    endpoint = ENDPOINTS.get(kind, "")
    return advice.format(
        credentials=CREDENTIALS.get(kind, "its credentials"),
        endpoint=f"{endpoint}, " if endpoint else "",
        location=LOCATION,
    )


def _kind(address: str) -> str:
    return SCHEMES.get(address.partition(":")[0], "")
