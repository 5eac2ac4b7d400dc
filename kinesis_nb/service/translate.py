"""The one place where an error of AWS, or of the way there, becomes ours."""

from __future__ import annotations

import email.utils
import json
import re
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from botocore import exceptions as boto_errors
from urllib3.exceptions import LocationValueError

from kinesis_nb.access.config import Proxy, is_loopback, masked
from kinesis_nb.access.permissions import full_name, statement
from kinesis_nb.errors import (
    AccessDenied,
    ConfigError,
    CredentialsError,
    InvalidRequest,
    IteratorExpired,
    KeyUnavailable,
    KinesisError,
    NotListening,
    PositionTrimmed,
    ServiceError,
    StreamNotFound,
    Throttled,
    forget_frames,
)
from kinesis_nb.wire.naming import is_arn

_THROTTLES = {
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "ThrottlingException",
    "ThrottledException",
    "Throttling",
    "RequestThrottledException",
    "RequestThrottled",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "SlowDown",
    "KMSThrottlingException",
}
_TOO_MANY = 429  # HTTP; with any code, or none
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
_EXPIRED = "the credentials have expired"
_UNKNOWN_KEY = "AWS does not know this access key"
_WRONG_SECRET = "the secret access key does not belong to the access key id"  # noqa: S105 - a message
_BAD_CREDENTIALS = {
    "ExpiredTokenException": (_EXPIRED, "log in again, or give auth= fresh credentials"),
    "ExpiredToken": (_EXPIRED, "log in again, or give auth= fresh credentials"),
    "RequestExpired": (_EXPIRED, "log in again, or give auth= fresh credentials"),
    "UnrecognizedClientException": (_UNKNOWN_KEY, "check the access key id; a temporary key needs its session token"),
    "InvalidClientTokenId": (_UNKNOWN_KEY, "check the access key id; a temporary key needs its session token"),
    "MissingAuthenticationTokenException": ("the request carried no credentials", "check auth= of connect()"),
    "InvalidSignatureException": (_WRONG_SECRET, "copy the secret access key again, whole and without spaces"),
    "SignatureDoesNotMatch": (_WRONG_SECRET, "copy the secret access key again, whole and without spaces"),
    "RequestTimeTooSkewed": ("AWS and this machine do not agree on the time", "set this machine's clock"),
    "IncompleteSignature": ("the signature is incomplete", "look for a proxy that changes headers on the way"),
    "IncompleteSignatureException": ("the signature is incomplete", "look for a proxy that changes headers on the way"),
}
RENEWABLE = {
    "ExpiredTokenException",
    "ExpiredToken",
    "RequestExpired",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
}
_OF_WEB_SERVERS = {"400", "404", "405", "415", "501"}  # a status alone, where Kinesis has a code
_NOT_KINESIS = "is this a Kinesis? what responds is another server: look at the host and the port of endpoint_url="
_SIGNATURE = {"InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", *RENEWABLE}
_SKEW = timedelta(minutes=4)  # AWS takes signatures that are 5 minutes off
_NOT_OPTED_IN = {"OptInRequired", "KMSOptInRequired", "SubscriptionRequiredException"}
_DENIED = {"AccessDeniedException", "AccessDenied"}
_ARN = re.compile(r"on resource: (arn:[^\s\"]+)")
_XML_CODE = re.compile(r"<Code>(\w+)</Code>", re.ASCII)
_PLAIN_HTTP = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_TRUST_FIRST = "the trust policy of the role must name the caller, and its external id if it asks for one"
_CALLER = re.compile(r"User: (arn:\S+)")


@dataclass(frozen=True, slots=True)
class FailedCall:
    """The call that failed.

    Attributes
    ----------
    operation
        The client's method, for example ``"get_records"``.
    resource
        The ARN that was asked for, where it is known.
    proxy
        That of the source; None for the environment's.
    """

    operation: str
    stream: str = ""
    region: str = ""
    resource: str = ""
    proxy: Proxy | None = None

    @property
    def action(self) -> str:
        """The operation as policies name it."""
        return "".join(word.title() for word in self.operation.split("_"))


