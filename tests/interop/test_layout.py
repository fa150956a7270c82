# SPDX-License-Identifier: MIT
"""Where clusters come to lie: in the order of the guest, as in the genuine
tool's images, at every run and with any number of threads."""
import os
import random
import signal
import subprocess

import pytest

from harness import KiB, MiB, make_mixed_file, run, sha256, text_bytes

SIZE = 16 * MiB

# What the genuine tool makes is the same, byte for byte.
SAME = [
    ('plain', []), ('v2', ['-o', 'compat=0.10']),
    ('1k', ['-o', 'cluster_size=1k']), ('4k', ['-o', 'cluster_size=4k']),
    ('16k', ['-o', 'cluster_size=16k']), ('2M', ['-o', 'cluster_size=2M']),
    ('extended', ['-o', 'extended_l2=on']),
    ('extended-16k', ['-o', 'extended_l2=on,cluster_size=16k']),
    ('refcount1', ['-o', 'refcount_bits=1']),
    ('refcount64', ['-o', 'refcount_bits=64,cluster_size=4k']),
    ('metadata', ['-o', 'preallocation=metadata']),
    ('falloc', ['-o', 'preallocation=falloc']),
    ('lazy', ['-o', 'lazy_refcounts=on']),
    ('allocated', ['-S', '0']), ('sparse64k', ['-S', '64k']),
]

# It deflates otherwise, or keeps what reads as zero anyway.
OURS = [
    ('deflate', ['-c']), ('deflate-2M', ['-c', '-o', 'cluster_size=2M']),
    ('deflate-4k', ['-c', '-o', 'cluster_size=4k']),
    ('zstd', ['-c', '-o', 'compression_type=zstd']),
    ('qcow', ['-O', 'qcow']), ('qcow-deflate', ['-c', '-O', 'qcow']),
    ('qed', ['-O', 'qed']), ('parallels', ['-O', 'parallels']),
    ('512', ['-o', 'cluster_size=512']),
]


def ids(cases):
    return [case[0] for case in cases]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp('layout') / 'source.raw'
    make_mixed_file(path, SIZE, 9)
    return path


def convert(tools, *args):
    out = args[-1]
    if os.path.exists(out):
        os.unlink(out)
    tools.run('convert', *args)
    return sha256(out)


def every_time(tools, out, *args):
    """The digest of what one command makes with few threads and with many."""
    made = {convert(tools, '-m', m, *args, out) for m in (1, 4, 16)}
    assert len(made) == 1
    return made.pop()


@pytest.mark.parametrize('args', [case[1] for case in SAME], ids=ids(SAME))
def test_as_theirs(args, source, lamella, reference, tmp_path):
    args = ['-f', 'raw', '-O', 'qcow2', *args, source]
    assert every_time(lamella, tmp_path / 'ours', *args) == \
        convert(reference, *args, tmp_path / 'theirs')


@pytest.mark.parametrize('args', [
    [], ['-o', 'preallocation=metadata'], ['-o', 'extended_l2=on'],
], ids=['plain', 'metadata', 'extended'])
def test_as_thin(args, lamella, reference, tmp_path):
    """Nothing is kept on the disk for what was left out."""
    source = tmp_path / 'source.raw'
    make_mixed_file(source, 2 * SIZE, 3, unit=12 * KiB)
    sizes = {}
    for tool in (lamella, reference):
        out = tmp_path / 'out'
        convert(tool, '-f', 'raw', '-O', 'qcow2', *args, source, out)
        sizes[tool] = out.stat().st_blocks
    assert sizes[lamella] <= sizes[reference] * 1.01


def data_runs(path):
    runs, at = [], 0
    with open(path, 'rb') as file:
        while at < os.stat(path).st_size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            runs.append((start, at))
    return runs


@pytest.mark.parametrize('size', ['8k', '16k', '64k', '1M', '96k'])
def test_sparse_size(size, lamella, reference, tmp_path):
    """-S leaves out blocks of that size, and no fewer of them."""
    rng, source = random.Random(5), tmp_path / 'source.raw'
    with open(source, 'wb') as out:
        out.truncate(4 * MiB)
        for at in range(0, 4 * MiB, 4 * KiB):
            kind = rng.choice(['data', 'zero', 'zero', 'hole']) if at else 'data'
            out.seek(at)
            if kind != 'hole':
                out.write(bytes([kind == 'data']) * 4 * KiB)
    args = ['-f', 'raw', '-S', size, source]
    packed = ['-O', 'qcow2', '-o', 'cluster_size=4k']
    assert every_time(lamella, tmp_path / 'ours', *packed, *args) == \
        convert(reference, *packed, *args, tmp_path / 'theirs')
    convert(lamella, '-O', 'raw', *args, tmp_path / 'ours')
    convert(reference, '-O', 'raw', *args, tmp_path / 'theirs')
    assert data_runs(tmp_path / 'ours') == data_runs(tmp_path / 'theirs')


