"""Networking of a source: how a client of botocore reaches Kinesis and STS, and no other host."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import botocore.loaders
import botocore.session
from botocore import exceptions as boto_errors
from botocore.config import Config

from kinesis_nb.access.config import SourceConfig, check_endpoint, masked
from kinesis_nb.access.credentials import Profile
from kinesis_nb.errors import closest, forgetful, warn
from kinesis_nb.service.credentials import NOT_WHOLE, Renewable, assume, sign_in, signed
from kinesis_nb.service.deadline import RESPONSE_SECONDS, set_deadlines
from kinesis_nb.service.redact import install
from kinesis_nb.service.translate import translate_local

if TYPE_CHECKING:
    from kinesis_nb.core.transport import Clock

CONNECT_SECONDS = 5
POOL = 256  # idle connections that are kept; a call that finds none makes one

# botocore's sessions would each read their JSON again: 25 ms for a client instead of 200
_models = functools.cache(botocore.loaders.create_loader)


def make_credentials(config: SourceConfig, clock: Clock) -> Renewable:
    """Return what the calls of a source are signed with: who signs in, through the role if there is one."""
    base = sign_in(config.auth, config.region, clock)
    if config.sts_role is None:
        return base
    sts = make_client(config, base, "sts")
    set_deadlines(sts)
    return assume(config.sts_role, base, sts, clock, config.proxy)


@forgetful  # `settings` hold the password of the proxy
def make_client(config: SourceConfig, credentials: Renewable, service: str = "kinesis") -> Any:
    """Return botocore's client for ``"kinesis"`` or ``"sts"``."""
    install()
    endpoint = config.endpoint_url if service == "kinesis" else config.sts_endpoint_url
    settings = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=RESPONSE_SECONDS,
        max_pool_connections=POOL,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1},  # ours is the only retry loop; botocore's would repeat PutRecords unseen
        proxies=dict.fromkeys(("http", "https"), config.proxy.reveal()) if config.proxy else None,
        # a configured endpoint counts only where the user points to the configuration
        ignore_configured_endpoint_urls=not isinstance(config.auth, Profile),
        use_fips_endpoint=config.use_fips_endpoint,
        use_dualstack_endpoint=config.use_dualstack_endpoint,
    )
    try:
        session = botocore.session.Session(profile=config.auth.name if isinstance(config.auth, Profile) else None)
        session.register_component("data_loader", _models())
        session.set_config_variable("sts_regional_endpoints", "regional")  # not the global sts.amazonaws.com
        session.register_component("credential_provider", _Given(credentials))
        if service == "kinesis" and config.endpoint_url is None:
            _warn_of_region(session, config.region)
        client = session.create_client(
            service,
            region_name=config.region,
            endpoint_url=endpoint,
            verify=None if config.verify is True else config.verify,  # None: AWS_CA_BUNDLE counts
            config=settings,
        )
    except boto_errors.BotoCoreError as error:
        failed = translate_local(error, "connect")
    else:
        check_endpoint("the configured endpoint_url", client.meta.endpoint_url, allow_http=config.allow_http)
        return client
    raise failed  # without what led to it, which may quote the address of the proxy


def configured_region(profile: str | None) -> str:
    """Return the region of a profile of the AWS configuration, None for the one that is used by default; or ``""``."""
    try:
        return str(botocore.session.Session(profile=profile).get_scoped_config().get("region", ""))
    except boto_errors.BotoCoreError:  # no such profile, or a file that cannot be read: the first call says so
        return ""


def configured_endpoint(profile: str) -> str:
    """Return where botocore sends a client of Kinesis that is of a profile, without a password; ``""`` is AWS."""
    try:
        session = botocore.session.Session(profile=profile)
        scoped = session.get_scoped_config()
        services = session.full_config.get("services", {}).get(scoped.get("services", ""), {})
    except boto_errors.BotoCoreError:
        return ""
    of_kinesis = services.get("kinesis", {})
    found = (
        os.environ.get("AWS_ENDPOINT_URL_KINESIS"),
        os.environ.get("AWS_ENDPOINT_URL"),
        of_kinesis.get("endpoint_url") if isinstance(of_kinesis, dict) else None,
        scoped.get("endpoint_url"),
    )
    return masked(next((url for url in found if url), ""))


def _warn_of_region(session: botocore.session.Session, region: str) -> None:
    """Ask about a region that botocore does not know: it may be new, and it may be mistyped."""
    known = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("kinesis", partition)
    ]
    if region not in known:
        meant = closest(region, known)
        warn(
            f"boto3 does not know the region {region!r}; requests go there all the same{f'; {meant}' if meant else ''}"
        )


def is_aws(config: SourceConfig) -> bool:
    """Return whether the endpoint is Amazon's own, a VPC endpoint included."""
    host = urlsplit(config.endpoint_url or "").hostname or ""
    return config.endpoint_url is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def caller_arn(config: SourceConfig, credentials: Renewable) -> str | None:
    """Return the ARN of the caller, as STS says; needs no permission. None without an STS."""
    if not is_aws(config) and config.sts_endpoint_url is None:
        return None
    sts = make_client(config, credentials, "sts")
    set_deadlines(sts)
    try:
        return str(signed(credentials, sts.get_caller_identity)["Arn"])
    except (boto_errors.BotoCoreError, boto_errors.ClientError, *NOT_WHOLE):
        return None
    finally:
        sts.close()


class _Given:
    """Gives botocore's session the credentials that we hold."""

    def __init__(self, credentials: Renewable) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Renewable:
        return self._credentials
