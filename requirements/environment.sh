#!/bin/sh
# Makes .venv, with exactly what requirements/dev.lock names and this checkout as an editable install.
# What only the system can give is installed when run as root, and named in one line otherwise.
set -eu
cd "$(dirname "$0")/.."

give_up() {
    echo "windlass: $1" >&2
    exit 1
}

# The first Python that is new enough; PYTHON names another.
python=
for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || give_up "needs Python 3.11 or newer, found $(python3 --version 2>&1 || true); install it and try again"

# Debian and Ubuntu ship venv and ensurepip as a package of their own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        give_up "$python lacks venv; install it: sudo apt-get install $package"
    echo "windlass: $python lacks venv; installing the system package $package"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$package"; } >/dev/null ||
        give_up "could not install $package; install it and try again"
fi

echo "windlass: setting up .venv (a minute or two the first time)"
.venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear .venv
pip() { .venv/bin/python -m pip --quiet --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes -r requirements/dev.lock
pip install --no-deps --no-build-isolation -e .
touch .venv/ready
