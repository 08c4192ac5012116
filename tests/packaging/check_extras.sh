#!/usr/bin/env bash
# Resolves the core and the extras of pyproject.toml at the lowest and the highest versions, from wheels alone; installs nothing.
#   tests/packaging/check_extras.sh UV
set -euo pipefail
uv=$1
root=$(realpath "$(dirname "$0")/../..")

resolve() {  # RESOLUTION [--extra NAME ...]
  # antlr4-python3-runtime 4.9.3, which hydra-core pins, is the one package without a wheel: a few files of Python.
  "$uv" pip compile --quiet --python-version 3.11 --only-binary :all: --no-binary antlr4-python3-runtime \
    --resolution "$@" "$root/pyproject.toml" >/dev/null || { echo "Cannot resolve pyproject.toml at: $*"; exit 1; }
}

extras=$(sed -n '/^\[project.optional-dependencies\]/,/^\[/s/^\([a-z]*\) = .*/\1/p' "$root/pyproject.toml" | grep -vxE 'docs|dev')
resolve lowest-direct
for extra in $extras; do resolve lowest-direct --extra "$extra"; done  # each alone: another one may raise its versions
resolve highest
resolve highest --extra all --extra ray  # with all of them each is resolved
echo "the core and the extras" $extras "resolve at the lowest and the highest versions"
