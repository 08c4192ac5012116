#!/usr/bin/env bash
# Writes requirements.lock: of everything that `ssl_lab[all]` needs, the versions that PYTHON's environment holds.
#   tests/packaging/write_lock.sh PYTHON
# What torch needs of CUDA is left out: torch pins it itself, and a build for CPUs needs none of it.
set -euo pipefail
python=$(realpath -s "$1")
root=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv=${UV:-}
if [ -z "$uv" ]; then
  "$python" -m pip install --quiet --disable-pip-version-check --target "$work/uv" uv
  uv=$work/uv/bin/uv
fi
# Versions without a build's own suffix, such as +cpu, which no package index has.
"$python" -c 'import importlib.metadata as m
for each in m.distributions(): print(each.metadata["Name"] + "==" + each.version.partition("+")[0])' |
  grep -v '^ssl_lab==' | sort -fu >"$work/installed.txt"
cd "$root"
{
  echo "# The exact versions behind the figures in README.md and docs/, on Linux with Python 3.11: make lock writes them."
  "$uv" pip compile --quiet --python-version 3.11 --constraints "$work/installed.txt" --extra all pyproject.toml \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links |
    grep -vE '^(triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)=='
} >"$work/lock"
mv "$work/lock" requirements.lock
