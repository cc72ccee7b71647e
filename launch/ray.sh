#!/bin/sh
# Train with N workers on Ray: sh launch/ray.sh N JOB.yaml [options]
# On the cluster of RAY_ADDRESS or of `ray start` on this machine; else Ray is started here.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: sh launch/ray.sh N JOB.yaml [options of distgrad train]" >&2
    exit 2
fi
workers=$1
shift
exec distgrad train -n "$workers" --launcher ray "$@"
