#!/bin/sh
# Installs the system programs that tests start: a database, FUSE, network tools. With root it installs what
# is missing; without, it names it and the tests that need it say that they did not run.
set -eu
cd "$(dirname "$0")/.."

# package: program or library that it brings
missing=
want() {
    [ -e "$2" ] || command -v "$2" >/dev/null 2>&1 || missing="$missing $1"
}
want postgresql /usr/lib/postgresql
want fuse3 fusermount3
want iproute2 ip
want iptables iptables
want bubblewrap bwrap
want docker.io dockerd
want docker-registry docker-registry
want busybox-static /bin/busybox
want podman podman
want runc runc
want uidmap newuidmap
want netavark /usr/lib/podman/netavark
want qemu-system-x86 qemu-system-x86_64
want cpio cpio
want kmod depmod
want nfs-common mount.nfs
want nfs-ganesha-vfs ganesha.nfsd

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "windlass: installing what tests need:$missing"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing; } \
            >/dev/null || echo "windlass: could not install$missing: tests that need them will say so" >&2
    else
        echo "windlass: tests need these system packages and will not run without:$missing" >&2
    fi
fi
requirements/guest.sh || echo "windlass: no kernel for a guest: tests that run in one will say so" >&2
touch .venv/test-tools
