# SPDX-License-Identifier: MIT
"""Many requests on one open image: `bench` of both, whole commands timed."""
import os

from harness import KiB, MiB, Workload, say

MIX = 1 << 30           # bytes of the disk under the overlay


class Requests(Workload):
    """`bench` with so many requests of so many bytes, at regular steps."""

    def __init__(self, name, image, count, size, step, depth, cache,
                 write=False, offset=0, base=None, **more):
        super().__init__(name, [], needs=[image] if not write else [],
                         **more)
        self.image, self.base, self.write = image, base, write
        if base:
            self.more_needs.append(base)
        self.bench_options = [
            '-f', 'qcow2', '-t', cache, '-d', str(depth), '-c', str(count),
            '-s', str(size), '-S', str(step), '-o', str(offset),
            *(['-w', '--pattern', '7'] if write else [])]

    def target(self, side):
        return side + '-' + self.image if self.write else self.image

    def before(self, bench, side):
        if not self.write:
            return
        name = self.target(side)
        if os.path.exists(name):
            os.unlink(name)
        if self.base:
            bench.must('create', '-q', '-f', 'qcow2', '-b', self.base, '-F',
                       'raw', name)
        else:
            bench.must('create', '-q', '-f', 'qcow2', name, str(MIX))

    def command(self, bench, side):
        return [bench.program[side], 'bench', *self.bench_options,
                self.target(side)]

    def verify(self, bench):
        """Both have written the same requests: the contents are equal."""
        if not self.write:
            return 'exit 0'
        pair = [self.target(side) for side in ('genuine', 'lamella')]
        bench.must('check', '-q', '-f', 'qcow2', pair[1])
        bench.must_equal(*((name, 'qcow2') for name in pair))
        for name in pair:
            os.unlink(name)
        return 'identical'


class Bare(Requests):
    """The same writes by a program that does nothing else stand where lamella
    does: the ratio is what the disk leaves to win."""

    def target(self, side):
        return 'bare.raw' if side == 'lamella' else super().target(side)

    def command(self, bench, side):
        if side == 'genuine':
            return super().command(bench, side)
        return [os.path.join(bench.options.build, 'bench', 'bench-bare'),
                'bare.raw', '512', str(MiB), '1']

    def verify(self, bench):
        pair = [self.target(side) for side in ('genuine', 'lamella')]
        bench.must_equal((pair[0], 'qcow2'), (pair[1], 'raw'))
        for name in pair:
            os.unlink(name)
        return 'identical'


def ways(make):
    """One row for each depth and cache mode."""
    return [make(depth, cache) for cache in ('none', 'writeback')
            for depth in (1, 32)]


def cow(depth, cache):
    # 17 clusters from one to the next, so that no two are neighbours; in the
    # middle of a cluster, so that head and tail are copied.
    return Requests('4 KiB COW, %s, depth %d' % (cache, depth), 'cow.img',
                    8192, 4 * KiB, 17 * 64 * KiB, depth, cache, write=True,
                    offset=20 * KiB, base='mix.raw', goal='1.5 wall, 1.5 CPU')


def sequential(size, text):
    def make(depth, cache):
        return Requests('%s writes, %s, depth %d' % (text, cache, depth),
                        'seq.img', 512 * MiB // size, size, size, depth,
                        cache, write=True, goal='1.2 wall, 1.2 CPU')
    return make


# Steps that visit an image in no order that a disk or a cache would like: the
# golden ratio of its size, in sectors of 4 KiB.
def scattered(size):
    return int(size * 0.6180339887) // (4 * KiB) * (4 * KiB) + 4 * KiB


WORKLOADS = [
    *ways(cow),
    *ways(sequential(64 * KiB, '64 KiB')),
    *ways(sequential(MiB, '1 MiB')),
    *(Bare('1 MiB, bare writes, depth %d' % depth, 'seq.img', 512, MiB, MiB,
           depth, 'none', write=True, goal='the disk itself')
      for depth in (1, 32)),
    Requests('4 KiB reads, deflate, near', 'hot.qcow2', 20000, 4 * KiB,
             scattered(4 * MiB), 1, 'writeback', goal='5 wall, 5 CPU'),
    Requests('4 KiB reads, deflate, far', 'warm.qcow2', 20000, 4 * KiB,
             scattered(256 * MiB), 1, 'writeback', goal='5 wall, 5 CPU'),
    Requests('4 KiB reads, depth 1', 'plain.qcow2', 200000, 4 * KiB,
             scattered(512 * MiB), 1, 'writeback', goal='1.2 CPU'),
    Requests('4 KiB reads, depth 32', 'plain.qcow2', 200000, 4 * KiB,
             scattered(512 * MiB), 32, 'writeback', goal='1.2 CPU'),
]


def make_mix(bench):
    say('making data: 1 GiB without zeroes ...')
    with open('mix.raw', 'wb') as out:
        for _ in range(MIX // MiB):
            out.write(os.urandom(MiB))


def cut(name, source, size, *options):
    """The first @size bytes of a raw file as a qcow2 image of its own."""
    def make(bench):
        bench.need(source)
        with open(source, 'rb') as whole, open('part.raw', 'wb') as part:
            part.truncate(size)
            whole.seek(64 * MiB)        # behind most of the file system's own
            for at in range(0, size, MiB):
                part.write(whole.read(MiB))
        bench.must('convert', *options, '-f', 'raw', '-O', 'qcow2', 'part.raw',
                   name)
        os.unlink('part.raw')
    return make


DATA = {
    'mix.raw': make_mix,
    'hot.qcow2': cut('hot.qcow2', 'half.raw', 4 * MiB, '-c'),
    'warm.qcow2': cut('warm.qcow2', 'half.raw', 256 * MiB, '-c'),
    'plain.qcow2': cut('plain.qcow2', 'mix.raw', 512 * MiB),
}
