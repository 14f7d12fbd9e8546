#!/usr/bin/env bash
# Writes tf216.txt and tf220.txt: pins for all that setup.cfg asks for, within the
# limits of tf216.in and tf220.in. Needs uv (pip install uv).
#
#   bash constraints/compile.sh             keeps pins that still fit
#   bash constraints/compile.sh --upgrade   takes the latest releases instead
#   bash constraints/compile.sh --upgrade-package ruff
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "uv is not found: pip install uv." >&2; exit 2; }

compile() {  # SET OLDEST_PYTHON [flags of uv]
  uv pip compile --quiet --universal --python-version "$2" --no-python-downloads \
    --all-extras --no-annotate \
    --custom-compile-command 'bash constraints/compile.sh' \
    --output-file "constraints/$1.txt" "${@:3}" setup.cfg "constraints/$1.in"
}
compile tf216 3.10 "$@"
compile tf220 3.11 "$@"
