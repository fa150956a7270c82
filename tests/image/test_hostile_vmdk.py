# SPDX-License-Identifier: MIT
"""VMDKs that lie: one line on stderr and exit status 1, or it works; within
bounds of time and memory."""
import re
import resource
import struct
import subprocess

import pytest

from harness import GiB, MiB, pytest_fail, run
from vmdk_files import (AT_END, GRAIN, SECTOR, cowd, descriptor, sesparse,
                        sparse, stored, stream, table)

LIMITS = [(resource.RLIMIT_AS, 2 * GiB), (resource.RLIMIT_CPU, 10)]
HUGE, MAX = 1 << 62, (1 << 64) - 1
FLAT = 'RW 2048 FLAT "flat" 0'


def flat(*lines, **changes):
    return descriptor(*lines, kind='monolithicFlat', **changes)


# What is wrong, and what the message says; None: it can be opened and read.
# "write": only writing is refused.
CASES = {
    'right': (sparse(), None),
    'right-stream': (stream(), None),
    'right-stream-second': (stream(GRAIN), None),
    'right-flat': (flat(FLAT), None),
    'right-crlf': (flat(FLAT).replace(b'\n', b'\r\n'), None),
    'right-nothing': (flat(), None),
    'version-0': (sparse(version=0), 'VMDK version 0'),
    'version-9': (sparse(version=9), 'VMDK version 9'),
    'newlines': (sparse(newlines=b'\n \n\n'), 'copied as text'),
    'grain-0': (sparse(grain_size=0), 'Invalid granularity'),
    'grain-odd': (sparse(grain_size=127), 'Invalid granularity'),
    'grain-small': (sparse(grain_size=1), 'Invalid granularity'),
    'grain-huge': (sparse(grain_size=1 << 40), 'Invalid granularity'),
    'gtes-0': (sparse(gtes=0), 'tables of 0 entries'),
    'gtes-huge': (sparse(gtes=1 << 31), 'tables of 2147483648'),
    'capacity-huge': (sparse(capacity=1 << 54), 'L1 size too big'),
    'capacity-max': (sparse(capacity=MAX), 'L1 size too big'),
    'capacity-above': (sparse(capacity=1 << 40), 'ends beyond the file'),
    'compression-2': (sparse(compression=2), 'compression algorithm 2'),
    'compressed-none': (sparse(flags=0x10003), 'compression algorithm 0'),
    'gd-0': (sparse(gd_offset=0), 'lies on the header'),
    'gd-far': (sparse(gd_offset=1 << 30), 'ends beyond the file'),
    'gd-wraps': (sparse(gd_offset=MAX - 1), 'ends beyond the file'),
    'gd-at-end': (sparse(gd_offset=AT_END), 'Invalid footer'),
    'rgd-0': (sparse(rgd_offset=0), 'lies on the header'),
    'rgd-far': (sparse(rgd_offset=HUGE), 'ends beyond the file'),
    'rgd-is-gd': (sparse(rgd_offset=26), 'write: tables lie on each other'),
    'descriptor-far': (sparse(descriptor_offset=HUGE), 'ends beyond the file'),
    'descriptor-huge': (sparse(descriptor_size=MAX), 'ends beyond the file'),
    'descriptor-0': (sparse(descriptor_offset=0), 'has no descriptor'),
    'descriptor-empty': (sparse(text=b''), 'invalid VMDK image'),
    'table-on-header': (sparse(gd=0, rgd=0), None),
    'table-on-descriptor': (sparse(gd=1), 'tables lie on each other'),
    'table-far': (sparse(gd=1 << 30), 'ends beyond|is beyond'),
    'table-cut': (sparse(grains=0, gd=125), 'ends beyond|is beyond'),
    'grain-far': (sparse(entries=[1 << 31]), 'ends beyond the file'),
    'grain-cut': (sparse(entries=[128, 300]), 'ends beyond the file'),
    'grain-on-header': (sparse(entries=[1]), 'lies on the extent'),
    'grain-on-table': (sparse(entries=[26]), 'lies on the extent'),
    'grain-on-redundant': (sparse(entries=[22]), 'lies on the extent'),
    'grain-twice': (sparse(entries=[128, 128]), None),
    'redundant-differs': (sparse(redundant=[256, 128]), None),
    'file-empty': (b'', 'too small, not a valid image'),
    'file-short': (sparse()[:100], 'expecting at least 65536 bytes'),
    'file-shorter': (b'KDMV junk', 'Unsupported VMDK version 1853188640'),
    'file-header-only': (sparse()[:512], 'expecting at least 65536 bytes'),
    'file-cut': (sparse()[:20000], 'expecting at least 65536 bytes'),
    'overhead-far': (sparse(overhead=MAX), 'expecting at least'),
    'footer-none': (stream(footer=False), 'Invalid footer'),
    'footer-kind': (stream(kind=2), 'Invalid footer'),
    'footer-eos': (stream(eos=1), 'Invalid footer'),
    'footer-at-end': (stream(footer_gd=AT_END), 'Invalid footer'),
    'footer-far': (stream(footer_gd=1 << 40), 'ends beyond the file'),
    'stream-size-0': (stream(size=0), 'payload of 0 bytes'),
    'stream-size-huge': (stream(size=(1 << 32) - 1), 'payload of 4294967295'),
    'stream-size-far': (stream(size=60000), 'read|end of'),
    'stream-short': (stream(data=b'\x11' * 1000), 'inflate to 1000'),
    'stream-long': (stream(data=b'\x11' * 70000), 'bad zlib data'),
    'stream-bad': (stream(size=20), 'bad zlib data'),
    'text-version': (flat(FLAT, version=7), 'invalid VMDK image'),
    'text-no-cid': (flat(FLAT).replace(b'\nCID', b'\nDIC'), 'has no CID'),
    'text-cid': (flat(FLAT, cid='xyz'), "CID 'xyz'"),
    'text-cid-long': (flat(FLAT, cid='123456789'), "CID '123456789'"),
    'text-parent': (flat(FLAT, parent='1'), 'no parentFileNameHint'),
    'text-parent-bad': (flat(FLAT, parent=''), "parentCID ''"),
    'text-no-type': (flat(FLAT).replace(b'createType', b'x'), 'createType'),
    'line-size': (flat('RW 0 FLAT "flat" 0'), 'Invalid extent line'),
    'line-minus': (flat('RW -5 FLAT "flat" 0'), 'Invalid extent line'),
    'line-huge': (flat('RW 18014398509481984 FLAT "flat" 0'),
                  'Invalid extent line'),
    'line-sum': (flat(*['RW 18014398509481983 FLAT "flat" 0'] * 2), 'longer'),
    'line-wraps': (flat('RW 99999999999999999999 FLAT "flat" 0'),
                   'Invalid extent line'),
    'line-type': (flat('RW 2048 FOO "flat"'), 'Invalid extent line'),
    'line-no-offset': (flat('RW 2048 FLAT "flat"'), 'Invalid extent line'),
    'line-offset': (flat('RW 2048 FLAT "flat" 99999999999999999'),
                    'Invalid extent line'),
    'line-no-name': (flat('RW 2048 FLAT'), 'Invalid extent line'),
    'line-quote': (flat('RW 2048 FLAT "flat'), 'Invalid extent line'),
    'line-access': (flat('NOACCESS 2048 FLAT "flat" 0'), 'NOACCESS'),
    'line-escape': (flat('RW 2048 \x1b[31m "flat" 0'), 'Invalid extent line'),
    'line-sparse': (flat('RW 2048 SPARSE "flat"'), 'not in VMDK format'),
    'line-itself': (flat('RW 2048 SPARSE "x.vmdk"'), 'x.vmdk'),
    'line-twice': (flat(*['RW 2048 SPARSE "part"'] * 2), 'twice'),
    'line-long': (flat('RW 4096 SPARSE "part"'), 'the descriptor says 4096'),
    'line-missing': (flat('RW 2048 FLAT "nothing" 0'), 'No such file'),
    'line-directory': (flat('RW 2048 FLAT "." 0'), 'Could not open'),
    'lines-many': (flat(*['RW 1 FLAT "flat" 0'] * 2049), 'limit of 2048'),
    'flat-cut': (flat('RW 8192 FLAT "flat" 0'), 'flat'),
    'long': (flat(FLAT) + b'\n' * (1 << 20), 'beyond the limit'),
    'parent-itself': (flat(parent='12345678').replace(
        b'version=1', b'version=1\nparentFileNameHint="x.vmdk"'), 'loop'),
}

