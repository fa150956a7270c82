# SPDX-License-Identifier: MIT
"""Work on metadata: check, internal snapshots."""
import random
import shutil

from harness import KiB, TiB, Workload, say


class Snapshot(Workload):
    """Each on an image of its own, the second row after the first."""

    def __init__(self, name, arguments, **more):
        super().__init__(name, arguments, theirs=['theirs.img'],
                         ours=['ours.img'], repeat=1, **more)

    def verify(self, bench):
        bench.must('check', '-q', '-f', 'qcow2', 'ours.img')
        return 'checked'


WORKLOADS = [
    Workload('check, 1 GiB of files', ['check', '-f', 'qcow2', 'files.qcow2']),
    Workload('check, sparse 1 TiB', ['check', '-f', 'qcow2', 'sparse.qcow2']),
    Snapshot('snapshot -c, scattered', ['snapshot', '-c', 's'],
             goal='20 wall'),
    Snapshot('snapshot -d, scattered', ['snapshot', '-d', 's'],
             goal='10 wall'),
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


DATA = {'theirs.img': make_theirs, 'ours.img': make_ours}
