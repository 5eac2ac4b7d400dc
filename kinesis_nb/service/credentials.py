"""Where credentials come from, how a role is assumed, and how both are renewed in the background."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, TypeVar, cast

import botocore.session
from botocore import exceptions as boto_errors
from botocore.credentials import (
    ContainerProvider,
    CredentialResolver,
    Credentials,
    InstanceMetadataProvider,
    ReadOnlyCredentials,
)
from botocore.parsers import ResponseParserError
from botocore.utils import InstanceMetadataFetcher

from kinesis_nb.access.credentials import Auth, AwsInstance, Profile, StaticCredentials, StsRole
from kinesis_nb.core.halt import acquire, holding
from kinesis_nb.errors import CredentialsError, KinesisError, ServiceError, forget_frames
from kinesis_nb.service.translate import RENEWABLE, FailedCall, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.access.config import Proxy
    from kinesis_nb.core.transport import Clock

T = TypeVar("T")

NOT_WHOLE = (KeyError, ResponseParserError)  # what botocore makes of a page of HTML in place of STS's response
# before they expire, when they are renewed; botocore's 900 would be all of a role's default life
EARLY = timedelta(seconds=300)
LATE = timedelta(seconds=60)  # before they expire, after which they are not used any more
AGAIN = timedelta(seconds=30)  # after a renewal failed while the old ones still hold


@dataclass(frozen=True, slots=True, repr=False)
class Loaded:
    """Credentials, and when they expire; None when they see to that themselves, or never do."""

    credentials: Credentials
    expires_at: datetime | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials cannot be pickled or copied")


class Renewable(Credentials):  # type: ignore[misc]  # botocore has no types
    """What a client signs with, for all its life: loaded when first needed, and again before or when they expire.

    At most one thread loads at a time; the others continue with the old credentials while these are valid.

    Parameters
    ----------
    load
        Returns None when there are none.
    is_fixed
        Loading again would give the same.
    """

    def __init__(self, load: Callable[[], Loaded | None], clock: Clock, *, is_fixed: bool = False) -> None:
        self._load, self._clock, self.is_fixed = load, clock, is_fixed
        self._loading = threading.Lock()  # held while one thread loads
        self._loaded: Loaded | None = None
        self._renew_at: datetime | None = None
        self.method = "kinesis_nb"

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return what to sign with now; botocore's signer calls this for every request."""
        if not self._is_due(EARLY):
            return self._frozen()
        must_wait = self._loaded is None or self._is_due(LATE)
        if must_wait:
            acquire(self._loading)
        if must_wait or self._loading.acquire(blocking=False):
            try:
                if self._is_due(LATE if must_wait else EARLY):
                    self._renew(must_succeed=must_wait)
            finally:
                self._loading.release()
        return self._frozen()

    def renew(self, rejected: str) -> bool:
        """Load again, unless another thread already has; return whether there is anything new to try.

        Parameters
        ----------
        rejected
            The access key id that the service no longer takes.
        """
        if self.is_fixed:
            return False
        with holding(self._loading):
            if self._frozen().access_key == rejected:
                self._renew(must_succeed=True)
        return True

    def _is_due(self, ahead: timedelta) -> bool:
        loaded = self._loaded
        if loaded is None:
            return True
        if loaded.expires_at is None:
            return False
        now = self._clock.now()
        is_postponed = self._renew_at is not None and now < self._renew_at and ahead == EARLY
        return now >= loaded.expires_at - ahead and not is_postponed

    def _renew(self, *, must_succeed: bool) -> None:
        try:
            loaded = self._load()
        except KinesisError:
            if must_succeed:
                raise
            self._renew_at = self._clock.now() + AGAIN
            return
        self._loaded, self._renew_at = loaded, None

    def _frozen(self) -> ReadOnlyCredentials:
        if self._loaded is None:
            raise boto_errors.NoCredentialsError
        return self._loaded.credentials.get_frozen_credentials()

    @property
    def access_key(self) -> str:
        """As botocore's."""
        return str(self.get_frozen_credentials().access_key)

    @property
    def secret_key(self) -> str:
        """As botocore's."""
        return str(self.get_frozen_credentials().secret_key)

    @property
    def token(self) -> str | None:
        """As botocore's."""
        token: str | None = self.get_frozen_credentials().token
        return token

    @property
    def account_id(self) -> str | None:
        """As botocore's."""
        account: str | None = self.get_frozen_credentials().account_id
        return account


