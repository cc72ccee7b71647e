#!/bin/sh
# Train with N processes under MPI: sh launch/mpirun.sh N JOB.yaml [options]
set -eu
if [ $# -lt 2 ]; then
    echo "usage: sh launch/mpirun.sh N JOB.yaml [options of distgrad train]" >&2
    exit 2
fi
workers=$1
shift
exec mpirun -n "$workers" distgrad train "$@"
