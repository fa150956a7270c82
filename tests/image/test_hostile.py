# SPDX-License-Identifier: MIT
"""Commands that change an image, on damaged ones; and LUKS headers that lie.

One line on stderr and exit status 1, or it works and nothing is worse; within
bounds of time and memory; an image that is refused is as it was.
"""
import hashlib
import json
import resource
import struct
import subprocess

import pytest

from defects import DATA_FILE, DEFECTS, make
from harness import GiB, KiB, disk_blocks, pytest_fail, run

LIMITS = [(resource.RLIMIT_AS, 2 * GiB), (resource.RLIMIT_CPU, 10)]
SECRET = ['--object', 'secret,id=s0,data=swordfish']


def call(argv, cwd):
    def limit():
        for what, value in LIMITS:
            resource.setrlimit(what, (value, value))
    try:
        return subprocess.run([str(arg) for arg in argv], timeout=30, cwd=cwd,
                              stdin=subprocess.DEVNULL, text=True,
                              errors='replace', stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, preexec_fn=limit)
    except subprocess.TimeoutExpired:
        pytest_fail('no end: %s' % argv)


def judge(argv, done):
    if done.returncode not in (0, 1):
        pytest_fail('%s\nexit status %d\n%s' % (argv, done.returncode,
                                                done.stderr[-2000:]))
    if done.returncode and len(done.stderr.splitlines()) != 1:
        pytest_fail('%s\nnot one line:\n%s' % (argv, done.stderr))


# What is wrong is seen before anything is written.
CHANGES = [
    ['resize', '--shrink', '-f', 'qcow2', 'bad.qcow2', '256K'],
    ['resize', '-f', 'qcow2', 'bad.qcow2', '+1M'],
    ['amend', '-f', 'qcow2', '-o', 'compat=0.10', 'bad.qcow2'],
    ['amend', '-f', 'qcow2', '-o', 'refcount_bits=32', 'bad.qcow2'],
    ['snapshot', '-c', 'new', 'bad.qcow2'],
    ['snapshot', '-a', 's0', 'bad.qcow2'],
    ['snapshot', '-d', 's0', 'bad.qcow2'],
    ['bitmap', '--add', 'bad.qcow2', 'new'],
    ['rebase', '-u', '-b', '', 'bad.qcow2'],
]


# Counters that are too low say that a cluster in use is free.  They are trusted
# until somebody checks, as by the genuine tool.
TOO_LOW = ('refcount_zero', 'refcount_low', 'l1_twice', 'cluster_twice',
           'refblock', 'refcount_order')


def problems(lamella, cwd):
    """Corruptions that check counts; None if it cannot."""
    done = call([*lamella.img, 'check', '--output=json', '-f', 'qcow2',
                 'bad.qcow2'], cwd)
    return json.loads(done.stdout).get('corruptions', 0) if done.stdout \
        else None


def guest(lamella, cwd):
    """What can be read; None if not all can."""
    out = cwd / 'out.raw'
    done = call([*lamella.img, 'convert', '-f', 'qcow2', '-O', 'raw',
                 'bad.qcow2', 'out.raw'], cwd)
    return disk_blocks(out) if done.returncode == 0 else None


def cut(disk, length):
    """The same without what is behind @length."""
    size, blocks = disk
    parts = {at: block[:length - at] for at, block in blocks.items()
             if at < length}
    return min(size, length), {at: part for at, part in parts.items()
                               if part != bytes(len(part))}


@pytest.mark.parametrize('name', DEFECTS)
def test_changes(name, lamella, tmp_path):
    image = tmp_path / 'bad.qcow2'
    content = make(name)
    (tmp_path / DATA_FILE).write_bytes(bytes(1 << 20))
    image.write_bytes(content)
    before, data = problems(lamella, tmp_path), guest(lamella, tmp_path)
    for arguments in CHANGES:
        image.write_bytes(content)
        (tmp_path / DATA_FILE).write_bytes(bytes(1 << 20))
        argv = [*lamella.img, *arguments]
        done = call(argv, tmp_path)
        judge(argv, done)
        if done.returncode:
            continue
        after = problems(lamella, tmp_path)
        # A snapshot has copies of tables: what is wrong there is so twice.
        copies = 2 if '-c' in arguments else 1
        if before is not None and (after is None or after > before * copies):
            pytest_fail('%s: %s corruptions, and then %s' % (
                arguments, before, after))
        now = guest(lamella, tmp_path)
        if data is None or '-a' in arguments or name.startswith(TOO_LOW):
            continue
        if now is None or cut(now, data[0]) != cut(data, now[0]):
            pytest_fail('%s: the guest reads something else' % arguments)


