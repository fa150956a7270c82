# SPDX-License-Identifier: MIT
"""What `convert` does besides copying: digests, salvage, rates, JSON, and
refusing what is in use."""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest

from harness import (KiB, MiB, build_dir, make_mixed_file, need_libcrypto, run,
                     sha256, takes_signal, text_bytes, wait_until)

SIZE = 5 * MiB + 512        # a short block at the end


@pytest.fixture(scope='module')
def images(tmp_path_factory, reference):
    folder = tmp_path_factory.mktemp('extras')
    make_mixed_file(folder / 'a.raw', SIZE, 23)
    (folder / 'odd.raw').write_bytes(text_bytes(3, MiB + 1))

    def convert(name, *args):
        reference.run('convert', '-f', 'raw', '-O', 'qcow2', *args,
                      folder / 'a.raw', folder / name)

    convert('a.qcow2')
    convert('zlib.qcow2', '-c')
    convert('large.qcow2', '-o', 'cluster_size=2M')
    return folder


@pytest.fixture
def folder(images, tmp_path):
    path = tmp_path / 'work'
    shutil.copytree(images, path)
    return path


# ------------------------------------------------------------ memory

@pytest.mark.parametrize('options', [
    ['-c'], ['-c', '-o', 'cluster_size=2M'], ['-T', 'none', '-t', 'none'],
    ['-c', '-o', 'compression_type=zstd', '-T', 'none', '-t', 'none'],
    ['-S', '16M'],
], ids=' '.join)
def test_memory(lamella, tmp_path, options):
    """64 MiB at most with many requests, however large a cluster is."""
    source, result = tmp_path / 'a.raw', tmp_path / 'result.json'
    source.write_bytes(random.Random(5).randbytes(8 * MiB) * 10)
    run(os.path.join(build_dir(), 'bench', 'bench-measure'), result,
        *lamella.img, 'convert', '-m', '16', '-W', '-O', 'qcow2', *options,
        source, tmp_path / 'b.qcow2')
    assert json.loads(result.read_text())['rss'] <= 64 * MiB


# ------------------------------------------------------------ --digest

U32 = 0xffffffff
BLAKE3 = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19]


def tree(data, name='sha256', block=MiB):
    leaves = [hashlib.new(name, data[at:at + block]).digest()
              for at in range(0, len(data), block)]
    return hashlib.new(name, b''.join(leaves)).hexdigest()


def test_digest_names(lamella, folder):
    """Each is what another implementation makes of the raw image."""
    need_libcrypto()
    names = lamella.run('convert', '--digest', 'help').split()
    assert {'sha256', 'sha512', 'blake2b512', 'sha256-tree'} <= set(names)
    data = (folder / 'a.raw').read_bytes()
    for name in set(names) - {'blake3'}:
        plain = name.removesuffix('-tree')
        known = {'blake2b512': 'blake2b', 'blake2s256': 'blake2s',
                 'sha3-256': 'sha3_256', 'sha3-512': 'sha3_512'}
        plain = known.get(plain, plain)
        value = tree(data, plain) if name.endswith('-tree') \
            else hashlib.new(plain, data).hexdigest()
        text = lamella.run('convert', '-f', 'raw', '--digest', name, 'a.raw',
                           'out', cwd=folder)
        assert text == '%s:%s\n' % (name, value)