COMMANDS = [
    ['info', '-f', 'vmdk', 'x.vmdk'],
    ['map', '-f', 'vmdk', '--output=json', 'x.vmdk'],
    ['check', '-f', 'vmdk', 'x.vmdk'],
    ['convert', '-f', 'vmdk', '-O', 'raw', 'x.vmdk', 'out.raw'],
    ['io', '-f', 'vmdk', '-c', 'write -P 5 64k 70k', 'x.vmdk'],
    ['io', '-f', 'vmdk', '-c', 'write -z 0 1M', 'x.vmdk'],
]


def call(argv, cwd):
    def limit():
        for what, value in LIMITS:
            resource.setrlimit(what, (value, value))
    try:
        return subprocess.run(argv, timeout=30, cwd=cwd, text=True,
                              stdin=subprocess.DEVNULL, errors='replace',
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              preexec_fn=limit)
    except subprocess.TimeoutExpired:
        pytest_fail('no end: %s' % argv)


def run_all(tools, cwd):
    """Both streams of all commands; each behaves, whatever it says."""
    said = []
    for command in COMMANDS:
        (cwd / 'out.raw').unlink(missing_ok=True)
        done = call([*tools.img, *command], cwd)
        # check tells each finding.
        lines = 0 if command[0] == 'check' else len(done.stderr.splitlines())
        if done.returncode not in (0, 1, 2, 3) or lines > 1 or \
                '\x1b' in done.stderr + done.stdout:
            pytest_fail('%s\nexit status %d\n%s%s' % (
                command, done.returncode, done.stdout, done.stderr))
        said.append((command[0], done.returncode, done.stdout + done.stderr))
    return said


