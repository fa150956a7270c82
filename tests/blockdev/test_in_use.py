# SPDX-License-Identifier: MIT
"""lam_path_in_use(): what this machine itself uses is told from what it does
not."""
import contextlib
import ctypes
import errno
import os
import subprocess

import pytest

from harness import MiB, build_dir


@pytest.fixture(scope='module')
def in_use():
    """in_use(path): what uses it, None if nothing does."""
    library = ctypes.CDLL(os.path.join(build_dir(), 'lib', 'liblamella.so'))

    class Error(ctypes.Structure):
        _fields_ = [('code', ctypes.c_int), ('message', ctypes.c_char * 1020)]

    def ask(path):
        error = Error()
        answer = library.lam_path_in_use(os.fsencode(str(path)),
                                         ctypes.byref(error))
        if answer == 0:
            return None
        text = error.message.decode()
        assert answer == -errno.EBUSY and error.code == errno.EBUSY
        assert "'%s' is in use: " % path in text and '\n' not in text
        return text.split('is in use: ')[1]

    return ask


@contextlib.contextmanager
def mounted(device, folder):
    folder.mkdir(exist_ok=True)
    subprocess.run(['mkfs.ext4', '-q', '-F', device], check=True)
    subprocess.run(['mount', device, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(['umount', str(folder)], check=True)


@contextlib.contextmanager
def partition(loop, start, sectors):
    subprocess.run(['addpart', loop.path, '1', str(start), str(sectors)],
                   check=True)
    path = loop.path + 'p1'
    made = not os.path.exists(path)
    if made:                            # no devtmpfs
        with open('/sys/class/block/%s/dev' % os.path.basename(path)) as text:
            numbers = [int(word) for word in text.read().split(':')]
        os.mknod(path, 0o660 | 0o060000, os.makedev(*numbers))
    try:
        yield path
    finally:
        if made:
            os.unlink(path)
        subprocess.run(['delpart', loop.path, '1'], check=True)


def test_nothing_uses_it(in_use, loop_device, tmp_path):
    loop = loop_device(8 * MiB)
    assert in_use(loop.path) is None
    # A loop device by itself is no use: whoever set it up knows.
    assert in_use(loop.backing) is None
    assert in_use(tmp_path / 'missing') is None
    assert in_use(tmp_path) is None
    assert in_use('/dev/null') is None


def test_mounted(in_use, loop_device, tmp_path):
    loop = loop_device(16 * MiB)
    name = os.path.basename(loop.path)
    folder = tmp_path / 'a folder'
    with mounted(loop.path, folder):
        text = in_use(loop.path)
        assert text.startswith(name + ' is mounted on ')
        assert text.endswith('a\\040folder')    # as the kernel writes it
        # The file below it, by any name, and its device by any node.
        assert 'is mounted on' in in_use(loop.backing)
        other = tmp_path / 'other'
        os.link(loop.backing, other)
        assert 'is mounted on' in in_use(other)
        node = tmp_path / 'node'
        os.mknod(node, 0o600 | 0o060000, os.stat(loop.path).st_rdev)
        assert 'is mounted on' in in_use(node)
    assert in_use(loop.path) is None
    assert in_use(loop.backing) is None


def test_mounted_partition(in_use, loop_device, tmp_path):
    loop = loop_device(16 * MiB)
    with partition(loop, 63, 20000) as part:
        assert in_use(part) is None
        with mounted(part, tmp_path / 'here'):
            name = os.path.basename(part)
            for path in loop.path, part, loop.backing:
                assert in_use(path).startswith(name + ' is mounted on ')
        assert in_use(loop.path) is None


def test_partition_of_a_mounted_disk(in_use, loop_device, tmp_path):
    loop = loop_device(16 * MiB)
    with partition(loop, 8192, 2048) as part:
        with mounted(loop.path, tmp_path / 'whole'):
            assert os.path.basename(loop.path) + ' is mounted on' in \
                in_use(part)
        assert in_use(part) is None


def test_swap(in_use, loop_device, tmp_path):
    loop = loop_device(8 * MiB)
    subprocess.run(['mkswap', loop.path], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if subprocess.run(['swapon', loop.path], stderr=subprocess.DEVNULL
                      ).returncode:
        pytest.skip('this machine takes no swap area')
    try:
        assert in_use(loop.path).endswith(' is a swap area')
        assert in_use(loop.backing).endswith(' is a swap area')
    finally:
        subprocess.run(['swapoff', loop.path], check=True)
    assert in_use(loop.path) is None


def test_held_exclusively(in_use, loop_device):
    loop = loop_device(8 * MiB)
    fd = os.open(loop.path, os.O_RDONLY | os.O_EXCL)
    try:
        assert 'holds it exclusively' in in_use(loop.path)
    finally:
        os.close(fd)
    assert in_use(loop.path) is None


@pytest.mark.parametrize('mode', ['none', 'writeback'])
def test_forced_onto_a_mounted_device(lamella, loop_device, tmp_path, mode):
    """The kernel refuses to free or to zero what is mounted."""
    loop = loop_device(16 * MiB)
    data = os.urandom(MiB) + bytes(8 * MiB) + os.urandom(MiB)
    (tmp_path / 'in.raw').write_bytes(data)
    command = [*map(str, lamella.img), 'convert', '-n', '-t', mode, '-f',
               'raw', '-O', 'raw', str(tmp_path / 'in.raw'), loop.path]
    with mounted(loop.path, tmp_path / 'mnt'):
        done = subprocess.run(command, text=True, stderr=subprocess.PIPE)
        assert done.returncode == 1 and '(--force overrides)' in done.stderr
        subprocess.run([*command, '--force'], check=True)
        with open(loop.path, 'rb') as device:
            assert device.read(len(data)) == data
