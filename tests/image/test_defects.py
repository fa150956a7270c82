# SPDX-License-Identifier: MIT
"""Every command on every damaged image, under ASan and UBSan and bounded.

Whatever the file says: no crash, no hang, one line on stderr when a command
fails, nothing half-made left, the source as it was.
"""
import re
import resource
import subprocess

import pytest

from defects import DEFECTS, make
from harness import GiB, disk_blocks, pytest_fail
from header_fields import (CUTS, FIELDS, cut, reserved_bits_only,
                           with_field)

CASES = {
    **{name: lambda name=name: make(name) for name in DEFECTS},
    **{'header-' + name: lambda name=name: with_field(name)
       for name in FIELDS},
    'refcount-table-reserved-bits-only': reserved_bits_only,
    **{'cut-at-%d' % length: lambda length=length: cut(length)
       for length in CUTS},
}
SANITIZER = re.compile(r'Sanitizer|runtime error:|AddressSan|LeakSan')
LIMIT = 30      # seconds a command, on a slow machine with ASan


def call(argv, limits=()):
    def limit():
        for what, value in limits:
            resource.setrlimit(what, (value, value))
    try:
        return subprocess.run([str(arg) for arg in argv], timeout=LIMIT,
                              stdin=subprocess.DEVNULL, text=True,
                              errors='replace', stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, preexec_fn=limit)
    except subprocess.TimeoutExpired:
        pytest_fail('no end after %d s: %s' % (LIMIT, argv))


def judge(argv, done, statuses):
    """The promises that hold for every command and every file."""
    text = ' '.join(str(arg) for arg in argv[1:])
    if SANITIZER.search(done.stderr) or done.returncode not in statuses:
        pytest_fail('%s\nexit status %d\n%s%s' % (
            text, done.returncode, done.stdout[-500:], done.stderr[-3000:]))
    lines = done.stderr.splitlines()
    if done.returncode == 1 and statuses != CHECK and len(lines) != 1:
        pytest_fail('%s\n%d lines on stderr instead of one:\n%s' % (
            text, len(lines), done.stderr))
    if done.returncode == 1 and not done.stderr.strip():
        pytest_fail('%s\nfailed without a word' % text)
    if any(ord(char) < 32 and char not in '\n\t' for char in done.stderr):
        pytest_fail('%s\ncontrol characters on stderr: %r' % (text,
                                                              done.stderr))


ORDINARY = (0, 1)
CHECK = (0, 1, 2, 3, 63)
COMPARE = (0, 1, 2, 3, 4)


def commands(image, raw, qcow2):
    """(arguments, statuses that are allowed, target that may be made)."""
    name = ['-f', 'qcow2', image]
    return [
        (['info', *name], ORDINARY, None),
        (['info', '--output=json', image], ORDINARY, None),
        (['check', *name], CHECK, None),
        (['map', '--output=json', *name], ORDINARY, None),
        (['convert', '-f', 'qcow2', '-O', 'raw', image, raw], ORDINARY, raw),
        (['convert', '-c', '-f', 'qcow2', '-O', 'qcow2', image, qcow2],
         ORDINARY, qcow2),
        (['compare', '-f', 'qcow2', '-F', 'qcow2', image, image], COMPARE,
         None),
        (['io', '-r', '-f', 'qcow2', '-c', 'read 0 1M', image], ORDINARY,
         None),
    ]


@pytest.mark.parametrize('name', CASES)
def test_reading(name, lamella_asan, tmp_path):
    image = tmp_path / 'bad.qcow2'
    content = CASES[name]()
    image.write_bytes(content)
    for arguments, statuses, target in commands(
            image, tmp_path / 'out.raw', tmp_path / 'out.qcow2'):
        argv = [*lamella_asan.img, *arguments]
        done = call(argv)
        if arguments[0] == 'io' and done.returncode == 1 and \
                not done.stderr:
            done.stderr = done.stdout   # read failed: qemu-io says it there
        judge(argv, done, statuses)
        if target and done.returncode and target.exists():
            pytest_fail('%s left %s behind' % (arguments, target.name))
        if image.read_bytes() != content:
            pytest_fail('%s changed its source' % arguments)
        if target and target.exists():
            target.unlink()


@pytest.mark.parametrize('name', CASES)
def test_writing(name, lamella_asan, tmp_path):
    """Writes into a damaged image may fail or work; never do they crash, or
    put anything over the header."""
    image = tmp_path / 'bad.qcow2'
    content = CASES[name]()
    image.write_bytes(content)
    argv = [*lamella_asan.img, 'io', '-f', 'qcow2', '-d', 'unmap',
            '-c', 'write -P 1 0 100k', '-c', 'write -z 100k 200k',
            '-c', 'write -c -P 2 512k 64k', '-c', 'discard 0 128k',
            '-c', 'write -P 3 1000 3000', '-c', 'flush', image]
    done = call(argv)
    if SANITIZER.search(done.stderr) or done.returncode not in ORDINARY:
        pytest_fail('exit status %d\n%s' % (done.returncode,
                                            done.stderr[-3000:]))
    if image.read_bytes()[:8] != content[:8]:
        pytest_fail('the header has been overwritten')


