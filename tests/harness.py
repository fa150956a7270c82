# SPDX-License-Identifier: MIT
"""What every pytest folder may use: programs, run(), test data.

Environment, all set by tests/run, all optional:

    LAMELLA_BUILD       build directory with lamella, qemu-img, qemu-io
    LAMELLA_ASAN_BUILD  the same built with ASan and UBSan
    QEMU_IMG            the installed genuine qemu-img
    QEMU_IMG_2          a second genuine version (10.0)

qemu-io is looked for beside its qemu-img.
"""
import functools
import hashlib
import os
import random
import re
import shutil
import subprocess
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30


class Tools:
    """One program pair: .img and .io, and run() for both."""

    def __init__(self, name, img, io, img_prefix=(), version=None):
        self.name = name
        self.img = [img, *img_prefix]
        self.io = io
        self.version = version

    def __repr__(self):
        return self.name

    def run(self, *args, **kwargs):
        """An image command, which must succeed; stdout as text."""
        return run(*self.img, *args, **kwargs).stdout

    def io_run(self, image, *commands, options=(), **kwargs):
        """qemu-io commands on one image, which must succeed."""
        argv = [*self.io, *options, image]
        for command in commands:
            argv += ['-c', command]
        return run(*argv, **kwargs).stdout


def run(*argv, status=0, timeout=120, **kwargs):
    """Run; the exit status must be @status (None: any).  Text in and out."""
    argv = [str(arg) for arg in argv]
    kwargs.setdefault('stdin', subprocess.DEVNULL)
    if 'input' in kwargs:
        del kwargs['stdin']
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors='replace', timeout=timeout,
                          **kwargs)
    if status is not None and done.returncode != status:
        pytest.fail('%s\nexit status %d instead of %d\n%s%s' % (
            ' '.join(argv), done.returncode, status, done.stdout, done.stderr),
            pytrace=False)
    return done


def wait_until(process, condition, seconds=60):
    """Until @condition() holds, the process has ended, or time is up."""
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and \
            time.monotonic() < deadline:
        time.sleep(0.01)


def takes_signal(process, number):
    """It has a handler: before that, a signal would just end it."""
    try:
        with open('/proc/%d/status' % process.pid) as status:
            caught = re.search(r'SigCgt:\s*(\w+)', status.read())[1]
    except (OSError, TypeError):
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def pytest_fail(message):
    """Fail with this text alone: no stack is needed to understand it."""
    pytest.fail(message, pytrace=False)


def build_dir():
    return os.environ.get('LAMELLA_BUILD', os.path.join(ROOT, 'build'))


@functools.lru_cache(maxsize=None)
def has_libcrypto():
    """Without it there are no digests to choose from."""
    done = run(*our_tools(build_dir()).img, 'convert', '--digest', 'help',
               status=None)
    return done.stdout.strip() != ''


def need_libcrypto():
    if not has_libcrypto():
        pytest.skip('lamella was built without libcrypto')


def our_tools(path):
    exe = os.path.join(path, 'lamella')
    if not os.path.exists(exe):
        exe = os.path.join(path, 'cli', 'lamella')
    return Tools('lamella', exe, [exe, 'io'])


def genuine_tools():
    """Every genuine version that can be had, oldest first."""
    found = []
    for path in (os.environ.get('QEMU_IMG') or shutil.which('qemu-img'),
                 os.environ.get('QEMU_IMG_2')):
        if not path or not os.path.exists(path):
            continue
        text = subprocess.run([path, '--version'], stdout=subprocess.PIPE,
                              text=True).stdout
        version = tuple(int(part) for part in
                        re.search(r'version ([\d.]+)', text)[1].split('.'))
        io = os.path.join(os.path.dirname(path), 'qemu-io')
        found.append(Tools('qemu-%d.%d' % version[:2], path, [io],
                           version=version))
    return found


GENUINE = genuine_tools()
GENUINE_IDS = [tools.name for tools in GENUINE]


def random_bytes(seed, length):
    return random.Random(seed).randbytes(length)


def text_bytes(seed, length):
    """Bytes that compress about as well as text does."""
    rng = random.Random(seed)
    words = [bytes(rng.choices(b'etaoinshrdlucmfwyp', k=rng.randint(2, 9)))
             for _ in range(800)]
    out = bytearray()
    while len(out) < length:
        out += b' '.join(rng.choices(words, k=1000)) + b'\n'
    return bytes(out[:length])


def disk_blocks(path, end=None, unit=64 * KiB):
    """What a raw disk reads up to @end: its length, and by their offsets the
    blocks that are not all zero.  Holes cost nothing."""
    blocks = {}
    with open(path, 'rb') as disk:
        size = os.fstat(disk.fileno()).st_size
        size, at = size if end is None else min(size, end), 0
        while at < size:
            try:
                data = os.lseek(disk.fileno(), at, os.SEEK_DATA)
                hole = os.lseek(disk.fileno(), data, os.SEEK_HOLE)
            except OSError:             # ENXIO: no data behind this place
                break
            at = data // unit * unit
            while at < min(hole, size):
                block = os.pread(disk.fileno(), min(unit, size - at), at)
                if block != bytes(len(block)):
                    blocks[at] = block
                at += unit
    return size, blocks


def make_mixed_file(path, size, seed, unit=64 * KiB):
    """A raw file with noise, text, written zeroes and holes, by unit."""
    rng = random.Random(seed)
    with open(path, 'wb') as out:
        out.truncate(size)
        for offset in range(0, size, unit):
            length = min(unit, size - offset)
            kind = rng.choice(('noise', 'text', 'zero', 'hole', 'hole',
                               'partial'))
            out.seek(offset)
            if kind == 'noise':
                out.write(rng.randbytes(length))
            elif kind == 'text':
                out.write(text_bytes(rng.random(), length))
            elif kind == 'zero':
                out.write(bytes(length))
            elif kind == 'partial':
                out.seek(offset + rng.randrange(length))
                out.write(rng.randbytes(min(512, size - out.tell())))


def sha256(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as data:
        for block in iter(lambda: data.read(MiB), b''):
            digest.update(block)
    return digest.hexdigest()


def allocated(path):
    """Bytes that a file really occupies."""
    return os.stat(path).st_blocks * 512


def contains(ours, theirs):
    """Ours has every value of theirs; it may have more keys."""
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and all(
            key in ours and contains(ours[key], value)
            for key, value in theirs.items())
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(
            contains(a, b) for a, b in zip(ours, theirs))
    return ours == theirs
