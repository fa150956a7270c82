# SPDX-License-Identifier: MIT
"""Images of every kind for the command's tests, made by a genuine version."""
import os
import shutil
import struct

from harness import KiB, MiB

# Those that every read-only command can open.
GOOD = ['empty.raw', 'zero.raw', 'odd.raw', 'mixed.raw',
        'empty.qcow2', 'v2.qcow2', 'mixed.qcow2', 'small.qcow2',
        'large.qcow2', 'subclusters.qcow2', 'deflate.qcow2', 'zstd.qcow2',
        'kinds.qcow2', 'snapshots.qcow2', 'data-file.qcow2', 'dirty.qcow2',
        'corrupt.qcow2', 'metadata.qcow2', 'punched.qcow2',
        'overlay.qcow2', 'short-base.qcow2', 'chain3.qcow2',
        'sub/relative.qcow2', 'sub/json.qcow2']
# Only a header can be read of these.
HEADER_ONLY = ['orphan.qcow2']
BROKEN_NAMES = ['missing.qcow2', 'sub']


def put(path, offset, form, value):
    with open(path, 'r+b') as image:
        image.seek(offset)
        image.write(struct.pack(form, value))


def get(path, offset, form):
    with open(path, 'rb') as image:
        image.seek(offset)
        return struct.unpack(form, image.read(struct.calcsize(form)))[0]


def edit_snapshots(path):
    """A VM state, a clock and instruction counts, which only a VM makes."""
    offset = get(path, 64, '>Q')
    put(path, offset + 16, '>I', 1700000000)
    put(path, offset + 24, '>Q', 12345678900000)
    put(path, offset + 40, '>Q', 1500 * MiB)
    put(path, offset + 56, '>Q', 2 ** 64 - 1)


def make_raw(folder):
    (folder / 'empty.raw').write_bytes(b'')
    with open(folder / 'zero.raw', 'wb') as image:
        image.truncate(4 * MiB)
    (folder / 'odd.raw').write_bytes(bytes(100000) + b'a' + bytes(100000))


def make_plain(tools, folder):
    def create(name, *args):
        tools.run('create', '-q', '-f', 'qcow2', *args, folder / name)

    def convert(name, *args):
        tools.run('convert', '-f', 'raw', '-O', 'qcow2', *args,
                  folder / 'mixed.raw', folder / name)

    tools.run('create', '-q', '-f', 'qcow2', folder / 'empty.qcow2', '1G')
    convert('v2.qcow2', '-o', 'compat=0.10')
    convert('mixed.qcow2')
    convert('small.qcow2', '-o', 'cluster_size=512')
    convert('large.qcow2', '-o', 'cluster_size=2M')
    convert('subclusters.qcow2', '-o', 'extended_l2=on')
    convert('deflate.qcow2', '-c')
    convert('zstd.qcow2', '-c', '-o', 'compression_type=zstd')
    tools.run('convert', '-f', 'raw', '-O', 'qcow2', '-o',
              'data_file=data.raw', 'mixed.raw', 'data-file.qcow2', cwd=folder)
    tools.run('create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata',
              folder / 'metadata.qcow2', '4M')
    tools.run('convert', '-S', '0', '-f', 'raw', '-O', 'qcow2',
              folder / 'zero.raw', folder / 'punched.qcow2')
    with open(folder / 'punched.qcow2', 'r+b') as image:
        image.seek(2 * MiB)
        image.truncate(2 * MiB)
        image.truncate(320 * KiB + 4 * MiB)


def make_kinds(tools, folder):
    name = folder / 'kinds.qcow2'
    tools.run('create', '-q', '-f', 'qcow2', name, '8M')
    tools.io_run(name, 'write -P 1 0 64k', 'write -P 2 128k 192k',
                 'write -z 1M 64k', 'write -P 3 2M 64k', 'write -z 2M 64k',
                 'write -P 4 2240k 10k', 'write -P 5 2176k 64k')
    tools.io_run(name, 'write -c -P 3 4M 64k', 'write -c -P 3 4160k 64k')
    for extra in ('snapshots', 'dirty', 'corrupt'):
        shutil.copy(name, folder / (extra + '.qcow2'))
    put(folder / 'dirty.qcow2', 72, '>Q', 1)
    put(folder / 'corrupt.qcow2', 72, '>Q', 2)
    name = folder / 'snapshots.qcow2'
    tools.run('snapshot', '-c', 's1', name)
    tools.run('snapshot', '-c', 'a name with blanks, and quite long', name)
    tools.run('bitmap', '--add', name, 'bm0')
    tools.run('bitmap', '--add', '-g', '1M', name, 'b 1')
    tools.run('bitmap', '--disable', name, 'bm0')
    edit_snapshots(name)


