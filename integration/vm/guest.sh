# The first process of the machine after its initramfs: run the command, note how it ended, power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
. /run/settings
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
hostname vm
ip link set lo up
cd "$REPOSITORY"
/bin/sh "$RESULTS/command"
echo $? >"$RESULTS/status"
busybox poweroff -f
