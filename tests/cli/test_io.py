# SPDX-License-Identifier: MIT
"""`lamella io` beside the genuine qemu-io: the same script, the same words.

Each case runs in two directories with equal files, once by each program.
Standard output (without the clock's figures), standard error and the exit
status must be the same, and afterwards the images must be, too.
"""
import os
import random
import re
import shutil
import subprocess

import pytest

from harness import KiB, MiB, run

RAW = ['-f', 'raw']
QCOW2 = ['-f', 'qcow2']

# name, options, commands, image
CASES = [
    # reading
    ('read', RAW, ['read 0 64k', 'read 3 5', 'r 0 0x200', 'read 1M 0'],
     'raw'),
    ('read-forms', RAW, ['read -q 0 4k', 'read -C 0 4k', 'read -a 0 1', 'read -p 0 1'],
     'raw'),
    ('read-dump', RAW, ['read -v 0 300', 'read -v 7 9', 'read -qv 0 20',
                        'read -Cv 0 3', 'read -v 0 0', 'readv -v 0 3 5'],
     'raw'),
    ('read-dump-far', RAW, ['truncate 8G', 'read -v 5000000001 3'], 'raw'),
    ('read-pattern', RAW, ['read -P 0 512k 64k', 'read -P 1 512k 64k',
                           'read -P 1 -q 0 1', 'read -C -P 0x7f 0 1',
                           'read -P 010 0 1', 'read -P 1 0 0'], 'raw'),
    ('read-pattern-part', RAW,
     ['read -P 1 -s 4k 0 8k', 'read -P 1 -l 5 0 8k', 'read -P 0 -s 3 -l 5 0 8k',
      'read -P 1 -s 8k 0 8k', 'read -P 1 -s 9k 0 8k', 'read -P 1 -l 9k 0 8k',
      'read -P 1 -s 1k -l 8k 0 8k', 'read -s 1 0 8k', 'read -l 1 0 8k'], 'raw'),
    ('read-wrong-pattern', RAW,
     ['read -P 256 0 1', 'read -P -1 0 1', 'read -P x 0 1', 'read -P 1x 0 1'],
     'raw'),
    ('read-beyond', RAW, ['read 1M 1', 'read 1048575 2', 'read 2M 0',
                          'readv 2M 1', 'read -q 2M 1'], 'raw'),
    ('read-too-long', RAW, ['read 0 2G', 'read 0 2147483137', 'readv 0 1G 1G',
                            'readv 0 3G', 'readv 0 1 3G'], 'raw'),
    ('read-arguments', RAW, ['read', 'read 0', 'read 0 1 2', 'read -Z 0 1',
                             'read a 1', 'read 0 b', 'r -Z', 'read 0 -1',
                             'readv 0', 'readv 0 x', 'readv -l 1 0 1',
                             'read -P', 'r 0 1 1', 'read -l x 0 1'], 'raw'),
    ('read-sectors', RAW, ['read -b 1 512', 'read -b 0 1', 'read -b 0 512'],
     'raw'),
    ('readv', RAW, ['readv 0 64k 1k 3', 'readv -P 1 0 5 5', 'readv -q 0 1',
                    'readv -C 0 1', 'readv 0 0'], 'raw'),

    # writing
    ('write', RAW, ['write 0 64k', 'write -P 7 3 5', 'w 1M 0',
                    'write -C 0 1', 'write -q 0 1', 'write -p 5k 3',
                    'write -f 0 512', 'write -f -z 512 512', 'read -v 0 16'],
     'raw'),
    ('write-zeroes', RAW, ['write -P 1 0 256k', 'write -z 0 64k',
                           'write -zu 64k 64k', 'write -z -n 130k 3',
                           'write -z 0 0'], 'raw'),
    ('write-file', RAW, ['write -s pattern 0 20', 'read -v 0 24',
                         'write -s pattern 4k 3', 'write -s empty 0 4',
                         'write -s missing 0 4', 'write -s pattern 0 0'],
     'raw'),
    ('write-contradictions', RAW,
     ['write -n 0 1', 'write -u 0 1', 'write -z -P 1 0 1',
      'write -s pattern -P 1 0 1', 'write -z -s pattern 0 1',
      'write -f -b 0 512', 'write -f -c 0 512', 'write -b -z 0 512',
      'write -f -b -z 0 512', 'write -n -u 0 1', 'write -n a b',
      'write -P 300 -n a 1', 'write -u -P 1 -s x 0 1'], 'raw'),
    ('write-arguments', RAW, ['write', 'write 0', 'write 0 1 2', 'write -Z 0 1',
                              'write a 1', 'write 0 b', 'write -n 0 1 1',
                              'write 0 2G', 'write -z 0 2G', 'write 1M 1',
                              'write -z 1M 1', 'write -z -n 0 8E',
                              'write -s missing 0 3G', 'write -c a 1'], 'raw'),
    ('write-sectors', RAW, ['write -c 1 512', 'write -c 0 1', 'write -b 1 512',
                            'write -c 0 512'], 'raw'),
    ('writev', RAW, ['writev 0 64k 1k 3', 'writev -P 1 0 5 5', 'writev -f 0 1',
                     'writev -z 0 1', 'writev 0 1 x', 'writev 0 1G 1G',
                     'writev 2M 1', 'writev -q 0 1', 'writev -C 0 1'], 'raw'),
    ('discard', RAW, ['write 0 1M', 'discard 0 64k', 'd -C 64k 64k',
                      'discard -q 128k 4k', 'discard 0', 'discard 1M 1',
                      'discard 0 3G', 'discard a 1', 'discard 0 0',
                      'discard -x 0 1', 'discard 0 1 1'], 'raw'),
    ('discard-ignored', RAW + ['-d', 'ignore'],
     ['write 0 128k', 'discard 0 64k', 'read -P 0xcd 0 64k'], 'raw'),

    # asynchronous, one at a time so that the order is known
    ('aio', RAW, ['aio_write 0 64k', 'aio_flush', 'aio_write -P 3 1 2 3',
                  'aio_flush', 'aio_read -v 0 16', 'aio_flush',
                  'aio_read -P 9 0 4', 'aio_flush', 'aio_read -q 0 3',
                  'aio_flush', 'aio_write -f 0 512', 'aio_flush'], 'raw'),
    ('aio-ends-with-the-script', RAW, ['aio_write 0 1M'], 'raw'),
    ('aio-close', RAW, ['aio_write 0 1M', 'close'], 'raw'),
    ('aio-quit', RAW, ['aio_write 0 1M', 'quit', 'length'], 'raw'),
    ('aio-failing', RAW, ['aio_read 2M 1', 'aio_flush', 'aio_write 2M 1',
                          'aio_flush', 'aio_write -z 0 2M', 'aio_flush'],
     'raw'),
    ('aio-invalid', RAW, ['aio_read -i 0 1', 'aio_read -i x y',
                          'aio_write -i 0 1', 'aio_write -z -i 0 1'], 'raw'),
    ('aio-arguments', RAW,
     ['aio_write 0 1G 1G', 'aio_read 0 1G 1G', 'aio_write 0', 'aio_read 0',
      'aio_write -x 0 1', 'aio_read -x 1 2', 'aio_write a 1', 'aio_write 0 b',
      'aio_read a 1', 'aio_read 0 b', 'aio_read -P 256 0 1',
      'aio_write -P 256 0 1', 'aio_read -z 0 1', 'aio_write -z 0 1 1',
      'aio_write -u 0 1', 'aio_write -u a 1', 'aio_write -z a 1',
      'aio_flush x'], 'raw'),

    # numbers
    ('numbers', RAW, ['alloc ' + text for text in (
        '0', '5', '08', '1k', '1K', '1.5k', '1.', '1.k', '0x10', '0X10', '+5',
        '1b', '1B', '1t', '1P', '1e', '7E', '9223372036854775807',
        '9223372036854775808', '99999999999999999999', '8E', '16777216T',
        '1kk', '1Ki', '1MB', '1e3', '1.5', '0.5', '0x', 'k', 'inf', 'nan',
        '0x1.8', '1,5', '1.0001k', '"0"')], 'raw'),

    # the image as a whole
    ('length', RAW, ['length', 'l', 'length x'], 'raw'),
    ('raw-whole', RAW, ['info', 'i', 'map', 'alloc 0', 'alloc 0 64k',
                        'alloc 512 1000', 'alloc 1M 1', 'alloc 0 2M', 'alloc',
                        'alloc a', 'alloc 0 a', 'a 0', 'flush', 'f',
                        'flush x'], 'raw'),
    ('empty', RAW, ['length', 'info', 'map', 'alloc 0', 'read 0 0', 'read 0 1',
                    'truncate 3', 'length', 'map'], 'empty'),
    ('truncate', RAW, ['truncate 2M', 'length', 't 1M', 'length',
                       'truncate -m off 3M', 'truncate -m falloc 4M',
                       'truncate -m full 5M', 'length', 'truncate -m foo 6M',
                       'truncate', 'truncate a', 'truncate 1000', 'length',
                       'truncate -m metadata 7M', 'truncate 8E', 'length'],
     'raw'),
    ('qcow2-whole', QCOW2, ['info', 'length', 'map', 'write 0 1', 'map',
                            'write -z 128k 64k', 'map', 'alloc 0',
                            'alloc 64k 64k', 'alloc 0 1M', 'alloc 1000'],
     'qcow2'),
    ('qcow2-old', QCOW2, ['info', 'length', 'map', 'write 0 3000', 'map'],
     'old'),
    ('qcow2-extended', QCOW2, ['info', 'write 1M 4k', 'map', 'alloc 0 4M'],
     'extended'),
    ('qcow2-data-file', QCOW2, ['info', 'write -P 4 0 64k', 'read -P 4 0 64k',
                                'map'], 'data-file'),
    ('qcow2-bitmap', QCOW2 + ['-r'], ['info'], 'bitmap'),
    ('qcow2-large', QCOW2, ['info', 'map', 'alloc 0 5G', 'write 3G 64k', 'map',
                            'alloc 0 5G', 'alloc 4G 1'], 'large'),
    ('overlay', QCOW2, ['map', 'read -P 0x11 0 64k', 'write -P 2 70000 10',
                        'map', 'read -P 2 70000 10', 'read -P 0x11 65536 4464',
                        'read -P 0x11 70010 61062', 'alloc 0 1M'], 'overlay'),
    ('overlay-copy-on-read', QCOW2 + ['-C'],
     ['read -P 0x11 100k 1', 'map', 'read -v 300000 20', 'map'], 'overlay'),
    ('qcow2-compressed', QCOW2,
     ['write -c -P 5 0 64k', 'write -c 128k 1000', 'write -c 4k 64k',
      'write -c 960k 64k', 'read -P 5 0 64k', 'write -P 6 100 5',
      'read -P 5 105 65431', 'map', 'write -c 0 0'], 'qcow2'),
    ('qcow2-zero', QCOW2,
     ['write -P 9 0 256k', 'write -z 0 64k', 'write -zu 64k 64k',
      'write -z -n 128k 64k', 'write -z 200000 10', 'discard 192k 64k',
      'read -P 0 0 192k', 'map', 'write -z -c 512k 64k'], 'qcow2'),
    ('qcow2-truncate', QCOW2,
     ['write 0 1M', 'truncate 2M', 'length', 'truncate -m full 3M', 'length',
      'map', 'truncate 1000'], 'qcow2'),

    # the language
    ('unknown', RAW, ['foo', 'length', 'len', 'm', 's', 'h', 'rv 0 1'], 'raw'),
    ('blanks', RAW, ['', '   length  ', 'read  0   1 ', 'read\t0\t1'], 'raw'),
    ('quit', RAW, ['quit 1 2', 'length'], 'raw'),
    ('counts', RAW, ['o', 'd', 't', 'help read foo', 'sleep', 'sleep 1 2',
                     'sigraise', 'abort 3', 'truncate 1 2 3 4'], 'raw'),
    ('help', RAW, ['help foo', 'help flush', 'help q', 'help ?'], 'raw'),
    ('sleep', RAW, ['sleep 1', 'sleep a', 'sleep -1', 'sleep 0x1'], 'raw'),
    ('sigraise-wrong', RAW, ['sigraise a', 'sigraise 99', 'sigraise 0'], 'raw'),
    ('sigraise', RAW, ['length', 'sigraise 15', 'length'], 'raw'),
    ('abort', RAW, ['abort', 'length'], 'raw'),

    # opening
    ('nothing-open', [], ['length', 'read 0 1', 'flush', 'map', 'info',
                          'alloc 0', 'truncate 5', 'aio_flush', 'discard 0 1',
                          'close', 'reopen', 'sleep 1', 'read'], None),
    ('missing', [], ['length'], 'missing'),
    ('missing-open', [], ['open missing', 'length', 'open raw', 'length'],
     None),
    ('read-only', RAW + ['-r'],
     ['read 0 1', 'write 0 1', 'write', 'discard 0 1', 'truncate 5',
      'aio_write 0 1', 'writev 0 1', 'flush', 'reopen -w', 'write 0 1'],
     'raw'),
    ('open', RAW, ['open raw', 'close', 'close', 'open -r -o driver=raw raw',
                   'write 0 1', 'close', 'open -n -o driver=raw raw',
                   'write 0 1', 'close', 'open -x raw', 'open raw qcow2',
                   'open', 'open -t foo raw', 'open -d foo raw',
                   'open -i foo raw', 'open -r -n -t foo raw', 'length'],
     'raw'),
    ('open-mistakes', [], ['open -U -o driver=raw raw', 'open -k raw',
                           'open -C -r -o driver=raw raw',
                           'open -o driver=foo raw',
                           'open -o driver=qcow2 raw'], None),
    ('open-options', [], ['open -o driver=raw,file.filename=raw', 'length',
                          'close', 'open -o driver=qcow2,file.driver=file,'
                          'file.filename=qcow2', 'length', 'close'], None),
    ('reopen', RAW, ['reopen', 'reopen -r', 'write 0 1', 'reopen -w',
                     'write 0 1', 'reopen -c none', 'read 0 3',
                     'reopen -r -w', 'reopen -c foo', 'reopen x', 'reopen -z',
                     'reopen -o foo=1'], 'raw'),
    ('snapshot', QCOW2 + ['-s'], ['write 0 64k', 'map', 'read -P 0xcd 0 64k'],
     'qcow2'),
    ('snapshot-raw', RAW + ['-s'], ['write 0 64k', 'read -P 0xcd 0 64k'],
     'raw'),
    ('snapshot-chain', QCOW2 + ['-s'],
     ['write 0 1', 'read -P 0x11 1 65535', 'read -v 0 16'], 'overlay'),
    ('guessed-raw', [], ['write 0 512', 'write 512 512'], 'raw'),
    ('guessed-raw-read-only', ['-r'], ['length'], 'raw'),
    ('guessed-raw-magic', [], ['write -s magic 0 512', 'read -v 0 16',
                               'write -s magic 512 512', 'length'], 'raw'),
    ('guessed-qcow2', [], ['info', 'write 0 1'], 'qcow2'),
    ('formats-wrong', QCOW2, ['length'], 'raw'),
    ('formats-unknown', ['-f', 'foo'], ['length'], 'raw'),
    ('misalign', RAW + ['-m', '-n'], ['write 0 64k', 'read -P 0xcd 0 64k'],
     'raw'),
    ('force-share', RAW + ['-U', '-r'], ['length'], 'raw'),
    ('force-share-writing', RAW + ['-U'], ['length'], 'raw'),
    ('native-cached', RAW + ['-k'], ['length'], 'raw'),
    ('native', RAW + ['-i', 'native', '-n'], ['read 0 512'], 'raw'),
    ('cor-read-only', QCOW2 + ['-C', '-r'], ['length'], 'overlay'),
    ('option-values', ['-t', 'foo'], ['length'], 'raw'),
    ('option-discard', ['-d', 'foo'], ['length'], 'raw'),
    ('option-aio', ['-i', 'foo'], ['length'], 'raw'),
    ('image-opts-and-format', ['--image-opts', '-f', 'raw'], ['length'],
     'driver=raw,file.filename=raw'),
    ('image-opts', ['--image-opts'], ['length', 'write 0 1'],
     'driver=raw,file.filename=raw'),
    ('image-opts-read-only', ['--image-opts'], ['length'],
     'driver=raw,read-only=on,file.filename=raw'),
    ('image-opts-wrong', ['--image-opts'], ['length'],
     'driver=qcow2,file.filename=raw'),
    ('open-read-only', [], ['open -o read-only=on raw', 'length'], None),
    ('json', [], ['length'],
     'json:{"driver":"raw","file":{"driver":"file","filename":"raw"}}'),
] + [('cache-' + mode, RAW + ['-t', mode],
      ['write 3 70000', 'read -P 0xcd 3 70000', 'write -z 100 5000',
       'flush'], 'raw')
     for mode in ('none', 'writeback', 'writethrough', 'directsync', 'unsafe')]

