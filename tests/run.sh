#!/usr/bin/env bash
# Installs what the tests need and runs them; arguments go to pytest.
#   bash tests/run.sh                          all but those that take long
#   bash tests/run.sh -m long                  these
#   bash tests/run.sh -m unit                  the quick ones
#   bash tests/run.sh tests/modeling           one folder, or one file
#   TF_SET=tf220 bash tests/run.sh             with TensorFlow 2.20, not 2.16
# What each marker is: tests/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. experiments/environment.sh
[ $# -gt 0 ] || set -- -m 'not long'
# A file stays in one process, so that its fixtures are made once. One process more
# than there are cores, because some tests wait for processes that they start.
# -rfEs lists what failed and what was skipped, and why.
processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
exec "$python" -m pytest -q -rfEs --durations=10 -n "$processes" --dist loadfile \
  --no-loadscope-reorder "$@"
