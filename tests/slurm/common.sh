# What start and stop agree on. Nothing is shared with a Slurm that this machine may have, but munge.
ETC=/etc/exca-slurm RUN=/run/exca-slurm LIB=/var/lib/exca-slurm LOG=/var/log/exca-slurm
CLUSTER=exca
export SLURM_CONF=$ETC/slurm.conf PATH=/usr/sbin:/usr/bin:/sbin:/bin

# The process of a pid file, if it runs under the name it should have and is no zombie.
pid_of() { # pid file, process name
    local pid
    pid=$(cat "$RUN/$1.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    grep -qsx "Name:.$2" "/proc/$pid/status" && ! grep -qs '^State:.Z' "/proc/$pid/status" && echo "$pid"
}
