# SPDX-License-Identifier: MIT
"""The nodes copy-before-write and snapshot-access: what was there before."""
import pytest

from harness import KiB, MiB, run

FILE = 'driver=copy-before-write,file.driver=raw,file.file.filename=%s'
TARGET = ',target.driver=raw,target.file.driver=file,target.file.filename=%s'


def below(options):
    """The snapshot of the node that @options stand for."""
    return 'driver=snapshot-access,' + ','.join(
        'file.' + option for option in options.split(','))


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / 'disk'
    path.write_bytes(b''.join(bytes([i + 1]) * 64 * KiB for i in range(15))
                     + b'end' * 1000)
    return path


@pytest.fixture
def target(tmp_path):
    path = tmp_path / 'target'
    with path.open('wb') as out:
        out.truncate(2 * MiB)
    return path


def io(tools, options, *commands, status=0):
    done = run(*tools.io, '--image-opts', options,
               *[word for command in commands for word in ('-c', command)],
               status=status)
    return done.stdout + done.stderr


def clusters(path, size=64 * KiB):
    """Which are not all zero."""
    data = path.read_bytes()
    return [i // size for i in range(0, len(data), size)
            if any(data[i:i + size])]


@pytest.mark.parametrize('command,copied', [
    ('write -P 9 70k 1k', [1]),
    ('write -P 9 127k 2k', [1, 2]),
    ('write -z 128k 64k', [2]),
    ('write -z -u 130k 100k', [2, 3]),
    ('discard 192k 64k', [3]),
    ('write -P 9 960k 1k', [15]),
    ('truncate 900k', [14, 15]),
    ('truncate 1M', []),
])
def test_is_copied(disk, target, lamella, command, copied):
    before = disk.read_bytes()
    io(lamella, FILE % disk + TARGET % target, command)
    assert clusters(target) == copied
    kept = target.read_bytes()
    for i in copied:
        part = slice(i * 64 * KiB, (i + 1) * 64 * KiB)
        assert kept[part][:len(before[part])] == before[part]


def test_once(disk, target, lamella):
    before = disk.read_bytes()
    io(lamella, FILE % disk + TARGET % target, 'write -P 9 0 64k',
       'write -P 8 0 64k', 'read -P 8 0 64k')
    assert target.read_bytes()[:64 * KiB] == before[:64 * KiB]


def test_larger_clusters(disk, target, lamella):
    io(lamella, FILE % disk + TARGET % target + ',min-cluster-size=262144',
       'write 300k 1')
    assert clusters(target) == [4, 5, 6, 7]


def test_clusters_of_the_target(disk, tmp_path, lamella):
    image = tmp_path / 'target.qcow2'
    run(*lamella.img, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=128k',
        image, '1M')
    io(lamella, FILE % disk + ',target.driver=qcow2,target.file.driver=file,'
       'target.file.filename=%s' % image, 'write 0 1')
    assert 'read 65536' in io(
        lamella, 'driver=qcow2,file.filename=%s' % image, 'read -P 2 64k 64k',
        'read -P 0 128k 64k')


def failing(disk, target, rest=''):
    return (FILE % disk).replace('file.file.', 'file.file.driver=file,'
                                 'file.file.') + \
        ',target.driver=blkdebug,target.image.driver=file,' \
        'target.image.filename=%s,target.inject-error.0.event=none,' \
        'target.inject-error.0.iotype=write,' \
        'target.inject-error.0.errno=28' % target + rest


def test_copy_fails(disk, target, lamella):
    before = disk.read_bytes()
    said = io(lamella, failing(disk, target), 'write 0 4k', 'write -z 0 4k',
              'discard 0 64k', status=1)
    assert said.count('failed: No space left on device') == 3
    assert disk.read_bytes() == before


def test_snapshot_breaks(disk, target, lamella):
    io(lamella, failing(disk, target, ',on-cbw-error=break-snapshot'),
       'write -P 9 0 4k', 'read -P 9 0 4k')


def test_target_too_small(disk, target, lamella):
    with target.open('wb') as out:
        out.truncate(512 * KiB)
    said = io(lamella, FILE % disk + TARGET % target, 'write 0 4k',
              'write 600k 4k', status=1)
    assert 'No space left on device' in said
    assert target.stat().st_size == 512 * KiB


def test_snapshot(disk, target, lamella):
    said = io(lamella, below(FILE % disk + TARGET % target),
              'read -P 3 130k 2k', 'discard 64k 64k', 'read 64k 512',
              'read -P 1 0 64k', 'write 0 1k', 'write -z 0 1k', status=1)
    assert 'read failed: Permission denied' in said
    assert said.count('write failed: Operation not supported') == 2
    assert clusters(target) == []


def test_no_snapshot(disk, lamella):
    said = io(lamella, 'driver=snapshot-access,file.driver=raw,'
              'file.file.filename=%s' % disk, 'length', 'read 0 1k', status=1)
    assert 'read failed: Operation not supported' in said


def test_reading_only(disk, target, lamella):
    done = run(*lamella.img, 'info', '--image-opts',
               FILE % disk + TARGET % target, status=1)
    assert 'Block node is read-only' in done.stderr
