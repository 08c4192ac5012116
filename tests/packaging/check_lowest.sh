#!/usr/bin/env bash
# Resolves the core and the extras, installs the lowest versions that pyproject.toml allows, and trains with them for a few steps.
#   tests/packaging/check_lowest.sh PYTHON
# torch and torchvision, with what they need, come from PYTHON's environment: their lowest builds are gigabytes for CUDA.
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
"$root/tests/packaging/check_extras.sh" "$uv"
"$uv" pip compile --quiet --python "$python" --resolution lowest-direct --extra all "$root/pyproject.toml" -o "$work/all.txt"
grep -vE '^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==' "$work/all.txt" >"$work/lowest.txt"
"$uv" venv --quiet --python "$("$python" -c 'import sys; print(sys.base_prefix)')/bin/python3" "$work/venv"
"$uv" pip install --quiet --no-deps --python "$work/venv/bin/python" -r "$work/lowest.txt"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sysconfig, torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])' >"$site/zz_torch.pth"
echo "$root" >"$site/_ssl_lab.pth"
cd "$work"
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$root/tests/packaging/train_lowest.py"
