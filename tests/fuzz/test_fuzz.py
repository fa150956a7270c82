# SPDX-License-Identifier: MIT
"""Each fuzz target, seeded with small real images.

A number of runs from a given seed, so that one machine finds what another
does; with FUZZ_SECONDS, for so long instead, and FUZZ_SEED sets where to begin.
A find is kept in the build directory and named in the failure; it then becomes
a case in tests/image.
"""
import os
import random
import shutil
import subprocess
import zlib

import pytest

from foreign_files import bochs, cloop, dmg
from harness import GENUINE, build_dir, our_tools, pytest_fail
from mutate import mutate

SECONDS = int(os.environ.get('FUZZ_SECONDS', '0'))
SEED = int(os.environ.get('FUZZ_SEED', '1'))

# Options of create, then commands of qemu-io: small images with everything.
IMAGES = {
    'v2': ('compat=0.10,cluster_size=512', [
        'write 0 1k', 'write -c 4k 512', 'write -P 0 8k 512']),
    'v3': ('cluster_size=512', [
        'write 0 1k', 'write -z 2k 1k', 'write -c 4k 512', 'write 6k 512',
        'write -z 6k 512', 'discard 0 512']),
    '4k': ('cluster_size=4k,refcount_bits=1', ['write 0 12k', 'write -z 4k 4k',
                                               'write -c 32k 4k']),
    'zstd': ('cluster_size=1k,compression_type=zstd', [
        'write -c 0 1k', 'write -c 1k 1k', 'write 3k 100']),
    'extended': ('cluster_size=16k,extended_l2=on', [
        'write 512 512', 'write -z 4k 2k', 'write -c 32k 16k',
        'write 100k 1k']),
    'refcount64': ('cluster_size=512,refcount_bits=64', ['write 0 4k']),
    'backing': ('cluster_size=512', ['write 0 512']),
    'snapshot': ('cluster_size=512', ['write 0 2k']),
    'bitmap': ('cluster_size=512', ['write 0 2k']),
    'empty': ('cluster_size=512', []),
}

# For fuzz-change.c, with the names and the passphrase that it knows: options,
# cluster size, has bitmaps.
RICH = {
    '512': ('cluster_size=512', 512, True),
    '512-v2': ('cluster_size=512,compat=0.10', 512, False),
    '4k-zstd': ('cluster_size=4k,compression_type=zstd,refcount_bits=4', 4096,
                False),
    'extended': ('cluster_size=16k,extended_l2=on', 16384, True),
    'aes': ('cluster_size=512,encrypt.format=aes,encrypt.key-secret=s', 512,
            True),
    'aes-extended': ('cluster_size=16k,extended_l2=on,encrypt.format=aes,'
                     'encrypt.key-secret=s', 16384, False),
    'data': ('cluster_size=4k,data_file=%s', 4096, True),
    'data-raw': ('cluster_size=4k,data_file=%s,data_file_raw=on', 4096, False),
}
# Whose keys take long to derive.
SLOW = {
    'luks': ('cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s,encrypt.'
             'iter-time=1,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc',
             4096, True),
}
if SECONDS:
    RICH.update(SLOW)
MUTANTS = 20        # of each, and of each of IMAGES a quarter


# As fuzz-formats.c has them.
FORMATS = ['vdi', 'parallels', 'qed', 'qcow', 'bochs', 'cloop', 'dmg', 'vmdk']
# Targets, and how many changed inputs each runs besides: one or two seconds.
TARGETS = {'header': 10000, 'l2': 8000, 'image': 1500, 'tables': 4000,
           'luks': 8000, 'vhd': 60, 'formats': 4000, 'change': 300,
           'inflate': 8000, 'names': 10000, 'journal': 5000, 'chain': 3000}


