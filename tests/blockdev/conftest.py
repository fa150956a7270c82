# SPDX-License-Identifier: MIT
"""Private loop devices for the tests of this folder.

State sticks to a loop number after it is detached (a changed queue limit even
survives until the number is removed), so each device gets a number of its own
by LOOP_CTL_ADD, and the number is removed at the end.
"""
import fcntl
import os
import subprocess

import pytest

from harness import allocated

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
FIRST_NUMBER, LAST_NUMBER = 300, 3999


def control(request, number):
    with open('/dev/loop-control', 'rb') as device:
        return fcntl.ioctl(device, request, number)


def add_number():
    """A loop number that nobody has."""
    start = FIRST_NUMBER + os.getpid() % (LAST_NUMBER - FIRST_NUMBER)
    for number in list(range(start, LAST_NUMBER)) + \
            list(range(FIRST_NUMBER, start)):
        try:
            control(LOOP_CTL_ADD, number)
            return number
        except FileExistsError:
            continue
    raise OSError('no loop number is free')


def reason_for_none():
    """Why loop devices cannot be had here; None if they can."""
    if os.geteuid() != 0:
        return 'loop devices need root'
    if not os.path.exists('/dev/loop-control'):
        return 'there is no /dev/loop-control'
    try:
        control(LOOP_CTL_REMOVE, add_number())
    except OSError as error:
        return 'loop devices cannot be added: %s' % error
    return None


NONE = reason_for_none()


def settle(path):
    """Wait for device node and its size: udev may hold it open for a moment."""
    subprocess.run(['udevadm', 'settle', '--timeout=5'], check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) \
        if os.path.exists('/run/udev/control') else None
    assert os.path.exists(path)


class Loop:
    """One loop device on one backing file."""

    def __init__(self, backing, sector):
        self.backing = str(backing)
        self.number = add_number()
        self.path = '/dev/loop%d' % self.number
        argv = ['losetup', '-b', str(sector), self.path, self.backing]
        try:
            if not os.path.exists(self.path):       # no devtmpfs
                os.mknod(self.path, 0o660 | 0o060000,
                         os.makedev(7, self.number))
            subprocess.run(argv, check=True)
            settle(self.path)
        except BaseException:
            self.remove()
            raise

    def remove(self):
        subprocess.run(['losetup', '-d', self.path], check=False,
                       stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                control(LOOP_CTL_REMOVE, self.number)
                return
            except OSError:     # still held by whoever looked at it
                subprocess.run(['sleep', '0.05'], check=True)

    def blocks(self):
        """Bytes that the backing file occupies, once all is written."""
        fd = os.open(self.backing, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        return allocated(self.backing)

    def read(self):
        """The contents as the backing file has them, past any cache."""
        subprocess.run(['blockdev', '--flushbufs', self.path], check=True)
        with open(self.backing, 'rb') as data:
            return data.read()

    def read_cached(self):
        """The contents as a buffered reader of the device sees them."""
        with open(self.path, 'rb') as data:
            return data.read()

    def queue(self, name, value=None):
        path = '/sys/block/loop%d/queue/%s' % (self.number, name)
        if value is None:
            with open(path) as limit:
                return int(limit.read())
        with open(path, 'w') as limit:
            limit.write(str(value))
        return value


@pytest.fixture
def mount(tmp_path):
    """mount(kind, options): a folder with a file system of its own."""
    if os.geteuid() != 0:
        pytest.skip('mounting needs root')
    folders = []

    def make(kind, options='defaults'):
        folder = tmp_path / ('%s%d' % (kind, len(folders)))
        folder.mkdir()
        done = subprocess.run(['mount', '-t', kind, '-o', options, 'none',
                               str(folder)], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            pytest.skip('%s cannot be mounted: %s' % (kind,
                                                      done.stderr.strip()))
        folders.append(folder)
        return folder

    yield make
    for folder in folders:
        subprocess.run(['umount', str(folder)], check=True)


@pytest.fixture
def loop_device(tmp_path, mount):   # after which it is torn down
    """loop_device(size, sector=512, folder=None, fill=None): a Loop whose
    backing file is full of old data."""
    if NONE:
        pytest.skip(NONE)
    made = []

    def make(size, sector=512, folder=None, fill=b'old data '):
        backing = (folder or tmp_path) / ('backing%d' % len(made))
        with open(backing, 'wb') as out:
            if fill:
                out.write((fill * (size // len(fill) + 1))[:size])
            else:
                out.truncate(size)
            out.flush()
            os.fsync(out.fileno())
        made.append(Loop(backing, sector))
        return made[-1]

    yield make
    for loop in made:
        loop.remove()
