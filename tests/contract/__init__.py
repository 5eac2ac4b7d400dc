"""One set of promises, kept by every server that claims to be Kinesis."""
