# SPDX-License-Identifier: MIT
"""check -r on every damaged image, beside the genuine tool.

The genuine check finds no more after our repair than after its own, the guest
reads what it read before, and a second repair has nothing left to do.
"""
import json
import re
import subprocess

import pytest

from defects import (COPIED, DATA_FILE, DEFECTS, Image, L1, L2, SN_L1,
                     make)
from harness import disk_blocks, pytest_fail
from header_fields import CUTS, FIELDS, cut, with_field

SANITIZER = re.compile(r'Sanitizer|runtime error:|AddressSan|LeakSan')
REPAIRS = ['leaks', 'all']
DONE = (0, 1, 2, 3)

# Where the genuine tool leaves less behind, on purpose: a pattern, and why.
WE_LEAVE = [
    (r'l1_(at_zero|beyond_eof|cut|unaligned|without_table)|l2_table_beyond_eof|'
     r'subcluster_compressed|snapshot_l1',
     'a table or an entry cannot be trusted: what it may refer to stays'),
    (r'bitmap_(data|table)_beyond_eof|bitmap_same_table',
     'the genuine tool drops or rewrites the bitmap when it opens the image'),
    (r'snapshot_table_beyond_eof|data_file_snapshot',
     'snapshots are given up by -r all only'),
]


def call(argv, cwd):
    return subprocess.run([str(arg) for arg in argv], cwd=cwd, timeout=60,
                          stdin=subprocess.DEVNULL, text=True,
                          errors='replace', stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)


def put_image(name, tmp_path, content=None):
    (tmp_path / DATA_FILE).write_bytes(bytes(1 << 20))
    image = tmp_path / 'bad.qcow2'
    image.write_bytes(make(name) if content is None else content)
    return image


def findings(reference, image):
    """(corruptions, leaks) of the genuine check, None if it cannot be had."""
    done = call([*reference.img, 'check', '--output=json', '-f', 'qcow2',
                 image], image.parent)
    if done.returncode == 1 or not done.stdout:
        return None
    report = json.loads(done.stdout)
    return report.get('corruptions', 0), report.get('leaks', 0)


def contents(lamella, image):
    out = image.parent / 'out.raw'
    done = call([*lamella.img, 'convert', '-f', 'qcow2', '-O', 'raw', image,
                 out], image.parent)
    blocks = disk_blocks(out) if done.returncode == 0 else None
    if out.exists():
        out.unlink()
    return blocks

# The genuine tool keeps 65,536 snapshots of nothing, which takes 15 seconds;
# ours is to leave nothing at all.
TAKE_LONG = [('snapshot_count', 'all')]


def repair(tools, image, what):
    return call([*tools.img, 'check', '-f', 'qcow2', '-r', what, image],
                image.parent)


def excused(name):
    return any(re.match(pattern, name) for pattern, _ in WE_LEAVE)


@pytest.mark.parametrize('what', REPAIRS)
@pytest.mark.parametrize('name', DEFECTS)
def test_beside_the_genuine_tool(name, what, reference, lamella, tmp_path):
    theirs = 0, 0
    if (name, what) not in TAKE_LONG:
        image = put_image(name, tmp_path)
        repair(reference, image, what)
        theirs = findings(reference, image)

    image = put_image(name, tmp_path)
    before = contents(lamella, image)
    done = repair(lamella, image, what)
    ours = findings(reference, image)
    if before and contents(lamella, image) != before:
        pytest_fail('the guest reads something else\n' + done.stderr)
    if theirs and not excused(name) and \
            (not ours or ours[0] > theirs[0] or ours[1] > theirs[1]):
        pytest_fail('(corruptions, leaks) %s instead of %s\n%s%s' % (
            ours, theirs, done.stdout, done.stderr))


@pytest.mark.parametrize('what', REPAIRS)
@pytest.mark.parametrize('name', DEFECTS)
def test_nothing_is_left_to_do(name, what, lamella, tmp_path):
    image = put_image(name, tmp_path)
    first = repair(lamella, image, what)
    after = image.read_bytes()
    second = repair(lamella, image, what)
    if 'found and repaired' in second.stdout:
        pytest_fail('repaired again:\n%s--- first\n%s' % (
            second.stdout + second.stderr, first.stdout + first.stderr))
    if image.read_bytes() != after or \
            first.returncode != second.returncode:
        pytest_fail('the second repair differs')


@pytest.mark.parametrize('name', [
    'cluster_twice', 'leak_two', 'refblock_missing', 'refblock_unaligned',
    'refcount_zero_data', 'l2_zero_unaligned', 'snapshot_extra_short',
    'copied_set_shared', 'bitmap_leak', 'l1_reserved', 'l1_reserved_snapshot',
    'l2_reserved', 'l2_reserved_zero', 'l2_reserved_shared',
    'l2_reserved_unallocated', 'subcluster_reserved'])
def test_clean_afterwards(name, reference, lamella, tmp_path):
    """Also with both bits set, which are gone then."""
    content = bytearray(make(name))
    content[79] |= 3
    image = put_image(name, tmp_path, content)
    done = repair(lamella, image, 'all')
    if done.returncode or findings(reference, image) != (0, 0):
        pytest_fail(done.stdout + done.stderr)
    if image.read_bytes()[79] & 3:
        pytest_fail('the dirty or the corrupt bit is still there')


@pytest.mark.parametrize('name, what, left', [
    ('refcount_zero_data', 'leaks', 3), ('bitmap_data_is_l1', 'leaks', 3),
    ('bitmap_same_name', 'leaks', 3), ('snapshot_table_unaligned', 'all', 3),
    ('snapshot_l1_unaligned', 'all', 2), ('bitmap_count', 'all', 2),
    ('leak_two', 'leaks', 0)])
