# SPDX-License-Identifier: MIT
"""What a header can make us open: every edge to another file, to every kind of
target.

With --untrusted nothing but the image itself is opened, and nothing of another
file is told.  Without it, what is no file or disk is refused, and nothing waits
for somebody to write into a FIFO.
"""
import os
import pathlib
import struct

import pytest

from harness import pytest_fail, run

CANARY = 'the-canary-of-this-test'
LIMIT = 20      # seconds; a FIFO without a writer would hang for ever


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'secret').write_bytes(CANARY.encode() * 50000)
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'beside').write_bytes(CANARY.encode() * 50000)
    os.mkfifo(images / 'fifo')
    (images / 'to-fifo').symlink_to('fifo')
    (images / 'to-secret').symlink_to('../secret')
    (images / 'to-null').symlink_to('/dev/null')
    (images / 'directory').mkdir()
    return images


def targets(folder):
    secret = folder.parent / 'secret'
    return {
        'absolute': str(secret), 'above': '../secret', 'beside': 'beside',
        'link': 'to-secret', 'fifo': 'fifo', 'link-to-fifo': 'to-fifo',
        'device': '/dev/zero', 'link-to-device': 'to-null',
        'descriptor': '/dev/fd/0', 'proc': '/proc/self/environ',
        'memory': '/proc/self/mem', 'directory': 'directory',
        'file': 'file:%s' % secret, 'nbd': 'nbd:localhost:1',
        'json': 'json:{"driver":"raw","file":{"driver":"file",'
                '"filename":"%s"}}' % secret,
        'image': 'json:{"driver":"raw","file.driver":"null-co"}',
        'escape': 'a\x1b[31mb', 'itself': 'bad',
    }


TARGETS = sorted(targets(pathlib.Path('/images')))
# Neither with nor without the option.
NEVER = ('fifo', 'link-to-fifo', 'device', 'link-to-device', 'descriptor',
         'directory', 'nbd', 'escape', 'itself')
# But that a character device may lie below an image, as for the genuine tool:
# it is as long as seeking tells, which is not at all.
EMPTY = [('backing', 'device'), ('backing', 'link-to-device'),
         ('backing', 'descriptor')]


def qcow2(name, data_file):
    """A header alone, of an empty disk of 1 MiB, that names @name."""
    extension = struct.pack('>II', 0x44415441, len(name)) + \
        name + bytes(-len(name) % 8) if data_file else b''
    at = 112 + len(extension) + 8
    head = struct.pack(
        '>IIQIIQIIQQIIQQQQII8x', 0x514649fb, 3, 0 if data_file else at,
        0 if data_file else len(name), 16, 1 << 20, 0, 1, 3 << 16, 1 << 16, 1,
        0, 0, 4 if data_file else 0, 0, 0, 4, 112)
    image = bytearray(5 << 16)
    image[:len(head)] = head
    image[112:112 + len(extension)] = extension
    if not data_file:
        image[at:at + len(name)] = name
    struct.pack_into('>Q', image, 1 << 16, 2 << 16)
    struct.pack_into('>5H', image, 2 << 16, 1, 1, 1, 1, 1)
    struct.pack_into('>Q', image, 3 << 16, 1 << 63 | 4 << 16)
    if data_file:
        struct.pack_into('>Q', image, 4 << 16, 1 << 63)
    return bytes(image)


def vmdk(name, parent):
    """A descriptor; the extent, or the parent, is @name."""
    text = b'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=%s\n' \
        b'createType="%s"\n%s\nRW 2048 %s\n' % (
            b'00000000' if parent else b'ffffffff',
            b'monolithicSparse' if parent else b'monolithicFlat',
            b'parentFileNameHint="%s"' % name if parent else b'',
            b'ZERO' if parent else b'FLAT "%s" 0' % name)
    return text.ljust(2048, b'\0')


EDGES = {
    'backing': ('qcow2', lambda name: qcow2(name, False)),
    'data': ('qcow2', lambda name: qcow2(name, True)),
    'extent': ('vmdk', lambda name: vmdk(name, False)),
    'parent': ('vmdk', lambda name: vmdk(name, True)),
}
COMMANDS = [
    ['convert', '-O', 'raw', 'bad', 'out'], ['convert', '-O', 'qcow2', 'bad',
                                             'out'],
    ['info', 'bad'], ['map', 'bad'], ['check', 'bad'], ['measure', '-O', 'raw',
                                                        'bad'],
    ['compare', 'bad', 'bad'],
]


def call(lamella, folder, command, fmt, untrusted):
    words = ['--untrusted'] if untrusted else []
    words += ['-F', fmt] if command[0] == 'compare' else []
    done = run(*lamella.img, command[0], '-f', fmt, *words, *command[1:],
               cwd=folder, timeout=LIMIT, status=None)
    if done.returncode < 0 or done.returncode > 4 and \
            done.returncode != 63:
        pytest_fail('%s: status %d\n%s' % (command, done.returncode,
                                           done.stderr))
    out = folder / 'out'
    content = out.read_bytes() if out.exists() else b''
    if out.exists():
        out.unlink()
    told = CANARY in done.stdout + done.stderr or CANARY.encode() in content
    if any(ord(char) < 32 and char not in '\n\t' for char in done.stderr):
        pytest_fail('%s: control characters' % command)
    return done, told


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('edge', EDGES)
def test_edge(edge, target, lamella, folder):
    fmt, make = EDGES[edge]
    (folder / 'bad').write_bytes(make(targets(folder)[target].encode()))
    for command in COMMANDS:
        done, told = call(lamella, folder, command, fmt, True)
        if told:
            pytest_fail('%s tells of another file' % command)
        if command[0] == 'convert' and done.returncode != 1:
            pytest_fail('%s: status %d' % (command, done.returncode))
    done, told = call(lamella, folder, COMMANDS[0], fmt, False)
    # Its own file as its data is read, as by the genuine tool; a writer's locks
    # are in each other's way.
    if (edge, target) == ('data', 'itself'):
        done, _ = call(lamella, folder, ['io', '-c', 'write 0 4k', 'bad'], fmt,
                       False)
    if (edge, target) in EMPTY:
        assert done.returncode == 0 and not told
    elif target in NEVER and (done.returncode != 1 or told):
        pytest_fail('converts without --untrusted\n' + done.stderr)


def test_canary(lamella, folder):
    """The test above would see it: an honest neighbour is read."""
    (folder / 'bad').write_bytes(qcow2(b'beside', False))
    _, told = call(lamella, folder, COMMANDS[0], 'qcow2', False)
    assert told