def signed(credentials: Renewable, call: Callable[[], T]) -> T:
    """Make a call; when the service no longer takes the credentials, renew them and call once more."""
    try:
        used = credentials.get_frozen_credentials().access_key
        try:
            return call()
        except boto_errors.ClientError as error:
            if error.response.get("Error", {}).get("Code") not in RENEWABLE or not credentials.renew(used):
                raise
        return call()
    except KinesisError as error:  # of STS
        forget_frames(error)
        raise


def sign_in(auth: Auth | AwsInstance, region: str, clock: Clock) -> Renewable:
    """Return the credentials that `auth` describes. They are looked up when first needed."""
    if isinstance(auth, StaticCredentials):
        return Renewable(lambda: Loaded(_static(auth)), clock, is_fixed=True)

    def load() -> Loaded | None:
        # a new session reads files, SSO tokens and metadata again
        session = botocore.session.Session(profile=auth.name if isinstance(auth, Profile) else None)
        session.set_config_variable("region", region)
        if isinstance(auth, AwsInstance):
            session.register_component("credential_provider", _instance_providers(session))
        found = session.get_credentials()
        if found is None and isinstance(auth, Profile):
            hint = f"`aws configure --profile {auth.name}` adds an access key; for SSO `aws configure sso`"
            raise CredentialsError(f"{auth} of the AWS configuration has no credentials", hint=hint)
        return Loaded(found) if found else None

    return Renewable(load, clock)


def assume(role: StsRole, base: Renewable, sts: Any, clock: Clock, proxy: Proxy | None) -> Renewable:
    """Return the credentials of a role.

    Parameters
    ----------
    base
        Who assumes the role.
    sts
        botocore's client, signing with `base`.
    proxy
        The way to STS, for errors.
    """
    external = {"ExternalId": role.external_id} if role.external_id else {}

    def load() -> Loaded:
        failed: KinesisError
        try:
            response = signed(
                base,
                lambda: sts.assume_role(
                    RoleArn=role.role_arn, RoleSessionName=role.session_name, DurationSeconds=role.duration, **external
                ),
            )
            return _loaded(response["Credentials"], role)
        except (boto_errors.BotoCoreError, boto_errors.ClientError) as error:
            failed = translate(error, FailedCall("assume_role", resource=role.role_arn, proxy=proxy), clock.now())
        except NOT_WHOLE:
            hint = "it can be requested again"
            failed = ServiceError("AssumeRole: the response was incomplete", hint=hint, retryable=True)
        raise failed  # without what led to it: it quotes the address of the proxy, or the response with the keys

    return Renewable(load, clock)


class _StsCredentials(TypedDict):
    """As STS gives them."""

    AccessKeyId: str
    SecretAccessKey: str
    SessionToken: str
    Expiration: datetime


def _loaded(given: _StsCredentials, role: StsRole) -> Loaded:
    credentials = Credentials(
        given["AccessKeyId"],
        given["SecretAccessKey"],
        given["SessionToken"],
        method="assume-role",
        account_id=role.role_arn.split(":")[4],
    )
    return Loaded(credentials, given["Expiration"].astimezone(UTC))


def _static(keys: StaticCredentials) -> Credentials:
    token = keys.session_token.reveal() if keys.session_token else None
    return Credentials(keys.access_key_id, keys.secret_access_key.reveal(), token, "explicit")


def _instance_providers(session: botocore.session.Session) -> CredentialResolver:
    """Return the container's and the instance's metadata services, the latter with IMDSv2 alone."""
    setting = cast("Callable[[str], Any]", session.get_config_variable)
    fetcher = InstanceMetadataFetcher(
        timeout=setting("metadata_service_timeout"),
        num_attempts=setting("metadata_service_num_attempts"),
        user_agent=session.user_agent(),
        config={
            "ec2_metadata_service_endpoint": setting("ec2_metadata_service_endpoint"),
            "ec2_metadata_service_endpoint_mode": setting("ec2_metadata_service_endpoint_mode"),
            "ec2_metadata_v1_disabled": True,
        },
    )
    return CredentialResolver([ContainerProvider(), InstanceMetadataProvider(iam_role_fetcher=fetcher)])
