# SPDX-License-Identifier: MIT
"""Runs in the virtual machine: converts onto each kind of disk, and prints a
line of JSON a row.

    guest.py LAMELLA LIBRARY [ROW...]

Every disk is full of old data before.  Afterwards it reads as the source does,
in the cache and past it, and the SCSI disk's own map of provisioned blocks
names those that hold data, and no others.
"""
import ctypes
import fcntl
import json
import os
import random
import subprocess
import sys
import time

KiB, MiB = 1 << 10, 1 << 20
BLOCK = 4096                    # what conversion looks for zeroes in
BLKFLSBUF = 0x1261
SIZE = 4 * MiB
SCSI_MAP = '/sys/bus/pseudo/drivers/scsi_debug/map'
MODULES = ['sd_mod', 'scsi_debug', 'dm-thin-pool', 'virtio_blk', 'virtio_scsi',
           'brd', 'zram', 'null_blk', 'nbd', 'loop', 'raid1']

UNMAPPED = 'skipped, after the target has been unmapped as a whole'
PROVED = 'discarded, read back, and written where not zero'
ZEROED = 'zeroed by the host, a call for each range'
WRITTEN = 'written'

NONE = ['-t', 'none']
THIN = 'thin'                   # mapped: what holds data
FULL = 'full'                   # everything below the source's end
OLD = 'old'                     # as before, everything


def scsi(name, options, zeroes, mapped, convert=NONE, **more):
    return dict(more, name=name, kind='scsi', options=options.split(),
                zeroes=zeroes, mapped=mapped, convert=convert)


def plain(name, kind, zeroes, convert=NONE, **more):
    return dict(more, name=name, kind=kind, zeroes=zeroes, convert=convert)


ALL = 'lbpu=1 lbpws=1 lbpws10=1 lbprz=1'
CACHED, ALLOCATED = ['-t', 'writeback'], ['-t', 'none', '-S', '0']
LOST = 'may read as anything'

