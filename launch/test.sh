#!/bin/sh
# Run the tests, on a machine that has Python >= 3.11 with pip, and no more:
#   sh launch/test.sh [options of pytest]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/launch/_env.sh"
use_environment
install_distgrad mpich,dev

cd "$root"
# The tests start mpirun and distgrad by name.
PATH=$(dirname -- "$PYTHON"):$PATH
export PATH
# Some processes, each with whole files, in this order; "pytest" alone runs the same tests in one.
exec "$PYTHON" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