@pytest.mark.parametrize('name', [name for name in CASES if 'bitmap' in name])
def test_bitmaps(name, lamella_asan, tmp_path):
    """Nor does changing bitmaps do harm, where it can be done."""
    image = tmp_path / 'bad.qcow2'
    content = CASES[name]()
    for arguments in (['--add', image, 'new'], ['--clear', image, 'b0'],
                      ['--disable', image, 'b0'], ['--remove', image, 'b0'],
                      ['--add', '--merge', 'b0', '-g', '512', image, 'new']):
        image.write_bytes(content)
        argv = [*lamella_asan.img, 'bitmap', *arguments]
        done = call(argv)
        if SANITIZER.search(done.stderr) or done.returncode not in ORDINARY:
            pytest_fail('%s: exit status %d\n%s' % (
                arguments, done.returncode, done.stderr[-3000:]))
        if done.returncode == 0:
            judge(argv, call([*lamella_asan.img, 'check', image]), CHECK)
        elif image.read_bytes() != content and '--merge' not in arguments:
            pytest_fail('%s failed and changed the image' % arguments)


@pytest.mark.parametrize('name', CASES)
def test_bounded(name, lamella, tmp_path):
    """Within the limits that callers set around qemu-img."""
    image = tmp_path / 'bad.qcow2'
    image.write_bytes(CASES[name]())
    for arguments, statuses, _ in commands(image, tmp_path / 'out.raw',
                                           tmp_path / 'out.qcow2'):
        info = arguments[0] == 'info'
        limits = [(resource.RLIMIT_AS, GiB if info else 2 * GiB),
                  (resource.RLIMIT_CPU, 2 if info else 10)]
        argv = [*lamella.img, *arguments]
        done = call(argv, limits)
        if done.returncode not in statuses:
            pytest_fail('%s\nexit status %d\n%s' % (
                arguments, done.returncode, done.stderr[-2000:]))


# Where our verdict differs on purpose: a pattern of names, and why.
WE_CONVERT = [
    (r'bitmap_', 'bitmaps are no part of what the guest reads'),
    (r'snapshot_extra_long|header-snapshots-limit',
     'internal snapshots are loaded when one of them is asked for'),
]
OTHER_CHECK = [
    (r'bitmap_|snapshot_extra_long|header-snapshots-limit',
     'reported, where the genuine tool does not open the image at all'),
    (r'zero_in_v2|data_file_offset|subcluster_zero_bit',
     'findings of our own'),
    (r'header-crypt-aes', 'metadata can be checked without a key'),
    (r'header-header-length-105', 'header_length is to be a multiple of 8'),
    (r'cut-at-196612', 'half an L1 entry is completed with zeroes'),
]


def excused(name, excuses):
    return any(re.match(pattern, name) for pattern, _ in excuses)


@pytest.mark.parametrize('name', CASES)
def test_like_the_genuine_tool(name, reference, lamella, tmp_path):
    """What both can convert reads the same; check comes to the same class."""
    image = tmp_path / 'bad.qcow2'
    image.write_bytes(CASES[name]())
    disks = {}
    for tools in (reference, lamella):
        out = tmp_path / 'out.raw'
        done = call([*tools.img, 'convert', '-f', 'qcow2', '-O', 'raw', image,
                     out])
        if done.returncode == 0:
            disks[tools.name] = disk_blocks(out)
        if out.exists():
            out.unlink()
    if len(disks) == 2 and disks[lamella.name] != disks[reference.name]:
        pytest_fail('the two read different bytes')
    if lamella.name in disks and reference.name not in disks and \
            not excused(name, WE_CONVERT):
        pytest_fail('we convert what the genuine tool refuses')
    theirs, ours = (call([*tools.img, 'check', '-f', 'qcow2', image])
                    for tools in (reference, lamella))
    if theirs.returncode != ours.returncode and \
            not excused(name, OTHER_CHECK):
        pytest_fail('check: %d instead of %d\n%s\n--- genuine\n%s' % (
            ours.returncode, theirs.returncode, ours.stdout + ours.stderr,
            theirs.stdout + theirs.stderr))


@pytest.mark.parametrize('name, what', [
    ('bitmap_directory_in_guest', 'the bitmap directory'),
])
def test_overlap(name, what, lamella, tmp_path):
    """Tables that are written in place are nobody else's, whatever the
    counters say."""
    image = tmp_path / 'bad.qcow2'
    image.write_bytes(CASES[name]())
    done = call([*lamella.img, 'check', '-f', 'qcow2', image])
    if done.returncode != 2 or 'holds %s and' % what not in done.stderr:
        pytest_fail(done.stdout + done.stderr)
