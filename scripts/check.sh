#!/usr/bin/env bash
# Style, types, import contracts, and generated code that matches protos/.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "check: style"
ruff check --quiet .
ruff format --quiet --check . || { echo "run: ruff format ."; exit 1; }
echo "check: types"
mypy shared services benchmarks
# A package of its own, whose folder is the root of its imports.
MYPYPATH=plugins/vllm mypy -p skillmesh_vllm
echo "check: imports"
lint-imports > /dev/null || { lint-imports; exit 1; }
echo "check: generated code"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
bash scripts/protos.sh "$fresh"
for file in "$fresh"/*; do
  cmp -s "$file" "shared/pb/$(basename "$file")" || {
    echo "shared/pb/$(basename "$file") is not what protos/ gives: run make protos"
    exit 1
  }
done
