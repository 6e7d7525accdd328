# shellcheck shell=bash
#
# trees.sh
#     Running commands in a Debian tree (tools/test-matrix makes such trees, in
#     .build/matrix), for those who have sourced common.sh.
#
# What always holds: whatever is mounted is mounted in a mount namespace that only
# the processes of this run are in, as are their ids; so the kernel ends and
# unmounts everything when the run ends, however it ends, and a tree can be removed
# with rm at any time.

# run_apart COMMAND...: with mounts and process ids of its own; killed when this
# script is.
run_apart() {
    run_group setpriv --pdeathsig KILL unshare --mount --propagation private --pid --ipc --fork --kill-child "$@"
}

# copy_project TREE [NAME]: into TREE/djactor, or that name, everything but what was made here; what was made
# there is kept, but not what a run that was ended at once has left.
copy_project() {
    local tree=$1 copy=$1/${2:-djactor}

    rm -rf "$tree"/tmp/djactor-*
    mkdir -p "$copy"
    find "$copy" -mindepth 1 -maxdepth 1 ! -name .build ! -name .venv -exec rm -rf {} +
    tar -C "$TOP" --exclude=./.git --exclude=./.build --exclude=./.venv -cf - . | tar -C "$copy" -xf -
    lend_network "$tree"
}

# lend_network TREE: names of hosts, and whom this machine trusts there.
lend_network() {
    local tree=$1 file

    mkdir -p "$tree/etc/ssl"
    for file in /etc/resolv.conf /etc/hosts; do
        cp -L "$file" "$tree$file"
    done
    if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
        cp -L /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/djactor.pem"
    fi
}

# bootstrap TREE SUITE LOG: makes a tree of Debian with nothing in it.
bootstrap() {
    run_apart debootstrap --variant=minbase "$2" "$1" >"$3" 2>&1 || {
        tail -n 20 "$3" >&2
        return 1
    }
    # Nobody needs these files after a crash of the machine.
    echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/djactor"
    # A mirror that lags behind here lags behind there.
    apt-config dump Acquire::Check-Valid-Until >"$1/etc/apt/apt.conf.d/90djactor"
}

# in_tree TREE COMMAND [ARGUMENT...]: a line of bash, in the project's copy there,
# with nothing of this machine's environment but the way to the network.
in_tree() {
    local tree=$1
    shift
    enter "$tree" djactor '' "$@"
}

# over_tree TREE SCRATCH COMMAND [ARGUMENT...]: the same on top of a tree, which only
# shows through and is not changed: what is written, the project's copy included, lies in
# SCRATCH/written. The copy is not the one that the tree may have.
over_tree() {
    local tree=$1 scratch=$2
    shift 2
    mkdir -p "$scratch"/{root,written,work}
    copy_project "$scratch/written" djactor-over
    enter "$scratch/root" djactor-over "lowerdir=$tree,upperdir=$scratch/written,workdir=$scratch/work" "$@"
}

# enter ROOT COPY OVERLAY COMMAND [ARGUMENT...]: OVERLAY has the options to mount ROOT with.
enter() {
    local root=$1 copy=$2 overlay=$3 name keep=()
    shift 3
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY DJACTOR_PATIENCE; do
        if [ -n "${!name:-}" ]; then
            keep+=("$name=${!name}")
        fi
    done
    if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
        keep+=(PIP_CERT=/etc/ssl/djactor.pem) # lend_network has put it there
    fi
    # shellcheck disable=SC2016  # expanded in there
    run_apart bash -c '
        set -e
        if [ -n "$2" ]; then
            mount -t overlay -o "$2" djactor "$1"
        fi
        mount -t proc proc "$1/proc"
        mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
        exec chroot "$1" "${@:3}"' bash "$root" "$overlay" \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "${keep[@]}" \
        bash -c "cd /$copy && $1" bash "${@:2}"
}
