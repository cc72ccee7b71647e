#!/bin/sh
# Train on real handwritten digits, on a machine that has Python >= 3.11 with pip, and no more:
#   sh launch/quickstart.sh [key.sub=value ...]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/launch/_env.sh"
use_environment
install_distgrad mpich,fast

cd "$root"
run_dir=$root/runs/quickstart-$(date +%Y%m%d-%H%M%S)-$$
"$PYTHON" -m distgrad train configs/digits.yaml --run-dir "$run_dir" "$@"
[ -d "$run_dir" ] || exit 0 # asked for help, or for another folder

cat <<END

The run folder is $run_dir
What to try next, in $root:
  . "$(dirname -- "$PYTHON")/activate"
      use this environment
  mpirun -n 4 distgrad train configs/digits.yaml
      four workers, and the same weights bit by bit
  distgrad train configs/digits.yaml seed=1
      any key of the job can be changed this way
  distgrad train configs/digits.yaml train.epochs=60 --resume auto --run-dir "$run_dir"
      go on with this run, from its last checkpoint
  sh launch/test.sh
      run the tests
END
