"""Who asks: the ways to sign in to AWS, and :class:`Secret`. Values only; nothing is sent."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import NoReturn

from kinesis_nb.errors import ConfigError, forgetful

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)  # AWS STS: RoleSessionName
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)  # AWS STS: ExternalId
_DURATION = range(900, 43_200 + 1)  # seconds; AWS STS: DurationSeconds


class Secret:
    """A text that does not show itself: not in a repr, a format, a log, JSON, a pickle or a copy.

    Examples
    --------
    >>> Secret("hunter2")
    Secret('********')
    >>> f"{Secret('hunter2')}"
    '********'
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise ConfigError(f"a secret is text, not this {type(value).__name__}", hint="give a str")
        self._value = value

    def reveal(self) -> str:
        """Return the text itself; for the signer only."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('********')"

    def __str__(self) -> str:
        return "********"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __reduce__(self) -> NoReturn:
        msg = "a Secret cannot be pickled or copied"
        raise TypeError(msg)


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """An access key of AWS, given here and now; the connector's "Static Credentials".

    Nothing else is looked up: neither the environment nor the files of the AWS configuration.

    Parameters
    ----------
    access_key_id
        Not secret by itself.
    secret_access_key, session_token
        Text or :class:`Secret`; kept as Secret.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> keys = kn.StaticCredentials("emulator", "emulator")
    >>> kn.connect(region="us-east-1", auth=keys, endpoint_url="http://127.0.0.1:4567")
    <Source us-east-1 at http://127.0.0.1:4567, static credentials 'emulator'>
    """

    access_key_id: str
    secret_access_key: Secret = field()
    session_token: Secret | None = None

    @forgetful
    def __init__(
        self, access_key_id: str, secret_access_key: str | Secret, session_token: str | Secret | None = None
    ) -> None:
        secret = as_secret("secret_access_key", secret_access_key)
        if (isinstance(access_key_id, str) and not access_key_id) or not secret:
            msg = "static credentials need an access key id and a secret access key"
            raise ConfigError(msg, hint="leave auth out to use the credentials of your environment")
        if not isinstance(access_key_id, str) or not access_key_id.isascii() or not access_key_id.isprintable():
            # the value itself may be a secret in the wrong place
            raise ConfigError("this is not a valid access key id", hint='it looks like "AKIA..." or "ASIA..."')
        object.__setattr__(self, "access_key_id", access_key_id)
        object.__setattr__(self, "secret_access_key", secret)
        token = None if session_token is None else as_secret("session_token", session_token)
        object.__setattr__(self, "session_token", token or None)

    def __str__(self) -> str:
        return f"static credentials {self.access_key_id!r}"


@dataclass(frozen=True, slots=True)
class AwsInstance:
    """The role of the container or the instance that the work runs on; the connector's "AWS Instance".

    Only their metadata services are asked (ECS and EKS containers; EC2 with IMDSv2), never the environment's keys or
    the files of the AWS configuration. For connections through agents: on a direct connection leave ``auth`` out.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> kn.connect(region="eu-central-1", auth=kn.AwsInstance(), agents="tls://scheduler:8786")
    <Source eu-central-1, the role of the instance, agents at tls://scheduler:8786>
    """

    def __str__(self) -> str:
        return "the role of the instance"


@dataclass(frozen=True, slots=True)
class Profile:
    """A named profile of the AWS configuration (SSO and role profiles included).

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> kn.connect(region="eu-central-1", auth=kn.Profile("dev"))
    <Source eu-central-1, profile 'dev'>
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError("a profile has a name", hint="`aws configure list-profiles` shows the profiles")

    def __str__(self) -> str:
        return f"profile {self.name!r}"


Auth = StaticCredentials | AwsInstance | Profile | None
"""None stands for boto3's default credential chain."""


@dataclass(frozen=True, slots=True)
class StsRole:
    """A role that is assumed before anything else is asked, and assumed again before its credentials expire.

    Parameters
    ----------
    role_arn
        ``arn:aws:iam::<account>:role/<path and name>``.
    session_name
        Shows up in the account's logs; 2 to 64 letters, digits and ``_+=,.@-``.
    duration
        How long the role's credentials last, in seconds: 900 to 43,200, and at most what the role allows.
    external_id
        What the role's trust policy may demand of a third party; 2 to 1,224 letters, digits and ``_+=,.@:/-``.

    Raises
    ------
    ConfigError
        For what STS would refuse.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> role = kn.StsRole("arn:aws:iam::123456789012:role/reader", "my-notebook")
    >>> kn.connect(region="eu-central-1", sts_role=role)
    <Source eu-central-1, default credentials, role arn:aws:iam::123456789012:role/reader>
    """

    role_arn: str
    session_name: str
    duration: int = 900
    external_id: str | None = None

    def __post_init__(self) -> None:
        _check_text("role_arn", self.role_arn)
        _check_text("session_name", self.session_name)
        if type(self.duration) is not int or self.duration not in _DURATION:
            raise ConfigError(
                f"duration: {self.duration!r} is not how long a role can last",
                hint=f"give whole seconds from {_DURATION[0]} to {_DURATION[-1]}; 900 is the default",
            )
        if self.external_id is not None:
            _check_text("external_id", self.external_id)

    def __str__(self) -> str:
        return f"role {self.role_arn}"


_TEXTS = {
    "role_arn": (_ROLE, "is not the ARN of a role", "it looks like arn:aws:iam::123456789012:role/reader"),
    "session_name": (
        _SESSION_NAME,
        "cannot name a session",
        "2 to 64 letters, digits and _+=,.@-, without spaces",
    ),
    "external_id": (
        _EXTERNAL_ID,
        "is not a valid external id",
        "2 to 1,224 letters, digits and _+=,.@:/-; leave it out when the role asks for none",
    ),
}


def _check_text(name: str, value: object) -> None:
    form, what, hint = _TEXTS[name]
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ConfigError(f"{name}: {value!r} {what}", hint=hint)


def as_secret(name: str, value: object) -> Secret:
    """Return a text as Secret; anything else is refused without being shown."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigError(f"{name} takes text, no {type(value).__name__}", hint=f"give {name} as a str or a Secret")
    if value != value.strip() or not value.isascii() or not value.isprintable():
        raise ConfigError(
            f"{name} has a space, a line break or a letter that no key has",
            hint="copy it again, without what is around",
        )
    return Secret(value)
