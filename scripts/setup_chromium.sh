#!/bin/sh
# Make sure there is what the browser tests need: a Chromium on PATH, and libatomic for the node that playwright brings.
# What is missing comes from Debian, where we may install it.
set -eu
missing=
found=
for name in chromium chromium-browser google-chrome; do
    found=${found:-$(command -v "$name" || true)}
done
[ -n "$found" ] || missing=chromium
ldconfig -p 2>/dev/null | grep -q "libatomic\.so\.1" || missing="${missing:+$missing }libatomic1"
if [ -z "$missing" ]; then
    echo "browser: $found"
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "browser: installing Debian's $missing"
    # shellcheck disable=SC2086 # two names are two packages
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $missing >/dev/null; then
        exit 0
    fi
fi
echo "browser: could not get $missing" >&2
echo "hint: sudo apt-get install $missing" >&2
exit 1
