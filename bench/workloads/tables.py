# SPDX-License-Identifier: MIT
"""Work on metadata: check, internal snapshots, create, resize, amend."""
import os
import random
import shutil

from harness import KiB, MiB, TiB, Workload, say


class Snapshot(Workload):
    """Each on an image of its own, the second row after the first."""

    def __init__(self, name, arguments, **more):
        super().__init__(name, arguments, theirs=['theirs.img'],
                         ours=['ours.img'], repeat=1, **more)

    def verify(self, bench):
        bench.must('check', '-q', '-f', 'qcow2', 'ours.img')
        return 'checked'


class Resize(Workload):
    """Up by 1 TiB, and back before the next run."""

    def before(self, bench, side):
        bench.must('resize', '-q', '--shrink', '-f', 'qcow2',
                   *self.extra[side], '1T')

    def command(self, bench, side):
        return [bench.program[side], 'resize', '-q', '-f', 'qcow2',
                *self.extra[side], '2T']

    def verify(self, bench):
        bench.must('check', '-q', '-f', 'qcow2', 'ours.img')
        return 'checked'


class Bounded(Workload):
    """Alone, within seconds and bytes."""

    def __init__(self, name, arguments, seconds, memory, **more):
        super().__init__(name, arguments, theirs=None, **more)
        self.seconds, self.memory = seconds, memory
        self.last = None

    def figures(self, bench, side):
        self.last = super().figures(bench, side)
        return self.last

    def verify(self, bench):
        if self.last['wall'] > self.seconds or self.last['rss'] > self.memory:
            raise RuntimeError('took %.1f s and %d MiB' % (
                self.last['wall'], self.last['rss'] // MiB))
        return 'bounded'


def created(name, options, size, **more):
    return Created(name, ['create', '-q', '-f', 'qcow2', *options,
                          'created.img', size], output='created.img',
                   fmt='qcow2', **more)


class Created(Workload):
    def verify(self, bench):
        bench.must('check', '-q', '-f', 'qcow2', self.output)
        return 'checked'


WORKLOADS = [
    Workload('check, 1 GiB of files', ['check', '-f', 'qcow2', 'files.qcow2']),
    Workload('check, sparse 1 TiB', ['check', '-f', 'qcow2', 'sparse.qcow2']),
    Workload('check, scattered', ['check', '-f', 'qcow2', 'theirs.img'],
             repeat=2, goal='2 wall'),
    Bounded('check, 8 TiB of holes', ['check', '-f', 'qcow2', 'holes.img'],
            10, 256 * MiB, goal='at most 10 s, 256 MiB'),
    Snapshot('snapshot -c, scattered', ['snapshot', '-c', 's'],
             goal='20 wall'),
    Snapshot('snapshot -d, scattered', ['snapshot', '-d', 's'],
             goal='10 wall'),
    Resize('resize, scattered', theirs=['theirs.img'], ours=['ours.img'],
           goal='1 wall'),
    Snapshot('amend refcount_bits, scattered',
             ['amend', '-f', 'qcow2', '-o', 'refcount_bits=64'],
             goal='2 wall'),
    created('create 256 GiB, metadata', ['-o', 'preallocation=metadata'],
            '256G', goal='2 wall'),
]


def make_theirs(bench):
    say('making data: 65,536 clusters scattered over 1 TiB ...')
    clusters = random.Random(7).sample(range(TiB // (64 * KiB)), 65536)
    bench.must('create', '-q', '-f', 'qcow2', 'theirs.img', '1T')
    bench.io('theirs.img', ''.join('write -q -P 7 %d 4k\n' %
                                   (cluster * 64 * KiB)
                                   for cluster in clusters))


def make_ours(bench):
    shutil.copyfile(bench.need('theirs.img'), 'ours.img')


def make_holes(bench):
    """512-byte clusters in a file of 2^34 of them, nearly all holes."""
    bench.must('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512',
               'holes.img', '1G')
    bench.io('holes.img', ''.join('write -q -P 7 %d 512\n' % (i * 64 * KiB)
                                  for i in range(1000)))
    os.truncate('holes.img', 8 * TiB)


DATA = {'theirs.img': make_theirs, 'ours.img': make_ours,
        'holes.img': make_holes}
