#!/usr/bin/env bash
# Makes the virtual environment: setup.sh FOLDER LOCKFILE
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 lock=$2

is_right() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

python=
for candidate in "${PYTHON311:-}" python3.11 python3 python; do
  if [ -n "$candidate" ] && is_right "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  echo "setup: Python 3.11 is needed and was not found. Install it, or name it:" >&2
  echo "  make setup PYTHON311=/path/to/python3.11" >&2
  exit 1
fi

echo "setup: $venv with $("$python" --version), then some 200 packages (a few minutes, once)"
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet install "$@"; }
# torch first and exactly: a range would pull a newer build with several gigabytes of CUDA.
echo "setup: torch"
pip "$(grep '^torch==' "$lock")"
echo "setup: everything else"
pip --requirement "$lock"
bash scripts/launcher.sh "$venv"
