# SPDX-License-Identifier: MIT
"""commit, rebase and stream of a hundred layers.  They change what they are
given, so each run begins with a copy of the chain."""
import os
import shutil
import subprocess

from harness import GiB, MiB, Workload, say
from layers import write_chain

DEPTH = 100
BASE = 'merge1.qcow2'
TOP = 'merge%d.qcow2' % DEPTH


class Merge(Workload):
    """On a copy of the chain, which is made outside the measured time."""

    def folder(self, side):
        return 'merge.' + side

    def figures(self, bench, side):
        shutil.rmtree(self.folder(side), ignore_errors=True)
        os.mkdir(self.folder(side))
        for number in range(1, DEPTH + 1):
            name = 'merge%d.qcow2' % number
            subprocess.run(['cp', '--sparse=always', name,
                            os.path.join(self.folder(side), name)], check=True)
        os.sync()
        command = self.command(bench, side)
        command[0] = os.path.abspath(command[0])
        return bench.measure(['sh', '-c', 'cd "$0" && exec "$@"',
                              self.folder(side), *command, TOP],
                             'stdout.' + side)

    def verify(self, bench):
        """The result reads as the chain did."""
        subprocess.run([bench.genuine, 'compare', '-q', '-f', 'qcow2', '-F',
                        'qcow2', '-U', TOP, os.path.join(
                            self.folder('lamella'), self.result)], check=True)
        return 'identical'


class Stream(Merge):
    """Pulls what lies above the base into the top; the genuine command has
    nothing of the name, and gets there by a rebase onto that base."""

    def command(self, bench, side):
        if side == 'genuine':
            return super().command(bench, side)
        return [bench.program[side], 'stream', '-q', '-f', 'qcow2', '-b', BASE]


def merge(name, arguments, result, theirs=(), kind=Merge):
    work = kind('%s, %d layers' % (name, DEPTH), arguments, repeat=1,
                 needs=[TOP], goal='3 wall', theirs=theirs)
    work.result = result
    return work


WORKLOADS = [
    merge('commit', ['commit', '-q', '-f', 'qcow2', '-b', BASE], BASE),
    merge('rebase', ['rebase', '-f', 'qcow2', '-b', BASE, '-F', 'qcow2'], TOP),
    merge('stream', ['rebase', '-f', 'qcow2', '-b', BASE, '-F', 'qcow2'], TOP,
          kind=Stream),
    merge('flatten', ['rebase', '-f', 'qcow2', '-b', ''], TOP),
]


def make_merge(bench):
    say('making data: a chain of %d layers to merge ...' % DEPTH)
    write_chain('merge', DEPTH, data=min(bench.size * MiB, GiB // 4))


DATA = {TOP: make_merge}
