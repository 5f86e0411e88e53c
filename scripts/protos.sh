#!/usr/bin/env bash
# Generates Python code and stubs from protos/ into the folder named: protos.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Python's import path follows from the path that protoc believes the sources to have.
sources=$(cd protos && printf 'shared/pb/%s ' *.proto)
# shellcheck disable=SC2086  # One word for each source.
python -m grpc_tools.protoc -Ishared/pb=protos --python_out="$work" --grpc_python_out="$work" \
  --mypy_out=quiet:"$work" --mypy_grpc_out=quiet:"$work" $sources
mkdir -p "$1"
cp "$work"/shared/pb/* "$1"/
