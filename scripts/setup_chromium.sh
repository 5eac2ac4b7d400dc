#!/bin/sh
# Make sure there is a Chromium for the browser tests: one on PATH, else Debian's package where we may install it.
set -eu
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        echo "browser: $(command -v "$name")"
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "browser: installing Debian's chromium"
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; then
        exit 0
    fi
fi
echo "browser: found no Chromium and could not install one" >&2
echo "hint: sudo apt-get install chromium" >&2
exit 1