ROWS = [
    # What the disk can: UNMAP, WRITE SAME with UNMAP, what freed reads as.
    scsi('unmap', ALL, UNMAPPED, THIN),
    scsi('unmap-cached', ALL, UNMAPPED, THIN, CACHED),
    scsi('unmap-strict-cache', ALL, WRITTEN, FULL,
         CACHED + ['--strict-cache']),
    scsi('unmap-S0', ALL, ZEROED, FULL, ALLOCATED),
    scsi('unmap-target-is-zero', ALL, 'skipped', OLD,
         NONE + ['--target-is-zero'], is_zero=True),
    scsi('unmap-larger-target', ALL, UNMAPPED, THIN, beyond=1 * MiB),
    scsi('unmap-larger-odd', ALL, UNMAPPED, THIN, beyond=1 * MiB - 512),
    scsi('unmap-overlay', ALL, UNMAPPED, THIN, source='overlay'),
    scsi('unmap-small-S', ALL, UNMAPPED, THIN, NONE + ['-S', '512'],
         grain=512),
    scsi('write-same-16', 'lbpws=1 lbprz=1', UNMAPPED, THIN),
    scsi('write-same-10', 'lbpws10=1 lbprz=1', UNMAPPED, THIN),
    scsi('only-unmap', 'lbpu=1 lbprz=1', PROVED, THIN),
    scsi('only-unmap-cached', 'lbpu=1 lbprz=1', PROVED, THIN, CACHED),
    scsi('only-unmap-S0', 'lbpu=1 lbprz=1', ZEROED, FULL, ALLOCATED),
    scsi('unmap-to-anything', 'lbpu=1 lbprz=0', ZEROED, FULL, says=LOST),
    scsi('unmap-to-anything-cached', 'lbpu=1 lbprz=0', ZEROED, FULL, CACHED,
         says=LOST),
    scsi('write-same-to-anything', 'lbpws=1 lbprz=0', ZEROED, FULL,
         says=LOST),
    scsi('unmap-to-pattern', 'lbpu=1 lbprz=2', ZEROED, FULL, says=LOST),
    scsi('write-same-to-pattern', 'lbpws=1 lbprz=2', ZEROED, FULL, says=LOST),
    scsi('neither', '', ZEROED, FULL, says='no discard support'),
    scsi('neither-cached', '', ZEROED, FULL, CACHED,
         says='no discard support'),
    # Limits: sectors, granules that lie anywhere, requests in pieces.
    scsi('sectors-4096', ALL + ' sector_size=4096', UNMAPPED, THIN),
    scsi('sectors-4096-only-unmap', 'lbpu=1 lbprz=1 sector_size=4096', PROVED,
         THIN, CACHED),
    scsi('sectors-4096-tail', ALL + ' sector_size=4096', UNMAPPED, THIN,
         beyond=1 * MiB - 512),
    scsi('sectors-4096-neither', 'sector_size=4096', ZEROED, FULL,
         says='no discard support'),
    scsi('physical-4096', ALL + ' physblk_exp=3', UNMAPPED, THIN),
    scsi('granules-64k', ALL + ' unmap_granularity=128', UNMAPPED, THIN),
    scsi('granules-64k-aside', ALL + ' unmap_granularity=128 '
         'unmap_alignment=7', UNMAPPED, THIN, CACHED),
    scsi('granules-odd', ALL + ' unmap_granularity=24 unmap_alignment=5',
         UNMAPPED, THIN),
    scsi('granules-only-unmap', 'lbpu=1 lbprz=1 unmap_granularity=128 '
         'unmap_alignment=3', PROVED, THIN, beyond=1 * MiB),
    scsi('granules-odd-only-unmap', 'lbpu=1 lbprz=1 unmap_granularity=40',
         PROVED, THIN, CACHED),
    scsi('granules-to-anything', 'lbpu=1 lbprz=0 unmap_granularity=128',
         ZEROED, FULL, says=LOST),
    scsi('small-requests', ALL + ' unmap_max_blocks=96 unmap_max_desc=1 '
         'write_same_length=200', UNMAPPED, THIN),
    # Disks on disks, and partitions of them.
    scsi('partition', ALL, UNMAPPED, THIN, on='partition'),
    scsi('partition-granules', 'lbpu=1 lbprz=1 unmap_granularity=128', PROVED,
         THIN, on='partition'),
    scsi('linear', ALL, UNMAPPED, THIN, on='linear'),
    scsi('linear-only-unmap', 'lbpu=1 lbprz=1', PROVED, THIN, on='linear'),
    scsi('linear-to-anything', 'lbpu=1 lbprz=0', ZEROED, FULL, CACHED,
         on='linear', says=LOST),
    dict(name='in-use', kind='use'),
    # Other drivers of the kernel.
    plain('dm-thin', 'thin', PROVED),
    plain('dm-thin-cached', 'thin', PROVED, CACHED),
    plain('dm-thin-S0', 'thin', WRITTEN, ALLOCATED),
    plain('brd', 'brd', None),
    plain('zram', 'zram', None),
    plain('null_blk', 'null', None),
    plain('nbd', 'nbd', None),
    plain('nbd-cached', 'nbd', None, CACHED),
    plain('virtio-blk', 'virtio-blk', UNMAPPED),
    plain('virtio-scsi', 'virtio-scsi', PROVED),
]


def run(*argv, check=True, **kwargs):
    done = subprocess.run([str(arg) for arg in argv], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **kwargs)
    if check and done.returncode:
        raise Failure('%s: exit status %d\n%s%s' % (
            ' '.join(map(str, argv)), done.returncode, done.stdout,
            done.stderr))
    return done


class Failure(Exception):
    pass


def nonzero(data, start, end, zeroes=bytes(256 * KiB)):
    """Comparing is quick, even on an emulated processor."""
    return data[start:end] != zeroes[:min(end, len(data)) - start]


def expect(truth, message, *args):
    if not truth:
        raise Failure(message % args)


def wait_for(condition, what):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.02)
    raise Failure('waited in vain for ' + what)


def load(module, *options):
    """Load a module after what it needs, unless it is there."""
    with open('/run/modules/%s.list' % module) as names:
        for name in names.read().split():
            folder = '/sys/module/' + name.split('.')[0].replace('-', '_')
            if os.path.exists(folder):
                continue
            ours = name.split('.')[0] == module
            run('insmod', '/run/modules/' + name, *(options if ours else ()))


def unload(module):
    wait_for(lambda: run('rmmod', module, check=False).returncode == 0,
             module + ' to be free')


# ------------------------------------------------------------------ sources

