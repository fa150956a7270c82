# SPDX-License-Identifier: MIT
"""compare beside the genuine tools."""
import re
import signal
import subprocess

import pytest

from differential import assert_same, assert_understood, outcome
from harness import (KiB, MiB, make_mixed_file, run, takes_signal,
                     wait_until)

PAIRS = [
    ('odd.raw', 'odd.raw'), ('odd.raw', 'odd-changed.raw'),
    ('odd.raw', 'odd-longer.raw'), ('odd-longer.raw', 'odd.raw'),
    ('odd.raw', 'odd-tail.raw'), ('odd-tail.raw', 'odd.raw'),
    ('odd.raw', 'odd-last-sector.raw'), ('zero.raw', 'empty.raw'),
    ('mixed.raw', 'mixed.qcow2'), ('mixed.raw', 'small.qcow2'),
    ('small.qcow2', 'large.qcow2'), ('deflate.qcow2', 'small.qcow2'),
    ('deflate.qcow2', 'zstd.qcow2'), ('zstd.qcow2', 'large.qcow2'),
    ('mixed.raw', 'subclusters.qcow2'), ('mixed.raw', 'data-file.qcow2'),
    ('overlay.qcow2', 'mixed.qcow2'), ('mixed.qcow2', 'overlay.qcow2'),
    ('overlay.qcow2', 'overlay.qcow2'), ('kinds.qcow2', 'snapshots.qcow2'),
    ('metadata.qcow2', 'punched.qcow2'), ('zero.raw', 'punched.qcow2'),
    ('chain3.qcow2', 'chain2.qcow2'), ('short-base.qcow2', 'odd.raw'),
    ('whole.qcow2', 'kinds.qcow2'), ('one-bit.raw', 'mixed.qcow2'),
    ('v2.qcow2', 'one-bit.raw'), ('sub/relative.qcow2', 'mixed.raw'),
]

# In strict mode the genuine tool also tells apart where its own answers about
# a range end, so only pairs that it calls equal, or whose sizes differ, have
# an answer to be compared with.
STRICT = [('odd.raw', 'odd.raw'), ('odd.raw', 'odd-longer.raw'),
          ('mixed.qcow2', 'v2.qcow2'), ('overlay.qcow2', 'overlay.qcow2'),
          ('zero.raw', 'empty.raw'), ('deflate.qcow2', 'zstd.qcow2')]

LINES = [
    ['compare'], ['compare', 'a'], ['compare', 'a', 'b', 'c'],
    ['compare', 'missing.raw', 'odd.raw'],
    ['compare', 'odd.raw', 'missing.raw'],
    ['compare', '-f', 'qcow2', 'odd.raw', 'odd.raw'],
    ['compare', '-F', 'qcow2', 'odd.raw', 'odd.raw'],
    ['compare', '-f', 'foo', 'odd.raw', 'odd.raw'],
    ['compare', '-T', 'foo', 'odd.raw', 'odd.raw'],
    ['compare', 'odd.raw', 'odd.raw', '-U', '-T', 'none', '-f', 'raw', '-s'],
    ['compare', '--image-opts', '-f', 'raw', 'odd.raw', 'odd.raw'],
    ['compare', '--image-opts', 'driver=raw,file.filename=mixed.raw',
     'driver=qcow2,file.filename=mixed.qcow2'],
    ['compare', '--strict', '--quiet', 'odd.raw', 'odd-longer.raw'],
]


@pytest.fixture(scope='session')
def pairs(images):
    odd = (images / 'odd.raw').read_bytes()
    changed = bytearray(odd)
    changed[100000:100001] = b'b'
    (images / 'odd-changed.raw').write_bytes(changed)
    (images / 'odd-longer.raw').write_bytes(odd + bytes(100000))
    (images / 'odd-tail.raw').write_bytes(odd + bytes(100000) + b'x' * 512)
    (images / 'odd-last-sector.raw').write_bytes(odd + b'x' * 100)
    mixed = bytearray((images / 'mixed.raw').read_bytes())
    mixed[5 * MiB + 77777] ^= 1
    mixed[7 * MiB + 1] ^= 1
    (images / 'one-bit.raw').write_bytes(mixed)
    return images


@pytest.mark.parametrize('a,b', PAIRS)
def test_pair(genuine, our_img, pairs, a, b):
    for options in ([], ['-q'], ['-U']):
        assert_same(genuine, our_img, ['compare', *options, a, b], pairs)