TYPED = [
    ('typed', 'length\nread 0 1\n\n   \nfoo\nread\nquit\nlength\n'),
    ('typed-no-newline', 'length'),
    ('typed-nothing', ''),
    ('typed-failing', 'read 2M 3\nlength\n'),
    ('typed-quit', 'q 1\nlength\n'),
    ('typed-abort', 'write 0 1\nabort\n'),
]


# What the clock decides, in the form that it must have.
FIGURES = re.compile(
    r'(\d\d\.\d\d sec|\d+:\d\d:\d\d\.\d\d) '
    r'\((\d+(\.\d{3})? [KMGTPE]iB|\d+(\.\d{6})? bytes)/sec '
    r'and \d+\.\d{4} ops/sec\)$', re.MULTILINE)
CONDENSED = re.compile(r',1,\d+:\d\d:\d\d\.\d\d,\d+\.\d{3},\d+\.\d{3}$',
                       re.MULTILINE)


def make_files(folder, genuine):
    """What the cases read and write; the same in every folder."""
    os.makedirs(folder)
    data = bytes(range(256)) * 8
    with open(folder / 'raw', 'wb') as raw:
        raw.write(data)
        raw.truncate(MiB)
    for name, text in (('pattern', b'hello\n'), ('empty', b''),
                       ('magic', b'QFI\xfb')):
        (folder / name).write_bytes(text)

    def create(*args):
        genuine.run('create', '-q', '-f', 'qcow2', *args, cwd=folder)
    create('qcow2', '1M')
    create('-o', 'compat=0.10,cluster_size=4k', 'old', '3000')
    create('-o', 'extended_l2=on,compression_type=zstd', 'extended', '4M')
    create('-o', 'data_file=data,data_file_raw=on', 'data-file', '1M')
    create('bitmap', '1M')
    genuine.run('bitmap', '--add', 'bitmap', 'b0', cwd=folder)
    genuine.run('bitmap', '--add', '--disable', '-g', '32k', 'bitmap', 'b1',
                cwd=folder)
    create('large', '5G')
    create('base', '1M')
    genuine.io_run('base', 'write -P 0x11 0 256k', cwd=folder)
    create('-b', 'base', '-F', 'qcow2', 'overlay')


