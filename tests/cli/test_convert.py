# SPDX-License-Identifier: MIT
"""`convert`: messages and exit codes beside the genuine tool, and what only
lamella has."""
import json
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest

from harness import (KiB, MiB, allocated, make_mixed_file, need_libcrypto, run,
                     wait_until)

SIZE = 4 * MiB


@pytest.fixture(scope='module')
def images(tmp_path_factory, reference):
    """A folder of inputs, made by the genuine tool."""
    folder = tmp_path_factory.mktemp('images')
    make_mixed_file(folder / 'a.raw', SIZE, seed=3)
    (folder / 'hole.raw').write_bytes(b'')
    os.truncate(folder / 'hole.raw', SIZE)
    (folder / 'small.raw').write_bytes(bytes(MiB))
    (folder / 'odd.raw').write_bytes(b'odd' * 333)
    reference.run('create', '-q', '-f', 'qcow2', 'a.qcow2', '4M', cwd=folder)
    reference.run('create', '-q', '-f', 'qcow2', 'small.qcow2', '1M',
                  cwd=folder)
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'a.qcow2', '-F',
                  'qcow2', 'o.qcow2', cwd=folder)
    reference.run('create', '-q', '-f', 'qcow2', 'snap.qcow2', '4M',
                  cwd=folder)
    reference.io_run('snap.qcow2', 'write -P 1 0 1M', cwd=folder)
    reference.run('snapshot', '-c', 'one', 'snap.qcow2', cwd=folder)
    reference.io_run('snap.qcow2', 'write -P 2 0 1M', cwd=folder)
    return folder


@pytest.fixture
def folder(images, tmp_path):
    """A fresh copy of them."""
    for name in os.listdir(images):
        shutil.copyfile(images / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope='module')
def as_qemu(lamella, tmp_path_factory):
    """lamella under the name qemu-img."""
    link = tmp_path_factory.mktemp('bin') / 'qemu-img'
    link.symlink_to(lamella.img[0])
    return str(link)


def outcome(program, args, cwd):
    done = run(program, 'convert', *args, status=None, cwd=cwd)
    stderr = done.stderr.replace(program + ' convert', 'qemu-img convert')
    return done.returncode, done.stdout, stderr