@pytest.mark.parametrize('a,b', [p for p in PAIRS if 'odd' not in p[0]])
def test_direct(genuine, our_img, pairs, a, b):
    # Not with lengths that O_DIRECT cannot read: 10.0 rounds those.
    assert_same(genuine, our_img, ['compare', '-T', 'none', a, b], pairs)


@pytest.mark.parametrize('a,b', STRICT)
def test_strict(texts, our_img, pairs, a, b):
    assert_same(texts, our_img, ['compare', '-s', a, b], pairs)


@pytest.mark.parametrize('line', LINES, ids=' '.join)
def test_command_line(texts, our_img, pairs, line):
    assert_same(texts, our_img, line, pairs)


@pytest.mark.parametrize('line', LINES, ids=' '.join)
def test_command_line_older(older, our_img, pairs, line):
    assert_understood(older, our_img, line, pairs)


def test_strict_sees_allocation(our_img, pairs):
    done = outcome(our_img, ['compare', '-s', 'mixed.qcow2', 'deflate.qcow2'],
                   pairs)
    assert done.status == 1
    assert re.fullmatch(r'Strict mode: Offset \d+ block status mismatch!\n',
                        done.out)


def test_first_mismatch_of_many(our_img, tmp_path):
    """Workers finish in any order; the lowest offset is the answer."""
    make_mixed_file(tmp_path / 'a', 32 * MiB, 5)
    data = bytearray((tmp_path / 'a').read_bytes())
    first = 3 * MiB + 12345
    for offset in range(first, 32 * MiB, 100 * KiB):
        data[offset] ^= 0x55
    (tmp_path / 'b').write_bytes(data)
    for _ in range(5):
        done = outcome(our_img, ['compare', 'a', 'b'], tmp_path)
        assert done.out == 'Content mismatch at offset %d!\n' % \
            (first // 512 * 512)


@pytest.mark.parametrize('a,b', [('odd.raw', 'odd.raw'),
                                 ('odd.raw', 'odd-tail.raw'),
                                 ('mixed.raw', 'one-bit.raw'),
                                 ('small.qcow2', 'zstd.qcow2')])
def test_progress(our_img, pairs, a, b):
    # Bytes: text mode would read the carriage returns as line ends.
    done = subprocess.run([our_img, 'compare', '-p', a, b],
                          stdout=subprocess.PIPE, cwd=pairs)
    records = done.stdout.decode().split('\r')
    last = records.pop()
    figures = [float(re.fullmatch(r'    \((\d+\.\d\d)/100%\)', r)[1])
               for r in records]
    assert figures[0] == 0 and figures == sorted(figures)
    assert (figures[-1] == 100) == (done.returncode == 0)
    assert last.endswith('\n\n')


def test_signal_reports_progress(our_img, tmp_path):
    for name in 'ab':
        (tmp_path / name).write_bytes(b'x' * 16 * MiB)
    slow = 'driver=raw,file.driver=throttle,file.throttle-group=t,' \
        'file.file.filename=a'
    process = subprocess.Popen(
        [our_img, 'compare', '--object', 'throttle-group,id=t,x-bps-total=1048576',
         '--image-opts', slow, 'driver=raw,file.filename=b'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path)
    wait_until(process, lambda: takes_signal(process, signal.SIGUSR1))
    process.send_signal(signal.SIGUSR1)
    try:
        assert re.fullmatch(r'    \(\d+\.\d\d/100%\)\n',
                            process.stderr.readline())
    finally:
        process.kill()
        process.communicate()


def test_unreadable_data(our_img, pairs):
    """Exit status 4, and which image, at which offset."""
    whole = (pairs / 'whole.qcow2').read_bytes()
    (pairs / 'cut.qcow2').write_bytes(whole[:len(whole) // 2])
    done = outcome(our_img, ['compare', 'cut.qcow2', 'whole.qcow2'], pairs)
    assert done.status == 4
    assert re.match(r'qemu-img: Error while reading offset \d+ of cut.qcow2: ',
                    done.err)


def test_unreadable_map(our_img, pairs):
    done = outcome(our_img, ['compare', 'whole.qcow2', 'unaligned.qcow2'],
                   pairs)
    assert done.status in (3, 4) and 'unaligned.qcow2' in done.err


def test_untrusted(our_lamella, pairs):
    run(our_lamella, 'compare', '--untrusted', 'overlay.qcow2', 'mixed.raw',
        cwd=pairs, status=2)
