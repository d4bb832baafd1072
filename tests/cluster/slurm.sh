#!/usr/bin/env bash
# A whole Slurm on one host, for tests: munged, slurmctld, and two slurmd that are nodes of two processors each.
#
#     tests/cluster/slurm.sh start FOLDER     # then: export SLURM_CONF=FOLDER/slurm.conf
#     tests/cluster/slurm.sh stop FOLDER
#
# Needs root and Debian's packages slurm-wlm and munge. Nothing outside FOLDER is written, no cgroup is made.
set -euo pipefail
action=${1:?start or stop} folder=$(realpath -m "${2:?a folder}") host=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin

stop() {
    for name in slurmd-node1 slurmd-node2 slurmctld munged; do
        [ -f "$folder/$name.pid" ] || continue
        pid=$(cat "$folder/$name.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    done
}

free_ports() { # three that nobody listens on
    python3 -c 'import socket; s = [socket.socket() for _ in range(3)]; [x.bind(("", 0)) for x in s]; print(*[x.getsockname()[1] for x in s])'
}

start() {
    mkdir -p "$folder/state" "$folder/spool-node1" "$folder/spool-node2"
    chmod 755 "$folder"
    dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none
    chmod 400 "$folder/munge.key"
    read -r control first second < <(free_ports)
    cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host
SlurmUser=root
SlurmctldPort=$control
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
KillWait=10
JobRequeue=1
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$first CPUs=2 State=UNKNOWN
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$second CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP
CONF
    munged --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" --pid-file "$folder/munged.pid" \
        --log-file "$folder/munged.log" --seed-file "$folder/munge.seed"
    slurmctld -c
    slurmd -c -N node1
    slurmd -c -N node2
    for _ in $(seq 300); do
        [ "$(sinfo --noheader --states idle --format %D 2>/dev/null)" = 2 ] && return
        sleep 0.1
    done
    echo "slurm.sh: the nodes are not idle after 30 s" >&2
    sinfo >&2 || true
    tail -n 20 "$folder"/*.log >&2
    return 1
}

if ! "$action"; then
    stop
    exit 1
fi
