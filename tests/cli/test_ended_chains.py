# SPDX-License-Identifier: MIT
"""commit, rebase and stream over layers with data files, and encrypted ones,
ended at each call that changes a file.

The disk reads as before, check finds leaks at worst, and the same command asked
for again ends as if nobody had disturbed it.
"""
import json
import shutil
import signal

import pytest

from ended import at_each_step, calls_of, digest
from harness import need_libcrypto, run

SECRET = ['--object', 'secret,id=s,data=abc']
KEYS = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1'

# Options of the base and of the overlay, with {} for the name.
CHAINS = {
    'data': ('data_file={}.data', 'data_file={}.data'),
    'raw-data': ('data_file={}.data,data_file_raw=on', ''),
    'luks-data': (KEYS + ',data_file={}.data', KEYS + ',data_file={}.data'),
}
JOBS = {
    'commit': ['commit', '-q'],
    'rebase': ['rebase', '-q', '-b', 'other', '-F', 'qcow2'],
    'stream': ['stream', '-q'],
}


def node(kind, name, key):
    return 'driver=qcow2,file.filename=' + name + (
        ',%sencrypt.key-secret=s' % key if 'luks' in kind else '')


def below(lamella, folder):
    """The name that the overlay's header has."""
    info = json.loads(lamella.run('info', '--output=json', 'top', cwd=folder))
    return info.get('backing-filename')


def top(lamella, folder, kind):
    """With the key of what is below it now."""
    image = node(kind, 'top', '')
    return image if below(lamella, folder) != 'base' or 'luks' not in kind \
        else image + ',backing.encrypt.key-secret=s'


def write(lamella, folder, image, *commands):
    argv = [part for command in commands for part in ('-c', command)]
    run(*lamella.io, *SECRET, '--image-opts', image, *argv, cwd=folder)


@pytest.fixture(scope='module', params=CHAINS)
def chain(request, lamella, tmp_path_factory):
    """base <- top, and other, which is plain."""
    kind = request.param
    if 'luks' in kind:
        need_libcrypto()
    folder = tmp_path_factory.mktemp(kind)
    for name, options in zip(('base', 'top', 'other'), (*CHAINS[kind], '')):
        options = ['cluster_size=4k', *[options.format(name)] * bool(options)]
        backing = ['-u', '-b', 'base', '-F', 'qcow2'] * (name == 'top')
        lamella.run('create', '-q', *SECRET, '-f', 'qcow2', '-o',
                    ','.join(options), *backing, name, '1M', cwd=folder)
    write(lamella, folder, node(kind, 'base', ''), 'write -P 1 0 60k',
          'write -P 2 512k 20k')
    write(lamella, folder, top(lamella, folder, kind), 'write -P 3 40k 10k',
          'write -z 520k 8k', 'write -P 4 900k 10k')
    lamella.io_run('other', 'write -P 5 20k 40k', cwd=folder)
    return kind, folder


def disk(lamella, folder, image):
    return digest(lamella, folder, *SECRET, '--image-opts', image)


def job(lamella, folder, kind, name):
    return [*lamella.img, *JOBS[name], *SECRET, '--image-opts',
            top(lamella, folder, kind)]


def whole(lamella, folder, kind):
    """All that is to be as if nobody had disturbed it."""
    return (below(lamella, folder), disk(lamella, folder,
                                         top(lamella, folder, kind)),
            disk(lamella, folder, node(kind, 'base', '')))


@pytest.mark.parametrize('name', JOBS)
def test_job(lamella, chain, tmp_path, name):
    kind, stock = chain
    folder = tmp_path / 'x'
    shutil.copytree(stock, folder)
    argv = job(lamella, folder, kind, name)
    before = disk(lamella, folder, top(lamella, folder, kind))
    run(*argv, cwd=folder)
    done = whole(lamella, folder, kind)
    assert len(before) == 64 and before == done[1]
    for step in at_each_step(signal.SIGKILL, argv, stock, folder):
        assert disk(lamella, folder, top(lamella, folder, kind)) == before, \
            step
        for image in 'base', 'top':
            assert run(*lamella.img, 'check', '-q', image, cwd=folder,
                       status=None).returncode in (0, 3), step
        if below(lamella, folder):
            run(*job(lamella, folder, kind, name), cwd=folder)
        assert whole(lamella, folder, kind) == done, step


@pytest.mark.parametrize('name', JOBS)
def test_synced_in_order(lamella, chain, tmp_path, name):
    """No kill tells of this, but a power cut would: all files that were copied
    to are synced before the write that lets go of where it came from."""
    kind, stock = chain
    folder = tmp_path / 'x'
    shutil.copytree(stock, folder)
    calls = calls_of(job(lamella, folder, kind, name), folder)
    changes = [at for at, (call, file) in enumerate(calls)
               if file == 'top' and call.startswith('pwrite')]
    # Of a commit the first one empties the overlay; else the last one is the
    # header's with the new name.
    decides = changes[0 if name == 'commit' else -1]
    unsynced = set()
    for call, file in calls[:decides]:
        if call in ('fsync', 'fdatasync'):
            unsynced.discard(file)
        else:
            unsynced.add(file)
    assert len(calls[:decides]) > 4 and not unsynced
