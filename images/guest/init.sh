#!/bin/busybox sh
# Process 1 of every gaia-vm guest image. It mounts the kernel file systems, loads the virtio drivers,
# configures eth0 from the kernel command line (gaia.ip=ADDRESS/BITS gaia.gw=ADDRESS), starts the one
# service of the image and prints its ready marker on the console once the service answers.
# The guest powers itself off when its service ends, after saying with which exit code.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C

# The shell finds its built-in tools through /proc/self/exe, so /proc comes first and by its full name.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /tmp /run
chmod 1777 /dev/shm /tmp
ulimit -n 65536
hostname "$(cat /etc/hostname)"

while read -r module; do
  insmod "/lib/modules/$module.ko" || echo "GAIA-WARNING module $module did not load"
done < /etc/gaia/modules

address=
gateway=
for word in $(cat /proc/cmdline); do
  case $word in
    gaia.ip=*) address=${word#gaia.ip=} ;;
    gaia.gw=*) gateway=${word#gaia.gw=} ;;
  esac
done
ip link set lo up
if [ -n "$address" ]; then
  ip link set eth0 up && ip address add "$address" broadcast + dev eth0 ||
    echo "GAIA-WARNING eth0 could not be configured with $address"
  [ -z "$gateway" ] || ip route add default via "$gateway" ||
    echo "GAIA-WARNING no route through $gateway"
fi

# Gives gaia_name, gaia_ready_marker and the functions gaia_prepare, gaia_start, gaia_ready.
. /etc/gaia/service.sh

gaia_prepare || echo "GAIA-WARNING the prepare step of $gaia_name failed with exit code $?"
( gaia_start ) < /dev/null &
service=$!

# The power button asks the service to end; init then powers off as after any other end.
trap 'kill -TERM $service' USR1 TERM
[ ! -e /dev/input/event0 ] || acpid -f -c /etc/gaia/acpi -l /dev/null -p /run/acpid.pid &

# The probe also ends when the service does, so that an early death is reported and not waited for.
until gaia_ready > /dev/null 2>&1; do
  kill -0 "$service" 2> /dev/null || break
  usleep 20000
done
kill -0 "$service" 2> /dev/null && echo "$gaia_ready_marker"

wait "$service"
code=$?
# A signal that init handles ends `wait` early, with the service still ending.
while kill -0 "$service" 2> /dev/null; do
  wait "$service"
  code=$?
done
echo "GAIA-EXITED $gaia_name $code"
sync
poweroff -f
