# What start and stop agree on. Nothing is shared with a Slurm that this machine may have, but munge.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
SHARED_LOCK=/run/exca-slurm.shared.lock # for what all Slurms of this folder share: packages, munge, free ports

is_name() { [[ $1 =~ ^[a-z][a-z0-9]{0,29}$ && ! $1 =~ ^n[0-9]+$ ]]; } # n1 is a node
use() { # a NAME, or nothing: the Slurm that all tests share
    local dash=${1:+-$1}
    ETC=/etc/exca-slurm$dash RUN=/run/exca-slurm$dash LIB=/var/lib/exca-slurm$dash LOG=/var/log/exca-slurm$dash
    CLUSTER=exca$1
    export SLURM_CONF=$ETC/slurm.conf
}

# The process of a pid file, if it runs under the name it should have and is no zombie.
pid_of() { # pid file, process name
    local pid
    pid=$(cat "$RUN/$1.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    grep -qsx "Name:.$2" "/proc/$pid/status" && ! grep -qs '^State:.Z' "/proc/$pid/status" && echo "$pid"
}
stop() { # pid file, process name, signal
    local pid
    if pid=$(pid_of "$1" "$2"); then
        kill "-${3:-TERM}" "$pid"
        for _ in $(seq 100); do pid_of "$1" "$2" >/dev/null || break; sleep 0.1; done
        pid=$(pid_of "$1" "$2") && kill -9 "$pid"
    fi
    rm -f "$RUN/$1.pid"
}
