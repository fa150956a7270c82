# SPDX-License-Identifier: MIT
"""bench beside the genuine tool: the same requests leave the same image, at any
depth and in any cache mode, with the file no longer than what was written; and
its command line.
"""
import os
import subprocess
import sys

import pytest

from differential import outcome
from harness import KiB, MiB, run

REQUESTS = {
    'scattered': '-c 300 -s 4096 -S 1114112 -o 20480',
    'wraps': '-c 700 -s 4096 -S 1234k -o 20k',
    'large': '-c 20 -s 1M -S 2M -o 512',
    'flushed': '-c 200 -s 64k --flush-interval 40',
    'flushed, not drained': '-c 200 -s 64k --flush-interval 40 --no-drain',
}


@pytest.fixture(scope='module')
def base(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp('bench') / 'base.raw'
    path.write_bytes(os.urandom(MiB) * 64)
    return path


def overlays(texts, base, folder):
    for name in ('theirs', 'ours'):
        texts.run('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw',
                  folder / name)


@pytest.mark.parametrize('depth, cache, aio', [
    (1, 'writeback', 'threads'), (32, 'none', 'io_uring'),
    (32, 'writeback', 'threads')])
@pytest.mark.parametrize('requests', REQUESTS.values(), ids=REQUESTS.keys())
def test_same_image(texts, our_lamella, base, tmp_path, requests, depth,
                    cache, aio):
    overlays(texts, base, tmp_path)
    options = ['bench', '-q', '-w', '--pattern', '9', '-f', 'qcow2', '-t',
               cache, '-d', str(depth), *requests.split()]
    texts.run(*options, 'theirs', cwd=tmp_path)
    run(our_lamella, *options, '-i', aio, 'ours', cwd=tmp_path)
    texts.run('compare', '-f', 'qcow2', '-F', 'qcow2', tmp_path / 'theirs',
              tmp_path / 'ours')
    texts.run('check', '-q', '-f', 'qcow2', tmp_path / 'ours')
    # Space that was taken ahead has been given back.
    sizes = [os.stat(tmp_path / name).st_size for name in ('theirs', 'ours')]
    assert sizes[1] <= sizes[0] + 128 * KiB
    blocks = [os.stat(tmp_path / name).st_blocks for name in ('theirs', 'ours')]
    assert blocks[1] * 512 <= blocks[0] * 512 + 128 * KiB


@pytest.mark.parametrize('line', [
    '', 'x y', 'nope', '-c 0 b', '-c -1 b', '-c 5000000000 b', '-d 0 b',
    '-c x b', '-d 1x b', '-s 0 b', '-s x b', '-S -1 b', '-S x b', '-o x b',
    '-t foo b', '-w --pattern x b', '-w --flush-interval x b', '-i foo b', '--flush-interval 10 b',
    '-w --flush-interval 1 b', '-w --pattern 256 b', '-f foo b',
])
def test_refused(texts, our_img, base, tmp_path, line):
    overlays(texts, base, tmp_path)
    os.rename(tmp_path / 'ours', tmp_path / 'b')
    args = ['bench', *line.split()]
    theirs, ours = (outcome(tool, args, tmp_path) for tool in
                    (texts.img[0], our_img))
    assert ours == theirs, line


# A program that the kernel refuses io_uring_setup(), whose number is the same
# on every machine but Alpha.
REFUSED = '''
import ctypes, os, struct, sys
code = b''.join(struct.pack('=HBBI', *i) for i in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001),
    (0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None, use_errno=True)
program = struct.pack('@HP', 4, ctypes.addressof(buffer))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
'''


@pytest.mark.parametrize('options', ['-c 100 -t none', '-c 100',
                                     '-w -c 100 -t none', '-w -c 100'])
def test_no_ring(our_lamella, tmp_path, options):
    """Where there is no io_uring, threads do it, and who asked is told."""
    (tmp_path / 'disk').write_bytes(bytes(MiB))

    def bench(aio):
        done = subprocess.run(
            [sys.executable, '-c', REFUSED, our_lamella, 'bench', '-f', 'raw',
             *options.split(), *aio, 'disk'], cwd=tmp_path, text=True,
            capture_output=True)
        if done.returncode == 77:
            pytest.skip('no seccomp')
        assert done.returncode == 0 and 'Run completed' in done.stdout, done
        return done.stderr

    assert bench([]) == bench(['-i', 'threads']) == ''
    assert bench(['-i', 'io_uring']).startswith(
        'lamella: Unable to use linux io_uring, falling back to thread pool: '
        'failed to init linux io_uring ring: ')


def test_clean_interval(our_lamella, texts, base, tmp_path):
    """Tables that are dropped in between are read again."""
    overlays(texts, base, tmp_path)
    node = 'driver=qcow2,file.filename=ours,cache-clean-interval='
    options = ['bench', '-q', '-c', '200', '-S', '320k', '--image-opts']
    for interval in ('0', '1', '600'):
        run(our_lamella, *options, node + interval, cwd=tmp_path)
    for interval in ('x', '-1', '4294967296', ''):
        done = outcome(our_lamella, [*options, node + interval], tmp_path)
        assert 'lean' in str(done), done