def call(*argv):
    subprocess.run([str(arg) for arg in argv], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def make_image(tools, path, name, options, commands):
    backing = ['-u', '-b', 'base.raw', '-F', 'raw'] if name == 'backing' \
        else []
    call(*tools.img, 'create', '-q', '-f', 'qcow2', '-o', options, *backing,
         path, '200k')
    argv = [word for command in commands for word in ('-c', command)]
    if argv and not backing:
        call(*tools.io, '-f', 'qcow2', '-d', 'unmap', *argv, path)
    if tools in GENUINE and name == 'snapshot':
        call(*tools.img, 'snapshot', '-c', 'one', path)
        call(*tools.io, '-f', 'qcow2', '-c', 'write 0 512', path)
    if tools in GENUINE and name == 'bitmap':
        call(*tools.img, 'bitmap', '--add', '-g', '512', path, 'one')


@pytest.fixture(scope='session')
def corpus(tmp_path_factory):
    """A folder a target."""
    top = tmp_path_factory.mktemp('corpus')
    tools = GENUINE[-1] if GENUINE else our_tools(build_dir())
    for target in TARGETS:
        (top / target).mkdir()
    for name, (options, commands) in IMAGES.items():
        path = top / 'image' / name
        make_image(tools, path, name, options, commands)
        content = path.read_bytes()
        (top / 'header' / name).write_bytes(content[:4096])
        for bits in (0x00, 0x03, 0x80):
            (top / 'l2' / ('%s-%x' % (name, bits))).write_bytes(
                bytes([bits, 1, 0, 0, 0, 0]) + content[1024:6144])
        for field in (64, 136):         # snapshot table, bitmap directory
            at = int.from_bytes(content[field:field + 8], 'big')
            if 0 < at < len(content):
                (top / 'tables' / ('%s-%d' % (name, field))).write_bytes(
                    b'\x02\x01' + content[at:at + 2048])
    make_changes(top)
    make_luks(tools, top / 'luks')
    make_vhd(top / 'vhd')
    make_formats(top / 'formats')
    make_streams(top / 'inflate')
    make_texts(top)
    make_chains(tools, top / 'chain')
    return top


NAMES = [
    (0, '{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}'),
    (0, '{"file.filename":"x","lazy-refcounts":true,"l2-cache-size":65536}'),
    (0, "{'driver':'raw','offset':512,'size':\"1k\",'file':{'driver':'nbd',"
        "'server':{'type':'inet','host':'h','port':'10809'},'export':'e'}}"),
    (0, '{"driver":"quorum","vote-threshold":2,"children":[{"file":{"filename"'
        ':"a"}},{"file":{"filename":"b"}},null]}'),
    (0, '{"a":[1,2.5e3,-7,true,false,null,"\\ud83d\\ude00\\n"],"b":{}}'),
    (0, '{"file":' * 40 + '{"filename":"deep"}' + '}' * 40),
    (1, 'driver=qcow2,file.driver=file,file.filename=a,,b,backing=,discard=unmap'),
    (1, 'file.driver=blkdebug,file.image.filename=x,read-only=on,cache.direct=off'),
    (1, 'a.raw,size=1T,offset=1M,nolock,detect-zeroes=unmap'),
    (1, 'driver=luks,key-secret=s,encrypt.format=luks,throttle-group=g'),
    (2, 'nbd://host:1/e'), (2, 'file:a:b'), (2, 'fat:rw:dir'), (2, 'a/b:c'),
    (2, 'json:{"filename":"json:{}"}'), (2, 'blkdebug:conf:image'),
]


def make_texts(top):
    for number, (way, text) in enumerate(NAMES):
        (top / 'names' / str(number)).write_bytes(
            bytes([way]) + text.encode())
    lines = ['', 'done 4096', 'done 4096 #00000000\n', 'done 65536 #0\n',
             'lamella-journal 1 #00000000\n', 'done -1 #12345678\n']
    for line in ('done 0', 'done 4096', 'done 65536', 'done 65537',
                 'done 18446744073709551615', 'done 99999999999999999999999'):
        total = 2166136261
        for char in line.encode():
            total = (total ^ char) * 16777619 % (1 << 32)
        lines.append('%s #%08x\n' % (line, total))
    for number, line in enumerate(lines):
        for mode in range(4):
            (top / 'journal' / ('%d-%d' % (number, mode))).write_bytes(
                bytes([mode]) + line.encode())


def make_chains(tools, folder):
    """Overlays of files beside them and elsewhere, in every spelling."""
    for number, name in enumerate((
            'base.raw', './base.raw', '../secret', '/etc/hostname', 'top',
            'file:secret', 'json:{"file.filename":"secret"}', '..//secret',
            'json:{"driver":"raw","file":{"driver":"file","filename":'
            '"../secret"}}', 'nbd:unix:/none', 'base.raw/../../secret')):
        for fmt in ('raw', 'qcow2'):
            path = folder / ('%d-%s' % (number, fmt))
            call(*tools.img, 'create', '-q', '-f', 'qcow2', '-u', '-o',
                 'cluster_size=512', '-b', name, '-F', fmt, path, '8k')
    path = folder / 'data'
    call(*tools.img, 'create', '-q', '-f', 'qcow2', '-o',
         'cluster_size=4k,data_file=%s' % (folder / 'd.raw'), path, '8k')
    content = path.read_bytes()
    for number, name in enumerate((b'd.raw', b'../secret', b'/dev/null')):
        old = str(folder / 'd.raw').encode()
        if len(name) <= len(old) and old in content:
            (folder / ('data-%d' % number)).write_bytes(
                content.replace(old, name.ljust(len(old), b'\0')))
    (folder / 'd.raw').unlink()


def make_streams(folder):
    """Deflate streams, of which all is wanted, or not all."""
    content = {'noise': random.Random(1).randbytes(3000), 'same': b'a' * 40000,
               'words': b' '.join(b'%d' % (n * n) for n in range(1500))}
    for name, plain in content.items():
        for level in (0, 1, 9):
            for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED):
                deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 9,
                                           strategy)
                stream = deflate.compress(plain) + deflate.flush()
                wanted = len(plain) * (level + 1) // 10
                (folder / ('%s-%d-%d' % (name, level, strategy))).write_bytes(
                    wanted.to_bytes(2, 'little') + b'\xff' + stream)