# What the genuine tool answers word for word.
SAME = {
    'no-names': [],
    'one-name': ['a.raw'],
    'not-qcow2': ['-f', 'qcow2', '-O', 'raw', 'a.raw', 'out'],
    'unknown-target-format': ['-O', 'foo', 'a.raw', 'out'],
    'unknown-source-format': ['-f', 'foo', '-O', 'raw', 'a.raw', 'out'],
    'compressed-raw': ['-c', '-O', 'raw', 'a.raw', 'out'],
    'compressed-raw-existing': ['-n', '-c', '-O', 'raw', 'a.raw', 'hole.raw'],
    'too-small-raw': ['-n', '-O', 'raw', 'a.raw', 'small.raw'],
    'too-small-qcow2': ['-n', '-f', 'raw', '-O', 'qcow2', 'a.raw',
                        'small.qcow2'],
    'options-without-creation': ['-n', '-f', 'raw', '-O', 'qcow2', '-o',
                                 'cluster_size=4k', 'a.raw', 'a.qcow2'],
    'backing-without-format': ['-O', 'qcow2', '-B', 'a.qcow2', 'a.raw', 'out'],
    'backing-option-without-format': ['-O', 'qcow2', '-o',
                                      'backing_file=a.qcow2', 'a.raw', 'out'],
    'format-without-backing': ['-O', 'qcow2', '-F', 'qcow2', 'a.raw', 'out'],
    'backing-for-raw': ['-O', 'raw', '-B', 'a.qcow2', '-F', 'qcow2', 'a.raw',
                        'out'],
    'backing-two-sources': ['-O', 'qcow2', '-B', 'a.qcow2', '-F', 'qcow2',
                            'o.qcow2', 'o.qcow2', 'out'],
    'sparse-odd': ['-S', '100', 'a.raw', 'out'],
    'sparse-word': ['-S', 'abc', 'a.raw', 'out'],
    'sparse-negative': ['-S', '-1', 'a.raw', 'out'],
    'rate-negative': ['-r', '-1', 'a.raw', 'out'],
    'rate-huge': ['-r', '8E', 'a.raw', 'out'],
    'rate': ['-r', '1G', 'a.raw', 'out'],
    'rate-0': ['-r', '0', 'a.raw', 'out'],
    'parallel-hex': ['-m', '0x10', 'a.raw', 'out'],
    'parallel-huge': ['-m', '99999999999999999999', 'a.raw', 'out'],
    'target-is-zero': ['-n', '--target-is-zero', 'a.raw', 'hole.raw'],
    'target-is-zero-overlay': ['-n', '--target-is-zero', '-f', 'raw', '-O',
                               'qcow2', 'a.raw', 'o.qcow2'],
    'salvage': ['--salvage', 'a.raw', 'out'],
    'snapshot-missing': ['-l', 'two', '-O', 'raw', 'snap.qcow2', 'out'],
    'snapshot-id-missing': ['-l', 'snapshot.id=9', '-O', 'raw', 'snap.qcow2',
                            'out'],
    'snapshot-id-of-another': ['-l', 'snapshot.id=2,snapshot.name=one', '-O',
                               'raw', 'snap.qcow2', 'out'],
    'snapshot-name-for-id': ['-l', 'snapshot.id=one', '-O', 'raw',
                             'snap.qcow2', 'out'],
    'snapshot-id-and-name': ['-l', 'snapshot.id=1,snapshot.name=one', '-O',
                             'raw', 'snap.qcow2', 'out'],
    'snapshot-empty': ['-l', '', '-O', 'raw', 'snap.qcow2', 'out'],
    'snapshot-of-raw': ['-l', 'one', '-f', 'raw', 'a.raw', 'out'],
    'sparse-huge': ['-S', '8G', 'a.raw', 'out'],
    'parallel-0': ['-m', '0', 'a.raw', 'out'],
    'parallel-17': ['-m', '17', 'a.raw', 'out'],
    'parallel-word': ['-m', 'x', 'a.raw', 'out'],
    'cache': ['-t', 'foo', 'a.raw', 'out'],
    'source-cache': ['-T', 'foo', 'a.raw', 'out'],
    'target-is-zero-new': ['--target-is-zero', 'a.raw', 'out'],
    'offload-sparse': ['-C', '-S', '4k', 'a.raw', 'out'],
    'offload-compress': ['-C', '-c', '-O', 'qcow2', 'a.raw', 'out'],
    'offload-salvage': ['-C', '--salvage', 'a.raw', 'out'],
    'rate-word': ['-r', 'foo', 'a.raw', 'out'],
    'bitmaps-raw': ['--bitmaps', '-O', 'qcow2', 'a.raw', 'out'],
    'skip-broken-bitmaps': ['--skip-broken-bitmaps', '-O', 'qcow2', 'a.raw',
                            'out'],
    'create-option': ['-O', 'qcow2', '-o', 'foo=1', 'a.raw', 'out'],
    'cluster-size': ['-O', 'qcow2', '-o', 'cluster_size=1', 'a.raw', 'out'],
    'compress-preallocate': ['-c', '-O', 'qcow2', '-o',
                             'preallocation=metadata', 'a.raw', 'out'],
    'target-opts-create': ['--target-image-opts', 'a.raw',
                           'driver=raw,file.filename=out'],
    'target-opts-and-format': ['--target-image-opts', '-n', '-O', 'raw',
                               'a.raw', 'driver=raw,file.filename=out'],
    'image-opts-and-format': ['--image-opts', '-f', 'raw',
                              'driver=raw,file.filename=a.raw', 'out'],
    'no-folder': ['a.raw', 'nowhere/out'],
    'snapshot-key': ['-l', 'snapshot.foo=1', '-O', 'raw', 'snap.qcow2', 'out'],
    'snapshot-two-sources': ['-l', 'one', 'snap.qcow2', 'snap.qcow2', 'out'],
    'long-option': ['--frob'],
    'short-option': ['-Q'],
    # What succeeds, silently.
    'plain': ['a.raw', 'out'],
    'glued': ['-fraw', '-Oqcow2', 'a.raw', 'out'],
    'options-last': ['a.raw', 'out', '-f', 'raw', '-O', 'qcow2', '-t',
                     'writeback'],
    'last-cache-wins': ['-t', 'writeback', '-t', 'none', 'a.raw', 'out'],
    'abbreviated': ['--source-f', 'raw', '--sparse=4k', 'a.raw', 'out'],
    'options-add-up': ['-f', 'raw', '-O', 'qcow2', '-o', 'cluster_size=4k',
                       '-o', 'compat=0.10', 'a.raw', 'out'],
    'size-option-is-ignored': ['-f', 'raw', '-O', 'qcow2', '-o', 'size=8M',
                               'a.raw', 'out'],
    'quiet-progress': ['-q', '-p', 'a.raw', 'out'],
    'parallel': ['-m', '16', '-W', 'a.raw', 'out'],
    'two-sources': ['-f', 'raw', '-O', 'qcow2', 'a.raw', 'small.raw', 'out'],
    'unaligned': ['-f', 'raw', 'odd.raw', 'out'],
    'snapshot': ['-l', 'one', '-O', 'raw', 'snap.qcow2', 'out'],
    'snapshot-by-id': ['-l', 'snapshot.id=1', '-O', 'raw', 'snap.qcow2',
                       'out'],
    'snapshot-by-name': ['-l', 'snapshot.name=one', '-O', 'raw', 'snap.qcow2',
                         'out'],
    'no-create': ['-n', 'a.raw', 'hole.raw'],
    'no-create-qcow2': ['-n', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2'],
    'no-create-overlay': ['-n', '-f', 'raw', '-O', 'qcow2', 'a.raw',
                          'o.qcow2'],
    'target-opts': ['--target-image-opts', '-n', '-f', 'raw', 'a.raw',
                    'driver=raw,file.filename=hole.raw'],
    'image-opts': ['--image-opts', 'driver=raw,file.filename=a.raw', 'out'],
}


# The same failure in other words; these are looked for by callers.
SIMILAR = {
    'missing-source': (
        ['-O', 'raw', 'nope.raw', 'out'],
        "Could not open 'nope.raw': No such file or directory"),
    'no-create-missing': (
        ['-n', '-O', 'raw', 'a.raw', 'out'],
        "Could not open 'out': No such file or directory"),
    'backing-missing': (
        ['-O', 'qcow2', '-B', 'nope', '-F', 'qcow2', 'a.raw', 'out'],
        "Could not open 'nope': No such file or directory"),
}


@pytest.mark.parametrize('name', SAME)
def test_same(as_qemu, reference, images, tmp_path, name):
    results, after = [], []
    for program in reference.img[0], as_qemu:
        cwd = tmp_path / str(len(results))
        shutil.copytree(images, cwd)
        results.append(outcome(program, SAME[name], cwd))
        after.append(sorted(os.listdir(cwd)) if not results[-1][0] else None)
    assert results[1] == results[0]
    assert after[1] == after[0]
    if results[0][0] == 0:
        for image in after[0]:
            reference.run('compare', tmp_path / '0' / image,
                          tmp_path / '1' / image)
    else:                   # and nothing half-made is left
        assert sorted(os.listdir(cwd)) == sorted(os.listdir(images))
        for image in os.listdir(images):
            assert (cwd / image).read_bytes() == \
                (images / image).read_bytes(), image


@pytest.mark.parametrize('name', SIMILAR)
def test_similar(as_qemu, reference, images, folder, name):
    args, words = SIMILAR[name]
    for program in as_qemu, reference.img[0]:
        status, stdout, stderr = outcome(program, args, folder)
        assert (status, stdout) == (1, '')
        assert words in stderr and stderr.count('\n') == 1
        if program == as_qemu:
            assert sorted(os.listdir(folder)) == sorted(os.listdir(images))


@pytest.mark.parametrize('args', [
    ['-f', 'raw', '-O', 'raw', 'a.raw', 'a.raw'],
    ['-f', 'raw', '-O', 'qcow2', 'a.raw', './a.raw'],
    ['-n', '-O', 'qcow2', 'o.qcow2', 'o.qcow2'],
    ['-n', '-O', 'qcow2', 'o.qcow2', 'a.qcow2'],
    ['-O', 'qcow2', '-B', 'small.qcow2', '-F', 'qcow2', 'a.qcow2',
     'small.qcow2'],
])
def test_target_is_source(lamella, as_qemu, images, folder, args):
    for program in lamella.img[0], as_qemu:
        done = run(program, 'convert', *args, status=1, cwd=folder)
        assert 'the target is the same file as' in done.stderr
        assert done.stderr.count('\n') == 1
    for image in os.listdir(images):
        assert (folder / image).read_bytes() == (images / image).read_bytes()


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
@pytest.mark.parametrize('options', [[], ['-S', '0'], ['-S', '512'],
                                     ['-S', '64k'], ['-S', '16M'],
                                     ['-m', '1'], ['-t', 'none'],
                                     ['-T', 'none'], ['-t', 'writethrough']],
                         ids=lambda o: '='.join(o) or 'plain')
def test_contents(lamella, reference, folder, fmt, options):
    lamella.run('convert', '-f', 'raw', '-O', fmt, *options, 'a.raw', 'out',
                cwd=folder)
    reference.run('compare', '-f', 'raw', '-F', fmt, 'a.raw', 'out',
                  cwd=folder)
    if fmt == 'qcow2':
        reference.run('check', 'out', cwd=folder)
    if options == ['-S', '0']:
        assert allocated(folder / 'out') >= SIZE


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_no_larger(lamella, reference, folder, fmt):
    """Full of written zeroes: no more space than the genuine tool takes."""
    (folder / 'zeroes.raw').write_bytes(bytes(SIZE))
    for source in 'a.raw', 'zeroes.raw':
        for tools in reference, lamella:
            tools.run('convert', '-f', 'raw', '-O', fmt, source, tools.name,
                      cwd=folder)
        assert allocated(folder / lamella.name) <= \
            allocated(folder / reference.name) + 64 * KiB


@pytest.mark.parametrize('options', [
    ['-c'], ['-c', '-o', 'compression_type=zstd'], ['-c', '-S', '0'],
    ['-c', '-o', 'cluster_size=4k'], ['-c', '-o', 'cluster_size=2M'],
    ['-c', '-o', 'compat=0.10'], ['-o', 'extended_l2=on'],
    ['-o', 'cluster_size=512'], ['-o', 'data_file=data'],
    ['-o', 'preallocation=metadata'], ['-o', 'preallocation=falloc'],
    ['-o', 'preallocation=full'],
], ids=lambda o: '-'.join(o))
@pytest.mark.parametrize('source', ['a.raw', 'odd.raw', 'hole.raw'])
def test_qcow2_kinds(lamella, reference, folder, options, source):
    lamella.run('convert', '-f', 'raw', '-O', 'qcow2', *options, source, 'out',
                cwd=folder)
    reference.run('check', 'out', cwd=folder)
    reference.run('compare', '-f', 'raw', source, 'out', cwd=folder)


def test_compressed_sizes(lamella, reference, folder):
    """Whole zero clusters stay out of a compressed image."""
    lamella.run('convert', '-c', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'out',
                cwd=folder)
    for entry in json.loads(reference.run('map', '--output=json', 'out',
                                          cwd=folder)):
        with open(folder / 'a.raw', 'rb') as data:
            data.seek(entry['start'])
            blocks = data.read(entry['length'])
        assert entry['data'] == any(blocks)


# ------------------------------------------------------------ overlays

def make_chain(tools, folder):
    """base (a.raw's contents) <- middle <- top, with data, zeroes and holes
    in each."""
    tools.run('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'base.qcow2',
              cwd=folder)
    below = 'base.qcow2'
    for name, commands in (
            ('middle', ['write -P 9 256k 300k', 'write -z 1M 256k']),
            ('top', ['write -P 8 0 70k', 'write -z 512k 64k',
                     'write -P 7 1100k 10k', 'write -z 3M 5k'])):
        tools.run('create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2',
                  name + '.qcow2', cwd=folder)
        below = name + '.qcow2'
        tools.io_run(below, *commands, cwd=folder)


@pytest.mark.parametrize('options', [[], ['-c'], ['-o', 'cluster_size=4k'],
                                     ['-o', 'cluster_size=2M'],
                                     ['-c', '-o', 'cluster_size=256k']],
                         ids=lambda o: '-'.join(o) or 'plain')
@pytest.mark.parametrize('base', ['base.qcow2', 'middle.qcow2'])
def test_onto_backing(lamella, reference, folder, base, options):
    """-B: what the backing file has is left out, whatever lies between."""
    make_chain(reference, folder)
    lamella.run('convert', '-O', 'qcow2', '-B', base, '-F', 'qcow2', *options,
                'top.qcow2', 'out', cwd=folder)
    reference.run('check', 'out', cwd=folder)
    reference.run('compare', 'top.qcow2', 'out', cwd=folder)
    stored = sum(e['length'] for e in json.loads(reference.run(
        'map', '--output=json', 'out', cwd=folder)) if e['depth'] == 0)
    assert 0 < stored and (stored < SIZE or 'cluster_size=2M' in options)
    if options == [] and base == 'middle.qcow2':
        # The same as qemu-img, which copies the top layer alone.
        reference.run('convert', '-O', 'qcow2', '-B', base, '-F', 'qcow2',
                      'top.qcow2', 'genuine', cwd=folder)
        assert allocated(folder / 'out') <= \
            allocated(folder / 'genuine') + 64 * KiB


def test_onto_copied_backing(lamella, reference, folder):
    """The backing file need not be the same file, only the same contents."""
    make_chain(reference, folder)
    reference.run('convert', '-O', 'raw', 'middle.qcow2', 'copy.raw',
                  cwd=folder)
    lamella.run('convert', '-O', 'qcow2', '-B', 'copy.raw', '-F', 'raw',
                'top.qcow2', 'out', cwd=folder)
    reference.run('compare', 'top.qcow2', 'out', cwd=folder)
    assert os.path.getsize(folder / 'out') < MiB


def test_flatten(lamella, reference, folder):
    make_chain(reference, folder)
    for fmt in 'raw', 'qcow2':
        lamella.run('convert', '-O', fmt, 'top.qcow2', 'out', cwd=folder)
        reference.run('compare', '-F', fmt, 'top.qcow2', 'out', cwd=folder)


def test_shorter_and_longer_backing(lamella, reference, folder):
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'small.qcow2', '-F',
                  'qcow2', 'long.qcow2', '4M', cwd=folder)
    reference.io_run('long.qcow2', 'write -P 1 900k 300k', cwd=folder)
    lamella.run('convert', '-O', 'qcow2', '-B', 'small.qcow2', '-F', 'qcow2',
                'long.qcow2', 'out', cwd=folder)
    reference.run('compare', 'long.qcow2', 'out', cwd=folder)


