# Makes the mounts of a sandbox, whose directory is $1, and keeps them. It runs
# in a mount namespace of its own and in the host's network namespace.

# All processes of the sandbox, containers included, have a mount from the
# directory: by it they are found and ended.
mount --bind "$1" "$1"

# An empty /run hides containerd, systemd and the plugins of the machine: the
# engine runs a containerd of its own and finds the test's plugins only.
mount -t tmpfs tmpfs /run
mkdir -p /run/docker/plugins /run/cgroup

# What the engine and the driver write outside of their directories is not to
# last: keys, containerd's /opt/containerd, the driver's state.
for d in etc opt var/lib; do
	mkdir -p "/run/overlay/$d/upper" "/run/overlay/$d/work"
	mount -t overlay overlay -o "lowerdir=/$d,upperdir=/run/overlay/$d/upper,workdir=/run/overlay/$d/work" "/$d"
done
mkdir -p /etc/docker
mount -t tmpfs tmpfs /etc/docker

# sysfs shows the interfaces of the namespace in which it was mounted.
mount --rbind /sys/fs/cgroup /run/cgroup
umount -l /sys
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
rmdir /run/cgroup

echo ready
exec sleep infinity </dev/null >/dev/null 2>&1
