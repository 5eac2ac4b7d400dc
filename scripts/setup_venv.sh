#!/bin/sh
# Make .venv with the Python given as $1. Debian splits venv off into a package of its own: get it where we may.
set -eu
python=$1
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "kinesis_nb needs Python 3.11 or newer, and '$python' is not that" >&2
    echo "hint: make PYTHON=/path/to/python3.12 …" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null
    else
        echo "'$python' cannot make virtual environments" >&2
        echo "hint: on Debian or Ubuntu: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi
"$python" -m venv .venv
# the pip that comes with Python may be years old, and its resolver then takes minutes for what takes seconds
.venv/bin/python -m pip install -q --upgrade pip