def outcome(program, folder, options, commands, image, typed=None):
    argv = [*program, *options]
    for command in commands:
        argv += ['-c', command]
    done = run(*argv, *([image] if image else []), status=None, cwd=folder,
               input=typed)
    out = FIGURES.sub('TIME', done.stdout)
    out = CONDENSED.sub(',1,TIME', out)
    # 7.2 has no -r, and no line of help says what we say.
    out = re.sub(r'^(\w+) \[-(\w+)\](.* -- )',
                 lambda match: '%s [-%s]%s' % (
                     match[1], match[2].replace('r', ''), match[3]),
                 out, flags=re.MULTILINE)
    return done.returncode, out, done.stderr


@pytest.fixture(scope='session')
def template(tmp_path_factory, reference):
    folder = tmp_path_factory.mktemp('io') / 'template'
    make_files(folder, reference)
    return folder


@pytest.fixture
def pair(tmp_path, template, lamella, genuine):
    """Two equal folders, and how each program is called there."""
    link = tmp_path / 'qemu-io'
    link.symlink_to(os.path.abspath(lamella.img[0]))
    for name in ('ours', 'theirs'):
        shutil.copytree(template, tmp_path / name)
    return ((tmp_path / 'ours', [link]), (tmp_path / 'theirs', genuine.io))


