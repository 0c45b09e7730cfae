# The machine's first process after the initramfs: run the command, note how it ended, power off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
. /run/settings
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ip link set lo up
# Else a module that some test needs (ipip) puts an interface of its own (tunl0) into every namespace.
sysctl -qw net.core.fb_tunnels_only_for_init_net=1
output=$(echo /dev/vport*)
cd "$DIRECTORY" && sh -c "$COMMAND" >"$output" 2>&1 </dev/null
echo $? >"$FOLDER/status"
busybox poweroff -f