@pytest.mark.parametrize('args', [case[1] for case in OURS], ids=ids(OURS))
def test_the_same_again(args, source, lamella, tmp_path):
    every_time(lamella, tmp_path / 'out', '-f', 'raw', '-O', 'qcow2', *args,
               source)


def test_out_of_order(source, lamella, tmp_path):
    out = tmp_path / 'out'
    for args in ([], ['-c']):
        convert(lamella, '-W', '-m', 16, '-f', 'raw', '-O', 'qcow2', *args,
                source, out)
        lamella.run('check', out)
        lamella.run('compare', out, source)


@pytest.fixture
def chain(source, lamella, reference, tmp_path):
    """base <- top; two images that are alike can be made by calling it
    twice."""
    def make():
        base, top = tmp_path / 'base.qcow2', tmp_path / 'top.qcow2'
        reference.run('convert', '-f', 'raw', '-O', 'qcow2', source, base)
        reference.run('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2',
                      top)
        reference.io_run(top, 'write -P 1 100k 3M', 'write -z 5M 2M',
                         'write -P 2 11M 70k', 'write -P 3 12000k 1k',
                         'write -P 4 12004k 3M', options=['-f', 'qcow2'])
        return top
    return make


def test_chain(chain, lamella, reference, tmp_path):
    args = ['-f', 'qcow2', '-O', 'qcow2', chain()]
    assert every_time(lamella, tmp_path / 'ours', *args) == \
        convert(reference, *args, tmp_path / 'theirs')


def test_over_a_target(source, lamella, reference, tmp_path):
    """One that is full: all is written where it was."""
    made = {}
    for tools in (lamella, reference):
        out = tmp_path / tools.name.replace(os.sep, '-')
        reference.run('create', '-q', '-f', 'qcow2', out, SIZE)
        reference.io_run(out, 'write -P 7 0 %d' % SIZE,
                         options=['-f', 'qcow2'])
        tools.run('convert', '-n', '-f', 'raw', '-O', 'qcow2', source, out)
        made[tools.name] = sha256(out)
    assert len(set(made.values())) == 1


def test_payloads_as_they_are(source, lamella, tmp_path):
    packed = tmp_path / 'packed.qcow2'
    convert(lamella, '-c', '-f', 'raw', '-O', 'qcow2', source, packed)
    every_time(lamella, tmp_path / 'out', '-c', '-f', 'qcow2', '-O', 'qcow2',
               packed)


@pytest.mark.parametrize('command', [
    ['commit', '-q'], ['rebase', '-q', '-b', ''],
    ['rebase', '-q', '-c', '-b', ''], ['stream', '-q']], ids=' '.join)
def test_layers(command, chain, lamella, tmp_path):
    made = set()
    for _ in range(3):
        top = chain()
        lamella.run(*command, top)
        made.add((sha256(top), sha256(tmp_path / 'base.qcow2')))
    assert len(made) == 1


def test_rebase_as_theirs(chain, lamella, reference):
    made = set()
    for tools in (lamella, reference):
        top = chain()
        tools.run('rebase', '-q', '-f', 'qcow2', '-b', '', top)
        made.add(sha256(top))
    assert len(made) == 1


@pytest.mark.parametrize('args', [[], ['-c'], ['-W']], ids=' '.join)
def test_a_failure_ends_all(args, source, lamella, tmp_path):
    """In the middle, with many threads of which most wait for their turn."""
    out = tmp_path / 'out.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', out, SIZE)
    event = 'write_compressed' if '-c' in args else 'write_aio'
    target = ('driver=qcow2,file.driver=blkdebug,file.image.driver=file,'
              'file.image.filename=%s,file.inject-error.0.event=%s,'
              'file.inject-error.0.state=3,file.inject-error.0.errno=5,'
              'file.set-state.0.event=%s,file.set-state.0.state=1,'
              'file.set-state.0.new_state=2,file.set-state.1.event=%s,'
              'file.set-state.1.state=2,file.set-state.1.new_state=3'
              % (out, event, event, event))
    done = run(*lamella.img, 'convert', '-n', '-m', 16, *args, '-f', 'raw',
               '--target-image-opts', source, target, status=1, timeout=60)
    assert done.stderr.count('\n') == 1, done.stderr
    assert 'Input/output error' in done.stderr
    lamella.run('check', '-r', 'leaks', '-f', 'qcow2', out)


@pytest.mark.parametrize('args', [[], ['-c']], ids=' '.join)
def test_an_interrupt_ends_all(args, lamella, tmp_path):
    source, out = tmp_path / 'text.raw', tmp_path / 'out.qcow2'
    source.write_bytes(text_bytes(1, 64 * KiB) * 1024)
    job = subprocess.Popen([*lamella.img, 'convert', '-r', '4M', '-m', '16',
                            *args, '-f', 'raw', '-O', 'qcow2', source, out],
                           stderr=subprocess.PIPE)
    while not out.exists() and job.poll() is None:
        pass
    job.send_signal(signal.SIGINT)
    assert job.communicate(timeout=60)[1].count(b'\n') == 1
    assert job.returncode == 130
    assert not out.exists()
