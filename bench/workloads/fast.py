# SPDX-License-Identifier: MIT
"""Conversions in their parallel form, compressed ones that need no work, block
devices, clones, memory, and what is left of the page cache."""
import os
import random
import shutil
import subprocess
import tempfile

from convert import ZSTD, convert
from harness import GiB, MiB, Workload, say

MANY = ['-m', '16', '-W']


def parallel(name, source, fmt, source_fmt='qcow2', options=(), **more):
    """A conversion with many requests, out of order."""
    return convert('-m 16 -W ' + name, source, fmt, source_fmt,
                   [*options, *MANY], **more)


class Existing(Workload):
    """Into an image that is there already, empty."""

    def before(self, bench, side):
        super().before(bench, side)
        bench.must('create', '-q', '-f', 'qcow2', self.output, '1T')


TMPFS = '/dev/shm'


def folder_for(size):
    """Where a loop device's file goes: into memory if it has room, since both
    programs write as fast as a disk takes it, and the disk is not compared."""
    try:
        return TMPFS if shutil.disk_usage(TMPFS).free > 2 * size else '.'
    except OSError:
        return '.'


class Device(Workload):
    """Into a loop device, O_DIRECT; its file full of something else before
    each run, or empty."""

    def __init__(self, name, dirty, *options, **more):
        super().__init__(name, ['convert', *options, '-n', '-t', 'none', '-f',
                                'qcow2', '-O', 'raw', 'files.qcow2',
                                '/dev/loop-none'], ours=['--no-sync'], **more)
        self.dirty, self.device, self.file = dirty, None, None

    def before(self, bench, side):
        self.detach()
        size = 2 * bench.size * MiB
        self.file = tempfile.NamedTemporaryFile(
            prefix='loop-', suffix='.img', dir=folder_for(size))
        self.file.truncate(size)
        for _ in range(size // MiB if self.dirty else 0):
            self.file.write(b'old ' * (MiB // 4))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.device = subprocess.run(
            ['losetup', '-f', '--show', self.file.name],
            check=True, text=True, stdout=subprocess.PIPE).stdout.strip()

    def detach(self):
        if self.device:
            subprocess.run(['losetup', '-d', self.device], check=True)
        self.device = None

    def command(self, bench, side):
        if os.getuid():
            raise RuntimeError('loop devices need root')
        return super().command(bench, side)[:-1] + [self.device]

    def figures(self, bench, side):
        try:
            figures = super().figures(bench, side)
            os.sync()
            figures['size'] = os.stat(self.file.name).st_blocks * 512
        finally:
            self.detach()
        return figures

    def verify(self, bench):
        bench.must_equal(('files.qcow2', 'qcow2'), (self.file.name, 'raw'))
        self.file.close()
        return 'identical'


def mount():
    os.makedirs('xfs', exist_ok=True)
    subprocess.run(['mount', '-o', 'loop', 'clone.img', 'xfs'], check=True)


def umount():
    subprocess.run(['umount', 'xfs'], check=True)
    os.rmdir('xfs')


class Clone(Workload):
    """Inside a file system that shares blocks; beside it `cp --reflink`, which
    the column of the genuine tool shows."""

    def __init__(self, name, arguments, copy, **more):
        super().__init__(name, arguments, output='xfs/out', **more)
        self.copy = copy

    def before(self, bench, side):
        if not os.path.exists('xfs/in.raw'):
            mount()
        super().before(bench, side)

    def command(self, bench, side):
        if side == 'genuine' and self.copy:
            return ['cp', '--reflink=always', self.arguments[-2], self.output]
        return super().command(bench, side)

    def figures(self, bench, side):
        try:
            return super().figures(bench, side)
        except RuntimeError:
            umount()
            raise

    def verify(self, bench):
        subprocess.run(['cmp', 'xfs/in.raw', self.output], check=True)
        os.unlink(self.output)
        umount()
        return 'identical'


class Footprint(Workload):
    """Pages of 4 GiB that are still in the cache after an O_DIRECT copy: the
    column of sizes shows their part of it, and that of the genuine tool is
    1."""

    def before(self, bench, side):
        super().before(bench, side)
        drop(self.arguments[-2])

    def figures(self, bench, side):
        figures = super().figures(bench, side)
        figures['size'] = max(1, cached(self.arguments[-2]) +
                              cached(self.output))
        return figures

    def verify(self, bench):
        bench.must_equal(self.source, (self.output, self.fmt))
        left = cached_after(self, bench)
        total = 2 * os.stat(self.arguments[-2]).st_size
        if left > total // 20:
            raise RuntimeError('%d of %d MiB are left in the page cache' %
                               (left // MiB, total // MiB))
        return 'identical, %d of %d MiB left in the page cache' % (
            left // MiB, total // MiB)


def cached_after(workload, bench):
    """Comparing has read it all: once more."""
    workload.before(bench, 'lamella')
    return workload.figures(bench, 'lamella')['size']


def drop(name):
    with open(name, 'rb') as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(name):
    """Bytes of a file in the page cache."""
    found = subprocess.run(['fincore', '--bytes', '--noheadings', '--output',
                            'RES', name], check=True, text=True,
                           stdout=subprocess.PIPE).stdout
    return int(found)


class Peak(Workload):
    """Memory with the most requests, which a limit judges."""

    LIMIT = 64 * MiB

    def verify(self, bench):
        word = super().verify(bench)
        self.before(bench, 'lamella')
        figures = self.figures(bench, 'lamella')
        if figures['rss'] > self.LIMIT:
            raise RuntimeError('%d MiB of memory' % (figures['rss'] // MiB))
        return word


COMPRESSED = [
    convert('deflate -> deflate', 'deflate.qcow2', 'qcow2', options=['-c'],
            repeat=1, goal='20 wall'),
    convert('zstd -> zstd', 'zstd.qcow2', 'qcow2', options=ZSTD, repeat=2,
            goal='20 wall'),
]

PARALLEL = [
    parallel('raw -> qcow2', 'files.raw', 'qcow2', 'raw', goal='1 wall, CPU'),
    parallel('qcow2 -> raw', 'files.qcow2', 'raw', goal='1 wall, CPU'),
    parallel('raw -> -c (deflate)', 'half.raw', 'qcow2', 'raw', ['-c'],
             repeat=1, goal='1 wall, CPU'),
    parallel('raw -> -c (zstd)', 'half.raw', 'qcow2', 'raw', ZSTD,
             repeat=2, goal='1 wall, CPU'),
    parallel('deflate -> raw', 'deflate.qcow2', 'raw', repeat=2,
             goal='1 wall, CPU'),
    parallel('zstd -> raw', 'zstd.qcow2', 'raw', repeat=2,
             goal='1 wall, CPU'),
    parallel('deflate -> deflate', 'deflate.qcow2', 'qcow2',
             options=['-c'], repeat=1, goal='1 wall, CPU'),
    parallel('zstd -> zstd', 'zstd.qcow2', 'qcow2', options=ZSTD,
             repeat=1, goal='1 wall, CPU'),
    parallel('chain of 10 -> raw', 'chain10.qcow2', 'raw',
             goal='1 wall, CPU'),
]

SPARSE = [
    convert('scattered 1 TiB -> raw', 'theirs.img', 'raw', repeat=1,
            goal='4 wall, 1 memory'),
    parallel('scattered 1 TiB -> raw', 'theirs.img', 'raw', repeat=1,
             goal='1 wall, CPU'),
    Existing('empty 1 TiB -> empty, -n',
             ['convert', '-n', '-f', 'qcow2', '-O', 'qcow2', 'empty.qcow2',
              'out.qcow2'], source=('empty.qcow2', 'qcow2'),
             output='out.qcow2', fmt='qcow2', ours=['--no-sync'], repeat=2,
             goal='50 wall'),
]

DEVICES = [
    Device('loop, dirty, -t none', True, needs=['files.qcow2'],
           goal='1.3 wall'),
    Device('loop, --target-is-zero', False, '--target-is-zero',
           needs=['files.qcow2'], goal='1.3 wall'),
    Device('-m 16 -W loop, dirty', True, *MANY, needs=['files.qcow2'],
           goal='1 wall, CPU'),
    Device('-m 16 -W loop, --target-is-zero', False, *MANY,
           '--target-is-zero', needs=['files.qcow2'], goal='1 wall, CPU'),
]

CLONES = [
    Clone('cp --reflink, -C', ['convert', '-C', '-f', 'raw', '-O', 'raw',
                               'xfs/in.raw', 'xfs/out'], True,
          needs=['clone.img'], goal='0.33 wall'),
    Clone('cp --reflink, -S 0', ['convert', '-S', '0', '-f', 'raw', '-O',
                                 'raw', 'xfs/in.raw', 'xfs/out'], True,
          needs=['clone.img'], goal='0.33 wall'),
    Clone('-C', ['convert', '-C', '-f', 'raw', '-O', 'raw', 'xfs/in.raw',
                 'xfs/out'], False, needs=['clone.img'], goal='1 wall'),
]

CACHE = [
    Footprint('4 GiB, -T none -t none',
              ['convert', '-T', 'none', '-t', 'none', '-f', 'raw', '-O', 'raw',
               'four.raw', 'out.raw'], source=('four.raw', 'raw'),
              output='out.raw', fmt='raw', ours=['--no-sync'], repeat=1,
              goal='1 wall'),
]

MEMORY = [
    Peak('-m 16, zstd from scattered',
         ['convert', *ZSTD, *MANY, '-f', 'qcow2', '-O', 'qcow2', 'theirs.img',
          'out.qcow2'], source=('theirs.img', 'qcow2'), output='out.qcow2',
         fmt='qcow2', ours=['--no-sync'], repeat=1, goal='64 MiB'),
    Peak('-m 16, none, to qcow2',
         ['convert', *MANY, '-T', 'none', '-t', 'none', '-f', 'raw', '-O',
          'qcow2', 'files.raw', 'out.qcow2'], source=('files.raw', 'raw'),
         output='out.qcow2', fmt='qcow2', ours=['--no-sync'], repeat=1,
         goal='64 MiB'),
]

WORKLOADS = [*COMPRESSED, *PARALLEL, *SPARSE, *DEVICES, *CLONES, *CACHE,
             *MEMORY]


def make_empty(bench):
    bench.must('create', '-q', '-f', 'qcow2', 'empty.qcow2', '1T')


def make_four(bench):
    """4 GiB at the usual size, none of it zero."""
    say('making data: a full raw file ...')
    block = random.Random(3).randbytes(16 * MiB)
    with open('four.raw', 'wb') as out:
        for _ in range(4 * bench.size // 16):
            out.write(block)


def make_clone(bench):
    say('making data: a file system that shares blocks ...')
    with open('clone.img', 'wb') as out:
        out.truncate(4 * bench.size * MiB + GiB)
    subprocess.run(['mkfs.xfs', '-q', '-f', '-m', 'reflink=1', 'clone.img'],
                   check=True)
    bench.need('files.raw')
    mount()
    try:
        shutil.copyfile('files.raw', 'xfs/in.raw')
    finally:
        umount()


DATA = {
    'empty.qcow2': make_empty,
    'four.raw': make_four,
    'clone.img': make_clone,
}