def compare_images(genuine, image, ours, theirs):
    if not image or not (ours / image).exists():
        return
    if image == 'data-file':    # found from its own folder only
        return
    fmt = 'raw' if image in ('raw', 'empty') else 'qcow2'
    genuine.run('compare', '-f', fmt, '-F', fmt, ours / image, theirs / image)
    if fmt == 'qcow2':
        genuine.run('check', '-q', '-f', fmt, ours / image)


@pytest.mark.parametrize('name,options,commands,image', CASES,
                         ids=[case[0] for case in CASES])
def test_script(pair, genuine, name, options, commands, image):
    (ours, our_io), (theirs, their_io) = pair
    expected = outcome(their_io, theirs, options, commands, image)
    assert outcome(our_io, ours, options, commands, image) == expected
    compare_images(genuine, image, ours, theirs)


@pytest.mark.parametrize('name,text', TYPED, ids=[case[0] for case in TYPED])
def test_typed(pair, name, text):
    (ours, our_io), (theirs, their_io) = pair
    expected = outcome(their_io, theirs, RAW, [], 'raw', text)
    assert outcome(our_io, ours, RAW, [], 'raw', text) == expected


@pytest.mark.parametrize('number', [
    '.5k', '0x10k', '1.99999999999999999999k', '1.5B', '08k'])
