# Sourced by the experiments: makes the folder $out that of one run, or ends.
#
#   settings="DATA=$data $*"; . experiments/claim.sh
#
# $settings is what a later run in the same folder must repeat.
mkdir -p "$out"
if [ -e "$out/settings" ] && [ "$(cat "$out/settings")" != "$settings" ]; then
  echo "$out was made with '$(cat "$out/settings")', not '$settings':" \
    "name another OUT." >&2
  exit 2
fi
echo "$settings" >"$out/settings"
