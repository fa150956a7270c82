# SPDX-License-Identifier: MIT
"""What can go wrong on either side of a conversion: one line that names the
file, exit status 1, and nothing half-made or changed."""
import contextlib
import os
import resource
import shutil
import subprocess

import pytest

from harness import (MiB, make_mixed_file, need_libcrypto, random_bytes, run,
                     sha256, wait_until)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason='needs root')


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'work'
    path.mkdir()
    (path / 'a.raw').write_bytes(random_bytes(1, 2 * MiB))
    return path


def refuse(tools, folder, *args, words=()):
    before = {name: sha256(folder / name) for name in os.listdir(folder)
              if (folder / name).is_file()}
    done = run(*tools.img, 'convert', *args, status=1, cwd=folder)
    assert done.stderr.count('\n') == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert {name: sha256(folder / name) for name in os.listdir(folder)
            if (folder / name).is_file()} == before


def start(tools, folder, *args):
    """A conversion that has begun and lasts some seconds."""
    job = subprocess.Popen(
        [*tools.img, 'convert', '-r', '512k', *args], cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(job, (folder / args[-1]).exists)
    return job


def failed(job):
    stderr = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 1
    assert stderr.count('\n') == 1
    return stderr


@pytest.mark.parametrize('form', ['raw', 'qcow2'])
def test_source_shrinks(lamella, reference, folder, form):
    source = 'source.' + form
    reference.run('convert', '-f', 'raw', '-O', form, 'a.raw', source,
                  cwd=folder)
    job = start(lamella, folder, '-f', form, source, 'out')
    os.truncate(folder / source, MiB + 4096)
    assert source in failed(job)
    assert not (folder / 'out').exists()


def test_backing_file_shrinks(lamella, reference, folder):
    """The layer is named, and where."""
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw',
                  'top.qcow2', cwd=folder)
    job = start(lamella, folder, 'top.qcow2', 'out')
    os.truncate(folder / 'a.raw', MiB + 4096)
    stderr = failed(job)
    assert "a.raw': guest offset" in stderr
    assert not (folder / 'out').exists()


def test_salvage_of_what_shrinks(lamella, reference, folder):
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw',
                  'top.qcow2', cwd=folder)
    data = (folder / 'a.raw').read_bytes()
    job = start(lamella, folder, '--salvage', 'top.qcow2', 'out')
    os.truncate(folder / 'a.raw', MiB + MiB // 2)
    stderr = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 0
    assert 'are zeroes in \'out\'' in stderr
    out = (folder / 'out').read_bytes()
    assert len(out) == len(data)
    assert out[:MiB + MiB // 2] == data[:MiB + MiB // 2]
    assert out[-4096:] == bytes(4096)


@contextlib.contextmanager
def in_use(reference, folder):
    """busy.qcow2 is a new image that another program has open."""
    reference.run('create', '-q', '-f', 'qcow2', 'busy.qcow2', '4M',
                  cwd=folder)
    user = subprocess.Popen([*reference.io, 'busy.qcow2'], cwd=folder,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert user.stdout.read(7) == b'qemu-io'
        yield
    finally:
        user.communicate(b'quit\n')


@pytest.mark.parametrize('options', [['-n'], []])
def test_target_in_use(lamella, reference, folder, options):
    with in_use(reference, folder):
        refuse(lamella, folder, *options, '-f', 'raw', '-O', 'qcow2',
               'a.raw', 'busy.qcow2', words=('busy.qcow2', 'lock'))
    reference.run('check', 'busy.qcow2', cwd=folder)


def test_source_in_use(lamella, reference, folder):
    with in_use(reference, folder):
        refuse(lamella, folder, 'busy.qcow2', 'out',
               words=('busy.qcow2', 'lock'))
        lamella.run('convert', '-U', 'busy.qcow2', 'out', cwd=folder)


@ROOT_ONLY
def test_target_read_only(lamella, folder):
    with open(folder / 'disk', 'wb') as out:
        out.truncate(4 * MiB)
    loop = run('losetup', '-f', '--show', '-r', folder / 'disk')
    loop = loop.stdout.strip()
    try:
        refuse(lamella, folder, '-n', '-f', 'raw', 'a.raw', loop,
               words=(loop,))
    finally:
        run('losetup', '-d', loop)


@ROOT_ONLY
def test_device_too_small_or_mounted(lamella, folder):
    with open(folder / 'disk', 'wb') as out:
        out.truncate(MiB)
    loop = run('losetup', '-f', '--show', folder / 'disk').stdout.strip()
    try:
        for options in [], ['-n']:
            refuse(lamella, folder, *options, '-f', 'raw', 'a.raw', loop)
        run('mkfs.ext2', '-q', loop)
        (folder / 'mnt').mkdir()
        run('mount', loop, folder / 'mnt')
        (folder / 'small').write_bytes(b'x' * 4096)
        try:
            for options in [], ['-n']:
                refuse(lamella, folder, *options, '-f', 'raw', 'small', loop,
                       words=(loop, 'mount', '--force'))
        finally:
            run('umount', folder / 'mnt')
    finally:
        run('losetup', '-d', loop)


@ROOT_ONLY
def test_existing_target_on_a_full_disk(lamella, folder):
    """It keeps its name, and what has become of it is said."""
    small = folder / 'small'
    small.mkdir()
    run('mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', small)
    try:
        (small / 'old').write_bytes(b'old')
        done = run(*lamella.img, 'convert', '-f', 'raw', 'a.raw',
                   small / 'old', status=1, cwd=folder)
        lines = done.stderr.splitlines()
        assert 'No space left on device' in lines[0]
        assert lines[1:] == ['lamella: %s existed before and is left '
                             'incomplete' % (small / 'old')]
        assert os.listdir(small) == ['old']
    finally:
        run('umount', small)


def test_target_is_a_folder(lamella, folder):
    (folder / 'dir').mkdir()
    for options in [], ['-n']:
        refuse(lamella, folder, *options, '-f', 'raw', 'a.raw', 'dir',
               words=('dir',))


def test_no_source_is_opened_for_writing(lamella, folder):
    """The source is as it was, to the nanosecond."""
    need_libcrypto()
    make_mixed_file(folder / 'b.raw', MiB, 4)
    os.chmod(folder / 'b.raw', 0o400)
    before = os.stat(folder / 'b.raw').st_mtime_ns, sha256(folder / 'b.raw')
    shutil.copy(folder / 'b.raw', folder / 'c.raw')
    lamella.run('convert', '--salvage', '--verify', '--digest', 'sha256',
                'b.raw', 'c.raw', 'out', cwd=folder)
    assert (os.stat(folder / 'b.raw').st_mtime_ns,
            sha256(folder / 'b.raw')) == before


@pytest.mark.parametrize('options', [
    [], ['-O', 'qcow2'], ['-O', 'qcow2', '-c'],
    ['-O', 'qcow2', '-o', 'data_file=beside'],
    ['-O', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse'],
    ['--digest', 'sha256']])
def test_file_size_limit(lamella, folder, options):
    """`ulimit -f`: a signal that would end us half-way.  All is removed that
    the target is made of."""
    if '--digest' in options:
        need_libcrypto()
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (MiB, MiB))

    done = subprocess.run(
        [*lamella.img, 'convert', *options, '-f', 'raw', 'a.raw', 'out'],
        cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=limit)
    assert done.returncode == 1, done.returncode
    assert done.stderr.count('\n') == 1
    assert 'File too large' in done.stderr
    assert os.listdir(folder) == ['a.raw']