class Source:
    """Data and holes, in a raw file and as an overlay over it."""

    def __init__(self, lamella, size, folder):
        rng = random.Random(size)
        contents = bytearray(size)
        at = 0
        while at < size:
            length = min(rng.randrange(1, 40) * BLOCK, size - at)
            # A block of zeroes inside, and sectors of zeroes inside blocks.
            contents[at:at + length] = rng.randbytes(length)
            hole = at + rng.randrange(0, length, 512)
            contents[hole:hole + 7 * 512] = bytes(
                min(7 * 512, size - hole))
            at += length + rng.randrange(1, 80) * BLOCK
        del contents[size:]
        self.size, self.raw = size, os.path.join(folder, 'raw%d' % size)
        self.overlay = self.raw + '.overlay'
        with open(self.raw, 'wb') as out:
            out.write(contents)
        self.raw_bytes = bytes(contents)
        run(lamella, 'create', '-q', '-f', 'qcow2', '-b', self.raw, '-F',
            'raw', self.overlay)
        run(lamella, 'io', '-f', 'qcow2', '-c', 'write -P 7 512k 100k', '-c',
            'write -z 1M 300k', '-c', 'write -P 0 2M 200k', self.overlay)
        contents[512 * KiB:612 * KiB] = b'\7' * (100 * KiB)
        contents[MiB:MiB + 300 * KiB] = bytes(300 * KiB)
        contents[2 * MiB:2 * MiB + 200 * KiB] = bytes(200 * KiB)
        self.overlay_bytes = bytes(contents)

    def pick(self, kind):
        if kind == 'overlay':
            return self.overlay, 'qcow2', self.overlay_bytes
        return self.raw, 'raw', self.raw_bytes


SOURCES = {}


def source_of(lamella, size):
    if size not in SOURCES:
        SOURCES[size] = Source(lamella, size, '/run')
    return SOURCES[size]


# -------------------------------------------------------------------- disks

