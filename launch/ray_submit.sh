#!/bin/sh
# Hand a job to a Ray cluster from outside, through its dashboard, and follow it:
#   sh launch/ray_submit.sh http://HEAD:8265 N JOB.yaml [options of distgrad train]
# The current folder is sent along. Give --run-dir DIR on a file system that all nodes share:
# what lies in the folder that was sent is lost with the job.
set -eu
if [ $# -lt 3 ]; then
    echo "usage: sh launch/ray_submit.sh http://HEAD:8265 N JOB.yaml [options]" >&2
    exit 2
fi
address=$1 workers=$2
shift 2
exec ray job submit --address "$address" --working-dir "${WORKING_DIR:-.}" -- \
    python -m distgrad train -n "$workers" --launcher ray "$@"
