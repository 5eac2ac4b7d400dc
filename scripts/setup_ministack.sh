#!/bin/sh
# Make .ministack, with the server of IAM and STS that the tests sign in to. It demands other versions of botocore and
# graphql-core than ours, hence an environment of its own; its pins are in tests/support/ministack.txt.
set -eu
cd "$(dirname "$0")/.."
pins=tests/support/ministack.txt
if ! cmp -s "$pins" .ministack/installed.txt; then
    .venv/bin/python -m venv .ministack
    .ministack/bin/python -m pip install -q --upgrade pip
    .ministack/bin/python -m pip install -q -r "$pins"
    cp "$pins" .ministack/installed.txt
fi
echo "ministack: .ministack/bin/ministack"
