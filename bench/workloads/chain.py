# SPDX-License-Identifier: MIT
"""Chains of overlays, and what answers about an image without its data."""
import json
import random
import subprocess

from convert import convert
from harness import GiB, KiB, MiB, TiB, Workload, say


class Map(Workload):
    """Two answers that must agree by value."""

    def verify(self, bench):
        with open('stdout.lamella', encoding='utf-8') as out:
            ours = json.load(out)
        theirs = json.loads(subprocess.run(
            self.command(bench, 'genuine'), check=True, stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL).stdout)
        keys = ('start', 'length', 'depth', 'zero', 'data', 'offset')

        def plain(extents):
            return [[extent.get(key) for key in keys] for extent in extents]
        if plain(ours) != plain(theirs):
            raise RuntimeError('map answers differ')
        return 'identical'


WORKLOADS = [
    convert('chain of 10 -> raw', 'chain10.qcow2', 'raw', goal='5 wall'),
    convert('chain of 10, scattered -> raw', 'far10.qcow2', 'raw', repeat=2,
            goal='5 wall'),
    convert('chain of 10 -> qcow2', 'chain10.qcow2', 'qcow2'),
    Map('map, chain of 10',
        ['map', '-f', 'qcow2', '--output=json', 'chain10.qcow2']),
    Map('map, sparse 1 TiB',
        ['map', '-f', 'qcow2', '--output=json', 'sparse.qcow2'], repeat=2),
    Workload('compare, chain with raw',
             ['compare', '-f', 'qcow2', '-F', 'raw', 'chain10.qcow2',
              'chain.raw']),
    Workload('info', ['info', '--output=json', 'chain10.qcow2'], repeat=5),
]


def scatter(bench, name, size, writes, seed):
    rng = random.Random(seed)
    bench.io(name, ''.join('write -q -P %d %d %d\n' % (
        rng.randrange(1, 255), rng.randrange(0, size - 64 * KiB, 4 * KiB),
        rng.choice((4, 16, 64)) * KiB) for _ in range(writes)))


def stack(bench, stem, below, size, writes):
    for number in range(1, 11):
        name = '%s%d.qcow2' % (stem, number)
        bench.must('create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2',
                   name)
        scatter(bench, name, size, writes, number)
        below = name


def make_chain(bench):
    bench.need('files.qcow2')
    say('making data: a chain of ten overlays ...')
    stack(bench, 'chain', 'files.qcow2', 2 * bench.size * MiB, 1500)


def make_flat(bench):
    bench.need('chain10.qcow2')
    bench.must('convert', '-f', 'qcow2', '-O', 'raw', 'chain10.qcow2',
               'chain.raw')


def make_far(bench):
    say('making data: a chain of ten overlays, 16 GiB, scattered ...')
    bench.must('create', '-q', '-f', 'qcow2', 'far.qcow2', '16G')
    scatter(bench, 'far.qcow2', 16 * GiB, 16 * bench.size, 5)
    stack(bench, 'far', 'far.qcow2', 16 * GiB, 16)


def make_sparse(bench):
    say('making data: a sparse 1 TiB image ...')
    bench.must('create', '-q', '-f', 'qcow2', 'sparse.qcow2', '1T')
    scatter(bench, 'sparse.qcow2', TiB, 2000, 99)


DATA = {
    'chain10.qcow2': make_chain,
    'chain.raw': make_flat,
    'far10.qcow2': make_far,
    'sparse.qcow2': make_sparse,
}
