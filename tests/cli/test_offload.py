# SPDX-License-Identifier: MIT
"""`convert -C`: what the host copies without us is what we would have copied,
holes and all."""
import array
import fcntl
import os
import random
import shutil
import struct
import subprocess

import pytest

from harness import (KiB, MiB, allocated, make_mixed_file, need_libcrypto,
                     random_bytes, run)

SIZE = 6 * MiB


def make_sparse(path, size=SIZE + 1536, seed=1):
    """Data and holes in turn, of sizes that fit no cluster."""
    rng = random.Random(seed)
    with open(path, 'wb') as out:
        out.truncate(size)
        at = 0
        while at < size:
            length = min(rng.choice((4, 60, 64, 200, 700)) * KiB, size - at)
            out.seek(at)
            out.write(rng.randbytes(length))
            at += length + rng.choice((4, 68, 300)) * KiB


@pytest.fixture(scope='module')
def made(tmp_path_factory, reference):
    """A folder of sources, and what each holds."""
    folder = tmp_path_factory.mktemp('made')
    make_sparse(folder / 'a.raw')
    make_mixed_file(folder / 'b.raw', 4 * MiB, seed=9)
    reference.run('convert', '-O', 'qcow2', '-f', 'raw', 'a.raw', 'a.qcow2',
                  cwd=folder)
    reference.run('convert', '-c', '-O', 'qcow2', '-f', 'raw', 'b.raw',
                  'b.qcow2', cwd=folder)
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'b.qcow2', '-F',
                  'qcow2', 'top.qcow2', cwd=folder)
    reference.io_run('top.qcow2', 'write -P 1 100k 700k', 'write -z 1M 64k',
                     'write -P 2 3000k 5k', cwd=folder)
    return folder


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """A folder in a file system that shares blocks."""
    if os.getuid() or not shutil.which('mkfs.xfs'):
        pytest.skip('needs root and xfsprogs')
    folder = tmp_path_factory.mktemp('xfs')
    with open(folder / 'disk', 'wb') as out:
        out.truncate(400 * MiB)
    (folder / 'mnt').mkdir()
    made = subprocess.run(['mkfs.xfs', '-q', '-m', 'reflink=1',
                           folder / 'disk'])
    if made.returncode or subprocess.run(
            ['mount', '-o', 'loop', folder / 'disk',
             folder / 'mnt']).returncode:
        pytest.skip('cannot mount an XFS here')
    yield folder / 'mnt'
    subprocess.run(['umount', folder / 'mnt'], check=True)


def same(reference, source, target, fmt, source_fmt):
    run(*reference.img, 'compare', '-q', '-f', source_fmt, '-F', fmt, source,
        target)
    if fmt == 'qcow2':
        run(*reference.img, 'check', '-q', '-f', fmt, target)


CASES = [(name, fmt, options)
         for name in ('a.raw', 'a.qcow2', 'top.qcow2')
         for fmt in ('raw', 'qcow2')
         for options in (('-C',), ('-S', '0'), ('-C', '-T', 'none', '-t',
                                                'none'))]


@pytest.mark.parametrize('name,fmt,options', CASES,
                         ids=lambda part: str(part).strip('()'))
def test_content(reference, lamella, made, tmp_path, name, fmt, options):
    source_fmt = name.split('.')[1]
    target = tmp_path / 'out'
    lamella.run('convert', *options, '-f', source_fmt, '-O', fmt, made / name,
                target)
    same(reference, made / name, target, fmt, source_fmt)


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
@pytest.mark.parametrize('name', ['a.raw', 'a.qcow2', 'top.qcow2'])
def test_shared_blocks(reference, lamella, made, shared, name, fmt):
    for other in os.listdir(made):
        shutil.copyfile(made / other, shared / other)
    source_fmt = name.split('.')[1]
    target = shared / ('out.' + fmt)
    lamella.run('convert', '-C', '-f', source_fmt, '-O', fmt, shared / name,
                target)
    same(reference, shared / name, target, fmt, source_fmt)
    if name != 'top.qcow2':         # that is compressed, for the most part
        assert shares(target)


def shares(path):
    """Does an extent say so itself: flag 0x2000 of FIEMAP?"""
    request = array.array('B', struct.pack('=QQIIII', 0, 2 ** 63 - 1, 1, 0,
                                           200, 0) + bytes(200 * 56))
    with open(path, 'rb') as stream:
        fcntl.ioctl(stream, 0xc020660b, request)
    count = struct.unpack_from('=I', request, 20)[0]
    flags = [struct.unpack_from('=I', request, 32 + 56 * i + 40)[0]
             for i in range(count)]
    return any(flag & 0x2000 for flag in flags)


