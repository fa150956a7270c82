# SPDX-License-Identifier: MIT
"""Situations that must end in one line on stderr and exit status 1."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from harness import MiB, run

SANITIZER = re.compile(r'Sanitizer|runtime error:')


@pytest.fixture
def refuse(lamella_asan, tmp_path):
    """Runs a command that must fail; returns the one line it says."""
    def run_refused(*arguments, **options):
        before = {entry: entry.read_bytes() for entry in tmp_path.iterdir()
                  if entry.is_file() and entry.suffix != '.new'}
        done = run(*lamella_asan.img, *arguments, status=1, cwd=tmp_path,
                   **options)
        assert not SANITIZER.search(done.stderr), done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith('lamella: '), lines
        for entry, content in before.items():
            assert entry.exists() and entry.read_bytes() == content, \
                '%s was changed' % entry.name
        left = {entry.name for entry in tmp_path.iterdir()} - \
            {entry.name for entry in before}
        assert not left, 'left behind: %s' % left
        return lines[0]
    return run_refused


@pytest.fixture
def make(lamella, tmp_path):
    """create in the test's directory."""
    def create(*arguments):
        run(*lamella.img, 'create', '-q', *arguments, cwd=tmp_path)
    return create


def write(lamella, folder, name, command='write -P 1 0 64k'):
    run(*lamella.io, '-f', 'qcow2', '-c', command, name, cwd=folder)


@pytest.mark.parametrize('command', [
    ['info', 'none'], ['map', 'none'], ['check', 'none'],
    ['convert', '-O', 'raw', 'none', 'out.raw'],
    ['convert', '-O', 'qcow2', 'none', 'out.qcow2']],
    ids=lambda command: command[0] + command[-1])
def test_missing_file(refuse, command):
    assert "Could not open 'none': No such file or directory" in \
        refuse(*command)


def test_missing_source_of_compare(lamella, tmp_path):
    (tmp_path / 'a').write_bytes(bytes(512))
    done = run(*lamella.img, 'compare', 'a', 'none', status=2, cwd=tmp_path)
    assert "'none'" in done.stderr and len(done.stderr.splitlines()) == 1


def test_missing_backing_file(refuse, make, tmp_path):
    make('-f', 'qcow2', 'base.qcow2', '1M')
    make('-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2')
    (tmp_path / 'base.qcow2').unlink()
    for command in (['map', 'top.qcow2'], ['check', 'none'],
                    ['info', '--backing-chain', 'top.qcow2'],
                    ['convert', '-O', 'raw', 'top.qcow2', 'out.raw']):
        assert 'No such file or directory' in refuse(*command)


def test_backing_missing_at_create(refuse):
    refuse('create', '-q', '-f', 'qcow2', '-b', 'none', '-F', 'qcow2',
           'new.qcow2')


def test_chain_that_loops(refuse, make, lamella, tmp_path):
    make('-f', 'qcow2', 'a.qcow2', '1M')
    make('-f', 'qcow2', '-b', 'a.qcow2', '-F', 'qcow2', 'b.qcow2')
    make('-f', 'qcow2', '-u', '-b', 'b.qcow2', '-F', 'qcow2', 'a.qcow2', '1M')
    for command in (['map', 'b.qcow2'],
                    ['info', '--backing-chain', 'b.qcow2'],
                    ['convert', '-O', 'raw', 'b.qcow2', 'out.raw']):
        refuse(*command)


def test_image_that_backs_itself(refuse, make, tmp_path):
    make('-f', 'qcow2', '-u', '-b', 'a.qcow2', '-F', 'qcow2', 'b.qcow2', '1M')
    (tmp_path / 'b.qcow2').rename(tmp_path / 'a.qcow2')
    refuse('map', 'a.qcow2')
    refuse('convert', '-O', 'raw', 'a.qcow2', 'out.raw')


def test_not_the_declared_format(refuse, tmp_path):
    (tmp_path / 'plain.raw').write_bytes(b'plain' * 1000)
    for command in (['info', '-f', 'qcow2', 'plain.raw'],
                    ['convert', '-f', 'qcow2', '-O', 'raw', 'plain.raw', 'o']):
        assert 'format' in refuse(*command)


def test_target_too_small(refuse, tmp_path):
    (tmp_path / 'source.raw').write_bytes(b'x' * MiB)
    (tmp_path / 'small.raw').write_bytes(b'y' * (MiB - 512))
    refuse('convert', '-n', '-f', 'raw', '-O', 'raw', 'source.raw',
           'small.raw')


def test_target_is_source(refuse, make):
    make('-f', 'qcow2', 'a.qcow2', '1M')
    refuse('convert', '-f', 'qcow2', '-O', 'raw', 'a.qcow2', 'a.qcow2')
    refuse('convert', '-f', 'qcow2', '-O', 'raw', 'a.qcow2', './a.qcow2')


