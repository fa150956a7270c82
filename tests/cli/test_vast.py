# SPDX-License-Identifier: MIT
"""Disks of hundreds of pebibytes with next to nothing in them: what is not there takes no
time, in an image alone, in the middle of one, and through a chain."""
import json
import os
import subprocess

import pytest

SIZE, MIB = 1 << 58, 1 << 20
# What is looked at piece by piece takes minutes; all of this takes a second.
LIMIT = 60
PIECES = [(1 << 50, 3), (SIZE // 2 + (5 << 40), 5), (SIZE - 2 * MIB, 7)]


def run(tool, *args, cwd):
    return subprocess.run([tool, *args], cwd=cwd, timeout=LIMIT, check=True,
                          capture_output=True, text=True).stdout


@pytest.fixture(name='chain', scope='module')
def make_chain(our_lamella, tmp_path_factory):
    """base <- middle <- top, a cluster of data in each."""
    folder = tmp_path_factory.mktemp('vast')
    below = []
    for name, (offset, byte) in zip(('base', 'middle', 'top'), PIECES):
        run(our_lamella, 'create', '-q', '-f', 'qcow2', '-o',
            'cluster_size=2M', *below, name, str(SIZE), cwd=folder)
        os.symlink(our_lamella, folder / 'qemu-io')
        run('./qemu-io', '-c', f'write -q -P {byte} {offset} 2M', name,
            cwd=folder)
        os.unlink(folder / 'qemu-io')
        below = ['-b', name, '-F', 'qcow2']
    return folder


def data(tool, folder, name, *options):
    extents = json.loads(run(tool, 'map', '--output=json', *options, name,
                             cwd=folder))
    assert sum(e['length'] for e in extents) == SIZE
    return [(e['start'], e['length'], e['depth']) for e in extents
            if e['data']]


def test_map(our_lamella, chain):
    starts = [offset for offset, _ in PIECES]
    for layers, name in enumerate(('base', 'middle', 'top'), 1):
        assert data(our_lamella, chain, name) == [
            (start, 2 * MIB, layers - 1 - i)
            for i, start in enumerate(starts[:layers])]


def test_jobs(our_lamella, chain):
    """Each command that walks over the whole disk."""
    def lamella(*args):
        return run(our_lamella, *args, cwd=chain)

    options = ['-O', 'qcow2', '-o', 'cluster_size=2M']
    lamella('convert', '--verify', *options, 'top', 'copy')
    assert 'identical' in lamella('compare', 'top', 'copy')
    lamella('convert', *options, '-B', 'middle', '-F', 'qcow2', 'top', 'thin')
    assert 'identical' in lamella('compare', 'thin', 'copy')
    assert len(data(our_lamella, chain, 'copy')) == 3
    assert 'required size: 1374' in lamella('measure', *options, 'top')
    lamella('chain', 'top')
    lamella('rebase', '-b', 'base', '-F', 'qcow2', 'thin')
    lamella('commit', 'thin')
    assert 'identical' in lamella('compare', 'base', 'copy')
    lamella('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', '-o',
            'cluster_size=2M', 'over')
    lamella('stream', 'over')
    assert 'identical' in lamella('compare', 'over', 'copy')


def test_hole(our_lamella, tmp_path):
    """The same of a raw file, as far as the file system lets it grow."""
    with open(tmp_path / 'raw', 'wb') as file:
        file.truncate(8 << 40)
        file.seek(5 << 40)
        file.write(bytes([1]) * MIB)
    assert 'identical' in run(our_lamella, 'compare', '-f', 'raw', '-F', 'raw',
                              'raw', 'raw', cwd=tmp_path)
    run(our_lamella, 'convert', '-f', 'raw', '-O', 'qcow2', 'raw', 'copy',
        cwd=tmp_path)
    assert 'identical' in run(our_lamella, 'compare', 'raw', 'copy',
                              cwd=tmp_path)
