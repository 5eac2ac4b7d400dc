"""Setting up a source: :func:`connect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinesis_nb.access.config import SourceConfig
from kinesis_nb.access.saved import load
from kinesis_nb.core.arguments import default, given, hinted
from kinesis_nb.errors import forgetful
from kinesis_nb.source import Source, default_region

if TYPE_CHECKING:
    from kinesis_nb.access.config import Proxy
    from kinesis_nb.access.credentials import Auth, StsRole


@forgetful
@hinted
def connect(
    name: str | None = None,
    *,
    region: str | None = default(None),
    auth: Auth = default(None),
    sts_role: StsRole | None = default(None),
    exports_enabled: bool = default(value=False),
    endpoint_url: str | None = default(None),
    sts_endpoint_url: str | None = default(None),
    proxy: str | Proxy | None = default(None),
    verify: bool | str = default(value=True),
    use_fips_endpoint: bool | None = default(None),
    use_dualstack_endpoint: bool | None = default(None),
    allow_http: bool = default(value=False),
    agents: Any = default(None),
) -> Source:
    """Describe a source of streams. Nothing is sent before you ask it for something.

    Parameters
    ----------
    name
        A source saved with :meth:`Source.save`; what else is given here overrides what was saved.
    region
        The AWS region. By default that of the profile in `auth`, of ``AWS_REGION``, of ``AWS_DEFAULT_REGION``, or of
        the AWS configuration, in this order; else ``us-east-1``. The source shows which one it is, and why.
    auth
        ``StaticCredentials(...)``, ``Profile("name")``, or None for boto3's default chain.
    sts_role
        A role to assume with these credentials; it is assumed again before it expires.
    exports_enabled
        Whether :meth:`Source.export_df` may write.
    endpoint_url, sts_endpoint_url
        Other servers than AWS's, for example the emulator or a VPC endpoint. ``AWS_ENDPOINT_URL`` and its kin count
        only with ``auth=Profile(...)``: where data goes is said here, not by what happens to be in the environment.
    proxy
        The address of an HTTP proxy, ``http://user:password@host:port``; ``HTTPS_PROXY`` by default.
    verify
        The path of a CA bundle, ``AWS_CA_BUNDLE`` by default; False checks no certificate.
    use_fips_endpoint, use_dualstack_endpoint
        Amazon's FIPS endpoints, or those with IPv6; by default what the AWS configuration says.
    allow_http
        Let an endpoint of another machine be ``http://``, which everybody on the way can read.
    agents
        The address of a Dask scheduler, or a ``distributed.Client``: syncs and streaming exports then run on its
        workers, and go on without this process. By default they run here. A scheduler that this user started on this
        machine with ``kinesis-nb agents`` needs no certificates; any other one does, when the source has secrets.

    Raises
    ------
    ConfigError
        For a value that cannot be right.
    UnknownOption
        For a keyword that does not exist.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> kn.connect(region="eu-central-1")
    <Source eu-central-1, default credentials>
    >>> kn.connect(region="eu-central-1", auth=kn.Profile("dev"), exports_enabled=True)
    <Source eu-central-1, profile 'dev', exports enabled>
    """
    options = given(dict(locals()))
    if (saved := options.pop("name")) is not None:
        options = load(saved, options) | options
    place = ""
    if options.get("region") is None:
        options["region"], place = default_region(options.get("auth"))
    return Source(SourceConfig(**options), region_from=place)