def make_chains(tools, folder):
    def overlay(name, base, form, *size):
        tools.run('create', '-q', '-f', 'qcow2', '-b', base, '-F', form, name,
                  *size, cwd=folder)

    os.mkdir(folder / 'sub')
    overlay('overlay.qcow2', 'mixed.qcow2', 'qcow2')
    tools.io_run(folder / 'overlay.qcow2', 'write -P 9 100k 300k',
                 'write -z 1M 1M', 'write -z -u 3M 64k')
    overlay('short-base.qcow2', 'odd.raw', 'raw', '1M')
    # Each layer of another size: where the chain ends depends on the offset.
    for i, size in enumerate(('1M', '512k', '2M', '1536k')):
        if i:
            overlay('chain%d.qcow2' % i, 'chain%d.qcow2' % (i - 1), 'qcow2',
                    size)
        else:
            tools.run('create', '-q', '-f', 'qcow2', folder / 'chain0.qcow2',
                      size)
    tools.io_run(folder / 'chain0.qcow2', 'write 0 64k', 'write 900k 64k')
    tools.io_run(folder / 'chain1.qcow2', 'write -z 64k 64k')
    tools.io_run(folder / 'chain2.qcow2', 'write 384k 256k')
    overlay('sub/relative.qcow2', '../mixed.raw', 'raw')
    tools.run('create', '-q', '-u', '-f', 'qcow2', '-b',
              'json:{"driver":"raw","file":{"driver":"file",'
              '"filename":"odd.raw"}}', '-F', 'raw', 'sub/json.qcow2', '1M',
              cwd=folder)
    tools.run('create', '-q', '-u', '-f', 'qcow2', '-b', 'nowhere.qcow2', '-F',
              'qcow2', 'orphan.qcow2', '1M', cwd=folder)


def first_l2(path):
    return get(path, get(path, 40, '>Q'), '>Q') & 0x00fffffffffffe00


def refblock(path):
    return get(path, get(path, 48, '>Q'), '>Q')


def make_damaged(tools, folder):
    """Images for check, by what it finds: name -> exit status."""
    base = folder / 'whole.qcow2'
    tools.run('create', '-q', '-f', 'qcow2', base, '1M')
    tools.io_run(base, 'write 0 1M')

    def damage(name, *edits):
        path = folder / name
        shutil.copy(base, path)
        # Refcounts past the end of the file are nobody's.
        os.truncate(path, 33 * 64 * KiB)
        for offset, form, value in edits:
            put(path, offset, form, value)

    block, l2 = refblock(base), first_l2(base)
    l1 = get(base, 40, '>Q')
    leak = [(block + 2 * i, '>H', 1) for i in (30, 31, 32)]
    corrupt = [(block + 2 * 5, '>H', 0)]
    damage('leak.qcow2', *leak)
    damage('refcount-zero.qcow2', *corrupt)
    damage('both.qcow2', *leak, *corrupt)
    damage('unaligned.qcow2', (l2, '>Q', get(base, l2, '>Q') | 0x600))
    damage('l1-unaligned.qcow2', (l1, '>Q', get(base, l1, '>Q') | 0x200))
    damage('l2-beyond.qcow2', (l1, '>Q', 0x8000000010000000))


DAMAGED = {'leak.qcow2': 3, 'refcount-zero.qcow2': 2, 'both.qcow2': 2,
           'unaligned.qcow2': 2, 'l1-unaligned.qcow2': 2,
           'l2-beyond.qcow2': 2}


def make_images(tools, folder):
    make_raw(folder)
    make_plain(tools, folder)
    make_kinds(tools, folder)
    make_chains(tools, folder)
    make_damaged(tools, folder)
