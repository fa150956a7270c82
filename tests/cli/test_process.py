# SPDX-License-Identifier: MIT
"""What callers hand over beside the arguments: closed and full streams, readers
that leave, signals."""
import os
import signal
import subprocess

import pytest

from harness import run


@pytest.fixture
def image(our_img, tmp_path):
    run(our_img, 'create', '-q', '-f', 'qcow2', tmp_path / 'base.qcow2', '1M')
    run(our_img, 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
        'qcow2', tmp_path / 'a.qcow2')
    return tmp_path / 'a.qcow2'


def sh(line, folder, program):
    return run('sh', '-c', line, 'sh', program, cwd=folder, status=None)


@pytest.mark.parametrize('streams', ['>&-', '2>&-', '<&-', '<&- >&- 2>&-'])
@pytest.mark.parametrize('command', [
    'info a.qcow2', 'rebase -p -u -b base.qcow2 -F qcow2 a.qcow2',
    'resize a.qcow2 2M', 'convert -p -O qcow2 base.qcow2 b.qcow2',
    'create -f qcow2 c.qcow2 1M', 'commit a.qcow2'])
def test_closed_streams(our_img, image, command, streams):
    """Nothing that is printed goes into an image, and nobody misses it."""
    done = sh('"$1" %s %s' % (command, streams), image.parent, our_img)
    assert done.returncode == 0 and done.stderr == ''
    for path in image.parent.iterdir():
        run(our_img, 'check', '-q', '-f', 'qcow2', path)


def test_closed_streams_of_lamella(our_lamella, image):
    """Under its own name the result is missed, and the image is as it was."""
    before = image.read_bytes()
    assert sh('"$1" info a.qcow2 >&-', image.parent, our_lamella).returncode
    assert sh('"$1" info x 2>&-', image.parent, our_lamella).returncode == 1
    assert image.read_bytes() == before
    # That it failed is known, and no reason that is none.
    done = sh('"$1" create -f qcow2 c.qcow2 1M >&-', image.parent, our_lamella)
    assert done.returncode == 1
    assert done.stderr in ('lamella: Could not write to standard output' + why
                           for why in ('\n', ': Bad file descriptor\n'))


def test_compare_unheard(our_lamella, image):
    """1 would say that the images differ."""
    command = '"$1" compare a.qcow2 a.qcow2 >/dev/full'
    assert sh(command, image.parent, our_lamella).returncode == 2


@pytest.mark.parametrize('command', [
    ('info', 'a.qcow2'), ('map', 'a.qcow2'), ('check', 'a.qcow2'),
    ('--help',), ('convert', '-p', '-O', 'raw', 'a.qcow2', 'out.raw')])
def test_reader_leaves(our_img, image, command):
    """As behind "| grep -q": the commands go on, and are as good as done."""
    reader, writer = os.pipe()
    os.close(reader)
    for action in signal.SIG_DFL, signal.SIG_IGN:
        done = subprocess.run(
            [our_img, *command], stdout=writer, stderr=subprocess.PIPE,
            cwd=image.parent, restore_signals=False,
            preexec_fn=lambda: signal.signal(signal.SIGPIPE, action))
        assert (done.returncode, done.stderr) == (0, b'')
    os.close(writer)


@pytest.mark.parametrize('command,status', [
    ('create -f qcow2 b.qcow2 1M', 0), ('resize a.qcow2 2M', 0),
    ('convert -p -O raw a.qcow2 b.raw', 0), ('commit a.qcow2', 0),
    ('rebase -p -b "" a.qcow2', 0), ('amend -p -o compat=0.10 a.qcow2', 0),
    ('info a.qcow2', 1), ('check a.qcow2', 1), ('map a.qcow2', 1)])
def test_full_disk_behind_stdout(our_img, image, command, status):
    """A change is done whoever can be told; a report is not."""
    done = sh('"$1" %s >/dev/full' % command, image.parent, our_img)
    assert done.returncode == status
    assert ('No space left' in done.stderr) == (status == 1)


def test_signals_outlived(our_lamella, image):
    """Those that the genuine tool outlives."""
    our_io = image.parent / 'qemu-io'
    our_io.symlink_to(our_lamella)
    for number in signal.SIGUSR1, signal.SIGPIPE, signal.SIGALRM, signal.SIGIO:
        words = '-c', 'sigraise %d' % number, '-c', 'length', image
        assert run(our_io, *words).stdout == '1 MiB\n'
        run(our_lamella, 'io', *words, status=-number)
    run(our_io, '-c', 'sigraise 15', image, status=-15)
