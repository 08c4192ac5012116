#!/usr/bin/env bash
# Builds the sdist and from it the wheel, installs that with the core alone into a fresh environment, and runs a quarter of the
# demo there, a VAE and a report, and what needs an extra.
# Needs a package index, so it is not part of `make test`: run it with `make wheel`.
set -euo pipefail
python=${1:?usage: check_wheel.sh PYTHON_WITH_BUILD}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --outdir "$work" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
uv=${UV:-}
if [ -z "$uv" ]; then
  "$python" -m pip install --quiet --disable-pip-version-check --target "$work/uv" uv  # unpacks torch much faster than pip
  uv=$work/uv/bin/uv
fi
"$uv" venv --quiet --python "$("$python" -c 'import sys; print(sys.base_prefix)')/bin/python3" "$work/venv"
"$uv" pip install --quiet --python "$work/venv/bin/python" "$work"/ssl_lab-*.whl

cd "$work"  # away from the sources
mkdir empty && cd empty
"$work/venv/bin/ssl-lab" list
"$work/venv/bin/ssl-lab" pretrain experiment=simclr_digits trainer.max_epochs=50 run_dir=run | tee demo.txt
grep -q "SimCLR encoder" demo.txt
"$work/venv/bin/python" - <<'END'
import json
from pathlib import Path

import ssl_lab

assert (Path(ssl_lab.__file__).parent / "py.typed").is_file()
assert ssl_lab.__file__.startswith(str(Path.cwd().parent)), ssl_lab.__file__
rows = {row["name"]: row["metrics"] for row in json.loads(Path("run/evaluation.json").read_text())["rows"]}
one_label = {name: metrics["few_label/top1_n1"] for name, metrics in rows.items()}
assert one_label["SimCLR encoder"] > max(0.8, one_label["raw pixels"] + 0.1), one_label
END
test -s run/report.html
"$work/venv/bin/ssl-lab" pretrain experiment=vae_digits trainer=smoke run_dir=vae
"$work/venv/bin/ssl-lab" report vae
if "$work/venv/bin/ssl-lab" pretrain experiment=mae_digits 2>missing.txt; then exit 1; fi
grep -qx 'ssl-lab: Cannot .*: the package timm is not installed. Install it by: pip install "ssl_lab\[vision\]".' missing.txt
"$uv" pip install --quiet --python "$work/venv/bin/python" "$(echo "$work"/ssl_lab-*.whl)[sweep]"
"$work/venv/bin/ssl-lab" pretrain -m experiment=simclr_digits trainer=smoke evaluation=label_free sweep=simclr \
    objective=eval/rankme/rank hydra.sweeper.n_trials=2 sweep_dir=sweep | tee sweep.txt
grep -q "Best: trial" sweep.txt
echo "the wheel works in a fresh environment"
