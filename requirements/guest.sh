#!/bin/sh
# Makes .venv/guest: the kernel and the first file system of the virtual machine in which some tests run (tests/guest).
# A kernel of Debian's, taken apart rather than installed: it is booted beside this machine's own. The guest's root
# is this machine's, which it cannot change.
set -eu
cd "$(dirname "$0")/.."

for program in dpkg-deb apt-get depmod modprobe cpio qemu-system-x86_64 /bin/busybox; do
    command -v $program >/dev/null || { echo "no $program" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The small "cloud" kernel has no 9p, over which the guest sees this machine's files.
kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-.*-amd64\)$/\1/p' | head -n 1
}
package=$(kernel_package)
if [ -z "$package" ] && [ "$(id -u)" = 0 ] && apt-get update -qq >/dev/null; then
    package=$(kernel_package)
fi
[ -n "$package" ] || { echo "no linux-image-amd64 in the package lists" >&2; exit 1; }
(cd "$work" && apt-get download -qq "$package" >/dev/null 2>&1) || { echo "$package cannot be had" >&2; exit 1; }
dpkg-deb -x "$work"/linux-image-*.deb "$work/kernel"
version=$(ls "$work/kernel/lib/modules")
depmod -b "$work/kernel" "$version"

first=$work/first
mkdir -p "$first/bin" "$first/dev" "$first/proc" "$first/root" "$first/modules"
cp /bin/busybox "$first/bin/"
for module in virtio_pci 9pnet_virtio 9p virtio_net virtio_rng overlay fuse nfsv3 nfsv4; do
    modprobe -d "$work/kernel" -S "$version" --show-depends $module || exit 1
done >"$work/needed"
awk '$1 == "insmod" && !seen[$2]++ {print $2}' "$work/needed" | while read -r file; do
    cp "$file" "$first/modules/"
    echo "/modules/$(basename "$file")" >>"$first/modules/order"
done
cat >"$first/init" <<'INIT'
#!/bin/busybox sh
# Becomes the machine outside, but for what changes: memory takes the place of its directories for that.
busybox mount -t devtmpfs none /dev
busybox mount -t proc none /proc
exec >/dev/console 2>&1
while read -r module; do busybox insmod "$module" || echo "guest: cannot load $module"; done </modules/order
share=trans=virtio,version=9p2000.L,msize=512000
busybox mount -t 9p -o ro,cache=loose,$share host /root || busybox poweroff -f
busybox mount -t proc none /root/proc
busybox mount -t sysfs none /root/sys
busybox mount -t cgroup2 none /root/sys/fs/cgroup
busybox mount --move /dev /root/dev
busybox mkdir -p /root/dev/shm /root/dev/pts
busybox mount -t devpts none /root/dev/pts
# A checkout that lies below one of the directories that memory takes the place of is kept, and brought back.
for word in $(busybox cat /proc/cmdline); do
    case $word in windlass.checkout=*) checkout=/root${word#*=} ;; esac
done
busybox mkdir /checkout
busybox mount --bind "$checkout" /checkout
for directory in tmp run var/tmp dev/shm; do busybox mount -t tmpfs -o mode=1777 none /root/$directory; done
if ! [ -d "$checkout" ]; then
    busybox mkdir -p "$checkout"
    busybox mount --move /checkout "$checkout"
fi
busybox mkdir /root/run/results
busybox mount -t 9p -o rw,cache=none,$share results /root/run/results
busybox ip link set lo up
busybox ip addr add 10.0.2.15/24 dev eth0
busybox ip link set eth0 up
busybox ip route add default via 10.0.2.2
exec busybox switch_root /root /bin/sh /run/results/run
INIT
chmod 755 "$first/init"
mkdir -p .venv/guest
cp "$work"/kernel/boot/vmlinuz-* .venv/guest/vmlinuz
(cd "$first" && find . | cpio -o -H newc --quiet) >.venv/guest/initrd.new
mv .venv/guest/initrd.new .venv/guest/initrd
