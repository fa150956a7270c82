# SPDX-License-Identifier: MIT
"""The node blklogwrites: what its log says is what was done, in order."""
import shutil
import struct
import subprocess

import pytest

from harness import KiB, MiB, make_mixed_file, run, wait_until

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


def test_what_is_flushed(lamella, folder):
    """A flush of nothing is no entry; a new length is something."""
    def flags(*commands, more=()):
        (folder / 'log').write_bytes(b'')
        lamella.io_run('driver=raw,file.' + node(folder, 'disk').replace(
            ',', ',file.'), *commands, options=['--image-opts', *more])
        return [entry[2] for entry in read_log(folder / 'log')[1]] \
            if (folder / 'log').stat().st_size else None

    assert flags('flush', 'read 0 512', 'flush') is None
    assert flags('write 0 512', 'flush', 'flush') == [0, FLUSH]
    assert flags('truncate 4M', 'flush', 'flush') == [FLUSH]
    # Who never flushes leaves a head that counts all the same.
    assert flags('write 0 512', 'write 1k 512', more=['-t', 'unsafe']) == \
        [0, 0]
    assert flags('write 0 512', 'discard 64k 64k', 'flush', 'write 1k 512') == \
        [0, DISCARD, FLUSH, 0, FLUSH]


@pytest.mark.parametrize('interval, told', [(1, 5), (2, 4), (3, 3), (9, 0)])
def test_head_is_written_now_and_then(lamella, folder, interval, told):
    """Between flushes the head counts as many entries as the interval says; the
    command is killed before it could close the log."""
    log = folder / 'log'

    def count():
        return struct.unpack_from('<Q', log.read_bytes().ljust(24), 16)[0]

    with subprocess.Popen(
            [*lamella.io, '--image-opts',
             node(folder, 'disk', log_super_update_interval=interval)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        process.stdin.write(b'write 0 512\n' * 5)
        process.stdin.flush()
        wait_until(process, lambda: log.stat().st_size == 512 + 5 * KiB and
                   count() == told)
        process.kill()
    assert count() == told


def test_entries_that_were_told(lamella, folder):
    """Behind a discard, which has no data, and what no head counted."""
    entry = struct.Struct('<QQQ')
    log = struct.pack('<QQQI', MAGIC, 1, 2, 512).ljust(512, b'\0') + \
        entry.pack(128, 128, DISCARD).ljust(512, b'\0') + \
        entry.pack(0, 1, 0).ljust(512, b'\0') + bytes(512) + \
        entry.pack(1, 1, 0).ljust(512, b'\0') + b'x' * 512
    (folder / 'log').write_bytes(log)
    name = node(folder, 'disk', log_append='on')
    lamella.io_run(name, 'read 0 512', options=['--image-opts'])
    assert (folder / 'log').read_bytes() == log
    lamella.io_run(name, 'write -P 7 1k 512', options=['--image-opts'])
    assert [e[:3] for e in read_log(folder / 'log')[1]] == [
        (64 * KiB, 64 * KiB, DISCARD), (0, 512, 0), (1024, 512, 0),
        (0, 0, FLUSH)]


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
    ((MAGIC, 1, 3, 512), 'log entry 0 lies behind the end of the log'),
    ((MAGIC, 1, 2, 512), 'log entry 1 lies behind the end of the log'),
], ids=['magic', 'version', 'sector', 'no-sector', 'many',
        'long', 'cut'])
def test_bad_logs(lamella, folder, head, text):
    log = struct.pack('<QQQI', *head).ljust(512, b'\0')
    if head[2] == 2:
        log += struct.pack('<QQQ', 0, 1, 0).ljust(1024, b'\0')
    if head[2] == 3:
        log += struct.pack('<QQQ', 0, 1 << 54, 0).ljust(2048, b'\0')
    (folder / 'log').write_bytes(log)
    done = run(*lamella.io, '--image-opts', '-c', 'write 0 512',
               node(folder, 'disk', log_append='on'), status=1)
    assert text in done.stderr
    assert (folder / 'log').read_bytes() == log
    assert (folder / 'disk').read_bytes() == (folder / 'before').read_bytes()