OLD_DATA = b'old data ' * (SIZE // 6)
def fill(path, size):
    """Old data all over; what is written here is on the disk."""
    with open(path, 'r+b', buffering=0) as disk:
        disk.write(OLD_DATA[:size])
        os.fsync(disk.fileno())


def contents(path, size):
    """As buffered readers see it, and as it is on the disk."""
    with open(path, 'rb') as disk:
        cached = disk.read(size)
        fcntl.ioctl(disk, BLKFLSBUF)
    with open(path, 'rb') as disk:
        return cached, disk.read(size)


def disk_size(path):
    with open(path, 'rb') as disk:
        return disk.seek(0, 2)


class Scsi:
    """A disk of scsi_debug, or something on it."""

    def __init__(self, row, size):
        def option(name, default):
            for word in row['options']:
                if word.startswith(name + '='):
                    return int(word.split('=')[1])
            return default

        self.sector = option('sector_size', 512)
        self.granule = option('unmap_granularity', 1) * self.sector
        self.aside = option('unmap_alignment', 0) * self.sector
        self.start, self.layer = 0, row.get('on')
        load('sd_mod')
        whole = size + (MiB if self.layer else 0)
        load('scsi_debug', 'dev_size_mb=%d' % (-(-whole // MiB)),
             *row['options'])
        wait_for(lambda: os.path.exists('/dev/sda'), '/dev/sda')
        self.path = '/dev/sda'
        self.whole = disk_size('/dev/sda')
        fill('/dev/sda', self.whole)
        if self.layer == 'partition':
            self.start = 63 * 512
            run('addpart', '/dev/sda', 1, 63, size // 512)
            self.path = '/dev/sda1'
            wait_for(lambda: os.path.exists(self.path), self.path)
        elif self.layer == 'linear':
            self.start = 101 * 512
            load('dm-thin-pool')
            run('dmsetup', 'create', 'line', '--table', '0 %d linear /dev/sda '
                '101' % (size // 512))
            self.path = '/dev/mapper/line'

    def mapped(self):
        """Numbers of granules that the disk says are provisioned."""
        with open(SCSI_MAP) as text:
            found = set()
            for part in text.read().strip().split(','):
                if part:
                    first, _, last = part.partition('-')
                    found.update(range(int(first), int(last or first) + 1))
        return found

    def granules(self):
        """Offset and end of each granule, by number, on the whole disk."""
        shift = self.granule - self.aside if self.aside else 0
        number, at = 0, 0
        while at < self.whole:
            end = min((number + 1) * self.granule - shift, self.whole)
            yield number, at, end
            number, at = number + 1, end

    def expected(self, row, data):
        """@data: the source's contents.  A granule that was not cleared as a
        whole keeps its old blocks."""
        grain = max(row.get('grain', BLOCK), self.sector)
        length = len(data) // BLOCK * BLOCK
        full = bytes(nonzero(data, at, at + grain)
                     for at in range(0, len(data), grain))
        found = set()
        for number, start, end in self.granules():
            start, end = start - self.start, end - self.start
            cleared = start >= 0 and end <= length and \
                end - start == self.granule
            if not cleared or row['mapped'] != THIN or \
                    full.find(1, start // grain, -(-end // grain)) >= 0:
                found.add(number)
        return found

    def check(self, row, data):
        if not any(word.startswith('lbp') for word in row['options']):
            return {}           # this disk has no map: all of it is mapped
        got, want = self.mapped(), self.expected(row, data)
        expect(got == want, 'mapped without data: %s; data not mapped: %s',
               sorted(got - want)[:8], sorted(want - got)[:8])
        return {'mapped': len(got), 'of': sum(1 for _ in self.granules())}

    def remove(self):
        if self.layer == 'partition':
            run('delpart', '/dev/sda', 1)
        elif self.layer == 'linear':
            run('dmsetup', 'remove', '--retry', 'line')
        unload('scsi_debug')


class Thin:
    """A thin volume: what LVM's are."""
    pool, start = 64 * KiB, 0

    def __init__(self, row, size):
        load('dm-thin-pool')
        load('loop')
        load('sd_mod')
        load('scsi_debug', 'dev_size_mb=48', *ALL.split())
        wait_for(lambda: os.path.exists('/dev/sda'), '/dev/sda')
        run('dmsetup', 'create', 'meta', '--table', '0 8192 linear /dev/sda 0')
        run('dmsetup', 'create', 'data', '--table', '0 65536 linear /dev/sda '
            '8192')
        run('dmsetup', 'create', 'pool', '--table', '0 65536 thin-pool '
            '/dev/mapper/meta /dev/mapper/data 128 0')
        run('dmsetup', 'message', 'pool', 0, 'create_thin 0')
        run('dmsetup', 'create', 'thin', '--table', '0 %d thin '
            '/dev/mapper/pool 0' % (size // 512))
        self.path = '/dev/mapper/thin'
        fill(self.path, size)

    def check(self, row, data):
        text = run('dmsetup', 'status', 'thin').stdout.split()
        blocks = [at for at in range(0, len(data), self.pool)
                  if nonzero(data, at, at + self.pool)]
        want = len(blocks) if row['zeroes'] == PROVED \
            else len(data) // self.pool
        got = int(text[3]) * 512 // self.pool
        expect(got == want, '%d blocks are mapped, %d hold data', got, want)
        return {'mapped': got, 'of': len(data) // self.pool}

    def remove(self):
        for name in 'thin', 'pool', 'data', 'meta':
            run('dmsetup', 'remove', '--retry', name)
        unload('scsi_debug')


class Simple:
    """Disks that are made by loading a module, or are there."""
    start = 0

    def __init__(self, row, size):
        self.kind, self.server = row['kind'], None
        getattr(self, self.kind.replace('-', '_'))(size)
        fill(self.path, size)

    def brd(self, size):
        load('brd', 'rd_nr=1', 'rd_size=%d' % (size // KiB))
        self.path = '/dev/ram0'

    def zram(self, size):
        load('zram')
        with open('/sys/block/zram0/disksize', 'w') as out:
            out.write(str(size))
        self.path = '/dev/zram0'

    def null(self, size):
        load('null_blk', 'nr_devices=0')
        folder = '/sys/kernel/config/nullb/n'
        if not os.path.exists('/sys/kernel/config/nullb'):
            run('mount', '-t', 'configfs', 'none', '/sys/kernel/config')
        os.mkdir(folder)
        for name, value in ('size', size // MiB), ('memory_backed', 1), \
                ('discard', 1), ('power', 1):
            with open(os.path.join(folder, name), 'w') as out:
                out.write(str(value))
        self.path = '/dev/n' if os.path.exists('/dev/n') else '/dev/nullb0'

    def nbd(self, size):
        load('nbd', 'nbds_max=1')
        self.file = '/run/exported'
        with open(self.file, 'wb') as out:
            out.truncate(size)
        run('qemu-nbd', '-c', '/dev/nbd0', '-f', 'raw', '--discard=unmap',
            self.file)
        self.path = '/dev/nbd0'
        wait_for(lambda: disk_size(self.path) == size, 'the nbd device')

    def virtio_blk(self, size):
        load('virtio_blk')
        self.path = '/dev/vda'

    def virtio_scsi(self, size):
        load('sd_mod')
        load('virtio_scsi')
        wait_for(lambda: os.path.exists('/dev/sda'), '/dev/sda')
        self.path = '/dev/sda'

    def check(self, row, data):
        blocks = sum(BLOCK for at in range(0, len(data), BLOCK)
                     if nonzero(data, at, at + BLOCK))
        if self.kind == 'nbd':
            got = os.stat(self.file).st_blocks * 512
        elif self.kind == 'zram':
            with open('/sys/block/zram0/mm_stat') as text:
                got = int(text.read().split()[0])
        else:
            return {'data': blocks}
        expect(got <= blocks, '%d bytes are in use, %d hold data', got, blocks)
        return {'bytes': got, 'data': blocks}

    def remove(self):
        if self.kind == 'nbd':
            run('qemu-nbd', '-d', '/dev/nbd0')
            unload('nbd')
        elif self.kind == 'brd':
            unload('brd')


# --------------------------------------------------------------------- rows

def explain(lamella, argv):
    text = run(lamella, 'convert', '--explain', *argv).stdout
    return dict(line.split(': ', 1) for line in text.splitlines())


def convert_row(row, lamella):
    size = row.get('size', SIZE)
    source = source_of(lamella, size - row.get('beyond', 0))
    name, form, data = source.pick(row.get('source'))
    make = {'scsi': Scsi, 'thin': Thin}.get(row['kind'], Simple)
    disk = make(row, size)
    try:
        old = OLD_DATA[disk.start:disk.start + size]
        argv = ['-n', *row['convert'], '-f', form, '-O', 'raw', name,
                disk.path]
        plan = explain(lamella, argv)
        done = run(lamella, 'convert', *argv)
        check_words(row, plan, done.stderr)
        for view, now in zip(('cached', 'disk'), contents(disk.path, size)):
            check_contents(row, view, now, data, old)
        facts = disk.check(row, data)
        return dict(facts, zeroes=plan['zeroes'], limits=plan['limits'])
    finally:
        disk.remove()


def check_words(row, plan, stderr):
    """Thinness that is lost is said, in one line; nothing else is."""
    expect(row['zeroes'] in (None, plan['zeroes']), 'zeroes: %s (%s)',
           plan['zeroes'], plan['limits'])
    lost = plan['result'].startswith('fully allocated, although')
    expect(stderr.count('\n') == lost and (plan['reason'] in stderr) == lost,
           '%s\nbut on stderr: %s', plan, stderr)
    if row['zeroes']:
        expect(lost == ('says' in row) and row.get('says', '') in
               plan['reason'], '%s', plan)


def check_contents(row, view, now, data, old):
    if row.get('is_zero'):
        data = b''.join(data[at:at + BLOCK] if nonzero(data, at, at + BLOCK)
                        else old[at:at + BLOCK]
                        for at in range(0, len(data), BLOCK))
    want = data + old[len(data):]
    if now == want:
        return
    at = next(i for i in range(len(want)) if now[i] != want[i])
    raise Failure('%s: byte %d is %#x, not %#x' % (view, at, now[at],
                                                   want[at]))


def use_row(row, library):
    """What a partition, a volume manager and a file system hold."""
    lamella = ctypes.CDLL(library)

    def used(path):
        error = ctypes.create_string_buffer(4096)
        code = lamella.lam_path_in_use(path.encode(), error)
        return code, error.raw[4:].split(b'\0')[0].decode()

    disk = Scsi(dict(options=ALL.split(), on='linear'), SIZE)
    try:
        expect(used('/dev/mapper/line')[0] == 0, 'a volume nobody holds: %s',
               used('/dev/mapper/line'))
        code, text = used('/dev/sda')
        expect(code == -16 and 'sda is part of dm-' in text,
               'held by a volume: %d %s', code, text)
    finally:
        disk.remove()
    return {'says': text}


def main():
    lamella, library, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
    for row in ROWS:
        if wanted and row['name'] not in wanted:
            continue
        started = time.monotonic()
        result = {'row': row['name'], 'ok': True}
        try:
            result['facts'] = use_row(row, library) \
                if row['kind'] == 'use' else convert_row(row, lamella)
        except (Failure, OSError, subprocess.SubprocessError) as error:
            result.update(ok=False, detail=str(error))
        result['seconds'] = round(time.monotonic() - started, 1)
        print('@@ROW ' + json.dumps(result), flush=True)


if __name__ == '__main__':
    main()
