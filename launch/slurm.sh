#!/bin/sh
# Train with all tasks of a Slurm allocation; cluster/README.md has the sbatch scripts around it:
#   sh launch/slurm.sh srun JOB.yaml [options]     ranks over the MPI that srun starts
#   sh launch/slurm.sh mpirun JOB.yaml [options]   the same, by the mpirun beside Python
#   sh launch/slurm.sh tcp JOB.yaml [options]      ranks over TCP: no MPI is needed
#   sh launch/slurm.sh ray JOB.yaml [options]      ranks on Ray, one Ray node per host
set -eu
if [ $# -lt 2 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "usage, within sbatch or salloc: sh launch/slurm.sh srun|mpirun|tcp|ray JOB.yaml [options]" >&2
    exit 2
fi
how=$1
shift
port=$((20000 + SLURM_JOB_ID % 20000))
case $how in
srun) exec srun distgrad train "$@" ;;
mpirun) exec mpirun -n "$SLURM_NTASKS" distgrad train "$@" ;;
tcp)
    DISTGRAD_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$port
    DISTGRAD_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    export DISTGRAD_ADDRESS DISTGRAD_TOKEN
    exec srun distgrad train "$@"
    ;;
ray)
    # Not `ray symmetric-run`: the driver shall get this process's signals.
    RAY_ADDRESS=$(hostname):$port
    export RAY_ADDRESS DISTGRAD_START_TIMEOUT="${DISTGRAD_START_TIMEOUT:-180}"
    each="--num-cpus=$((SLURM_NTASKS / SLURM_JOB_NUM_NODES * ${SLURM_CPUS_PER_TASK:-1}))"
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$(hostname)" \
        ray start --head --port="$port" "$each" --disable-usage-stats --block >/dev/null &
    tries=60
    until ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "error: no Ray at $RAY_ADDRESS after a minute" >&2; exit 3; }
        sleep 1
    done
    others=$((SLURM_JOB_NUM_NODES - 1))
    if [ "$others" -gt 0 ]; then
        srun --overlap --nodes="$others" --ntasks="$others" --exclude="$(hostname)" \
            ray start --address="$RAY_ADDRESS" "$each" --disable-usage-stats --block >/dev/null &
    fi
    exec distgrad train -n "$SLURM_NTASKS" --launcher ray "$@" # Slurm ends Ray with the job
    ;;
*)
    echo "error: $how is none of srun, mpirun, tcp, ray" >&2
    exit 2
    ;;
esac