def test_bits_stay_while_errors_do(name, what, left, lamella, tmp_path):
    """Dirty (1) while counters are too low, corrupt (2) while anything is."""
    content = bytearray(make(name))
    content[79] |= 3
    image = put_image(name, tmp_path, content)
    done = repair(lamella, image, what)
    if image.read_bytes()[79] & 3 != left:
        pytest_fail('bits %d\n%s' % (image.read_bytes()[79] & 3,
                                     done.stdout + done.stderr))


@pytest.mark.parametrize('name, text, refused', [
    ('l1_without_table', 'ERROR found L1 entry without an L2 table: '
     '8000000000000000\n', False),
    ('l1_cut', 'ERROR Active L1 table at 0x30000: the file ends at 0x30004, '
     'inside entry 0\n', True)])
def test_l1_entry_is_lost(name, text, refused, lamella, tmp_path):
    """Found, and nothing is freed: the table that it named is among the leaks.
    A cut one is not read as if there had been nothing."""
    image = put_image(name, tmp_path)
    for options in [], ['-r', 'leaks'], ['-r', 'all']:
        done = call([*lamella.img, 'check', *options, image], tmp_path)
        assert done.returncode == 2 and text in done.stderr
    assert image.read_bytes() == make(name)
    assert (contents(lamella, image) is None) == refused


@pytest.mark.parametrize('name', ['cluster_twice', 'refblock_missing',
                                  'leak_two', 'refcount_low_shared'])
def test_opening_a_dirty_image(name, reference, lamella, tmp_path):
    content = bytearray(make(name))
    content[79] |= 1
    image = put_image(name, tmp_path, content)
    done = call([*lamella.img, 'io', '-f', 'qcow2', '-c', 'read 0 512',
                 image], tmp_path)
    if done.returncode or findings(reference, image) != (0, 0) or \
            image.read_bytes()[79] & 1:
        pytest_fail('not repaired\n' + done.stdout + done.stderr)


def test_reserved_bits_are_told(lamella, tmp_path):
    """What names no table keeps them: nobody knows what it is."""
    done = repair(lamella, put_image('l1_reserved_snapshot', tmp_path), 'all')
    assert [line for line in done.stderr.splitlines() if 'Repairing' in line] \
        == ['Repairing L1 entry with reserved bits set: 40008',
            'Repairing L1 entry with reserved bits set: 9000000000040000']
    image = put_image('l1_reserved_data', tmp_path)
    done = repair(lamella, image, 'all')
    assert done.returncode == 2 and 'Repairing L1 entry' not in done.stderr
    assert image.read_bytes()[3 << 16] == 0x82


@pytest.mark.parametrize('name, shared', [
    ('l2_reserved', L2), ('l1_reserved', L1)])
def test_reserved_bits_of_guest_data_stay(name, shared, lamella, tmp_path):
    """A table that guest data lie on, too, is not written to."""
    img = Image(make(name))
    img.l2(3, COPIED | shared * img.cs)
    image = put_image(name, tmp_path, bytes(img.data))
    done = repair(lamella, image, 'all')
    assert done.returncode == 2 and 'with reserved bits' in done.stderr
    assert not re.search('Repairing (l2|L1) entry with', done.stderr)
    after = Image(image.read_bytes())
    assert (after.l2(0) | after.l1(0)) >> 57 & 1


def test_reserved_bits_stay_while_tables_are_missing(lamella, tmp_path):
    """What cannot be read may be what a table is shared with."""
    img = Image(make('l2_reserved_shared'))
    img.l1(0, 100 * img.cs, table=SN_L1)
    image = put_image('l2_reserved_shared', tmp_path, bytes(img.data))
    done = repair(lamella, image, 'all')
    assert done.returncode == 2 and 'with reserved bits' in done.stderr
    assert not re.search('Repairing (l2|L1) entry with', done.stderr)
    assert Image(image.read_bytes()).l2(0) >> 57 & 1


def test_leaks_beside_a_snapshot_table_that_is_cut_off(lamella, tmp_path):
    """What it referred to may be what seems to have leaked: nothing changes."""
    image = put_image('snapshot_table_beyond_eof', tmp_path)
    before = image.read_bytes()
    done = repair(lamella, image, 'leaks')
    assert done.returncode == 2 and 'are left alone' in done.stderr and \
        '1 of 1 snapshots cannot be read' in done.stderr, done.stderr
    assert image.read_bytes() == before


def test_tables_of_an_encrypted_image(lamella, tmp_path):
    """Are in clear: no passphrase is needed to write them anew."""
    content = bytearray(make('snapshot_extra_short'))
    content[35] = 1             # the method: AES
    image = put_image('snapshot_extra_short', tmp_path, content)
    done = repair(lamella, image, 'all')
    assert done.returncode == 0 and 'Repairing snapshot table entry 0' in \
        done.stderr, done.stderr
    done = repair(lamella, image, 'all')
    assert 'No errors were found' in done.stdout, done.stdout + done.stderr


def hostile():
    cases = {name: lambda name=name: make(name) for name in DEFECTS}
    cases.update({'header-' + name: lambda name=name: with_field(name)
                  for name in FIELDS})
    cases.update({'cut-at-%d' % length: lambda length=length: cut(length)
                  for length in CUTS})
    return cases


HOSTILE = hostile()


@pytest.mark.parametrize('name', HOSTILE)
def test_no_crash(name, lamella_asan, tmp_path):
    for what in REPAIRS:
        image = put_image(name, tmp_path, HOSTILE[name]())
        done = repair(lamella_asan, image, what)
        if SANITIZER.search(done.stderr) or done.returncode not in DONE:
            pytest_fail('exit status %d\n%s' % (done.returncode,
                                                done.stderr[-3000:]))
