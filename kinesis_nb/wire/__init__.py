"""Bytes of the Kinesis API <-> columns. Nothing here imports botocore."""
