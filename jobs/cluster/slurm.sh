#!/bin/bash
# A job on the nodes of a SLURM allocation: every node starts Ray, the first one runs the job, all of them end.
#   seral config slurm.sh > slurm.sh
#   sbatch --nodes=4 slurm.sh loop --config run.yaml          (a file of your own: sbatch --nodes=4 slurm.sh mine.py ...)
# From a folder on storage that all nodes have; .venv there, or VENV, is where seral is installed. A run that the time
# limit ends is submitted again and resumes: with --requeue, SLURM does so itself after a lost node. A job that fails by
# itself is not tried again.
#SBATCH --job-name=seral
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
# Another Ray on the node, of another job, would keep this one from starting, and be stopped at its end.
#SBATCH --exclusive
#SBATCH --output=%x-%j.log
set -euo pipefail
job=$1
shift
case $job in
  *.py) program=("$job") ;;
  *) program=(-m seral.verbs "$job") ;;
esac
environment=${VENV:-.venv}/bin/activate
if [ -f "$environment" ]; then source "$environment"; fi
export OMP_NUM_THREADS=1 RAY_DISABLE_IMPORT_WARNING=1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # `head` would end it by a signal, and the job with it
port=$((20000 + SLURM_JOB_ID % 20000))
# Nobody else on these nodes may send work to this Ray.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(openssl rand -hex 32)}
export RAY_ADDRESS="$head:$port"
# The job ends as its program: nodes that only lent their CPUs end in an error when the first one's Ray has gone.
ended=.seral-$SLURM_JOB_ID.status
srun ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" ${SLURM_GPUS_ON_NODE:+--num-gpus "$SLURM_GPUS_ON_NODE"} \
  -- bash -c 'status=0; python "${@:2}" || status=$?; echo $status > "$1"; exit $status' seral "$ended" "${program[@]}" "$@" \
  || true
status=$(cat "$ended" 2> /dev/null || echo 1)
rm -f "$ended"
exit "$status"
