# Sourced by scripts whose stages leave a file in the folder $out when complete.
stage() {  # NAME MESSAGE COMMAND...: runs the command unless it has completed.
  local name=$1 message=$2
  shift 2
  if [ -e "$out/$name.complete" ]; then
    echo "$message: complete"
    return
  fi
  echo "$message"
  "$@"
  touch "$out/$name.complete"
}
