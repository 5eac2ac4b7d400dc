"""The names of the options that lead polars and deltalake to S3; one that is misspelt would be ignored by both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.errors import ConfigError, closest

if TYPE_CHECKING:
    from collections.abc import Iterable

_KNOWN = frozenset(
    """
    access_key_id allow_http allow_invalid_certificates bucket bucket_name bucket_region_name checksum_algorithm
    conditional_put connect_timeout container_authorization_token_file container_credentials_full_uri
    container_credentials_relative_uri copy_if_not_exists default_region disable_tagging endpoint endpoint_url
    endpoint_url_s3 endpoint_url_sts imdsv1_fallback max_retries metadata_endpoint pool_idle_timeout
    pool_max_idle_per_host profile proxy_ca_certificate proxy_excludes proxy_url read_timeout region request_payer
    retry_timeout role_arn role_session_name s3_allow_unsafe_rename s3_express s3_locking_provider secret_access_key
    server_side_encryption session_token skip_signature sse_bucket_key_enabled sse_customer_key_base64 sse_kms_key_id
    timeout token unsigned_payload user_agent virtual_hosted_style_request web_identity_token_file
    """.split()  # noqa: SIM905 - fifty names read better as a paragraph
)


def check_option_names(names: Iterable[str]) -> None:
    """Raise ConfigError for a name that is nearly a known one; the libraries may know others that we do not.

    Parameters
    ----------
    names
        In small letters, without ``aws_``.
    """
    for name in names:
        if name not in _KNOWN and (meant := closest(name, _KNOWN, 0.8)):
            raise ConfigError(f"storage_options= has no option {name!r}", hint=meant)
