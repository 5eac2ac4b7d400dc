"""The one error the emulated service raises, and the wordings that several operations share."""

from __future__ import annotations


class AwsError(Exception):
    """An API error as the service would answer it.

    Parameters
    ----------
    code
        The AWS error code, for example ``ResourceNotFoundException``.
    message
        The text a client shows to its user.
    status
        The HTTP status; Kinesis answers nearly every error with 400.
    """

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> AwsError:
    """Return an InvalidArgumentException: the shape was fine, the value was not."""
    return AwsError("InvalidArgumentException", message)


def refused(message: str) -> AwsError:
    """Return a ValidationException: the request does not satisfy the API's shape."""
    return AwsError("ValidationException", message)


def in_use(message: str) -> AwsError:
    """Return a ResourceInUseException."""
    return AwsError("ResourceInUseException", message)


def not_found(message: str) -> AwsError:
    """Return a ResourceNotFoundException."""
    return AwsError("ResourceNotFoundException", message)


def limit_exceeded(message: str) -> AwsError:
    """Return a LimitExceededException."""
    return AwsError("LimitExceededException", message)


def stream_not_found(name: str, account: str) -> AwsError:
    """Return what AWS says about a stream that does not exist."""
    return not_found(f"Stream {name} under account {account} not found.")


def shard_not_found(shard_id: str, stream: str, account: str) -> AwsError:
    """Return what AWS says to readers of a shard that does not exist, or no longer does."""
    return not_found(f"Shard {shard_id} in stream {stream} under account {account} does not exist")


def shard_unknown(shard_id: str, stream: str, account: str) -> AwsError:
    """Return what AWS says to resharding calls, and about ids that cannot be parsed."""
    return not_found(f"Could not find shard {shard_id} in stream {stream} under account {account}.")


def rate_message(shard_id: str, stream: str, account: str) -> str:
    """Return the text of a throttle, for a whole call or for one record of PutRecords."""
    return f"Rate exceeded for shard {shard_id} in stream {stream} under account {account}."


def throttled(shard_id: str, stream: str, account: str) -> AwsError:
    """Return a ProvisionedThroughputExceededException for a whole call."""
    return AwsError("ProvisionedThroughputExceededException", rate_message(shard_id, stream, account))


def dry_run() -> AwsError:
    """Return the answer to an allowed call with DryRun: the error that means yes."""
    return AwsError("DryRunOperationException", "Request would have succeeded, but DryRun flag is set.")
