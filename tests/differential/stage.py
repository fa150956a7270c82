# SPDX-License-Identifier: MIT
"""The folder that every command line of this suite starts from: small images
of every kind, made by the genuine tools, with fixed names."""
import os
import shutil
import struct

from harness import KiB, MiB, random_bytes

# What an image opens besides itself.
BELOW = {
    'top.qcow2': ['mid.qcow2'], 'mid.qcow2': ['q.qcow2'],
    'onraw.qcow2': ['raw.img'], 'noformat.qcow2': ['raw.img'],
    'long.qcow2': ['half.qcow2'], 'data.qcow2': ['data.raw'],
    'rawdata.qcow2': ['data2.raw'], 'sub': ['raw.img', 'q.qcow2'],
}
# Rules for blkdebug.
RULES = {
    'read.conf': '[inject-error]\nevent = "read_aio"\n',
    'once.conf': '[inject-error]\nevent = "read_aio"\nonce = "on"\n'
                 'errno = "28"\n',
    'sector.conf': '# The second cluster of data.\n[inject-error]\n'
                   '  event = "read_aio"\n  sector = "768"\n',
    'write.conf': '[inject-error "name"]\nevent = "write_aio"\n'
                  'errno = "28"\nimmediately = "on"\nonce = "on"\n',
    'load.conf': '[inject-error]\nevent = "l2_load"\nonce = "on"\n',
    'kind.conf': '[inject-error]\nevent = "none"\niotype = "write"\n'
                 'sector = "640"\n',
    'steps.conf': '[set-state]\nevent = "read_aio"\nstate = "1"\n'
                  'new_state = "2"\n[set-state]\nevent = "read_aio"\n'
                  'state = "2"\nnew_state = "3"\n[inject-error]\n'
                  'event = "read_aio"\nstate = "3"\nonce = "on"\n',
    'two.conf': '[inject-error]\nevent = "read_aio"\nerrno = "28"\n'
                'once = "on"\n[inject-error]\nevent = "read_aio"\n'
                'errno = "5"\nonce = "yes"\n',
    'state.conf': '[inject-error]\nevent = "vmstate_load"\nonce = "on"\n'
                  '[inject-error]\nevent = "vmstate_save"\nonce = "on"\n',
    'bad-group.conf': '[nonsense]\n',
    'bad-line.conf': 'event = "read_aio"\n',
    'bad-key.conf': '[inject-error]\nevent = "read_aio"\nnew_state = "1"\n',
    'bad-event.conf': '[inject-error]\nevent = "nonsense"\n',
    'bad-number.conf': '[inject-error]\nevent = "read_aio"\nsector = "x"\n',
    'bad-bool.conf': '[inject-error]\nevent = "read_aio"\nonce = "x"\n',
    'bad-kind.conf': '[inject-error]\nevent = "read_aio"\niotype = "x"\n',
    'no-event.conf': '[set-state]\nnew_state = "2"\n',
    'no-quotes.conf': '[inject-error]\nevent = read_aio\n',
}
# Keys and certificates for TLS; good for a hundred years.
TLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir,
                   'tls')
SECRETS = {'secret.txt': b'swordfish', 'other.txt': b'other passphrase'}


def write_raw(folder):
    noise = random_bytes(7, 64 * KiB)
    with open(folder / 'raw.img', 'wb') as image:
        image.truncate(MiB)
        for offset in (0, 128 * KiB, 400 * KiB, 960 * KiB):
            image.seek(offset)
            image.write(noise)
    (folder / 'odd.raw').write_bytes(bytes(100000) + b'a' + bytes(99))
    (folder / 'empty.raw').write_bytes(b'')
    with open(folder / 'zero.raw', 'wb') as image:
        image.truncate(MiB)
    (folder / 'noise.raw').write_bytes(noise)
    (folder / 'text.txt').write_bytes(b'not an image\n')
    for name, text in RULES.items():
        (folder / name).write_text(text)


def poke(path, offset, form, value):
    with open(path, 'r+b') as image:
        image.seek(offset)
        image.write(struct.pack(form, value))


def peek(path, offset, form):
    with open(path, 'rb') as image:
        image.seek(offset)
        return struct.unpack(form, image.read(struct.calcsize(form)))[0]


def make_plain(tools, folder):
    def convert(name, *options):
        tools.run('convert', '-f', 'raw', '-O', 'qcow2', *options, 'raw.img',
                  name, cwd=folder)

    convert('q.qcow2')
    convert('same.qcow2')
    convert('v2.qcow2', '-o', 'compat=0.10')
    convert('comp.qcow2', '-c')
    convert('zstd.qcow2', '-c', '-o', 'compression_type=zstd')
    convert('ext.qcow2', '-o', 'extended_l2=on')
    convert('tiny.qcow2', '-o', 'cluster_size=512')
    convert('wide.qcow2', '-o', 'refcount_bits=64')
    convert('lazy.qcow2', '-o', 'lazy_refcounts=on')
    convert('data.qcow2', '-o', 'data_file=data.raw')
    convert('rawdata.qcow2', '-o', 'data_file=data2.raw,data_file_raw=on')
    for name, size in (('empty.qcow2', '1M'), ('half.qcow2', '512k'),
                       ('double.qcow2', '2M'), ('huge.qcow2', '1T')):
        tools.run('create', '-q', '-f', 'qcow2', name, size, cwd=folder)