def make_rich(tools, path, options, cluster, bitmaps):
    """Two snapshots and two bitmaps; clusters of every kind."""
    secret, opened = [], ['-f', 'qcow2', path]
    if 'encrypt.' in options:
        secret = ['--object', 'secret,id=s,data=fuzz']
        opened = ['--image-opts', 'driver=qcow2,encrypt.key-secret=s,file.'
                  'filename=%s' % path]
    packed = '' if secret or 'data_file' in options else '-c'

    def io(*commands):
        words = [word for command in commands for word in ('-c', command)]
        call(*tools.io, *secret, *words, *opened)

    def snapshot(name):
        if 'data_file' not in options:      # where there can be none
            call(*tools.img, 'snapshot', *secret, '-c', name, *opened)

    if '%s' in options:
        options %= str(path) + '.data'
    call(*tools.img, 'create', '-q', *secret, '-f', 'qcow2', '-o', options,
         path, '384k')
    io('write -P 1 0 %d' % (4 * cluster),
       'write %s -P 2 %d %d' % (packed, 4 * cluster, cluster),
       'write -z %d %d' % (7 * cluster, cluster))
    snapshot('one')
    io('write -P 3 %d 700' % (cluster + 300),
       'write %s -P 4 %d %d' % (packed, 4 * cluster, cluster))
    snapshot('two')
    io('write -P 5 %d %d' % (20 * cluster, cluster))
    for name in ('one', 'two') if bitmaps else ():
        call(*tools.img, 'bitmap', *secret, '--add', '-g', '4k', *opened, name)
    io('write -P 6 %d %d' % (3 * cluster, cluster))
    if 'data_file' in options:
        os.unlink(str(path) + '.data')


def make_changes(top):
    """Sound images, and mutants of them."""
    tools, sound = our_tools(build_dir()), {}
    for name, kind in RICH.items():
        make_rich(tools, top / 'change' / name, *kind)
        sound[name] = MUTANTS
    for name in IMAGES:
        shutil.copyfile(top / 'image' / name, top / 'change' / ('i-' + name))
        sound['i-' + name] = MUTANTS // 4
    for name, count in sound.items():
        content = (top / 'change' / name).read_bytes()
        for seed in range(SEED * 1000, SEED * 1000 + count):
            (top / 'change' / ('%s-%d' % (name, seed))).write_bytes(
                mutate(content, seed)[0])


