#!/bin/sh
# Install the Debian or Ubuntu packages that a step needs: venv, qt or xvfb.
# Where it may not install, it says in one line what to type, and fails.
# On other systems it does nothing: there Python and Qt bring what they need.
set -eu

venv="python3-venv"
qt="libgl1 libegl1 libopengl0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libdbus-1-3 libfontconfig1 libglib2.0-0"
xvfb="$qt xvfb xauth"

case "$1" in
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null && exit 0; wanted=$venv ;;
    qt) wanted=$qt ;;
    xvfb) wanted=$xvfb ;;
    *) echo "usage: $0 venv|qt|xvfb" >&2; exit 2 ;;
esac

command -v dpkg-query >/dev/null || exit 0

missing=""
for package in $wanted; do
    # Ubuntu renames some libraries (libglib2.0-0t64): what provides them counts.
    dpkg-query -W -f='${Status} ${Package} ${Provides}\n' 2>/dev/null \
        | grep '^install ok installed' | grep -Eq "[ ,]$package(t64)?([ ,]|\$)" \
        || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "Please install system packages first:  sudo apt-get install$missing" >&2
    exit 1
fi
echo "Installing system packages:$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086 - the names are words of their own
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