def make_chains(tools, folder):
    def overlay(name, base, form='qcow2', *size):
        tools.run('create', '-q', '-f', 'qcow2', '-b', base, '-F', form, name,
                  *size, cwd=folder)

    overlay('mid.qcow2', 'q.qcow2')
    tools.io_run(folder / 'mid.qcow2', 'write -q -P 1 64k 64k',
                 'write -q -z 128k 64k')
    overlay('top.qcow2', 'mid.qcow2')
    tools.io_run(folder / 'top.qcow2', 'write -q -P 2 300k 10k')
    overlay('onraw.qcow2', 'raw.img', 'raw')
    tools.io_run(folder / 'onraw.qcow2', 'write -q -P 3 500k 10k')
    overlay('long.qcow2', 'half.qcow2', 'qcow2', '1M')
    os.mkdir(folder / 'sub')
    overlay('sub/rel.qcow2', '../raw.img', 'raw')
    overlay('noformat.qcow2', 'raw.img', 'raw')
    # The extensions end before the one that names the format.
    name = folder / 'noformat.qcow2'
    poke(name, peek(name, 100, '>I'), '>I', 0)
    for name, base in (('orphan.qcow2', 'nowhere.qcow2'),
                       ('loop.qcow2', './loop.qcow2')):
        tools.run('create', '-q', '-u', '-f', 'qcow2', '-b', base, '-F',
                  'qcow2', name, '1M', cwd=folder)


def make_states(tools, folder):
    def copy(name, *commands):
        tools.run('convert', '-f', 'raw', '-O', 'qcow2', 'raw.img', name,
                  cwd=folder)
        for command in commands:
            tools.run(*command, name, cwd=folder)

    copy('snap.qcow2', ['snapshot', '-c', 'one'], ['snapshot', '-c', 'two'])
    for snapshot, at in ((0, 16), (1, 16)):
        table = peek(folder / 'snap.qcow2', 64, '>Q')
        # The second entry begins behind the first: 40 bytes, 16 or 24 of extra
        # data, id, name; in eights.
        if snapshot:
            extra = peek(folder / 'snap.qcow2', table + 36, '>I')
            table += -(-(40 + extra + 1 + 3) // 8) * 8
        poke(folder / 'snap.qcow2', table + at, '>I', 1700000000 + snapshot)
    tools.io_run(folder / 'snap.qcow2', 'write -q -P 9 0 64k')
    copy('bm.qcow2')
    for name, options in (('b0', ()), ('b1', ('-g', '128k')),
                          ('off', ('--disable',))):
        tools.run('bitmap', '--add', *options, 'bm.qcow2', name, cwd=folder)
    tools.io_run(folder / 'bm.qcow2', 'write -q -P 9 192k 64k')


def make_damaged(tools, folder):
    for name in ('leak.qcow2', 'corrupt.qcow2', 'flagged.qcow2'):
        tools.run('create', '-q', '-f', 'qcow2', name, '1M', cwd=folder)
        tools.io_run(folder / name, 'write -q -P 5 0 256k')
    block = peek(folder / 'leak.qcow2', peek(folder / 'leak.qcow2', 48, '>Q'),
                 '>Q')
    with open(folder / 'leak.qcow2', 'r+b') as image:
        image.truncate(16 * 64 * KiB)
    poke(folder / 'leak.qcow2', block + 2 * 12, '>H', 1)
    poke(folder / 'corrupt.qcow2', block + 2 * 5, '>H', 0)
    poke(folder / 'flagged.qcow2', 72, '>Q', 2)
    (folder / 'badmagic.qcow2').write_bytes(b'QFI\xfa' + bytes(1020))
    data = bytearray((folder / 'empty.qcow2').read_bytes())
    data[4:8] = struct.pack('>I', 4)
    (folder / 'version4.qcow2').write_bytes(data)
    data[4:8] = struct.pack('>I', 3)
    data[20:24] = struct.pack('>I', 30)
    (folder / 'clusterbits.qcow2').write_bytes(data)
    (folder / 'short.qcow2').write_bytes(data[:100])


def make_encrypted(tools, folder):
    for name, content in SECRETS.items():
        (folder / name).write_bytes(content)
    shutil.copytree(TLS, folder / 'tls')
    secret = ['--object', 'secret,id=s,file=secret.txt']
    options = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10'
    tools.run('create', '-q', *secret, '-f', 'qcow2', '-o', options,
              'luks.qcow2', '1M', cwd=folder)
    tools.run('create', '-q', *secret, '-f', 'luks', '-o',
              'key-secret=s,iter-time=10', 'luks.img', '1M', cwd=folder)


def make_stage(tools, folder):
    write_raw(folder)
    make_plain(tools, folder)
    make_chains(tools, folder)
    make_states(tools, folder)
    make_damaged(tools, folder)
    make_encrypted(tools, folder)


def needed(line, stage):
    """What is on stage and named in the line, and what stands below it."""
    names = [name for name in sorted(os.listdir(stage))
             if name in line or name == 'sub']
    for name in names:
        names += [below for below in BELOW.get(name, ())
                  if below not in names]
    return names