def test_number_of_ten(pair, genuine, number):
    """Where 10.0 and 7.2 read a number differently, ours follows 10.0."""
    if genuine.version < (10,):
        pytest.skip('an older version reads numbers differently')
    (ours, our_io), (theirs, their_io) = pair
    expected = outcome(their_io, theirs, RAW, ['alloc ' + number], 'raw')
    assert outcome(our_io, ours, RAW, ['alloc ' + number], 'raw') == expected


def test_both_at_once(pair, genuine):
    """Many asynchronous requests, and what they leave behind."""
    commands = []
    for i in range(48):
        commands.append('aio_write -P %d %d 3000' % (i + 1, i * 20000 + 777))
        if i % 12 == 11:
            commands.append('aio_flush')
    for folder, io in pair:
        done = run(*io, '-f', 'qcow2', 'overlay',
                   *[part for command in commands for part in ('-c', command)],
                   cwd=folder)
        assert done.stdout.count('wrote 3000/3000 bytes at offset') == 48
        for line, after in zip(done.stdout.splitlines()[::2],
                               done.stdout.splitlines()[1::2]):
            assert line.startswith('wrote ') and ' 1 ops; ' in after
    compare_images(genuine, 'overlay', *[folder for folder, _ in pair])


def random_script(rng, size, cluster):
    """Commands of every kind, most of them near cluster boundaries."""
    def place():
        offset = rng.randrange(size // cluster) * cluster
        length = rng.choice((cluster, 2 * cluster, 3 * cluster))
        if rng.random() < 0.5:
            offset += rng.choice((0, 512, 4096, 1, cluster - 512))
            length = rng.choice((1, 512, 4096, cluster, cluster + 7))
        return '%d %d' % (offset, min(length, size - offset))

    kinds = ('write -P %d', 'write -P %d', 'writev -P %d', 'aio_write -P %d',
             'write -z', 'write -zu', 'discard', 'read -v', 'alloc')
    for _ in range(40):
        kind = rng.choice(kinds)
        if '%d' in kind:
            kind %= rng.randrange(256)
        where = place()
        if kind == 'read -v':
            where = where.split()[0] + ' 1'
        yield '%s %s' % (kind, where)
        if kind.startswith('aio'):
            yield 'aio_flush'
    yield 'map'


def make_overlay(folder, tools, rng, given):
    """image over base, of any relation of sizes, perhaps with a snapshot."""
    size = 40 * 64 * KiB
    base = rng.choice((size, size - 300 * KiB, size + 300 * KiB, 5 * 512))
    tools.run('create', '-q', '-f', 'qcow2', *given, 'base', base, cwd=folder)
    tools.io_run('base', 'write -P 0x33 1k 1k', 'write -P 0x34 1536 %d' %
                 (base // 2 // 512 * 512 if base > MiB else 512), cwd=folder)
    tools.run('create', '-q', '-f', 'qcow2', *given, '-b', 'base', '-F',
              'qcow2', 'image', size, cwd=folder)
    if 'refcount_bits=1' not in given and rng.random() < 0.5:
        tools.io_run('image', 'write -P 0x35 150k 700k', cwd=folder)
        tools.run('snapshot', '-c', 'before', 'image', cwd=folder)
    return size


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('options', [
    '', 'cluster_size=4k', 'compat=0.10', 'extended_l2=on',
    'cluster_size=512', 'refcount_bits=1', 'cluster_size=2M',
    'extended_l2=on,cluster_size=16k'])
def test_random_script(tmp_path, lamella, reference, options, seed):
    """The same words, the same contents, the same allocation."""
    name = '%s %d' % (options, seed)
    given = ['-o', options] if options else []
    link = tmp_path / 'qemu-io'
    link.symlink_to(os.path.abspath(lamella.img[0]))
    pairs = ((tmp_path / 'ours', [link]), (tmp_path / 'theirs', reference.io))
    for folder, _ in pairs:
        folder.mkdir()
        size = make_overlay(folder, reference, random.Random(name), given)
    cluster = {'cluster_size=4k': 4096, 'cluster_size=512': 512,
               'cluster_size=2M': 2 * MiB}.get(options, 64 * KiB)
    script = list(random_script(random.Random(name), size, cluster))
    results = [outcome(io, folder, QCOW2, script, 'image')
               for folder, io in pairs]
    assert results[0] == results[1], 'seed %d: %s' % (seed, script)
    compare_images(reference, 'image', *[folder for folder, _ in pairs])


def test_cut_cluster_is_given_up(tmp_path, our_img, lamella, reference):
    """Zeroes from a cluster's start up to the end of the disk are zeroes of
    the whole cluster, however many subclusters the end cuts off."""
    entries = []
    for name, img, io in (('ours', our_img, lamella.io),
                          ('theirs', reference.img[0], reference.io)):
        path = tmp_path / name
        run(img, 'create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on', path,
            '300k')
        run(*io, '-d', 'unmap', '-c', 'write -P 7 0 300k', '-c',
            'write -z -u 256k 44k', '-c', 'write -z 20k 6k', '-c',
            'discard 0 64k', path)
        entries.append(run(img, 'map', '--output=json', path).stdout)
        assert '"start": 262144, "length": 45056, "depth": 0, "present": ' \
            'true, "zero": true, "data": false, "compressed": false}' \
            in entries[-1]
    assert entries[0] == entries[1]


def test_lamella_says_why(tmp_path, lamella):
    """Called lamella, the library's words follow on standard error."""
    (tmp_path / 'raw').write_bytes(bytes(64 * KiB))
    done = run(*lamella.io, '-f', 'raw', tmp_path / 'raw', '-c', 'read 64k 1',
               status=1)
    assert done.stdout == 'read failed: Input/output error\n'
    assert re.fullmatch(r'lamella: .*65536.*\n', done.stderr)


@pytest.mark.parametrize('argv,status', [
    (['--help'], 0), (['-h'], 0), (['--version'], 0), (['--nonsense'], 1),
    (['-c'], 1), (['a', 'b'], 1), (['--object', 'x', 'a'], 1)])
def test_command_line(lamella, argv, status):
    done = run(*lamella.io, *argv, status=status)
    assert done.stdout if status == 0 else done.stderr


def test_full_output(tmp_path, lamella):
    """What cannot be printed is a failure, not silence."""
    (tmp_path / 'raw').write_bytes(bytes(KiB))
    with open('/dev/full', 'w') as full:
        done = subprocess.run([*lamella.io, '-f', 'raw', tmp_path / 'raw',
                               '-c', 'length'], stdout=full,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and 'standard output' in done.stderr


def test_no_temporary_left(tmp_path, lamella):
    """-s leaves neither a file nor a change."""
    image, folder = tmp_path / 'raw', tmp_path / 'tmp'
    image.write_bytes(bytes(64 * KiB))
    folder.mkdir()
    run(*lamella.io, '-f', 'raw', '-s', image, '-c', 'write 0 64k',
        '-c', 'read -P 0xcd 0 64k', env=dict(os.environ, TMPDIR=str(folder)))
    assert not os.listdir(folder)
    assert image.read_bytes() == bytes(64 * KiB)


def test_sanitized(tmp_path, template, lamella_asan):
    """Every case once more under ASan and UBSan, for its own sake."""
    for number, (name, options, commands, image) in enumerate(CASES):
        if name in ('abort', 'sigraise'):
            continue
        folder = tmp_path / str(number)
        shutil.copytree(template, folder)
        status, _, err = outcome(lamella_asan.io, folder, options, commands,
                                 image)
        assert status in (0, 1) and 'Sanitizer' not in err, (name, err)
        shutil.rmtree(folder)