@pytest.mark.parametrize('name', [
    'cluster_twice', 'l1_twice', 'refcount_zero_data', 'refcount_zero_l2',
    'refblock_missing', 'refblock_on_data', 'l1_reserved', 'l2_unaligned',
    'data_at_eof'])
def test_shrink_is_refused_first(name, lamella, tmp_path):
    """What it drops would free what stays, or it would stop half-way."""
    image = tmp_path / 'bad.qcow2'
    image.write_bytes(make(name))
    done = call([*lamella.img, 'resize', '-q', '--shrink', '-f', 'qcow2',
                 'bad.qcow2', '512'], tmp_path)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert image.read_bytes() == make(name)


def test_many_findings(lamella, tmp_path):
    """A refcount table of 2^18 entries that all name one block: the text has an
    end, the count is right."""
    entries, block = 1 << 18, 1 << 22
    image = tmp_path / 'bad.qcow2'
    head = struct.pack('>IIQIIQIIQQIIQQQQII8x', 0x514649fb, 3, 0, 0, 9, 1 << 20,
                       0, 32, 512, 4096, entries * 8 // 512, 0, 0, 0, 0, 0, 4,
                       112)
    with open(image, 'wb') as out:
        out.write(head)
        out.seek(4096)
        out.write(struct.pack('>Q', block) * entries)
        out.truncate(block + (1 << 20))
    done = run(*lamella.img, 'check', '-f', 'qcow2', '--output=json', image,
               status=2)
    lines = done.stderr.splitlines()
    assert len(lines) == 100001 and 'more' in lines[-1]
    assert json.loads(done.stdout)['corruptions'] >= entries


def test_flags_in_a_guest_cluster(lamella, tmp_path):
    """The first write to the image would set a flag in it: that is refused,
    the next write, too, and nothing is changed."""
    before = make('bitmap_directory_in_guest')
    (tmp_path / 'bad.qcow2').write_bytes(before)
    said = run(*lamella.io, '-c', 'write 0 4k', '-c', 'write 64k 4k',
               'bad.qcow2', status=None, cwd=tmp_path)
    assert (said.stdout + said.stderr).count('write failed') == 2
    assert (tmp_path / 'bad.qcow2').read_bytes() == before


# ------------------------------------------------------------- LUKS headers

def u32(value):
    return struct.pack('>I', value)


# Offset in the LUKS area, and what is put there.
LIES = {
    'magic': (0, b'LUKZ'), 'version-0': (6, b'\0\0'),
    'version-2': (6, b'\0\2'), 'version-3': (6, b'\0\3'),
    'cipher-unknown': (8, b'rot13\0'), 'cipher-empty': (8, b'\0'),
    'cipher-unterminated': (8, b'a' * 32),
    'mode-unknown': (40, b'xyz-plain64\0'), 'mode-empty': (40, b'\0'),
    'mode-no-iv': (40, b'xts\0'), 'mode-iv-unknown': (40, b'xts-moon\0'),
    'mode-unterminated': (40, b'x' * 32), 'hash-unknown': (72, b'md6\0'),
    'hash-empty': (72, b'\0'), 'hash-unterminated': (72, b's' * 32),
    'names-with-escapes': (8, b'\x1b[31maes\n\0'),
    'payload-0': (104, u32(0)), 'payload-1': (104, u32(1)),
    'payload-huge': (104, u32(0xffffffff)), 'key-0': (108, u32(0)),
    'key-1': (108, u32(1)), 'key-17': (108, u32(17)),
    'key-huge': (108, u32(0xfffffff0)), 'key-512': (108, u32(512)),
    'iterations-0': (164, u32(0)), 'iterations-huge': (164, u32(0xffffffff)),
    'slot-state': (208, u32(7)), 'slot-iterations-0': (212, u32(0)),
    'slot-iterations-huge': (212, u32(0xffffffff)),
    'slot-in-header': (248, u32(0)), 'slot-far': (248, u32(0x7fffffff)),
    'slot-on-another': (296, u32(8)), 'slot-last': (248, u32(0xffffffff)),
    'stripes-0': (252, u32(0)), 'stripes-1': (252, u32(1)),
    'stripes-huge': (252, u32(0xffffffff)),
    'all-slots-free': (208, u32(0xdead)),
}