def blake3_block(cv, block, counter, flags):
    v = [*cv, *BLAKE3[:4], counter & U32, counter >> 32, len(block), flags]
    m = struct.unpack('<16I', block.ljust(64, b'\0'))

    def mix(a, b, c, d, words):
        for word, far, near in zip(words, (16, 8), (12, 7)):
            v[a] = v[a] + v[b] + word & U32
            v[d] = (v[d] ^ v[a]) >> far | (v[d] ^ v[a]) << 32 - far & U32
            v[c] = v[c] + v[d] & U32
            v[b] = (v[b] ^ v[c]) >> near | (v[b] ^ v[c]) << 32 - near & U32
    for _ in range(7):
        for i in range(8):
            turn = i // 4
            mix(i % 4, 4 + (i + turn) % 4, 8 + (i + 2 * turn) % 4,
                12 + (i + 3 * turn) % 4, m[2 * i:2 * i + 2])
        m = [m[i] for i in (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15,
                            8)]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3(data, chunk=0, root=8):
    """By the letter of the paper."""
    if len(data) > 1024:
        half = 1 << (len(data) - 1).bit_length() - 1
        pair = [*blake3(data[:half], chunk, 0),
                *blake3(data[half:], chunk + half // 1024, 0)]
        return blake3_block(BLAKE3, struct.pack('<16I', *pair), 0, 4 | root)
    cv, last = BLAKE3, max(0, len(data) - 1) // 64
    for i in range(last + 1):
        flags = (i == 0) | (i == last) * (2 | root)
        cv = blake3_block(cv, data[64 * i:64 * i + 64], chunk, flags)
    return cv


def test_digest_blake3(lamella, tmp_path):
    need_libcrypto()
    data = random.Random(5).randbytes(70000) + bytes(70000) + b'end'
    (tmp_path / 'a.raw').write_bytes(data.ljust(140288, b'.'))
    text = lamella.run('convert', '-f', 'raw', '--digest', 'blake3', 'a.raw',
                       'out', cwd=tmp_path)
    value = blake3((tmp_path / 'a.raw').read_bytes())
    assert text == 'blake3:%s\n' % struct.pack('<8I', *value).hex()


@pytest.mark.parametrize('source', ['a.raw', 'odd.raw', 'a.qcow2',
                                    'zlib.qcow2', 'large.qcow2'])
@pytest.mark.parametrize('options', [
    [], ['-m', '1'], ['-m', '16', '-W'], ['-S', '0'], ['-O', 'qcow2', '-c'],
    ['-O', 'qcow2', '-o', 'cluster_size=2M']])
@pytest.mark.parametrize('name', ['sha256', 'sha256-tree'])
def test_digest(lamella, folder, source, options, name):
    """Whatever the copy does, the digest is that of the raw image."""
    need_libcrypto()
    lamella.run('convert', source, 'plain.raw', cwd=folder)
    data = (folder / 'plain.raw').read_bytes()
    value = tree(data) if name == 'sha256-tree' \
        else hashlib.sha256(data).hexdigest()
    text = lamella.run('convert', '--digest', name, *options, source, 'out',
                       cwd=folder)
    assert text == '%s:%s\n' % (name, value)


def test_digest_of_several_and_of_a_stream(lamella, folder):
    need_libcrypto()
    data = (folder / 'a.raw').read_bytes() * 2
    sources = ['a.qcow2', 'zlib.qcow2']
    text = lamella.run('convert', '--digest', 'sha256', *sources, 'out',
                       cwd=folder)
    assert text == 'sha256:%s\n' % hashlib.sha256(data).hexdigest()
    done = subprocess.run([*lamella.img, 'convert', '--digest', 'sha256-tree',
                           *sources, '-'], cwd=folder, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout == data
    assert done.stderr.decode() == 'sha256-tree:%s\n' % tree(data)


def test_digest_counts_what_is_shared(lamella, reference, folder):
    """With -B the base's bytes are not copied, and belong to the disk."""
    need_libcrypto()
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'a.qcow2', '-F',
                  'qcow2', 'top.qcow2', cwd=folder)
    reference.io_run('top.qcow2', 'write -P 7 1M 300k', 'write -z 3M 64k',
                     cwd=folder)
    lamella.run('convert', 'top.qcow2', 'flat.raw', cwd=folder)
    text = lamella.run('convert', '--digest', 'sha256', '-O', 'qcow2', '-B',
                       'a.qcow2', '-F', 'qcow2', 'top.qcow2', 'out.qcow2',
                       cwd=folder)
    assert text == 'sha256:%s\n' % sha256(folder / 'flat.raw')
    reference.run('compare', 'flat.raw', 'out.qcow2', cwd=folder)
    assert os.stat(folder / 'out.qcow2').st_size < 2 * MiB


def test_digest_of_a_sparse_terabyte(lamella, folder):
    """Zero blocks of a tree cost nothing."""
    need_libcrypto()
    lamella.run('create', '-q', '-f', 'qcow2', 'big.qcow2', '1T', cwd=folder)
    lamella.io_run(folder / 'big.qcow2', 'write -P 9 700G 64k')
    zero = hashlib.sha256(bytes(MiB)).digest()
    some = hashlib.sha256(b'\x09' * 64 * KiB + bytes(MiB - 64 * KiB)).digest()
    leaves = zero * (700 * KiB) + some + zero * (324 * KiB - 1)
    text = lamella.run('convert', '--digest', 'sha256-tree', '-O', 'qcow2',
                       'big.qcow2', 'out', cwd=folder)
    assert text == 'sha256-tree:%s\n' % hashlib.sha256(leaves).hexdigest()


# ------------------------------------------------------------ --salvage

def be64(image, offset):
    image.seek(offset)
    return int.from_bytes(image.read(8), 'big')


def spoil(reference, folder, image):
    """Make the payload of a compressed cluster noise; its guest offset."""
    extents = json.loads(reference.run('map', '--output=json', image,
                                       cwd=folder))
    start = next(e['start'] for e in extents if e.get('compressed'))
    with open(folder / image, 'r+b') as out:
        l2 = be64(out, be64(out, 40)) & ~(3 << 62)
        payload = be64(out, l2 + start // (64 * KiB) * 8) & ((1 << 54) - 1)
        out.seek(payload)
        out.write(b'\xff' * 64)
    return start


def test_salvage_as_genuine(lamella, our_img, reference, folder, texts):
    spoil(reference, folder, 'zlib.qcow2')
    for options in ['--salvage'], ['--salvage', '-q'], []:
        theirs = run(texts.img[0], 'convert', *options, 'zlib.qcow2',
                     'theirs', status=None, cwd=folder)
        ours = run(our_img, 'convert', *options, 'zlib.qcow2', 'ours',
                   status=None, cwd=folder)
        assert ours.returncode == theirs.returncode
        if options:
            assert sorted(ours.stderr.splitlines()) == \
                sorted(theirs.stderr.splitlines())
            assert sha256(folder / 'ours') == sha256(folder / 'theirs')


def test_salvage_lists_and_counts(lamella, reference, folder):
    need_libcrypto()
    at = spoil(reference, folder, 'zlib.qcow2')
    failed = run(*lamella.img, 'convert', 'zlib.qcow2', 'out', status=1,
                 cwd=folder)
    assert "'zlib.qcow2': guest offset %d" % at in failed.stderr
    assert failed.stderr.count('\n') == 1 and not (folder / 'out').exists()

    done = run(*lamella.img, 'convert', '--salvage', '--digest', 'sha256',
               'zlib.qcow2', 'out', cwd=folder)
    lines = done.stderr.splitlines()
    assert '65536 bytes at byte %d are lost' % at in lines[0]
    assert lines[1:] == ['lamella: warning: 65536 bytes in 1 range could not '
                         "be read, and are zeroes in 'out'"]
    data = bytearray((folder / 'a.raw').read_bytes())
    data[at:at + 64 * KiB] = bytes(64 * KiB)
    assert (folder / 'out').read_bytes() == data
    assert done.stdout == 'sha256:%s\n' % hashlib.sha256(data).hexdigest()

    text = lamella.run('convert', '--salvage', '-q', 'zlib.qcow2', 'out',
                       cwd=folder)
    assert text == ''


def test_salvage_without_a_map(lamella, reference, folder):
    """An L2 table that cannot be read loses what it maps, and no more."""
    lamella.run('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k',
                'two.qcow2', '4M', cwd=folder)
    lamella.io_run(folder / 'two.qcow2', 'write -P 1 0 4M')
    with open(folder / 'two.qcow2', 'r+b') as image:
        image.seek(40)
        l1 = int.from_bytes(image.read(8), 'big')
        image.seek(l1)
        image.write((0x8000000000000000 | 1 << 40).to_bytes(8, 'big'))
    run(*lamella.img, 'convert', 'two.qcow2', 'out', status=1, cwd=folder)
    events = [json.loads(line) for line in lamella.run(
        'convert', '--salvage', '--progress=json', 'two.qcow2', 'out',
        cwd=folder).splitlines()]
    lost = [e for e in events if e['event'] == 'unreadable']
    assert sum(e['length'] for e in lost) == 2 * MiB
    assert all(e['image'] == 'two.qcow2' and e['error'] for e in lost)
    assert events[-1]['unreadable'] == 2 * MiB
    assert (folder / 'out').read_bytes() == bytes(2 * MiB) + b'\1' * 2 * MiB


# ------------------------------------------------------------ -r, --progress

def test_rate(lamella, folder):
    (folder / 'full.raw').write_bytes(b'x' * 2 * MiB)
    start = time.monotonic()
    lamella.run('convert', '-r', '2M', 'full.raw', 'out', cwd=folder)
    assert 0.7 < time.monotonic() - start < 20
    assert (folder / 'out').read_bytes() == b'x' * 2 * MiB
    start = time.monotonic()
    done = subprocess.run([*lamella.img, 'convert', '-r', '2M', 'full.raw',
                           '-'], cwd=folder, stdout=subprocess.PIPE,
                          check=True)
    assert time.monotonic() - start > 0.7
    assert done.stdout == b'x' * 2 * MiB


def test_json_progress(lamella, folder):
    need_libcrypto()
    lines = lamella.run('convert', '--progress=json', '--digest', 'sha256',
                        '-f', 'raw', 'a.raw', 'out', cwd=folder).splitlines()
    events = [json.loads(line) for line in lines]
    assert [e['event'] for e in events[:-1]] == \
        ['progress'] * (len(events) - 1)
    done = [e['done'] for e in events[:-1]]
    assert done == sorted(done) and done[-1] == SIZE
    last = events[-1]
    assert last['event'] == 'summary' and last['guest'] == SIZE
    assert last['written'] + last['skipped'] == SIZE
    assert last['digest'] == 'sha256:' + sha256(folder / 'a.raw')
    assert last['seconds'] >= 0 and last['zeroes'] == 'skipped'


# ------------------------------------------------------------ interrupts

def start_slowly(argv, folder, *args):
    """A conversion that lasts, once it has begun."""
    convert = subprocess.Popen(
        [*argv, 'convert', '-r', '64k', '-S', '0', '-f', 'raw', *args],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(convert, lambda: takes_signal(convert, signal.SIGTERM) and
               (folder / args[-1]).exists() and
               os.stat(folder / args[-1]).st_blocks)
    return convert


def test_interrupted_over_what_was_there(lamella, folder):
    (folder / 'old').write_bytes(b'old' * 2 * MiB)
    convert = start_slowly(lamella.img, folder, '-n', '-t', 'writethrough',
                           'a.raw', 'old')
    convert.send_signal(signal.SIGTERM)
    stderr = convert.communicate(timeout=60)[1].decode()
    assert convert.returncode == 143
    assert stderr in ("lamella: interrupted by SIGTERM: 'old' is left "
                      'incomplete\n', "lamella: interrupted by SIGTERM: "
                      "'old' is as it was\n")
    assert (folder / 'old').exists()


def test_interrupted_as_qemu_img(our_img, folder):
    convert = start_slowly([our_img], folder, 'a.raw', 'out')
    convert.send_signal(signal.SIGINT)
    assert convert.communicate(timeout=60)[1] == b''
    assert convert.returncode == -signal.SIGINT
    assert not (folder / 'out').exists()


# ------------------------------------------------------------ in use

def test_mounted(lamella, our_img, folder):
    if os.geteuid() != 0:
        pytest.skip('mounting needs root')
    with open(folder / 'disk', 'wb') as out:
        out.truncate(8 * MiB)
    run('mkfs.ext4', '-q', '-F', folder / 'disk')
    (folder / 'mnt').mkdir()
    run('mount', '-o', 'loop', folder / 'disk', folder / 'mnt')
    before = sha256(folder / 'disk')
    try:
        for options in [], ['-n']:
            done = run(*lamella.img, 'convert', *options, '-f', 'raw',
                       'a.raw', 'disk', status=1, cwd=folder)
            assert re.search("disk.*mount.*--force", done.stderr)
            assert done.stderr.count('\n') == 1
            assert sha256(folder / 'disk') == before
    finally:
        run('umount', folder / 'mnt')
    run(*lamella.img, 'convert', '-n', '--force', '-f', 'raw', 'a.raw',
        'disk', cwd=folder)
    assert (folder / 'disk').read_bytes()[:SIZE] == \
        (folder / 'a.raw').read_bytes()


# ------------------------------------------------------------ --verify

@pytest.mark.parametrize('source', ['a.raw', 'zlib.qcow2', 'large.qcow2'])
@pytest.mark.parametrize('options', [
    [], ['-S', '0'], ['-O', 'qcow2', '-c'], ['-O', 'qcow2'],
    ['-t', 'none', '-T', 'none'], ['--no-sync']])
def test_verify(lamella, folder, source, options):
    events = [json.loads(line) for line in lamella.run(
        'convert', '--verify', '--progress=json', *options, source, 'out',
        cwd=folder).splitlines()]
    assert [e['phase'] for e in events if e['event'] == 'progress'][-1] == \
        'verify'
    assert events[-1]['verified'] is True


def test_verify_over_existing(lamella, reference, folder):
    reference.run('convert', '-O', 'qcow2', 'large.qcow2', 'over.qcow2',
                  cwd=folder)
    lamella.run('convert', '--verify', '-n', '-O', 'qcow2', 'a.raw',
                'over.qcow2', cwd=folder)
    reference.run('compare', 'a.raw', 'over.qcow2', cwd=folder)


def test_verify_finds_a_difference(lamella, folder):
    """The source changes behind the copy's back."""
    (folder / 'full.raw').write_bytes(b'x' * 96 * KiB)
    convert = start_slowly(lamella.img, folder, '--verify', 'full.raw', 'out')
    with open(folder / 'full.raw', 'r+b') as out:
        out.write(b'y')
    stderr = convert.communicate(timeout=60)[1].decode()
    assert convert.returncode == 1
    assert stderr == "lamella: verification failed: byte 0 of 'out' is not " \
        'what the source has\n'
    assert not (folder / 'out').exists()


# ------------------------------------------------------------ --resume

def kill_until_done(lamella, folder, *args):
    """kill -9 at a random moment, again and again, a little later each time;
    how often that took."""
    argv = [*lamella.img, 'convert', '--resume', 'journal', *args]
    for kills in range(200):
        job = subprocess.Popen(argv, cwd=folder, stderr=subprocess.PIPE)
        try:
            stderr = job.communicate(timeout=1.2 + kills / 9)[1]
            assert job.returncode == 0, stderr.decode()
            return kills
        except subprocess.TimeoutExpired:
            job.kill()
            job.communicate()
    pytest.fail('no progress')


@pytest.mark.parametrize('existing', [False, True])
def test_killed_and_resumed(lamella, reference, folder, existing):
    source = 'a.qcow2' if existing else 'a.raw'
    rate = os.stat(folder / 'a.raw').st_blocks * 512 // 4
    args = ['-r', str(rate), source, 'out']
    if existing:
        (folder / 'out').write_bytes(b'\x55' * (SIZE + MiB))
        args.insert(0, '-n')
    kills = kill_until_done(lamella, folder, *args)
    assert kills > 0
    out = (folder / 'out').read_bytes()
    data = (folder / 'a.raw').read_bytes()
    assert out[:SIZE] == data
    assert out[SIZE:] == (b'\x55' * MiB if existing else b'')
    assert not (folder / 'journal').exists()


def interrupt(lamella, folder, *args):
    job = subprocess.Popen(
        [*lamella.img, 'convert', '-r', '256k', '--resume', 'journal', *args],
        cwd=folder, stderr=subprocess.PIPE)
    wait_until(job, lambda: (folder / 'journal').exists() and
               'source' in (folder / 'journal').read_text())
    job.send_signal(signal.SIGTERM)
    stderr = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 143
    return stderr


def test_resume_after_a_signal(lamella, folder):
    stderr = interrupt(lamella, folder, '-f', 'raw', 'a.raw', 'out')
    assert stderr == "lamella: interrupted by SIGTERM: 'out' is left " \
        'incomplete, and the same command goes on with it\n'
    lines = (folder / 'journal').read_text().splitlines()
    assert lines[0].startswith('lamella-journal 1 #')
    text = lamella.run('convert', '-p', '--verify', '--resume', 'journal',
                       '-f', 'raw', 'a.raw', 'out', cwd=folder)
    assert '100.00/100%' in text
    assert sha256(folder / 'out') == sha256(folder / 'a.raw')


@pytest.mark.parametrize('change, words', [
    ('source', 'source raw'), ('target', 'target'), ('options', 'sparse='),
    ('other', 'source'), ('garbage', 'is not a journal')])
def test_journal_of_another_conversion(lamella, folder, change, words):
    interrupt(lamella, folder, '-f', 'raw', 'a.raw', 'out')
    args = ['-f', 'raw', 'a.raw', 'out']
    if change == 'source':
        os.utime(folder / 'a.raw')
    elif change == 'target':
        shutil.copy(folder / 'out', folder / 'copy')
        os.rename(folder / 'copy', folder / 'out')
    elif change == 'options':
        args = ['-S', '0', *args]
    elif change == 'other':
        shutil.copy(folder / 'a.raw', folder / 'b.raw')
        args = ['-f', 'raw', 'b.raw', 'out']
    else:
        (folder / 'journal').write_text('#!/bin/sh\n')
    before = (folder / 'journal').read_bytes(), sha256(folder / 'out')
    done = run(*lamella.img, 'convert', '--resume', 'journal', *args,
               status=1, cwd=folder)
    assert "'journal'" in done.stderr and words in done.stderr
    assert done.stderr.count('\n') == 1
    assert ((folder / 'journal').read_bytes(), sha256(folder / 'out')) == \
        before


@pytest.mark.parametrize('options', [
    ['-O', 'qcow2'], ['--digest', 'sha256'], ['-t', 'unsafe'], ['--no-sync'],
    ['-c']])
def test_resume_contradictions(lamella, folder, options):
    if '--digest' in options:
        need_libcrypto()
    done = run(*lamella.img, 'convert', '--resume', 'journal', *options,
               'a.raw', 'out', status=1, cwd=folder)
    assert '--resume' in done.stderr and done.stderr.count('\n') == 1
    assert not (folder / 'out').exists()
    assert not (folder / 'journal').exists()
