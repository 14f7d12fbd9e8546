# Sourced by the commands: a virtual environment with the tested versions.
#
#   . experiments/environment.sh
#
# TF_SET chooses constraints/$TF_SET.txt (tf216 or tf220), PYTHON the
# interpreter, VENV the folder. A complete environment is used as it is.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
set_name=${TF_SET:-tf216}
constraints=$root/constraints/$set_name.txt
venv=${VENV:-$root/.venv-$set_name}
[ -f "$constraints" ] || {
  echo "TF_SET is $set_name: choose tf216 or tf220." >&2; exit 2; }
stamp=$venv/.complete
if ! cmp -s <(cat "$constraints" "$root/setup.cfg") "$stamp"; then
  python=${PYTHON:-python3.11}
  command -v "$python" >/dev/null || python=python3
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "$python is not Python 3.11, for which constraints/ is: set PYTHON." \
      >&2
    exit 2
  }
  echo "Installing $set_name into $venv ..."
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --constraint "$constraints" \
    --editable "$root[test]"
  cat "$constraints" "$root/setup.cfg" >"$stamp"
fi
python=$venv/bin/python
# On a machine without a GPU TensorFlow logs errors about that at every start.
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore::FutureWarning}
# glibc returns the buffers of a batch to the system and faults them in anew,
# page by page; kept, input is a sixth faster and a training step takes a tenth
# more memory.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4000000000}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-8000000000}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-67108864}
