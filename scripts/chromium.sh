#!/usr/bin/env bash
# Installs Chromium and a font, for the tests of the console, where there is none and it may be:
# as root, with apt. Elsewhere those tests are skipped.
set -euo pipefail
if command -v chromium > /dev/null || [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  exit 0
fi
echo "chromium: from this system's packages (once)"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get -qq update && apt-get -qq install --yes chromium fonts-dejavu; } > /dev/null 2>&1; then
  echo "chromium: can't be installed; the tests of the console will be skipped" >&2
fi