@pytest.mark.parametrize('where', ['here', 'shared'])
def test_holes_stay_holes(lamella, made, tmp_path, where, request):
    folder = request.getfixturevalue('shared') if where == 'shared' \
        else tmp_path
    source, target = folder / 'hole.raw', folder / 'hole.out'
    with open(source, 'wb') as out:
        out.truncate(64 * MiB)
        out.seek(20 * MiB + 4096)
        out.write(random_bytes(1, 300 * KiB))
    lamella.run('convert', '-C', '-f', 'raw', '-O', 'raw', source, target)
    assert source.read_bytes() == target.read_bytes()
    assert allocated(target) <= allocated(source) + 64 * KiB


def test_zero_detection_is_off_and_on(lamella, tmp_path, made, shared):
    """Written zeroes are copied where the host copies, and found where it does
    not."""
    source = shared / 'zeroes.raw'
    source.write_bytes(random_bytes(1, MiB) + bytes(4 * MiB) +
                       random_bytes(2, MiB))
    lamella.run('convert', '-C', '-f', 'raw', '-O', 'raw', source,
                shared / 'zeroes.out')
    assert allocated(shared / 'zeroes.out') >= 6 * MiB
    lamella.run('convert', '-C', '-f', 'raw', '-O', 'raw', source,
                tmp_path / 'out')       # another file system
    assert (tmp_path / 'out').read_bytes() == source.read_bytes()


def test_over_old_content(reference, lamella, made, tmp_path):
    """An existing file, longer, full of something else."""
    target = tmp_path / 'out'
    target.write_bytes(b'old!' * (2 * MiB))
    lamella.run('convert', '-n', '-C', '-f', 'raw', '-O', 'raw',
                made / 'a.raw', target)
    wanted, found = (made / 'a.raw').read_bytes(), target.read_bytes()
    assert found[:len(wanted)] == wanted
    assert found[len(wanted):] == b'old!' * ((8 * MiB - len(wanted)) // 4)


def test_all_is_allocated_without_detection(lamella, made, tmp_path):
    target = tmp_path / 'out'
    lamella.run('convert', '-S', '0', '-f', 'raw', '-O', 'raw',
                made / 'a.raw', target)
    assert allocated(target) >= SIZE
    assert target.read_bytes() == (made / 'a.raw').read_bytes()


def test_backing_file_is_kept(reference, lamella, made, tmp_path):
    """With -B only what the overlay holds is copied, by whomever."""
    for name in 'b.qcow2', 'top.qcow2':
        shutil.copyfile(made / name, tmp_path / name)
    lamella.run('convert', '-C', '-f', 'qcow2', '-O', 'qcow2', '-B',
                'b.qcow2', '-F', 'qcow2', 'top.qcow2', 'out', cwd=tmp_path)
    same(reference, tmp_path / 'top.qcow2', tmp_path / 'out', 'qcow2',
         'qcow2')


@pytest.mark.parametrize('options', [('-r', '1G'),
                                     ('--digest', 'sha256'), ('--salvage',)])
def test_beside_other_wishes(reference, lamella, made, tmp_path, options):
    """What has to see the data, does."""
    if '--digest' in options:
        need_libcrypto()
    args = ['-S', '0'] if options[0] == '--salvage' else ['-C']
    lamella.run('convert', *args, *options, '-f', 'raw', '-O', 'raw',
                made / 'a.raw', tmp_path / 'out')
    assert (tmp_path / 'out').read_bytes() == (made / 'a.raw').read_bytes()


def test_same_file(lamella, made, tmp_path):
    shutil.copyfile(made / 'a.raw', tmp_path / 'a.raw')
    os.link(tmp_path / 'a.raw', tmp_path / 'link.raw')
    for target in 'a.raw', 'link.raw':
        done = run(*lamella.img, 'convert', '-C', '-n', '-f', 'raw', '-O',
                   'raw', 'a.raw', target, status=1, cwd=tmp_path)
        assert done.stderr.count('\n') == 1
    assert (tmp_path / 'a.raw').read_bytes() == \
        (made / 'a.raw').read_bytes()


def test_source_that_ends_early(lamella, tmp_path):
    """A qcow2 image cut in the middle of its data is an error, nothing
    else."""
    (tmp_path / 'a.raw').write_bytes(random_bytes(3, 4 * MiB))
    lamella.run('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2',
                cwd=tmp_path)
    os.truncate(tmp_path / 'a.qcow2', 2 * MiB + 100)
    done = run(*lamella.img, 'convert', '-C', '-f', 'qcow2', '-O', 'raw',
               'a.qcow2', 'out', status=1, cwd=tmp_path)
    assert done.stderr.count('\n') == 1
    assert not (tmp_path / 'out').exists()