def test_target_is_a_backing_file(refuse, make):
    make('-f', 'qcow2', 'base.qcow2', '1M')
    make('-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2')
    refuse('convert', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', 'base.qcow2')


def test_target_in_missing_folder(refuse, make):
    make('-f', 'qcow2', 'a.qcow2', '1M')
    refuse('convert', '-O', 'raw', 'a.qcow2', 'no/such/out.raw')
    refuse('create', '-q', '-f', 'qcow2', 'no/such/new.qcow2', '1M')


def test_target_is_a_folder(refuse, make, tmp_path):
    make('-f', 'qcow2', 'a.qcow2', '1M')
    target = tmp_path.parent / (tmp_path.name + '-folder')
    target.mkdir()
    refuse('convert', '-O', 'raw', 'a.qcow2', str(target))
    refuse('info', str(target))


@pytest.fixture
def open_folder():
    """A folder that every user may enter."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='lamella-test-'))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_read_only_target(make, lamella, tmp_path, open_folder):
    if os.geteuid() == 0 and subprocess.run(
            ['sh', '-c', 'command -v setpriv'],
            stdout=subprocess.DEVNULL).returncode:
        pytest.skip('root writes everywhere, and there is no setpriv')
    make('-f', 'qcow2', 'a.qcow2', '1M')
    folder = open_folder
    out = folder / 'read-only.raw'
    out.write_bytes(bytes(MiB))
    out.chmod(0o444)
    argv = [*lamella.img, 'convert', '-n', '-O', 'raw', 'a.qcow2', out]
    if os.geteuid() == 0:
        argv = ['setpriv', '--reuid=65534', '--clear-groups',
                '--bounding-set=-all', '--inh-caps=-all', *argv]
        # What runs must be where others may go, too.
        for name in ('a.qcow2', lamella.img[0]):
            shutil.copy(tmp_path / name, folder)
        argv[argv.index(lamella.img[0])] = folder / 'lamella'
    done = run(*argv, status=1, cwd=folder)
    assert 'Permission denied' in done.stderr
    assert out.read_bytes() == bytes(MiB)


def test_locked_by_a_writer(refuse, make, lamella, tmp_path):
    make('-f', 'qcow2', 'a.qcow2', '1M')
    holder = subprocess.Popen(
        [*lamella.io, '-f', 'qcow2', 'a.qcow2'], cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        # An answer means that the image is open and the lock is held.
        holder.stdin.write(b'length\n')
        holder.stdin.flush()
        answer = b''
        while b'MiB' not in answer:
            answer += holder.stdout.read1(100)
        for command in (['info', 'a.qcow2'],
                        ['convert', '-O', 'raw', 'a.qcow2', 'out.raw']):
            assert 'lock' in refuse(*command)
        run(*lamella.img, 'info', '-U', 'a.qcow2', cwd=tmp_path)
    finally:
        holder.communicate(b'quit\n')


@pytest.fixture
def small_disk(tmp_path_factory):
    """A file system of 4 MiB."""
    folder = tmp_path_factory.mktemp('small')
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'small',
                       folder], stderr=subprocess.DEVNULL).returncode:
        pytest.skip('tmpfs cannot be mounted here (not root?)')
    yield folder
    subprocess.run(['umount', folder], check=True)


@pytest.mark.parametrize('fmt,flags', [('raw', []), ('qcow2', []),
                                       ('qcow2', ['-c'])])
def test_full_disk(fmt, flags, refuse, tmp_path, small_disk):
    (tmp_path / 'source.raw').write_bytes(os.urandom(8 * MiB))
    target = small_disk / 'out'
    line = refuse('convert', *flags, '-f', 'raw', '-O', fmt, 'source.raw',
                  target)
    assert 'No space left on device' in line
    assert not target.exists()


def test_full_disk_leaves_the_image_valid(lamella, genuine, small_disk):
    """Writes that fail for want of space lose nothing that was there."""
    image = small_disk / 'image.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', image, '64M')
    lamella.io_run(image, 'write -P 1 0 1M', options=['-f', 'qcow2'])
    run(*lamella.io, '-f', 'qcow2', '-c', 'write -P 2 0 16M', image, status=1)
    run(*lamella.io, '-f', 'qcow2', '-c', 'write -P 3 32M 16M', image,
        status=1)
    done = run(*genuine.img, 'check', '-f', 'qcow2', image, status=None)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    lamella.io_run(image, 'read -P 0 62M 1M', options=['-r', '-f', 'qcow2'])


@pytest.mark.parametrize('size', ['9E', '-1', '1X', '18446744073709551616',
                                  'x', ''])
def test_impossible_size(refuse, size):
    refuse('create', '-q', '-f', 'qcow2', '--', 'new.qcow2', size)


@pytest.mark.parametrize('option', [
    'cluster_size=100', 'cluster_size=256', 'cluster_size=4M',
    'cluster_size=3000', 'refcount_bits=3', 'refcount_bits=128',
    'refcount_bits=0', 'compat=2', 'compression_type=lzma',
    'extended_l2=on,cluster_size=8k', 'extended_l2=on,compat=v2',
    'refcount_bits=8,compat=v2', 'lazy_refcounts=on,compat=v2',
    'no_such_option=1', 'data_file_raw=on', 'preallocation=some'])
def test_impossible_option(refuse, option):
    refuse('create', '-q', '-f', 'qcow2', '-o', option, 'new.qcow2', '1M')