@pytest.fixture(scope='module')
def encrypted(lamella, tmp_path_factory):
    """A LUKS image and a qcow2 with one inside; (bytes, where LUKS begins)."""
    folder = tmp_path_factory.mktemp('encrypted')
    made = {}
    for fmt, prefix in (('luks', ''), ('qcow2', 'encrypt.')):
        options = '%skey-secret=s0,%siter-time=1' % (prefix, prefix)
        if fmt == 'qcow2':
            options += ',encrypt.format=luks'
        done = run(*lamella.img, 'create', '-q', *SECRET, '-f', fmt, '-o',
                   options, folder / fmt, '256k', status=None)
        if done.returncode:
            pytest.skip('lamella was built without libcrypto')
        data = (folder / fmt).read_bytes()
        at = 0
        if fmt == 'qcow2':
            extension = data.index(struct.pack('>II', 0x0537be77, 16))
            at = struct.unpack_from('>Q', data, extension + 8)[0]
        made[fmt] = (data, at)
    return made


def node(fmt):
    key = 'encrypt.key-secret' if fmt == 'qcow2' else 'key-secret'
    return 'driver=%s,%s=s0,file.filename=bad' % (fmt, key)


@pytest.mark.parametrize('name', LIES)
@pytest.mark.parametrize('fmt', ['luks', 'qcow2'])
def test_luks_header(fmt, name, encrypted, lamella, tmp_path):
    data, at = encrypted[fmt]
    offset, lie = LIES[name]
    image = tmp_path / 'bad'
    bad = data[:at + offset] + lie + data[at + offset + len(lie):]
    image.write_bytes(bad)
    digest = hashlib.sha256(bad).digest()
    prefix = 'encrypt.' if fmt == 'qcow2' else ''
    slot = '%sstate=active,%snew-secret=s0,%siter-time=1' % ((prefix,) * 3)
    for arguments in (
            ['info', '-f', fmt, 'bad'],
            ['convert', *SECRET, '--image-opts', '-O', 'raw', node(fmt),
             'out.raw'],
            ['io', *SECRET, '--image-opts', '-c', 'write 0 4k', node(fmt)],
            ['amend', *SECRET, '--image-opts', '-o', slot, node(fmt)],
            ['resize', *SECRET, '--image-opts', node(fmt), '512k']):
        argv = [*lamella.img, *arguments]
        done = call(argv, tmp_path)
        judge(argv, done)
        if any(ord(char) < 32 and char != '\n' for char in done.stderr):
            pytest_fail('control characters: %r' % done.stderr)
        opened = name in ('slot-on-another', 'magic') and not done.returncode
        if arguments[0] != 'info' and not done.returncode and not opened:
            pytest_fail('%s works' % arguments)
        if done.returncode and \
                hashlib.sha256(image.read_bytes()).digest() != digest:
            pytest_fail('%s failed and changed the image' % arguments)
        if (tmp_path / 'out.raw').exists() and done.returncode:
            pytest_fail('%s left its output' % arguments)
        image.write_bytes(bad)


@pytest.mark.parametrize('length', [0, 6, 100, 591, 592, 4095, 4096, 65536])
def test_luks_cut_off(length, encrypted, lamella, tmp_path):
    data, _ = encrypted['luks']
    image = tmp_path / 'bad'
    image.write_bytes(data[:length])
    argv = [*lamella.img, 'convert', *SECRET, '--image-opts', '-O', 'raw',
            node('luks'), 'out.raw']
    done = call(argv, tmp_path)
    judge(argv, done)
    assert done.returncode == 1 and not (tmp_path / 'out.raw').exists()
    assert image.read_bytes() == data[:length]