def test_existing_qcow2_stays_small(lamella, reference, folder):
    """Zero clusters are not written where the target reads as zero."""
    reference.run('create', '-q', '-f', 'qcow2', 'empty.qcow2', '64G',
                  cwd=folder)
    reference.run('create', '-q', '-f', 'qcow2', 'target.qcow2', '64G',
                  cwd=folder)
    size = os.path.getsize(folder / 'target.qcow2')
    lamella.run('convert', '-n', '-O', 'qcow2', 'empty.qcow2', 'target.qcow2',
                cwd=folder)
    assert os.path.getsize(folder / 'target.qcow2') == size


def test_existing_qcow2_is_overwritten(lamella, reference, folder):
    reference.io_run('a.qcow2', 'write -P 5 0 4M', cwd=folder)
    lamella.run('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'a.raw',
                'a.qcow2', cwd=folder)
    reference.run('compare', '-f', 'raw', 'a.raw', 'a.qcow2', cwd=folder)
    reference.run('check', 'a.qcow2', cwd=folder)


def test_existing_file_is_punched(lamella, folder):
    (folder / 'old').write_bytes(b'old!' * (SIZE // 4))
    lamella.run('convert', '-n', '-f', 'raw', 'hole.raw', 'old', cwd=folder)
    assert (folder / 'old').read_bytes() == bytes(SIZE)
    assert allocated(folder / 'old') <= 64 * KiB


def test_longer_existing_file_keeps_its_end(lamella, folder):
    (folder / 'old').write_bytes(b'old!' * (SIZE // 2))
    lamella.run('convert', '-n', '-f', 'raw', 'a.raw', 'old', cwd=folder)
    expected = (folder / 'a.raw').read_bytes() + b'old!' * (SIZE // 4)
    assert (folder / 'old').read_bytes() == expected


# ------------------------------------------------------------ progress

def test_progress(as_qemu, folder):
    text = subprocess.run([as_qemu, 'convert', '-p', 'a.raw', 'out'],
                          cwd=folder, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout.decode()
    assert re.fullmatch(r'(    \(\d+\.\d\d/100%\)\r)+\n', text)
    values = [float(v) for v in re.findall(r'\(([\d.]+)/100%\)', text)]
    assert values[0] == 0 and values[-1] == 100 and values == sorted(values)


def test_progress_says_what_became_of_zeroes(lamella, folder):
    with open(folder / 'sparse.raw', 'wb') as out:
        out.truncate(SIZE)
    text = lamella.run('convert', '-p', '-O', 'raw', 'sparse.raw', 'out',
                       cwd=folder)
    last = text.splitlines()[-1]
    assert re.fullmatch(
        r'4 MiB in [\d.]+ s \(\d+ MiB/s\): 0 B read, 0 B written, 0 B zeroed, '
        r'0 B discarded, 4 MiB skipped; zeroes: skipped '
        r'\(a new file reads as zeroes\)', last)


# ------------------------------------------------------------ streams

def test_pipe(lamella, folder):
    done = subprocess.run([*lamella.img, 'convert', '-f', 'raw', 'a.raw', '-'],
                          cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0 and done.stderr == b''
    assert done.stdout == (folder / 'a.raw').read_bytes()


def test_device_stdout(as_qemu, folder):
    done = subprocess.run([as_qemu, 'convert', '-f', 'raw', 'a.raw',
                           'small.raw', '/dev/stdout'], cwd=folder,
                          stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0
    assert done.stdout == (folder / 'a.raw').read_bytes() + bytes(MiB)


def test_fifo(lamella, folder):
    os.mkfifo(folder / 'fifo')
    received = []
    reader = threading.Thread(
        target=lambda: received.append((folder / 'fifo').read_bytes()))
    reader.start()
    lamella.run('convert', 'snap.qcow2', 'fifo', cwd=folder)
    reader.join(30)
    assert received == [b'\2' * MiB + bytes(3 * MiB)]


def test_closed_pipe(lamella, folder):
    convert = subprocess.Popen([*lamella.img, 'convert', '-f', 'raw', 'a.raw',
                                '-'], cwd=folder, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    convert.stdout.read(1000)
    convert.stdout.close()
    assert convert.wait(60) == 1
    stderr = convert.stderr.read()
    convert.stderr.close()
    assert b'Broken pipe' in stderr and stderr.count(b'\n') == 1


@pytest.mark.parametrize('args', [['-O', 'qcow2'], ['-c']])
def test_only_raw_into_a_pipe(lamella, folder, args):
    done = run(*lamella.img, 'convert', *args, 'a.raw', '-', status=1,
               cwd=folder)
    assert 'only a plain raw image' in done.stderr


def test_dash_is_a_file_as_qemu_img(as_qemu, folder):
    run(as_qemu, 'convert', '-f', 'raw', 'a.raw', '-', cwd=folder)
    assert (folder / '-').read_bytes() == (folder / 'a.raw').read_bytes()


# ------------------------------------------------------------ failing

def test_full_disk_removes_the_target(lamella, folder, tmp_path):
    if os.geteuid() != 0:
        pytest.skip('mounting needs root')
    small = tmp_path / 'small'
    small.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none',
                    str(small)], check=True)
    try:
        for fmt in 'raw', 'qcow2':
            done = run(*lamella.img, 'convert', '-S', '0', '-f', 'raw', '-O',
                       fmt, 'a.raw', small / 'out', status=1, cwd=folder)
            assert 'No space left on device' in done.stderr
            assert done.stderr.count('\n') == 1
            assert os.listdir(small) == []
    finally:
        subprocess.run(['umount', str(small)], check=True)


def test_truncated_source(lamella, reference, folder):
    """Bytes that are missing are an error, not zeroes."""
    reference.run('convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', 'a.raw',
                  'cut.qcow2', cwd=folder)
    os.truncate(folder / 'cut.qcow2', 3 * MiB)
    done = run(*lamella.img, 'convert', '-O', 'raw', 'cut.qcow2', 'out',
               status=1, cwd=folder)
    assert 'cut.qcow2' in done.stderr and done.stderr.count('\n') == 1
    assert not (folder / 'out').exists()


@pytest.mark.parametrize('signo', [signal.SIGINT, signal.SIGTERM])
def test_signal(lamella, folder, signo):
    """A job that is told to stop leaves nothing behind."""
    os.mkfifo(folder / 'hold')
    os.truncate(folder / 'hole.raw', 1 << 40)
    convert = subprocess.Popen(
        [*lamella.img, 'convert', '-r', '64M', '-S', '0', '-f', 'raw',
         'hole.raw', 'out'],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(convert, (folder / 'out').exists)
    convert.send_signal(signo)
    stderr = convert.communicate(timeout=60)[1]
    assert convert.returncode == 128 + signo
    assert stderr.decode() == "lamella: interrupted by %s: 'out' is removed " \
        'again\n' % signo.name
    assert not (folder / 'out').exists()
    assert (folder / 'hole.raw').exists()


# ------------------------------------------------------------ --explain

@pytest.mark.parametrize('args, zeroes, result', [
    (['a.raw', 'new'], 'skipped', 'thin'),
    (['-O', 'qcow2', 'a.raw', 'new'], 'unallocated or zero clusters', 'thin'),
    (['-n', 'a.raw', 'hole.raw'], 'unmapped, a call for each range', 'thin'),
    (['-n', '--target-is-zero', 'a.raw', 'hole.raw'], 'skipped', 'thin'),
    (['-S', '0', '-O', 'qcow2', 'a.raw', 'new'], 'written',
     'fully allocated, as asked for'),
])
def test_explain(lamella, images, folder, args, zeroes, result):
    text = lamella.run('convert', '--explain', '-f', 'raw', *args, cwd=folder)
    answer = dict(line.split(': ', 1) for line in text.splitlines())
    assert list(answer) == ['target', 'limits', 'zeroes', 'reason', 'result']
    assert answer['target'] == args[-1]
    assert answer['zeroes'] == zeroes
    assert answer['result'] == result
    assert sorted(os.listdir(folder)) == sorted(os.listdir(images))
    for image in os.listdir(images):
        assert (folder / image).read_bytes() == (images / image).read_bytes()


# ------------------------------------------------------------------ refused

@pytest.mark.parametrize('args, words', [
    (['--digest', 'crc'], 'unknown digest'),
    (['--progress=xml'], 'unknown form'),
    (['--object', 'tls-creds-x509,id=a'], "Missing 'dir'"),
])
def test_refused(lamella, folder, args, words):
    if '--digest' in args:
        need_libcrypto()
    done = run(*lamella.img, 'convert', *args, 'a.raw', 'out', status=1,
               cwd=folder)
    assert words in done.stderr and done.stderr.count('\n') == 1
    assert not (folder / 'out').exists()