def translate(error: Exception, call: FailedCall, now: datetime | None = None) -> KinesisError:
    """Turn an exception of botocore into ours: by error code, never by exception class.

    The frames in its traceback hold what was signed with, so the traceback is dropped.

    Parameters
    ----------
    now
        The time by this machine, to be compared with the response's; None skips the comparison.
    """
    forget_frames(error)
    if not isinstance(error, boto_errors.ClientError):
        return translate_local(error, call.action, call.proxy)
    translated = _translate_refusal(error, call, now)
    translated.code = _code(error)
    return translated


def _translate_refusal(error: boto_errors.ClientError, call: FailedCall, now: datetime | None) -> KinesisError:
    action, code = call.action, _code(error)
    if code in _DENIED:
        message = str(error.response.get("Error", {}).get("Message", ""))
        return _denied(action, message, call.resource or _arn(action, call, message))
    if code in _BAD_CREDENTIALS:
        return _bad_credentials(error, action, now)
    if code == "407":
        return _proxy_wants_login(action, call.proxy)
    return _refused(error, action, f"no stream {call.stream!r} in {call.region}" if call.stream else "")


def _refused(error: boto_errors.ClientError, action: str, no_stream: str) -> KinesisError:
    code, message = _code(error), str(error.response.get("Error", {}).get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{action}: {code}: {message}" if message else f"{action}: {code}"
    match code:
        case "ExpiredIteratorException":
            return IteratorExpired(said, retryable=True)
        case "InvalidArgumentException" if action in {"GetRecords", "GetShardIterator"}:
            return _refused_place(said, action)
        case "ResourceNotFoundException":
            return StreamNotFound(no_stream or said)
        case _ if code in _THROTTLES or status == _TOO_MANY:
            return Throttled(said, retryable=True)
        case _ if code in _BLOCKED_KEYS:
            why = f"the key that the stream is encrypted with {_BLOCKED_KEYS[code]}: {message}"
            return KeyUnavailable(why, hint="fix the key before the stream's retention ends", retryable=True)
        case "403":  # without a code of AWS
            return ServiceError(
                said, hint="a proxy or a firewall on the way refused it; ask for the host to be allowed"
            )
        case _ if code in _NOT_OPTED_IN:
            return ServiceError(said, hint="this account has not subscribed to the service; sign up in the AWS console")
        case _ if code in _FAILURES or status >= 500:  # noqa: PLR2004 - HTTP
            return ServiceError(said, hint=_whose(code), retryable=True)
        case _:
            return _refused_request(said, action, code, status)


def _whose(code: str) -> str:
    """Return a hint where the refusal cannot be one of Kinesis, which never sends these statuses without a code."""
    return _NOT_KINESIS if code in _OF_WEB_SERVERS else ""


def _refused_request(said: str, action: str, code: str, status: int) -> KinesisError:
    """Tell records that the service will never take from other refusals."""
    is_about_records = action == "PutRecords" and (code in _INVALID or status == 413)  # noqa: PLR2004 - HTTP
    if is_about_records:
        return InvalidRequest(said)
    return ServiceError(said, hint=_whose(code))


def _refused_place(said: str, action: str) -> KinesisError:
    """Tell an iterator from a sequence number, and one of another stream from one whose record is not kept any more."""
    if action == "GetRecords":
        return IteratorExpired(said)
    if "SequenceNumber" not in said:
        return ServiceError(said)
    if "did not come from this stream" in said or "encodes shardId" in said:
        return ServiceError(said, hint="the position is of another stream, or of an earlier one of the same name")
    return PositionTrimmed(said)


def _bad_credentials(error: boto_errors.ClientError, action: str, now: datetime | None) -> CredentialsError:
    code = _code(error)
    skew = _skew(error, now) if code in _SIGNATURE else None
    what, hint = _BAD_CREDENTIALS[code] if skew is None else _wrong_clock(skew)
    return CredentialsError(f"{what} ({action}: {code})", hint=hint)


def translate_local(error: Exception, action: str, proxy: Proxy | None = None) -> KinesisError:
    """Translate what botocore raised by itself, without a response of the service."""
    match error:
        case boto_errors.PartialCredentialsError():
            return CredentialsError(
                f"an access key of the AWS configuration is incomplete: {error.kwargs.get('cred_var')} is missing"
                f" ({error.kwargs.get('provider')})",
                hint="add it, for example with `aws configure`, or give auth= other credentials",
            )
        case boto_errors.NoCredentialsError():
            return CredentialsError(
                "no AWS credentials were found", hint="pass auth=StaticCredentials(...) or auth=Profile(...), or log in"
            )
        case boto_errors.ProfileNotFound():
            return ConfigError(str(error), hint="`aws configure list-profiles` shows the profiles")
        case boto_errors.ConfigParseError() | boto_errors.ConfigNotFound() | boto_errors.InvalidConfigError():
            return ConfigError(masked(_one_line(error)), hint="fix the AWS configuration, ~/.aws/config")
        case (
            boto_errors.CredentialRetrievalError()
            | boto_errors.TokenRetrievalError()
            | boto_errors.SSOError()
            | boto_errors.MetadataRetrievalError()
        ):
            return CredentialsError(masked(_one_line(error)), hint="log in again, for example with `aws sso login`")
        case boto_errors.SSLError():
            return _bad_certificate(error, action)
        case boto_errors.ParamValidationError() | boto_errors.InvalidRegionError():
            return ConfigError(masked(_one_line(error)))
        case boto_errors.HTTPClientError() | boto_errors.ConnectionError():
            return _no_response(error, action, proxy)
        case _:
            return ServiceError(f"{action}: {masked(_one_line(error))}")


def _no_response(
    error: boto_errors.HTTPClientError | boto_errors.ConnectionError, action: str, proxy: Proxy | None
) -> KinesisError:
    """Tell what is between us and the service."""
    is_proxy, why = isinstance(error, boto_errors.ProxyConnectionError), error.kwargs.get("error")
    if is_proxy and "407" in str(why):
        return _proxy_wants_login(action, proxy)
    if is_proxy and " 403 " in str(why):
        return ServiceError(
            f"{action}: proxy {_proxy_used(proxy)} does not let this through (403)",
            hint="ask for the hosts of Kinesis and STS to be allowed, see docs/access.md",
        )
    if isinstance(why, (LocationValueError, UnicodeError)):
        return ConfigError(  # its text quotes a part of the address, which may be one of the password
            f"{action}: the address of the proxy or of the server cannot be used",
            hint="look at HTTPS_PROXY: in a password write / as %2F, ? as %3F, # as %23, % as %25",
        )
    if address := _refusing(error):
        port = urlsplit(address).port
        return NotListening(
            f"{action}: nothing listens at {address}",
            hint=f"start the server, for example `kinesis-nb emulator --port {port}`, or correct endpoint_url=",
            retryable=True,
        )
    way = f" through proxy {_proxy_used(proxy)}" if is_proxy else ""
    hint = "look at the network, and at region= and endpoint_url= of the source"
    return ServiceError(f"{action}{way}: {masked(_one_line(error))}", hint=hint, retryable=True)


def _refusing(error: boto_errors.HTTPClientError | boto_errors.ConnectionError) -> str:
    """Return the address of this machine at which nothing listens; ``""`` for any other error."""
    why = error.kwargs.get("error")
    address = masked(str(error.kwargs.get("endpoint_url", ""))).rstrip("/")
    is_refused = isinstance(error, boto_errors.EndpointConnectionError) and isinstance(
        getattr(why, "__cause__", None), ConnectionRefusedError
    )
    return address if is_refused and is_loopback(urlsplit(address).hostname or "") else ""


def _code(error: boto_errors.ClientError) -> str:
    """Return the service's code; some servers, and AWS's front ends, send it as XML in place of JSON."""
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    found = _XML_CODE.search(str(said.get("Message", ""))) if code.isdecimal() else None
    return found[1] if found else code


def _denied(action: str, message: str, resource: str) -> AccessDenied:
    """Name the action, the resource, who asked, and what would allow it."""
    name = full_name(action)
    caller = f" to {found[1]}" if (found := _CALLER.search(message)) else ""
    by, hint = _denied_by(action, message, json.dumps(statement([action], resource)))
    denied = AccessDenied(f"{name} on {resource} is denied{caller}{by}", hint=hint)
    denied.action = name
    return denied


def _denied_by(action: str, message: str, wanted: str) -> tuple[str, str]:
    """Return which policy denied it, where that is known, and what would allow it."""
    if "VPC endpoint polic" in message:
        return " by the policy of the VPC endpoint", f"add to that policy: {wanted}"
    if "explicit deny" in message:
        where = message.partition("explicit deny in ")[2].rstrip(".") or "a policy"
        return f" by an explicit Deny in {where}", "ask whoever wrote that policy: no Allow outweighs it"
    if "no resource-based polic" in message:
        attach = "that account attaches to the stream what iam_policy(..., cross_account=...) writes"
        return " by the stream's own account", f"{attach}: {wanted}"
    if action == "AssumeRole":
        return "", f"{_TRUST_FIRST}; add to the caller's policy: {wanted}"
    return "", f"add to its policy: {wanted}"


def _arn(action: str, call: FailedCall, message: str) -> str:
    """Return the ARN that was asked for: as AWS names it, else of the caller's account, else of any."""
    if found := _ARN.search(message):
        return found[1]
    if action == "ListStreams":
        return "*"  # has no resource
    if is_arn(call.stream):
        return call.stream
    caller = _CALLER.search(message)
    _, partition, _, _, account, *_ = f"{caller[1]}:::::".split(":") if caller else ("arn", "aws", "", "", "*")
    return f"arn:{partition}:kinesis:{call.region}:{account}:stream/{call.stream or 'NAME-OF-THE-STREAM'}"


def _skew(error: boto_errors.ClientError, now: datetime | None) -> timedelta | None:
    """Return how far this machine's clock is ahead of the response's Date, when that is too far."""
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if now is None or not date:
        return None
    try:
        ahead = now - email.utils.parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        return None
    return ahead if abs(ahead) > _SKEW else None


def _wrong_clock(ahead: timedelta) -> tuple[str, str]:
    minutes = abs(ahead).total_seconds() / 60
    side = "ahead of" if ahead > timedelta(0) else "behind"
    return f"this machine's clock is {minutes:.1f} minutes {side} AWS's", "set the clock; AWS tolerates 5 minutes"


def _bad_certificate(error: boto_errors.SSLError, action: str) -> ServiceError:
    why = masked(_one_line(error))
    if any(sign in why.upper().replace(" ", "_") for sign in _PLAIN_HTTP):
        what = "the server does not speak TLS"
        hint = "if it is a server of plain HTTP, write http:// in endpoint_url=; else look for a proxy on the way"
    elif re.search("mismatch|doesn't match|subjectAltName", why):
        what = "the server's certificate is not of this host"
        hint = "give endpoint_url= the name that stands in the certificate"
    else:
        what = "the server's certificate cannot be trusted"
        hint = "give verify= the path of the CA bundle that signed it, for example your company's"
    return ServiceError(f"{action}: {what} ({why})", hint=hint)


def _proxy_wants_login(action: str, proxy: Proxy | None) -> ServiceError:
    return ServiceError(
        f"{action}: proxy {_proxy_used(proxy)} wants a user and a password (407)",
        hint='give connect() proxy="http://user:password@host:port"',
    )


def _proxy_used(proxy: Proxy | None) -> str:
    """Return the proxy that was used, without its password: ours, or what the environment says."""
    if proxy is not None:
        return str(proxy)
    url = urllib.request.getproxies().get("https", "")
    try:
        return str(Proxy.parse(url if "://" in url else f"http://{url}"))
    except ConfigError:
        return "of the environment"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
