#!/usr/bin/env bash
# Installs what the tests need and runs them; arguments go to pytest.
#   bash tests/run.sh                             against TensorFlow 2.16
#   TF_SET=tf220 bash tests/run.sh -m 'not slow'  against TensorFlow 2.20
set -euo pipefail
cd "$(dirname "$0")/.."
. experiments/environment.sh
# A file stays in one process: its fixtures are made once. One process more than
# there are cores, for some tests wait for others that they start.
processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
exec "$python" -m pytest -q --durations=10 -n "$processes" --dist loadfile \
  --no-loadscope-reorder "$@"
