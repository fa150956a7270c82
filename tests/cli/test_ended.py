# SPDX-License-Identifier: MIT
"""What changes one image, ended by a signal at each call that changes a file.

Whenever that was, the image shows what it did before or what it was to show,
check finds leaks at worst, and the same command asked for again brings the
rest.
"""
import json
import os
import shutil
import signal
import sys

import pytest

from ended import at_each_step, digest
from harness import run
from test_bitmap import bits

sys.path.append(os.path.join(os.path.dirname(__file__), '..', 'image'))
from defects import make                                    # noqa: E402

NAME = 'a.qcow2'
CHANGES = {
    'snapshot-create': ['snapshot', '-c', 'new'],
    'snapshot-apply': ['snapshot', '-a', 'old'],
    'snapshot-delete': ['snapshot', '-d', 'old'],
    'bitmap-merge': ['bitmap', '--merge', 'one', '-f', 'qcow2'],
    'bitmap-add': ['bitmap', '--add', '-f', 'qcow2'],
    'bitmap-remove': ['bitmap', '--remove', '-f', 'qcow2'],
    'bitmap-clear': ['bitmap', '--clear', '-f', 'qcow2'],
    'grow': ['resize', '-q'],
    'shrink': ['resize', '-q', '--shrink'],
}
BEHIND = {'bitmap-merge': ['two'], 'bitmap-add': ['three'],
          'bitmap-remove': ['two'], 'bitmap-clear': ['two'],
          'grow': ['70M'], 'shrink': ['700k']}


@pytest.fixture(scope='module')
def stock(lamella, tmp_path_factory):
    """Small tables, so that there is more than one of each; folders by what is
    in the image."""
    folder = tmp_path_factory.mktemp('ended')
    for kind in 'plain', 'snapshot', 'bitmap':
        (folder / kind).mkdir()
        image = folder / kind / NAME
        lamella.run('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k',
                    image, '4M')
        lamella.io_run(image, 'write -P 1 0 300k', 'write -z 1M 64k',
                       'write -P 2 3M 64k')
    image = folder / 'snapshot' / NAME
    lamella.run('snapshot', '-c', 'old', image)
    lamella.io_run(image, 'write -P 3 100k 300k', 'write -P 4 2M 20k')
    image = folder / 'bitmap' / NAME
    lamella.run('bitmap', '--add', '-g', '4k', image, 'one')
    lamella.io_run(image, 'write -P 3 100k 30k')
    lamella.run('bitmap', '--add', '-g', '4k', image, 'two')
    lamella.io_run(image, 'write -P 3 3M 30k')
    return folder


def shown(lamella, folder):
    """All that its user sees of the image."""
    info = json.loads(lamella.run('info', '--output=json', NAME, cwd=folder))
    snapshots = {each['name']: digest(lamella, folder, '-l', each['name'],
                                      NAME)
                 for each in info.get('snapshots', [])}
    maps = bits(folder / NAME) \
        if 'bitmaps' in info['format-specific']['data'] else {}
    return (info['virtual-size'], digest(lamella, folder, NAME), snapshots,
            maps)


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM],
                         ids=lambda number: number.name)
@pytest.mark.parametrize('name', CHANGES)
def test_change(lamella, reference, stock, tmp_path, name, number):
    kind = {'snapshot': 'snapshot', 'bitmap': 'bitmap'}.get(
        name.split('-')[0], 'plain')
    argv = [*lamella.img, *CHANGES[name], NAME, *BEHIND.get(name, [])]
    folder = tmp_path / 'x'
    before = shown(lamella, stock / kind)
    shutil.copytree(stock / kind, folder)
    run(*argv, cwd=folder)
    after = shown(lamella, folder)
    assert before != after
    for step in at_each_step(number, argv, stock / kind, folder):
        for tools in reference, lamella:
            assert run(*tools.img, 'check', NAME, cwd=folder,
                       status=None).returncode in (0, 3), step
        now = shown(lamella, folder)
        assert now in (before, after), step
        if now == before:
            run(*argv, cwd=folder)
            assert shown(lamella, folder) == after, step


# In order: leaks; a refcount that is too low, twice; flags that are wrong; a
# table of refcounts that is made anew.
REPAIRS = {'leak_two': 'leaks', 'refcount_low_shared': 'all',
           'refcount_zero_data': 'all', 'copied_missing_data': 'all',
           'copied_set_shared': 'all', 'refblock_missing': 'all',
           'reftable_empty': 'all', 'cluster_twice': 'all'}


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT,
                                    signal.SIGTERM, signal.SIGHUP],
                         ids=lambda number: number.name)
@pytest.mark.parametrize('name', REPAIRS)
def test_repair(lamella, reference, tmp_path, name, number):
    """It reads as before or as repaired throughout, and is whole when it was
    repaired again."""
    stock, folder = tmp_path / 'stock', tmp_path / 'x'
    for where in stock, folder:
        where.mkdir()
        (where / NAME).write_bytes(make(name))
    argv = [*lamella.img, 'check', '-q', '-r', REPAIRS[name], NAME]
    run(*argv, cwd=folder)
    reads = [digest(lamella, where, NAME) for where in (stock, folder)]
    assert len(reads[1]) == 64
    for step in at_each_step(number, argv, stock, folder):
        assert digest(lamella, folder, NAME) in reads, step
        run(*argv, cwd=folder)
        reference.run('check', '-q', NAME, cwd=folder)
        assert digest(lamella, folder, NAME) == reads[1], step
