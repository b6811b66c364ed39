#!/bin/sh
# The guest's only script: does what the kernel's command line says in each mode that it names, has processes told of, then
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

# What has been done, and when: for whoever looks where the time goes.
reached() {
    echo "vm-reached $* $(cut -d ' ' -f 1 /proc/uptime)"
}

echo "vm-booted $(uname -rv)"
replay() {
    spanlet-node replay /recording/"$(argument recording)" --speed "$(argument speed)" \
        --spans-last --capture-mode "$1" --calls /tmp/calls --output json > /tmp/summary 2> /tmp/errors
    code=$?
    echo "vm-ended $1 $code $(tr -d '\n' < /tmp/summary)"
    sed "s/^/vm-call $1 /" /tmp/calls # for whoever looks why modes differ
    if [ "$code" != 0 ]; then
        grep -v '^played ' /tmp/errors | sed "s/^/vm-error $1 /"
    fi
    reached replay "$1"
    storm "$1"
}

# With 64 threads that are blocked in reads, and 64 in writes.
storm() {
    spanlet-node storm --capture-mode "$1" --blocked 64 --connections 3 --calls "$(argument calls)" --output json \
        > /tmp/summary 2> /tmp/errors
    echo "vm-storm $1 $? $(tr -d '\n' < /tmp/summary)$(tr '\n' ' ' < /tmp/errors)"
    reached storm "$1"
    ways "$1"
}

ways() {
    spanlet-node ways --capture-mode "$1" 2> /tmp/errors
    echo "vm-ways $1 $? $(tr '\n' ' ' < /tmp/errors)"
    reached ways "$1"
}

execs() {
    spanlet-node execs 2> /tmp/errors
    echo "vm-execs $? $(tr '\n' ' ' < /tmp/errors)"
    reached execs
}

cost() {
    echo "vm-cost $1 $(spanlet-bench cost --capture-mode "$1" --turns 3 --slices 15 --json 2> /tmp/errors)"
    sed "s/^/vm-error $1 /" /tmp/errors
}

reached boot
for mode in $(argument modes | tr , ' '); do
    $(argument work) "$mode"
done
if [ "$(argument work)" = replay ]; then
    execs
fi
poweroff -f