@pytest.mark.parametrize('name', CASES)
def test_hostile(name, lamella, tmp_path):
    content, expected = CASES[name]
    (tmp_path / 'flat').write_bytes(b'\1' * MiB)
    (tmp_path / 'part').write_bytes(sparse())
    (tmp_path / 'x.vmdk').write_bytes(content)
    said = run_all(lamella, tmp_path)
    reads = [text for what, status, text in said[:4] if status]
    writes = [text for what, status, text in said[4:] if status]
    if expected is None:
        assert not [text for what, status, text in said[:1] + said[3:4]
                    if status]
    elif expected.startswith('write: '):
        assert not said[3][1] and re.search(expected[7:], writes[0])
    else:
        assert re.search(expected, '\n'.join(reads + writes))
        # What is refused when it is opened is as it was.
        if said[0][1]:
            assert (tmp_path / 'x.vmdk').read_bytes() == content


# Extents of an ESX server, behind a descriptor.
ESX = {
    'right': (cowd([0, 3, 15]), None),
    'right-grain-1': (cowd([0, 3, 2047], grain=1), None),
    'empty': (cowd([]), None),
    'version': (cowd([0], version=2), 'COWD version 2'),
    'grain-0': (cowd([], grain=0), 'Invalid granularity'),
    'grain-3': (cowd([0], grain=3), 'Invalid granularity'),
    'grain-huge': (cowd([], grain=1 << 15), 'Invalid granularity'),
    'capacity-0': (cowd([], capacity=0), 'the descriptor says 2048'),
    'few-tables': (cowd([0], tables=0), 'directory of 0 entries'),
    'directory-0': (cowd([0], gd=0), 'lies on the header'),
    'directory-far': (cowd([0], gd=0xfffffff0), 'beyond the file'),
    'directory-long': (cowd([0])[:12] + struct.pack(
        '<IIII', 0xffffffff, 1, 4, 0xffffffff) + cowd([0])[28:],
        'beyond the file'),
    'table-far': (cowd([0], at=0xfffffff0), 'beyond the file'),
    'cut': (cowd([0, 3, 15])[:-GRAIN * SECTOR], 'grain|beyond|esx'),
    'cut-table': (cowd([0])[:6 * SECTOR], 'beyond the file'),
    'cut-header': (cowd([0])[:100], 'beyond the file'),
    'no-magic': (cowd([0], magic=b'COWX'), 'not in VMDK format'),
}