def make_formats(folder):
    """Small images; the first byte says which format, and whether to write."""
    tools = our_tools(build_dir())
    disk = bytes(range(256)) * 8 + bytes(30000)
    made = {'bochs': bochs(disk, 4096), 'cloop': cloop(disk, 4096),
            'dmg': dmg(disk, ('zlib', 'raw', 'adc'), 4096)}
    for fmt, options in (('vdi', []), ('parallels', ['cluster_size=4k']),
                         ('qed', ['cluster_size=4k,table_size=1']),
                         ('qcow', []), ('vmdk', ['subformat=streamOptimized'])):
        source, path = folder / 'source', folder / 'image'
        source.write_bytes(disk)
        done = subprocess.run(
            [*tools.img, 'convert', '-f', 'raw', '-O', fmt,
             *(word for o in options for word in ('-o', o)), source, path],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode == 0:        # the build may lack it
            made[fmt] = path.read_bytes()[:65000]
            path.unlink()
        source.unlink()
    for fmt, content in made.items():
        for flag in (0, 0x80):
            (folder / ('%s-%d' % (fmt, flag))).write_bytes(
                bytes([FORMATS.index(fmt) | flag]) + content)


def make_vhd(folder):
    """Changes of a sound file: kind, then where, how many bytes, and these."""
    places = {1: (16, 24, 48, 64, 528, 544, 1536, 1540),
              0: (8, 72, 96, 216, 232, 288, 16784, 16880, 17104),
              2: (344, 356, 376, 408, 4440, 8536, 8600)}
    for kind, offsets in places.items():
        for at in offsets:
            change = at.to_bytes(2, 'little') + b'\x08' + bytes(8)
            (folder / ('%d-%d' % (kind, at))).write_bytes(
                bytes([kind]) + change)


def make_luks(tools, folder):
    """As the library makes them, or not at all: it may lack encryption."""
    for name, options in (('xts', ''), ('cbc', ',cipher-mode=cbc,'
                                        'ivgen-alg=essiv,hash-alg=sha1')):
        path = folder / name
        done = subprocess.run(
            [*tools.img, 'create', '-q', '--object',
             'secret,id=s0,data=swordfish', '-f', 'luks', '-o',
             'key-secret=s0,iter-time=1' + options, path, '64k'],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode == 0:
            path.write_bytes(path.read_bytes()[:8192])
        else:
            path.write_bytes(b'LUKS\xba\xbe\0\1' + bytes(600))


def binary(target):
    folder = os.environ.get('LAMELLA_FUZZ_BUILD')
    if not folder:
        pytest.skip('no fuzz build (LAMELLA_FUZZ_BUILD is not set)')
    return os.path.join(folder, 'tests', 'fuzz', 'fuzz-' + target)


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize('target', TARGETS)
def test_fuzz(target, corpus, tmp_path):
    env = dict(os.environ)
    # A hostile file must not get far with a request for gigabytes.
    env['ASAN_OPTIONS'] = env.get('ASAN_OPTIONS', '') + \
        ':allocator_may_return_null=1:max_allocation_size_mb=512'
    found = tmp_path / 'corpus'
    found.mkdir()
    how_long = '-max_total_time=%d' % SECONDS if SECONDS else '-runs=%d' % (
        len(os.listdir(corpus / target)) + TARGETS[target])
    done = subprocess.run(
        [binary(target), how_long, '-seed=%d' % SEED,
         '-max_len=65536', '-rss_limit_mb=0', '-timeout=20', found,
         corpus / target], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors='replace', timeout=SECONDS + 240)
    if done.returncode:
        kept = keep_find(target, tmp_path)
        pytest_fail('seed %d: exit status %d; the input is %s\n%s' % (
            SEED, done.returncode, kept, done.stdout[-4000:]))


def keep_find(target, folder):
    """The input that failed, where it outlives the test."""
    for name in sorted(os.listdir(folder)):
        if name == 'fuzz-input' or name.startswith(('crash-', 'timeout-',
                                                    'leak-', 'oom-')):
            kept = os.path.join(os.environ['LAMELLA_FUZZ_BUILD'],
                                'find-%s-%s' % (target, name))
            shutil.copyfile(folder / name, kept)
            return kept
    return '(not found)'
