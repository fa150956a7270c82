# SPDX-License-Identifier: MIT
"""Passphrases added and erased by amend, and internal snapshots of encrypted
images: each step by one tool, the result read by the other."""
import random
import shutil
import signal
import subprocess
import time

import pytest

from harness import KiB, MiB, need_libcrypto, run
from test_encrypted import SECRET, create_options, node

SECOND = ['--object', 'secret,id=s1,data=hunter2']
WRONG = ['--object', 'secret,id=s2,data=nothing']


@pytest.fixture(autouse=True)
def needs_libcrypto(lamella):
    need_libcrypto()


def slot_options(fmt, text):
    prefix = 'encrypt.' if fmt == 'qcow2' else ''
    return ','.join(prefix + part for part in text.split(','))


def amend(tools, fmt, image, options, status=0, key='s0', flags=()):
    return run(*tools.img, 'amend', *flags, *SECRET, *SECOND, *WRONG,
               '--image-opts', '-o', slot_options(fmt, options),
               node(fmt, image, key), status=status)


def opens(tools, fmt, image, key):
    """True if the passphrase opens it and shows what was written."""
    done = run(*tools.io, '-r', *SECRET, *SECOND, *WRONG, '--image-opts',
               node(fmt, image, key), '-c', 'read -P 7 64k 4k', status=None)
    return done.returncode == 0 and 'read 4096/4096' in done.stdout


@pytest.fixture(params=['luks', 'qcow2'])
def fmt(request):
    return request.param


@pytest.fixture(scope='module')
def stock(reference, tmp_path_factory):
    """Made once: it takes the genuine tool a second."""
    need_libcrypto()
    folder = tmp_path_factory.mktemp('stock')
    for fmt in ('luks', 'qcow2'):
        reference.run('create', '-q', *SECRET, '-f', fmt,
                      *create_options(fmt, []), folder / fmt, '1M')
        run(*reference.io, *SECRET, '--image-opts', node(fmt, folder / fmt),
            '-c', 'write -P 7 64k 4k')
    return folder


@pytest.fixture
def image(fmt, stock, tmp_path):
    return shutil.copy(stock / fmt, tmp_path / 'image')


@pytest.mark.parametrize('ours', [True, False], ids=['ours', 'theirs'])
def test_add_and_erase(ours, fmt, image, reference, lamella):
    tools = lamella if ours else reference
    both = (lamella, reference)
    amend(tools, fmt, image, 'state=active,new-secret=s1,iter-time=10')
    for reader in both:
        assert [opens(reader, fmt, image, key) for key in
                ('s0', 's1', 's2')] == [True, True, False]
    amend(tools, fmt, image, 'state=active,new-secret=s2,keyslot=5,'
          'iter-time=10', key='s1')
    for reader in both:
        assert opens(reader, fmt, image, 's2')
    amend(tools, fmt, image, 'state=inactive,keyslot=5')
    amend(tools, fmt, image, 'state=inactive,old-secret=s0', key='s1')
    for reader in both:
        assert [opens(reader, fmt, image, key) for key in
                ('s0', 's1', 's2')] == [False, True, False]


@pytest.mark.parametrize('options', [
    'state=inactive,keyslot=0', 'state=inactive,old-secret=s0',
    'state=inactive,keyslot=3', 'state=inactive,keyslot=8',
    'state=active,new-secret=s1,keyslot=0,iter-time=10',
    'state=active,new-secret=none,iter-time=10',
    'state=active,new-secret=s1,keyslot=9,iter-time=10', 'state=active',
    'state=inactive', 'state=inactive,old-secret=s2', 'state=strange',
])
def test_refused(options, fmt, image, reference, lamella):
    """The last passphrase stays; and nothing is written on the way."""
    before = image.read_bytes()
    theirs = amend(reference, fmt, image, options, status=None)
    after = image.read_bytes()
    image.write_bytes(before)
    ours = amend(lamella, fmt, image, options, status=None)
    assert ours.returncode == theirs.returncode, ours.stderr + theirs.stderr
    if ours.returncode:
        assert len(ours.stderr.splitlines()) == 1
        assert image.read_bytes() == before == after
    assert opens(reference, fmt, image, 's0')


def test_option_help(reference, lamella):
    ours, theirs = (tools.run('amend', '-f', 'luks', '-o', 'help')
                    for tools in (lamella, reference))
    assert ours == theirs


def test_killed_at_any_moment(fmt, image, reference, lamella):
    """The passphrase that stays opens it, whenever the command ends."""
    rng = random.Random(3)
    for attempt in range(8):
        change = 'state=active,new-secret=s1,iter-time=10' if attempt % 2 == 0 \
            else 'state=inactive,old-secret=s1'
        if attempt % 2 and not opens(lamella, fmt, image, 's1'):
            continue
        child = subprocess.Popen(
            [*lamella.img, 'amend', *SECRET, *SECOND, '--image-opts', '-o',
             slot_options(fmt, change), node(fmt, image)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert opens(reference, fmt, image, 's0')
        assert opens(lamella, fmt, image, 's0')
    if fmt == 'qcow2':
        done = run(*reference.img, 'check', *SECRET, '--image-opts',
                   node(fmt, image), status=None)
        assert done.returncode in (0, 3)


@pytest.mark.parametrize('ours', [True, False], ids=['ours', 'theirs'])
def test_snapshots_of_encrypted_images(ours, reference, lamella, tmp_path):
    """Made, read, gone back to and deleted, and both see the same."""
    tools, other = (lamella, reference) if ours else (reference, lamella)
    path = tmp_path / 'image'
    tools.run('create', '-q', *SECRET, '-f', 'qcow2',
              *create_options('qcow2', ['cluster_size=4k']), path, MiB)

    def io(who, *commands):
        argv = [part for command in commands for part in ('-c', command)]
        return run(*who.io, *SECRET, '--image-opts', node('qcow2', path),
                   *argv).stdout

    def snapshot(who, *arguments):
        return who.run('snapshot', *SECRET, '--image-opts', *arguments,
                       node('qcow2', path))

    io(tools, 'write -P 1 0 512k')
    snapshot(tools, '-c', 'one')
    io(other, 'write -P 2 64k 128k', 'write -z 256k 64k')
    snapshot(other, '-c', 'two')
    io(tools, 'write -P 3 0 1M')
    for who in (lamella, reference):
        listed = snapshot(who, '-l')
        assert 'one' in listed and 'two' in listed
        out = tmp_path / 'out.raw'
        who.run('convert', *SECRET, '-l', 'snapshot.name=one', '--image-opts',
                '-O', 'raw', node('qcow2', path), out)
        assert out.read_bytes() == b'\1' * (512 * KiB) + bytes(512 * KiB)
    snapshot(tools, '-a', 'two')
    for who in (lamella, reference):
        io(who, 'read -P 1 0 64k', 'read -P 2 64k 128k', 'read -P 0 256k 64k',
           'read -P 0 512k 512k')
    snapshot(other, '-d', 'two')
    snapshot(tools, '-a', 'one')
    snapshot(tools, '-d', 'one')
    for who in (lamella, reference):
        io(who, 'read -P 1 0 512k', 'read -P 0 512k 512k')
        who.run('check', *(SECRET if who is reference else []),
                '--image-opts', node('qcow2', path)
                if who is reference else
                'driver=qcow2,file.filename=%s' % path)
