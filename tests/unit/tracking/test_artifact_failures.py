"""What the libraries of artifact stores say, as MLflow passes it on; no test can have all these services."""

import pytest
from mlflow.exceptions import MlflowException

from pipeline.tracking.artifact_failures import ArtifactError, explain_artifact_text
from pipeline.tracking.artifact_store import explain_artifact_errors, is_refused
from pipeline.tracking.failures import explain_failure

CALL = "An error occurred ({}) when calling the {} operation: no"


@pytest.mark.parametrize(
    ("address", "text", "outage", "reason"),
    [
        ("s3://b/x", CALL.format("InvalidAccessKeyId", "PutObject"), False, "it does not accept your credentials"),
        ("s3://b/x", CALL.format("SignatureDoesNotMatch", "GetObject"), False, "it does not accept your credentials"),
        ("s3://b/x", CALL.format("ExpiredToken", "PutObject"), False, "it does not accept your credentials"),
        ("s3://b/x", CALL.format("AccessDenied", "PutObject"), False, "your credentials may not do this there"),
        ("s3://b/x", CALL.format("PermanentRedirect", "PutObject"), False, "it is in another region"),
        ("s3://b/x", CALL.format("SlowDown", "PutObject"), True, "it cannot do it now"),
        ("s3://b/x", "ValueError: Invalid endpoint: 127.0.0.1:9000", False, "its address is wrong"),
        ("s3://b/x", "SSL validation failed for https://h [SSL: X]", False, "there is no secure connection to it"),
        ("s3://b/x", 'Connect timeout on endpoint URL: "http://h/b"', True, "nothing answers there"),
        ("gs://b/x", "DefaultCredentialsError: Your default credentials were not found", False, "has no credentials"),
        ("gs://b/x", "Forbidden: 403 POST https://storage.googleapis.com: no", False, "may not do this there"),
        ("gs://b/x", "NotFound: 404 The specified bucket does not exist.", False, "there is no such bucket"),
        ("wasbs://c@a/x", "Exception: environment variables AZURE_STORAGE_CONNECTION_STRING", False, "no credentials"),
        ("wasbs://c@a/x", "ResourceNotFoundError: ErrorCode:ContainerNotFound", False, "there is no such bucket"),
        ("wasbs://c@a/x", "ServiceRequestError: Cannot connect", True, "nothing answers there"),
        ("sftp://h/x", "AuthenticationException: Authentication failed.", False, "it does not accept your credentials"),
        ("sftp://h/x", "SSHException: No hostkey for host h found.", False, "its host key is not known"),
        ("ftp://h/x", "error_perm: 530 Login incorrect.", False, "it does not accept your credentials"),
    ],
)
def test_refusal_of_an_artifact_store_is_known(address: str, text: str, outage: bool, reason: str) -> None:
    failure = explain_artifact_text(address, text)
    assert failure is not None
    assert failure.is_outage == outage
    assert reason in failure.reason
    assert "{" not in failure.reason + failure.advice


@pytest.mark.parametrize("text", [CALL.format("NoSuchKey", "GetObject"), "404 GET https://h/o/a.txt: no", "weights"])
def test_missing_file_is_no_refusal_of_the_store(text: str) -> None:
    assert explain_artifact_text("s3://b/x", text) is None


def test_unknown_exception_of_a_library_is_one_line() -> None:
    with pytest.raises(ArtifactError) as error, explain_artifact_errors(lambda: "gs://b/x", writes=True):
        raise RuntimeError("the library\nbroke")
    assert not is_refused(error.value)
    assert explain_failure(error.value).reason == "cannot use the artifact store gs://b/x: the library"


def test_swallowed_reason_of_a_download_is_found() -> None:
    text = (
        "The following failures occurred while downloading one or more artifacts from s3://b/x:\n##### File a #####\n"
    )
    with pytest.raises(ArtifactError) as error, explain_artifact_errors(lambda: "s3://b/x", writes=False):
        raise MlflowException(text + "Unable to locate credentials")
    assert is_refused(error.value)


def test_address_has_no_password() -> None:
    failure = explain_artifact_text("sftp://me:secret@host/x", "Authentication failed")
    assert failure is not None
    assert "sftp://host/x" in failure.reason
    assert "secret" not in failure.reason
