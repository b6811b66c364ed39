#!/bin/sh
# The guest's only script: replays the recording in each mode named on the kernel's command line, has processes told of, then
# powers off.
# What it says to the host is one line each, begun with "vm-".
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
ip link set lo up
echo 1 > /proc/sys/kernel/printk # the console is the host's to read

argument() {
    sed -n "s/.*spanlet\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

echo "vm-booted $(uname -rv)"
for mode in $(argument modes | tr , ' '); do
    spanlet-node replay /recording/"$(argument recording)" --speed "$(argument speed)" \
        --otlp-delay "$(argument delay)" --capture-mode "$mode" --calls /tmp/calls --output json > /tmp/summary 2> /tmp/errors
    code=$?
    echo "vm-ended $mode $code $(tr -d '\n' < /tmp/summary)"
    sed "s/^/vm-call $mode /" /tmp/calls # for whoever looks why modes differ
    if [ "$code" != 0 ]; then
        grep -v '^played ' /tmp/errors | sed "s/^/vm-error $mode /"
    fi
done
spanlet-node execs 2> /tmp/errors
echo "vm-execs $? $(tr '\n' ' ' < /tmp/errors)"
poweroff -f
