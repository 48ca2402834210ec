#!/bin/sh
# A systemd of its own in new namespaces, over a copy-on-write view of this machine's files.
#
#   unshare --mount --pid --ipc --uts --cgroup --net --fork --kill-child \
#       sh systemd_machine.sh DIRECTORY SEEN...
#
# As root. Everything that it writes goes to a file system in memory under DIRECTORY, which ends with
# it; /dev holds six harmless devices, /proc/sys is read-only, and units that would touch the kernel
# are masked. SEEN are directories that may lie on file systems of their own, which the view of / does
# not hold. Ends when its first process is killed.
set -eu
place=$1
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
shift
for seen in "$@"; do
    [ -n "$(ls -A "$place/root$seen" 2>/dev/null)" ] && continue
    mkdir -p "$place/root$seen"
    mount --rbind "$seen" "$place/root$seen"
done
cd "$place/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/shm dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
for unit in systemd-sysctl.service systemd-modules-load.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-tmpfiles-setup-dev.service systemd-binfmt.service \
    systemd-remount-fs.service proc-sys-fs-binfmt_misc.automount dev-hugepages.mount \
    dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
rm -f etc/machine-id
echo 0123456789abcdef0123456789abcdef >etc/machine-id
mkdir mnt/old
pivot_root . mnt/old
cd /
umount -l /mnt/old
export container=sapo-test
exec /lib/systemd/systemd --unit=basic.target
