# shellcheck shell=bash
#
# common.sh
#     What the scripts beside this file share.  Sourced, never run.
#
# What always holds: programs that PostgreSQL refuses to run as root, and
# everything that starts them, run through as_server_user.  A script's
# temporary directory is made by make_scratch and removed however the script
# ends; whatever still runs in there is stopped first.  No process that this
# script did not start is ever signalled.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck disable=SC2034  # for those who source this
BUILD=$TOP/.build VENV=$TOP/.venv
SCRATCH=
CHILD=

# The caller's connection settings would lead our clients to a server of his.
unset PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGSERVICE \
    PGSERVICEFILE PGOPTIONS PGAPPNAME PGSSLMODE PGREQUIRESSL PGCLIENTENCODING PGDATA \
    PGTZ PGDATESTYLE PGTARGETSESSIONATTRS PGCONNECT_TIMEOUT PGSYSCONFDIR PGLOCALEDIR

note() {
    printf '== %s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# quietly LOG COMMAND...: the output is shown only if it fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2 && die "failed: see $log"; }
}

# The user that servers run as: ourselves, unless we are root.  Debian's server
# package brings the user postgres; a machine with a self-built server may not
# have one.
if [ "$(id -u)" -ne 0 ]; then
    SERVER_USER=$(id -un)
elif id postgres >/dev/null 2>&1; then
    SERVER_USER=postgres
else
    SERVER_USER=nobody
fi

# as_server_user COMMAND...: replaces the (sub)shell by the command.
as_server_user() {
    if [ "$(id -u)" -ne 0 ]; then
        exec "$@"
    else
        exec setpriv --reuid "$SERVER_USER" --regid "$(id -g "$SERVER_USER")" --init-groups \
            env "HOME=${SCRATCH:-/}" "USER=$SERVER_USER" "LOGNAME=$SERVER_USER" "$@"
    fi
}

# Sets SCRATCH to a new directory that the server's user can read.  The path is
# short, since unix sockets may come to lie below it and are limited to 107
# bytes.
make_scratch() {
    SCRATCH=$(mktemp -d "${DJACTOR_TMPDIR:-/tmp}/djactor-XXXXXX")
    chmod 755 "$SCRATCH"
    trap remove_scratch EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# The cleanup itself is not to be interrupted, by a step that fails neither.
remove_scratch() {
    local status=$?
    trap '' HUP INT TERM
    set +e
    case $CHILD in
        '') ;;
        # A server in the group takes SIGTERM as "when all clients have left".
        -*) kill -TERM -- "$CHILD" 2>/dev/null && stop_servers && wait_gone "$CHILD" 20 ;;
        *) end_child ;;
    esac
    stop_servers
    rm -rf "$SCRATCH" 2>/dev/null || { sleep 1 && rm -rf "$SCRATCH"; }
    exit "$status"
}

# Servers detach themselves from who starts them, so those of the scratch
# directory are found by their data directories.
stop_servers() {
    local pidfile pid
    while IFS= read -r -d '' pidfile; do
        pid=$(head -n 1 "$pidfile" 2>/dev/null) || continue
        # A stale file may name a process of somebody else by now.
        if [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "${pidfile%/*}" ]; then
            kill -QUIT "$pid" 2>/dev/null && wait_gone "$pid" 10
        fi
    done < <(find "$SCRATCH" -name postmaster.pid -print0 2>/dev/null)
}

# run_child COMMAND...: runs a command (or function) and returns its status.
# Unlike a plain call it leaves the shell able to react to a signal meanwhile.
# In a background process bash ignores SIGINT and closes stdin; both are undone.
run_child() {
    local status=0
    (
        trap - EXIT HUP INT TERM
        [ "$(type -t "$1")" = function ] || exec "$@"
        "$@"
    ) <&0 &
    CHILD=$!
    wait "$CHILD" || status=$?
    CHILD=
    return "$status"
}

# run_group COMMAND...: the same in a process group of its own, without the
# terminal: when we are interrupted, all its descendants get SIGTERM from us.
run_group() {
    local status=0
    set -m
    (
        trap - EXIT HUP INT TERM
        [ "$(type -t "$1")" = function ] || exec "$@"
        "$@"
    ) </dev/null &
    CHILD=-$!
    set +m
    wait "${CHILD#-}" || status=$?
    # Nothing of the command outlives it.
    end_child
    CHILD=
    return "$status"
}

# end_child: ends the process, or the whole group, in CHILD.  A program that a
# Ctrl-C at the terminal has reached already gets the time to clean up.
end_child() {
    if [ "${CHILD#-}" = "$CHILD" ]; then
        # In a trap, a bare return would return what was before the trap.
        is_gone "$CHILD" 10 && return 0
    fi
    kill -TERM -- "$CHILD" 2>/dev/null || return 0
    wait_gone "$CHILD" 20
}

# is_gone PID TENTHS: waits that long for the process (or -group) to end.
is_gone() {
    local i
    for ((i = 0; i < $2; i++)); do
        kill -0 -- "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}

# wait_gone PID SECONDS: waits for it to end; kills it if it does not.
wait_gone() {
    is_gone "$1" "$(($2 * 10))" || kill -KILL -- "$1" 2>/dev/null || true
}
