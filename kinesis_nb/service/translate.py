"""The one place where an error of AWS, or of the way there, becomes ours."""

from __future__ import annotations

from botocore import exceptions as boto_errors

from kinesis_nb.errors import (
    AccessDenied,
    ConfigError,
    CredentialsError,
    InvalidRequest,
    IteratorExpired,
    KeyUnavailable,
    KinesisError,
    PositionTrimmed,
    ServiceError,
    StreamNotFound,
    Throttled,
)

_THROTTLES = {
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "SlowDown",
    "KMSThrottlingException",
    "429",
}
_FAILURES = {
    "ExpiredNextTokenException",  # a listing took longer than its token lives; the next one starts over
    "ResourceInUseException",  # the stream is being created or changed
    "InternalFailure",
    "InternalFailureException",
    "InternalServerError",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}
_INVALID = {"InvalidArgumentException", "ValidationException", "SerializationException"}
_BLOCKED_KEYS = {
    "KMSDisabledException": "is disabled",
    "KMSInvalidStateException": "is in a state in which it cannot be used",
    "KMSNotFoundException": "was not found",
    "KMSAccessDeniedException": "may not be used with these credentials",
}
_BAD_CREDENTIALS = {
    "ExpiredTokenException": "the credentials have expired",
    "ExpiredToken": "the credentials have expired",
    "RequestExpired": "the credentials have expired",
    "UnrecognizedClientException": "AWS does not know this access key",
    "InvalidClientTokenId": "AWS does not know this access key",
    "MissingAuthenticationTokenException": "the request carried no credentials",
    "InvalidSignatureException": "the signature does not match: the secret is wrong, or this machine's clock is",
    "SignatureDoesNotMatch": "the signature does not match: the secret is wrong, or this machine's clock is",
    "IncompleteSignature": "the signature is incomplete",
    "IncompleteSignatureException": "the signature is incomplete",
}


def translate(error: Exception, operation: str, stream: str = "", region: str = "") -> KinesisError:
    """Turn an exception of botocore into ours: by error code, never by exception class.

    Parameters
    ----------
    operation
        The client's method, for example ``"get_records"``.
    """
    action = "".join(word.title() for word in operation.split("_"))
    if not isinstance(error, boto_errors.ClientError):
        return translate_local(error, action)
    detail = error.response.get("Error", {})
    code, message = str(detail.get("Code", "")), str(detail.get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{action}: {code}: {message}" if message else f"{action}: {code}"
    match code:
        case "ExpiredIteratorException":
            return IteratorExpired(said, retryable=True)
        case "InvalidArgumentException" if operation in {"get_records", "get_shard_iterator"}:
            return _refused_place(said, operation)
        case "ResourceNotFoundException":
            return StreamNotFound(f"no stream {stream!r} in {region}" if stream else said)
        case "AccessDeniedException" | "AccessDenied":
            return AccessDenied(said, hint=f"the policy must allow kinesis:{action}")
        case _ if code in _THROTTLES:
            return Throttled(said, retryable=True)
        case _ if code in _BLOCKED_KEYS:
            why = f"the key that the stream is encrypted with {_BLOCKED_KEYS[code]}: {message}"
            return KeyUnavailable(why, hint="mend the key before the stream's retention ends", retryable=True)
        case _ if code in _BAD_CREDENTIALS:
            return CredentialsError(f"{_BAD_CREDENTIALS[code]} ({said})", hint="check auth= of connect()")
        case _ if code in _FAILURES or status >= 500:  # noqa: PLR2004 - HTTP
            return ServiceError(said, retryable=True)
        case _:
            return _refused(said, operation, code, status)


def _refused(said: str, operation: str, code: str, status: int) -> KinesisError:
    """Tell records that the service will never take from other refusals."""
    is_about_records = operation == "put_records" and (code in _INVALID or status == 413)  # noqa: PLR2004 - HTTP
    return InvalidRequest(said) if is_about_records else ServiceError(said)


def _refused_place(said: str, operation: str) -> KinesisError:
    """Tell an iterator from a sequence number, and one of another stream from one whose record is not kept any more."""
    if operation == "get_records":
        return IteratorExpired(said)
    if "SequenceNumber" not in said:
        return ServiceError(said)
    if "did not come from this stream" in said or "encodes shardId" in said:
        return ServiceError(said, hint="the position is of another stream, or of an earlier one of the same name")
    return PositionTrimmed(said)


def translate_local(error: Exception, action: str) -> KinesisError:
    """Translate what botocore raised by itself, without an answer of the service."""
    match error:
        case boto_errors.NoCredentialsError() | boto_errors.PartialCredentialsError():
            return CredentialsError(
                "no AWS credentials were found", hint="pass auth=StaticCredentials(...) or auth=Profile(...), or log in"
            )
        case boto_errors.ProfileNotFound():
            return ConfigError(str(error), hint="`aws configure list-profiles` shows the profiles")
        case (
            boto_errors.CredentialRetrievalError() | boto_errors.TokenRetrievalError() | boto_errors.SSOTokenLoadError()
        ):
            return CredentialsError(str(error), hint="log in again, for example with `aws sso login`")
        case boto_errors.SSLError():
            return ServiceError(f"{action}: {error}", hint="pass verify= with the path of your CA bundle")
        case boto_errors.ParamValidationError() | boto_errors.InvalidRegionError():
            return ConfigError(" ".join(str(error).split()))
        case boto_errors.HTTPClientError() | boto_errors.ConnectionError():
            return ServiceError(f"{action}: {error}", retryable=True)
        case _:
            return ServiceError(f"{action}: {error}")