@pytest.mark.parametrize('name', ESX)
def test_hostile_cowd(name, lamella, tmp_path):
    content, expected = ESX[name]
    (tmp_path / 'esx').write_bytes(content)
    (tmp_path / 'x.vmdk').write_bytes(descriptor(
        'RW 2048 VMFSSPARSE "esx"', kind='vmfsSparse'))
    said = run_all(lamella, tmp_path)
    assert (tmp_path / 'esx').read_bytes() == content
    if expected is None:
        assert not [text for _, status, text in said[:4] if status]
        assert 'can only be read' in said[4][2]
    else:
        assert re.search(expected, '\n'.join(text for _, status, text in
                                             said[:4] if status))


# The same of the later kind; each is what is changed.
SPACE_EFFICIENT = {
    'right': ({}, None),
    'magic': ({'fields': {0: 1}}, 'Bad const header magic: 0x0*1$'),
    'version': ({'fields': {1: 1}}, 'Unsupported version: 0x0*1$'),
    'grain': ({'fields': {3: 16}}, 'Unsupported grain size: 16'),
    'table': ({'fields': {4: 0}}, 'Unsupported grain table size: 0'),
    'flags': ({'fields': {5: 4}}, 'Unsupported flags: 0x0*4$'),
    'reserved': ({'fields': {7: 1}}, 'Unsupported reserved bits'),
    'padding': ({'fields': {63: 1}}, 'non-zero const header padding'),
    'capacity-0': ({'fields': {2: 0}}, 'the descriptor says 65536'),
    'capacity-huge': ({'fields': {2: 1 << 60}}, 'L1 size too big'),
    'capacity-tables': ({'fields': {2: 1 << 50, 17: 1 << 40}},
                        'L1 size too big'),
    'directory-short': ({'fields': {17: 0}}, 'directory of 0 sectors'),
    'directory-0': ({'fields': {16: 0}}, 'lies on the header'),
    'directory-far': ({'fields': {16: 1 << 40}}, 'beyond the file'),
    'directory-end': ({'fields': {16: AT_END}}, 'L1 size too big'),
    'tables-far': ({'fields': {18: AT_END}}, 'grain tables at sector'),
    'tables-behind': ({'fields': {18: 1 << 40}}, 'beyond the file'),
    'tables-none': ({'fields': {19: 0}}, 'room for 0 grain tables'),
    'grains-far': ({'fields': {24: 1 << 62}}, 'grains at sector'),
    'grains-behind': ({'fields': {24: 1 << 40}}, 'beyond the file'),
    'grains-none': ({'fields': {25: 0}}, 'room for 0 grains'),
    'grains-on-tables': ({'fields': {24: 16}}, 'own tables'),
    'volatile-0': ({'fields': {10: 0}}, 'volatile header at sector 0'),
    'volatile-far': ({'fields': {10: AT_END}}, 'volatile header at sector'),
    'volatile-magic': ({'volatile': {0: 1}}, 'Bad volatile header magic'),
    'volatile-padding': ({'volatile': {9: 1}}, 'volatile header padding'),
    'journal': ({'volatile': {3: 1}}, 'Replaying journal not supported'),
    'table-index': ({'tables': (0, 2)}, 'room for 2 grain tables'),
    'table-kind': ({'tables': (0, 1 << 61)}, 'room for 2 grain tables'),
    'grain-index': ({'entries': {0: stored(3)}}, 'room for 3 grains'),
    'grain-high': ({'entries': {0: stored(1 << 40)}}, 'room for 3 grains'),
    'grain-2^32': ({'entries': {0: stored(0xffffffff)},
                    'fields': {25: 1 << 40}}, r'limit: 2\^32'),
    'grain-kind': ({'entries': {0: 4 << 60}}, 'room for 3 grains'),
    'grain-no-kind': ({'entries': {0: 5}}, 'room for 3 grains'),
    'cut': ({'cut': -SECTOR}, 'ends beyond the file'),
    'cut-table': ({'cut': 30 * SECTOR}, 'beyond the file'),
    'cut-header': ({'cut': 100}, 'directory of 0 sectors'),
    'nothing': ({'cut': 0}, 'Bad const header magic'),
}


