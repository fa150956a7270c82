# SPDX-License-Identifier: MIT
"""Chains from ten to a thousand layers: 16 GiB, 1 GiB of data scattered in the
lowest, and 16 clusters in each of the others, in four places."""
import json
import os
import random
import subprocess

from harness import GiB, KiB, MiB, Workload, say
from layers import write_chain

DEPTHS = (1, 10, 100, 500, 1000)
ROUNDS = 200                    # of what is read once it is warm


def top(depth):
    return 'deep%d-%d.qcow2' % (depth, depth)


class Reads(Workload):
    """1,000 reads of 4 KiB, anywhere, by one process of either qemu-io."""

    def command(self, bench, side):
        program = [bench.lamella, 'io'] if side == 'lamella' \
            else [bench.qemu_io]
        return [*program, '-r', '-f', 'qcow2', *self.arguments]

    def figures(self, bench, side):
        return bench.measure(['sh', '-c', 'exec "$@" < reads', 'sh',
                              *self.command(bench, side)], 'stdout.' + side)

    def verify(self, bench):
        def answers(side):
            done = subprocess.run(self.command(bench, side), check=True,
                                  input=pattern_script(), text=True,
                                  stdout=subprocess.PIPE)
            return [line.split('qemu-io> ')[-1]
                    for line in done.stdout.splitlines() if ':  ' in line]
        if 'genuine' not in self.sides():
            return 'exit 0'
        if answers('lamella') != answers('genuine'):
            raise RuntimeError('what is read differs')
        return 'identical'


def offsets():
    rng = random.Random(7)
    return [rng.randrange(0, 16 * GiB, 4 * KiB) for _ in range(1000)]


def pattern_script():
    return ''.join('read -v %d 512\n' % offset for offset in offsets()[:50])


class Warm(Reads):
    """The same when the map is there: what one more round of them takes."""

    def figures(self, bench, side):
        def run(name):
            return min((bench.measure(['sh', '-c', 'exec "$@" < ' + name, 'sh',
                                       *self.command(bench, side)],
                                      'stdout.' + side) for _ in range(3)),
                       key=lambda figures: figures['wall'])
        once, often = run('reads'), run('reads-often')
        return {'rss': often['rss'],
                **{key: (often[key] - once[key]) / (ROUNDS - 1)
                   for key in ('wall', 'cpu')}}


class Pause(Workload):
    """How long 16 writing threads are kept out by a snapshot, by median."""

    def figures(self, bench, side):
        program = os.path.join(bench.options.build, 'bench', 'bench-pause')
        subprocess.run([program, 'pause.json', '.', '16', '20'], check=True)
        with open('pause.json', encoding='ascii') as result:
            figures = json.load(result)
        for name in os.listdir('.'):
            if name.startswith('pause'):
                os.unlink(name)
        return {'wall': figures['gate']['median'], 'cpu': 0, 'rss': 0}

    def verify(self, bench):
        return 'exit 0'


class Opening(Workload):
    """Open the chain and read nothing of it."""

    def command(self, bench, side):
        return [bench.lamella, 'io', '-r', '-f', 'qcow2', '-c', 'length',
                *self.arguments]

    def verify(self, bench):
        return 'exit 0'


class Convert(Workload):
    """To raw; compared by lamella alone where the genuine one cannot."""

    def __init__(self, depth, goal, theirs=()):
        super().__init__('depth %d -> raw' % depth,
                         ['convert', '-f', 'qcow2', '-O', 'raw', top(depth),
                          'out.raw'], source=(top(depth), 'qcow2'),
                         output='out.raw', ours=['--no-sync'], theirs=theirs,
                         fmt='raw', needs=[top(depth)], goal=goal, repeat=2)

    def verify(self, bench):
        # It cannot compare more layers than it can convert.
        if 'genuine' in self.sides():
            return super().verify(bench)
        subprocess.run([bench.lamella, 'compare', '-f', 'qcow2', '-F', 'raw',
                        self.source[0], self.output], check=True,
                       stdout=subprocess.DEVNULL)
        return 'identical, it says itself'


def inspect(name, arguments, depth, goal='20 wall'):
    return Workload('%s, depth %d' % (name, depth), arguments, repeat=1,
                    needs=[top(depth)], goal=goal)


def reads(depth, goal, kind=Reads, how='', **options):
    return kind('1000 reads, %sdepth %d' % (how, depth), [top(depth)],
                needs=['reads'], goal=goal, **options)


WORKLOADS = [
    Convert(10, '10 wall'),
    Convert(100, '20 wall'),
    Convert(1000, '4 times depth 10', theirs=None),
    reads(10, '5 wall'),
    reads(100, '25 wall', repeat=2),
    reads(500, '200 wall', repeat=1),
    reads(1000, '', theirs=None),
    reads(1, '', Warm, 'warm, ', theirs=None, repeat=1),
    reads(1000, '1.1 times depth 1', Warm, 'warm, ', theirs=None, repeat=1),
    Pause('snapshot, 16 writers wait', theirs=None, goal='5 ms'),
    Opening('open depth 1000', [top(1000)], theirs=None,
            goal='0.3 s, 32 MiB'),
    inspect('map', ['map', '-f', 'qcow2', '--output=json', top(100)], 100),
    inspect('measure', ['measure', '-f', 'qcow2', '-O', 'qcow2', top(100)],
            100),
    inspect('compare', ['compare', '-U', '-f', 'qcow2', '-F', 'qcow2', top(100),
                        top(100)], 100),
]


def make_chain(depth):
    def make(bench):
        say('making data: a chain of %d layers ...' % depth)
        write_chain('deep%d-' % depth, depth, data=bench.size * MiB)
    return make


def make_reads(bench):
    for name, rounds in (('reads', 1), ('reads-often', ROUNDS)):
        with open(name, 'w', encoding='ascii') as out:
            for _ in range(rounds):
                out.writelines('read -q %d 4k\n' % offset
                               for offset in offsets())


DATA = {'reads': make_reads, **{top(depth): make_chain(depth)
                                for depth in DEPTHS}}
