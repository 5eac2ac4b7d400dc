"""One call to Kinesis from bytes to bytes.

botocore signs it and sends it over its own connections, with its credentials, proxy and CA settings. Left out are its
serializer, its parser and its hooks, which take longer than everything else when a response has thousands of records.
"""

from __future__ import annotations

from typing import Any

import urllib3.exceptions
from botocore import exceptions as boto_errors
from botocore.awsrequest import AWSRequest, AWSResponse

from kinesis_nb.errors import MalformedResponse
from kinesis_nb.wire.naming import is_arn, named

_OK = 200
_AGAIN = "it can be requested again; a proxy on the way may have changed it"


class RawCalls:
    """Calls of one botocore client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._url = f"{client.meta.endpoint_url}/"
        self._model = client.meta.service_model
        self._headers = {
            "Content-Type": f"application/x-amz-json-{self._model.metadata['jsonVersion']}",
            "User-Agent": client.meta.config.user_agent,
        }

    def post(self, operation: str, body: bytes, stream: str) -> tuple[bytes, str | None]:
        """Send one request.

        Parameters
        ----------
        operation
            The client's method, for example ``"get_records"``.
        stream
            What names the stream: an ARN moves the call to a host of its account.

        Returns
        -------
        tuple of bytes and str or None
            The body of the response, and its Date header.

        Raises
        ------
        botocore.exceptions.ClientError
            When the service refuses.
        botocore.exceptions.BotoCoreError
            When the response is incomplete.
        """
        action = self._client.meta.method_to_api_mapping[operation]
        headers = {**self._headers, "X-Amz-Target": f"{self._model.metadata['targetPrefix']}.{action}"}
        request = AWSRequest("POST", self._url_for(action, stream), headers, body, stream_output=True)
        self._client._request_signer.sign(action, request)  # noqa: SLF001 - the one that the client itself calls
        response = self._client._endpoint.http_session.send(request.prepare())  # noqa: SLF001 - as above
        try:
            content: bytes = response.raw.read()
        except urllib3.exceptions.HTTPError as error:
            raise boto_errors.HTTPClientError(error=error) from error
        if (coding := response.headers.get("content-encoding", "identity")) != "identity":
            # it was not requested, and may decompress to any size
            raise MalformedResponse(f"{action}: a response in the form {coding}", hint=_AGAIN, retryable=True)
        if response.status_code != _OK:
            raise self._refusal(action, response, content)
        return content, response.headers.get("date")

    def _url_for(self, action: str, stream: str) -> str:
        if not is_arn(stream):
            return self._url
        resolve = self._client._resolve_endpoint_ruleset  # noqa: SLF001 - as above
        url, _, _ = resolve(self._model.operation_model(action), named(stream), {})
        return f"{url}/"

    def _refusal(self, action: str, response: AWSResponse, content: bytes) -> boto_errors.ClientError:
        parsed = self._client._response_parser.parse(  # noqa: SLF001 - as above
            {"headers": response.headers, "status_code": response.status_code, "body": content},
            self._model.operation_model(action).output_shape,
        )
        return boto_errors.ClientError(parsed, action)
