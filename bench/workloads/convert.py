# SPDX-License-Identifier: MIT
"""Conversions of one image: plain, compressed, encrypted, sparse."""
import realfs
from harness import MiB, SECRET, Workload, luks_node, say

ZSTD = ['-c', '-o', 'compression_type=zstd']
LUKS = [*SECRET, '-o', 'key-secret=s,iter-time=1']


def convert(name, source, fmt, source_fmt='qcow2', options=(), synced=False,
            **more):
    output = 'out.' + fmt
    return Workload(name, ['convert', *options, '-f', source_fmt, '-O', fmt,
                           source, output],
                    source=(source, source_fmt), output=output, fmt=fmt,
                    ours=[] if synced else ['--no-sync'],
                    theirs=['-t', 'writeback'] if synced else [], **more)


WORKLOADS = [
    convert('raw -> qcow2', 'files.raw', 'qcow2', 'raw',
            goal='1.2 wall, 1 CPU, 2 memory'),
    convert('qcow2 -> raw', 'files.qcow2', 'raw',
            goal='1.2 wall, 1 CPU, 2 memory'),
    convert('raw -> qcow2, synced', 'files.raw', 'qcow2', 'raw', synced=True),
    convert('qcow2 -> raw, synced', 'files.qcow2', 'raw', synced=True),
    convert('raw -> qcow2 -c (deflate)', 'half.raw', 'qcow2', 'raw', ['-c'],
            repeat=1, goal='8 wall, 4.5 CPU'),
    convert('raw -> qcow2 -c (zstd)', 'half.raw', 'qcow2', 'raw', ZSTD,
            repeat=2),
    convert('deflate qcow2 -> raw', 'deflate.qcow2', 'raw', repeat=2,
            goal='1.8 wall, 2.5 CPU'),
    convert('zstd qcow2 -> raw', 'zstd.qcow2', 'raw', repeat=2),
    convert('raw -> luks', 'half.raw', 'luks', 'raw', LUKS, goal='1.5 wall'),
    Workload('luks -> raw', ['convert', *SECRET, '-O', 'raw',
                             luks_node('half.luks'), 'out.raw'],
             source=('half.luks', 'luks'), output='out.raw', fmt='raw',
             ours=['--no-sync'], goal='1.5 wall'),
    convert('sparse 1 TiB -> qcow2', 'sparse.qcow2', 'qcow2', repeat=1),
]


def make_files(bench):
    say('making data: real files in ext4 ...')
    realfs.make_ext4('files.raw', 2 * bench.size * MiB,
                     realfs.choose_files(bench.size * MiB))


def make_half(bench):
    say('making data: half of them ...')
    files = realfs.choose_files(bench.size * MiB)
    realfs.make_ext4('half.raw', bench.size * MiB,
                     half(files, bench.size * MiB // 2))


def half(files, budget):
    """Every other file, up to a budget: as mixed as the whole."""
    chosen, total = [], 0
    for name, length in files[::2]:
        if total + length <= budget:
            chosen.append((name, length))
            total += length
    return chosen


def converted(output, source, fmt, *options):
    def make(bench):
        bench.need(source)
        bench.must('convert', *options, '-f', 'raw', '-O', fmt, source, output)
    return make


DATA = {
    'files.raw': make_files,
    'files.qcow2': converted('files.qcow2', 'files.raw', 'qcow2'),
    'half.raw': make_half,
    'zstd.qcow2': converted('zstd.qcow2', 'half.raw', 'qcow2', *ZSTD),
    'half.luks': converted('half.luks', 'half.raw', 'luks', *LUKS),
    'deflate.qcow2': converted('deflate.qcow2', 'half.raw', 'qcow2', '-c',
                               '-m', '2', '-W'),
}