@pytest.mark.parametrize('name', SPACE_EFFICIENT)
def test_hostile_space_efficient(name, lamella, tmp_path):
    changes, expected = SPACE_EFFICIENT[name]
    changes = dict({'entries': {0: stored(0), 9: stored(1), 4100: stored(2)}},
                   **changes)
    content = sesparse(**changes)
    (tmp_path / 'esx').write_bytes(content)
    (tmp_path / 'x.vmdk').write_bytes(descriptor(
        'RW 65536 SESPARSE "esx"', kind='seSparse'))
    said = run_all(lamella, tmp_path)
    assert (tmp_path / 'esx').read_bytes() == content
    if expected is None:
        assert not [text for _, status, text in said[:4] if status]
        assert 'No write support for seSparse' in said[4][2]
    else:
        assert re.search(expected, '\n'.join(text.strip() for _, status, text
                                             in said[:4] if status), re.M)


def test_cowd_without_descriptor(lamella, tmp_path):
    """It is no raw image, whatever one might guess."""
    (tmp_path / 'esx').write_bytes(cowd([0]))
    done = run(*lamella.img, 'info', tmp_path / 'esx', status=1)
    assert 'opened by the descriptor' in done.stderr


@pytest.mark.parametrize('name,status,count', [
    ('right', 0, 0), ('right-stream', 0, 0), ('grain-far', 2, 1),
    ('grain-on-table', 2, 1), ('grain-twice', 2, 1), ('grain-cut', 2, 1),
    ('redundant-differs', 3, 1), ('table-on-descriptor', 2, 18)])
def test_check(name, status, count, lamella, tmp_path):
    """Each is counted, and told."""
    image = tmp_path / 'x.vmdk'
    image.write_bytes(CASES[name][0])
    done = run(*lamella.img, 'check', '-f', 'vmdk', image, status=status)
    told = sum(int(number) for number in re.findall(
        r'(\d+) (?:errors|leaked clusters) were found', done.stdout))
    assert done.stderr.count("x.vmdk'") == told == count


def test_mutations(lamella, tmp_path):
    """Words of the header and the tables that are anything."""
    image = tmp_path / 'x.vmdk'
    whole = sparse()
    for seed, place in enumerate([*range(4, 80, 7), 21 * SECTOR, 22 * SECTOR,
                                  26 * SECTOR, 27 * SECTOR]):
        value = struct.pack('<I', (seed * 2654435761) & 0xffffffff)
        image.write_bytes(whole[:place] + value + whole[place + 4:])
        run_all(lamella, tmp_path)


def test_sparse_directory(lamella, tmp_path):
    """A directory that is large because the file is, with holes."""
    image = tmp_path / 'x.vmdk'
    with image.open('wb') as out:
        out.write(sparse(capacity=(1 << 24) * 512 * GRAIN, gd_offset=200,
                         rgd_offset=200))
        out.truncate(64 * GiB)
    for command in (COMMANDS[0], COMMANDS[4]):
        done = call([*lamella.img, *command], tmp_path)
        assert done.returncode in (0, 1)
    assert len(table([1])) == 4 * SECTOR
