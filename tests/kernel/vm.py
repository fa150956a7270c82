# SPDX-License-Identifier: MIT
"""A small virtual machine for tests that need a kernel of their own.

It boots in a few seconds under emulation: an initrd made here holds busybox and
the modules that were asked for, the machine's own root is mounted read-only
over 9p, and a Python script of this folder runs in there.  What it prints
reaches us by the serial console.  /run is the only folder that it can write to.
"""
import io
import os
import re
import shutil
import stat
import subprocess
import tempfile

INIT = r'''#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read m; do insmod /mod/$m 2>/dev/null || echo "insmod $m failed"; done \
    < /boot.list
R=/host
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro \
    host $R || { echo "@@EXIT 98"; poweroff -f; }
mount -t proc proc $R/proc; mount -t sysfs sys $R/sys
mount -o bind /dev $R/dev; mount -t tmpfs run $R/run
mkdir $R/run/lock $R/run/modules; mount -o bind /mod $R/run/modules
echo 1 > /proc/sys/kernel/printk
ip link set lo up
chroot $R /usr/bin/env LC_ALL=C.UTF-8 DM_DISABLE_UDEV=1 \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin $COMMAND
echo "@@EXIT $?"
poweroff -f
'''
# What it takes to reach the 9p export.
BOOT_MODULES = ['virtio_pci', '9pnet_virtio', '9p']


def reason_for_none():
    """Why there is no virtual machine here; None if there can be one."""
    for tool in ('qemu-system-x86_64', 'busybox', 'depmod', 'modprobe'):
        if not shutil.which(tool, path=os.environ['PATH'] +
                            ':/usr/sbin:/sbin'):
            return '%s is not installed' % tool
    if os.uname().machine != 'x86_64':
        return 'needs an x86-64 machine'
    return None


class Archive:
    """A cpio archive in the format that the kernel unpacks."""

    def __init__(self):
        self.out, self.inode = io.BytesIO(), 0

    def add(self, name, mode, data=b''):
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(name) + 1, 0)
        self.out.write(b'070701' + b''.join(b'%08x' % f for f in fields) +
                       name.encode() + b'\0')
        self.pad()
        self.out.write(data)
        self.pad()

    def pad(self):
        self.out.write(bytes(-self.out.tell() % 4))

    def folder(self, name):
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o644):
        self.add(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self.add('TRAILER!!!', 0)
        return self.out.getvalue()


def module_files(kernel, modules):
    """Paths of modules and of all that they need, in loading order."""
    version = os.listdir(os.path.join(kernel, 'lib', 'modules'))[0]
    found = []
    for module in modules:
        listed = subprocess.run(
            ['modprobe', '-d', kernel, '-S', version, '--show-depends',
             module], stdout=subprocess.PIPE, text=True, check=True,
            env=dict(os.environ, PATH=os.environ['PATH'] + ':/usr/sbin:/sbin'))
        for line in listed.stdout.splitlines():
            word = line.split()
            if word[0] == 'insmod' and word[1] not in found:
                found.append(word[1])
    return found


def make_initrd(kernel, modules, command):
    """@modules come without being loaded, as files in /run/modules, each with
    a list of what goes before it (NAME.list)."""
    archive = Archive()
    for name in ('bin', 'dev', 'proc', 'sys', 'host', 'mod', 'tmp'):
        archive.folder(name)
    with open(shutil.which('busybox'), 'rb') as busybox:
        archive.file('bin/busybox', busybox.read(), 0o755)
    for applet in ('sh', 'mount', 'insmod', 'mkdir', 'ip', 'chroot', 'echo',
                   'poweroff'):
        archive.link('bin/' + applet, 'busybox')
    boot = module_files(kernel, BOOT_MODULES)
    needed = {module: module_files(kernel, [module]) for module in modules}
    every = dict.fromkeys(boot + [path for paths in needed.values()
                                  for path in paths])
    for path in every:
        with open(path, 'rb') as module:
            archive.file('mod/' + os.path.basename(path), module.read())
    for module, paths in needed.items():
        archive.file('mod/%s.list' % module, ''.join(
            os.path.basename(path) + '\n' for path in paths).encode())
    archive.file('boot.list', ''.join(
        os.path.basename(path) + '\n' for path in boot).encode())
    archive.file('init', INIT.replace('$COMMAND', command).encode(), 0o755)
    return archive.finish()


def run(kernel, modules, command, arguments=(), limit=240, memory=768):
    """Boot, run @command (words without spaces), power off.

    Returns the exit status (None if it did not come so far) and the lines
    that were printed.
    """
    with tempfile.NamedTemporaryFile() as initrd:
        initrd.write(make_initrd(kernel, modules, ' '.join(command)))
        initrd.flush()
        argv = ['qemu-system-x86_64', '-accel', 'tcg,tb-size=512', '-cpu',
                'max', '-m', str(memory), '-smp', '1', '-nodefaults',
                '-no-user-config', '-display', 'none', '-serial', 'stdio',
                '-no-reboot', '-kernel', os.path.join(kernel, 'vmlinux'),
                '-initrd', initrd.name, '-append',
                'console=ttyS0 quiet panic=-1 mitigations=off nokaslr '
                'tsc=reliable no_timer_check', '-virtfs',
                'local,path=/,mount_tag=host,security_model=none,'
                'readonly=on,multidevs=remap', *arguments]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=limit)
            output = done.stdout
        except subprocess.TimeoutExpired as late:
            output = (late.stdout or b'') + \
                b'\nthe machine ran into its limit of %d s\n' % limit
    lines = output.decode(errors='replace').replace('\r', '').split('\n')
    for line in lines:
        found = re.match(r'@@EXIT (\d+)$', line)
        if found:
            return int(found[1]), lines
    return None, lines
