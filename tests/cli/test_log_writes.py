# SPDX-License-Identifier: MIT
"""The node blklogwrites: what its log says is what was done, in order."""
import shutil
import struct

import pytest

from harness import KiB, MiB, make_mixed_file, run

MAGIC = 0x6a736677736872
FLUSH, DISCARD = 1, 4


def read_log(path):
    """The sector size, and the entries: (offset, length, flags, data)."""
    log = path.read_bytes()
    magic, version, count, sector = struct.unpack_from('<QQQI', log)
    assert (magic, version) == (MAGIC, 1)
    entries, at = [], sector
    for _ in range(count):
        start, length, flags = struct.unpack_from('<QQQ', log, at)
        at += sector
        data = b'' if flags & DISCARD else log[at:at + length * sector]
        at += len(data)
        entries.append((start * sector, length * sector, flags, data))
    assert at == len(log)
    return sector, entries


def replay(disk, entries):
    for offset, length, flags, data in entries:
        if not flags & (FLUSH | DISCARD):
            disk[offset:offset + length] = data
    return disk


def node(folder, file, **options):
    words = ['%s=%s' % (key.replace('_', '-'), value)
             for key, value in options.items()]
    return ','.join(['driver=blklogwrites', 'file.driver=file',
                     'file.filename=%s' % (folder / file), 'log.driver=file',
                     'log.filename=%s' % (folder / 'log'), *words])


@pytest.fixture
def folder(tmp_path):
    make_mixed_file(tmp_path / 'disk', MiB, 3)
    shutil.copy(tmp_path / 'disk', tmp_path / 'before')
    (tmp_path / 'log').touch()
    return tmp_path


@pytest.mark.parametrize('sector', [512, 4096, 64 * KiB])
def test_replays(lamella, folder, sector):
    lamella.io_run(node(folder, 'disk', log_sector_size=sector),
                   'write -P 1 0 4k', 'write -P 2 700 5000', 'flush',
                   'write -z 128k 64k', 'discard 256k 64k', 'write -P 3 1023k '
                   '1k', options=['--image-opts'])
    found, entries = read_log(folder / 'log')
    assert found == sector
    disk = replay(bytearray((folder / 'before').read_bytes()), entries)
    after = bytearray((folder / 'disk').read_bytes())
    # What has been discarded may read as anything.
    after[256 * KiB:320 * KiB] = disk[256 * KiB:320 * KiB]
    assert disk == after
    assert (256 * KiB, 64 * KiB, DISCARD, b'') in entries
    flushes = [i for i, entry in enumerate(entries) if entry[2] & FLUSH]
    assert len(flushes) == 2 and flushes[-1] == len(entries) - 1


def test_goes_on(lamella, folder):
    name = node(folder, 'disk', log_append='on')
    for fill in 1, 2, 3:
        lamella.io_run(name, 'write -P %d %dk 1k' % (fill, fill),
                       options=['--image-opts'])
    sector, entries = read_log(folder / 'log')
    assert sector == 512 and len(entries) == 6
    assert replay(bytearray((folder / 'before').read_bytes()), entries) == \
        (folder / 'disk').read_bytes()
    # Anew: what was there is not looked at.
    lamella.io_run(node(folder, 'disk'), 'write 0 512',
                   options=['--image-opts'])
    head = (folder / 'log').read_bytes()[:28]
    assert struct.unpack('<QQQI', head) == (MAGIC, 1, 2, 512)


def test_image_is_whole_at_each_flush(lamella, folder):
    image, then = folder / 'image', folder / 'then'
    lamella.run('create', '-q', '-f', 'qcow2', image, '8M')
    shutil.copy(image, folder / 'before')
    log = {'driver': 'file', 'filename': str(folder / 'log')}
    name = ','.join(['driver=qcow2', 'file.driver=blklogwrites',
                     'file.file.filename=%s' % image,
                     'file.log.filename=%s' % log['filename']])
    lamella.io_run(name, 'write -P 1 0 200k', 'flush', 'write -z 64k 64k',
                   'discard 0 64k', 'flush', 'write -P 2 3M 1M',
                   options=['--image-opts'])
    _, entries = read_log(folder / 'log')
    for end in [i for i, entry in enumerate(entries) if entry[2] & FLUSH]:
        disk = bytearray((folder / 'before').read_bytes().ljust(8 * MiB, b'\0'))
        then.write_bytes(replay(disk, entries[:end + 1]))
        done = run(*lamella.img, 'check', '-f', 'qcow2', then, status=None)
        assert done.returncode in (0, 3), done.stdout   # 3: it leaks at most
    lamella.run('compare', '-f', 'qcow2', '-F', 'qcow2', then, image)


@pytest.mark.parametrize('head, text', [
    ((MAGIC + 1, 1, 0, 512), 'Invalid log superblock magic'),
    ((MAGIC, 2, 0, 512), 'Unsupported log version 2'),
    ((MAGIC, 1, 0, 100), 'Invalid log sector size 100'),
    ((MAGIC, 1, 0, 0), 'Invalid log sector size 0'),
    ((MAGIC, 1, 1 << 62, 512), 'log entry 0 lies behind the end of the log'),
    ((MAGIC, 1, 2, 512), 'log entry 1 lies behind the end of the log'),
], ids=['magic', 'version', 'sector', 'no-sector', 'many', 'cut'])
def test_bad_logs(lamella, folder, head, text):
    log = struct.pack('<QQQI', *head).ljust(512, b'\0')
    if head[2] == 2:
        log += struct.pack('<QQQ', 0, 1, 0).ljust(1024, b'\0')
    (folder / 'log').write_bytes(log)
    done = run(*lamella.io, '--image-opts', '-c', 'write 0 512',
               node(folder, 'disk', log_append='on'), status=1)
    assert text in done.stderr
    assert (folder / 'log').read_bytes() == log
    assert (folder / 'disk').read_bytes() == (folder / 'before').read_bytes()
