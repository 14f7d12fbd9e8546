# Sourced by the commands: a virtual environment with the tested versions.
#
#   . experiments/environment.sh
#
# PYTHON chooses the interpreter (default: the first suitable one), TF_SET the
# versions in constraints/$TF_SET.txt (default: tf216 where it fits the interpreter,
# otherwise tf220), VENV the folder (default: .venv-$TF_SET). A complete environment
# is used as it is; one whose installation was interrupted is removed first.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${TF_SET:=} in
  '' | tf216 | tf220) ;;
  *) echo "TF_SET is $TF_SET: choose tf216 or tf220." >&2; exit 2 ;;
esac
candidates=(python3.11 python3.12 python3.10 python3.13 python3 python)
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")

choose_python() {  # Sets python and set_name.
  local version
  for python in "${candidates[@]}"; do
    # Runs it: a launcher may stand for a version that is not installed.
    version=$("$python" -c \
      'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    for set_name in ${TF_SET:-tf216 tf220}; do
      case $set_name-$version in
        tf216-3.1[01] | tf220-3.1[123]) ;;
        *) continue ;;
      esac
      "$python" -c 'import ensurepip, venv' 2>/dev/null || {
        echo "$python has no venv module: install it (Debian and Ubuntu: apt" \
          "install python$version-venv) or set PYTHON." >&2
        exit 2
      }
      return
    done
  done
  echo "No suitable Python among ${candidates[*]}: TF_SET=tf216 needs 3.10 or" \
    "3.11, TF_SET=tf220 needs 3.11, 3.12 or 3.13. Install one or set PYTHON." >&2
  exit 2
}
choose_python
constraints=$root/constraints/$set_name.txt
venv=${VENV:-$root/.venv-$set_name}

# What is installed is written down when it is complete.
wanted=$(cat "$constraints" "$root/setup.cfg")
if [ "$wanted" != "$(cat "$venv/.complete" 2>/dev/null)" ]; then
  [ ! -e "$venv/.installing" ] || rm -rf "$venv"
  echo "Installing $set_name for $("$python" -V) into $venv (about 3.4 GB):" >&2
  mkdir -p "$venv"
  rm -f "$venv/.complete"
  touch "$venv/.installing"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --constraint "$constraints" \
    --editable "$root[dev,test]" >&2
  echo "$wanted" >"$venv/.complete"
  rm "$venv/.installing"
fi
python=$venv/bin/python
# On a machine without a GPU TensorFlow logs errors about that at every start.
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore::FutureWarning}
# glibc returns the buffers of a batch to the system and faults them in again,
# page by page; kept, input is a sixth faster and a training step takes a tenth
# more memory.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4000000000}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-8000000000}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-67108864}
