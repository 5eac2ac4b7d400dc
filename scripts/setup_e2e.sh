#!/bin/sh
# What the end-to-end tests need beyond the tests: Notebook 7 and Voila, and an older ipykernel beside the one in .venv.
set -eu
older=.build/ipykernel-7.3
.venv/bin/python -m pip install -q -c constraints.txt -e '.[notebook,test,e2e]'
if [ ! -d "$older" ]; then
    # only the package itself: a kernel that has this folder on its path takes everything else from .venv
    .venv/bin/python -m pip install -q --no-deps --target "$older" 'ipykernel==7.3.*' ||
        echo "ipykernel 7.3: could not be installed; its tests are skipped" >&2
fi
