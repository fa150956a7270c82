# SPDX-License-Identifier: MIT
"""bitmap, convert --bitmaps, info and resize of images with bitmaps beside the
genuine tool: the words, what is recorded, and what each makes of the other's.
"""
import json
import random
import re
import shutil
import struct

import pytest

from differential import mention, outcome
from harness import KiB, MiB, pytest_fail, run

LINES = [
    '', '--add', '--add a.qcow2', 'a.qcow2 one', '--foo', '--add a.qcow2 b c',
    '--add a.qcow2 new', 'a.qcow2 new --add', '--add a.qcow2 one',
    '--add -g 4k a.qcow2 new', 'a.qcow2 new -g 2G --add',
    '--add -g 0 a.qcow2 new', '--add -g 4G a.qcow2 new',
    '--add -g 3000 a.qcow2 new', '--add -g 256 a.qcow2 new',
    '--add -g foo a.qcow2 new', '--add -g -1 a.qcow2 new',
    '--add --granularity=512 a.qcow2 new', '--add a.qcow2 ' + 'n' * 1023,
    '--add --disable a.qcow2 new', '--disable --add a.qcow2 new',
    '--add --merge one --disable a.qcow2 new', '--add --remove a.qcow2 new',
    '--add --merge nope a.qcow2 new', '--clear --clear a.qcow2 one',
    '--clear a.qcow2 one', '--clear a.qcow2 nope', '--clear a.qcow2 off',
    '--enable a.qcow2 off', '--enable a.qcow2 nope', '--disable a.qcow2 one',
    '--disable a.qcow2 nope', '--disable --enable a.qcow2 one',
    '--remove a.qcow2 one', '--remove a.qcow2 nope', '--remove a.qcow2 old',
    '--clear a.qcow2 old', '--enable a.qcow2 old', '--disable a.qcow2 old',
    '--add a.qcow2 old', '--merge old a.qcow2 one', '--merge one a.qcow2 old',
    '--merge fine a.qcow2 one', '--merge one a.qcow2 fine',
    '--merge one --merge fine a.qcow2 off', '--merge one a.qcow2 one',
    '--merge nope a.qcow2 one', '--merge one a.qcow2 nope',
    '--merge there -b b.qcow2 a.qcow2 one',
    '--merge there -b b.qcow2 -F qcow2 a.qcow2 one',
    '--merge there -b b.qcow2 -F raw a.qcow2 one',
    '--merge one -b b.qcow2 a.qcow2 one', '--merge there -b nope a.qcow2 one',
    '--merge there -b small.qcow2 a.qcow2 one', '--merge x -b r.raw a.qcow2 one',
    '--clear -b b.qcow2 a.qcow2 one', '--clear -F raw a.qcow2 one',
    '--clear -g 64k a.qcow2 one', '-f qcow2 --clear a.qcow2 one',
    '-f raw --clear a.qcow2 one', '-f foo --clear a.qcow2 one',
    '--clear r.raw one', '--remove -f raw r.raw one', '--clear nope.qcow2 one',
    '--clear v2.qcow2 one',
    '--image-opts --add driver=qcow2,file.filename=a.qcow2 new',
    '--image-opts -f qcow2 --add driver=qcow2,file.filename=a.qcow2 new',
    '--object secret,id=s,data=x --add a.qcow2 new', '-U --add a.qcow2 new',
]

CONVERT = [
    '-O qcow2 --bitmaps a.qcow2 new.qcow2',
    '-O qcow2 --bitmaps --skip-broken-bitmaps a.qcow2 new.qcow2',
    '-O qcow2 --skip-broken-bitmaps a.qcow2 new.qcow2',
    '-O qcow2 --bitmaps b.qcow2 new.qcow2', '-O raw --bitmaps b.qcow2 new.raw',
    '-O qcow2 --bitmaps -f raw r.raw new.qcow2',
    '-O qcow2 --bitmaps v2.qcow2 new.qcow2',
    '-O qcow2 --bitmaps b.qcow2 b.qcow2 new.qcow2',
    '-O qcow2 -o compat=0.10 --bitmaps b.qcow2 new.qcow2',
    '-O qcow2 -c -o cluster_size=4k --bitmaps b.qcow2 new.qcow2',
    '-n -O qcow2 --bitmaps --skip-broken-bitmaps a.qcow2 b.qcow2',
    '-n -O qcow2 --bitmaps b.qcow2 a.qcow2',
    '-n -O qcow2 --bitmaps small.qcow2 a.qcow2',
    '-n -O qcow2 --bitmaps b.qcow2 b2.qcow2',
]


def directory(image):
    """name -> (flags, granularity, place of its flags, table, entries)."""
    data = image.read_bytes() if hasattr(image, 'read_bytes') else image
    at, found = struct.unpack_from('>I', data, 100)[0], {}
    while True:
        kind, length = struct.unpack_from('>II', data, at)
        if kind == 0:
            return found
        if kind == 0x23852875:
            break
        at += 8 + (length + 7) // 8 * 8
    count, _, _, at = struct.unpack_from('>IIQQ', data, at + 8)
    for _ in range(count):
        table, entries, flags, _, bits, name_length, extra = \
            struct.unpack_from('>QIIBBHI', data, at)
        name = data[at + 24:at + 24 + name_length].decode()
        found[name] = (flags, 1 << bits, at + 12, table, entries)
        at += (24 + extra + name_length + 7) // 8 * 8
    return found


def bits(image):
    """name -> (flags, granularity, runs of dirty bits), from the bytes."""
    data = image.read_bytes()
    cluster, result = 1 << struct.unpack_from('>I', data, 20)[0], {}
    for name, (flags, size, _, table, entries) in directory(image).items():
        dirty = []
        for i, word in enumerate(struct.unpack_from('>%dQ' % entries, data,
                                                    table)):
            page = data[word:word + cluster] if word > 1 else \
                (b'\xff' if word else b'\0') * cluster
            base = i * cluster * 8
            dirty += [base + k * 8 + n for k, byte in enumerate(page) if byte
                      for n in range(8) if byte >> n & 1]
        disk = struct.unpack_from('>Q', data, 24)[0]
        result[name] = flags, size, runs(b for b in dirty if b * size < disk)
    return result


def runs(numbers):
    found = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return found


def set_flags(image, name, flags):
    place = directory(image)[name][2]
    with open(image, 'r+b') as file:
        file.seek(place)
        file.write(struct.pack('>I', flags))


@pytest.fixture(scope='session')
def stock(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp('bitmaps')

    def create(name, size, *bitmaps, compat='v3'):
        name = folder / name
        texts.run('create', '-q', '-f', 'qcow2', '-o', 'compat=' + compat, name,
                  size)
        for args in bitmaps:
            texts.run('bitmap', '--add', *args.split()[1:], name,
                      args.split()[0])
        return name

    image = create('a.qcow2', '16M', 'one', 'old -g 64k', 'fine -g 512',
                   'off --disable')
    texts.io_run(image, 'write 1M 300k', 'write 3M 512', 'write -z 5M 64k')
    set_flags(image, 'old', 3)
    image = create('b.qcow2', '16M', 'there -g 4k', 'quiet --disable')
    texts.io_run(image, 'write 7M 1M')
    create('b2.qcow2', '16M')
    create('small.qcow2', '4M', 'there')
    create('v2.qcow2', '16M', compat='0.10')
    (folder / 'r.raw').write_bytes(bytes(MiB))
    return folder


def pair(stock, tmp_path):
    folders = tmp_path / 'theirs', tmp_path / 'ours'
    for folder in folders:
        shutil.copytree(stock, folder)
    return folders


def same_result(texts, our_img, folders, args):
    theirs, mine = (outcome(tool, args, folder) for tool, folder in
                    zip((texts.img[0], our_img), folders))
    for one in theirs, mine:
        one.err = re.sub(r"Can't make bitmap .* persistent in .*: ", '',
                         one.err)
    if theirs != mine:
        pytest_fail(mention(args, theirs, mine))
    if args[:2] == ['convert', '-n'] and theirs.status:
        return                  # we find out before we copy
    images = {f.name for folder in folders for f in folder.glob('*.qcow2')}
    for name in images:
        ours = folders[1] / name
        if not ours.exists() and mine.status:
            continue            # what a failed convert leaves behind
        if struct.unpack('>I', ours.read_bytes()[4:8])[0] < 3:
            continue
        wanted, found = bits(folders[0] / name), bits(ours)
        if '-n' in args:        # we write less, so less is recorded
            for one in wanted, found:
                for old in 'one', 'fine':
                    if name == 'a.qcow2':
                        del one[old]
                if name == 'b.qcow2':
                    del one['there']
        if wanted != found:
            pytest_fail('%s\n%s: %s\nours: %s' % (args, name, wanted, found))
        texts.run('check', '-q', ours)


@pytest.mark.parametrize('line', LINES)
def test_command_line(texts, our_img, stock, tmp_path, line):
    same_result(texts, our_img, pair(stock, tmp_path),
                ['bitmap', *line.split()])


@pytest.mark.parametrize('args', [
    ['--add', 'a.qcow2', ''], ['--add', 'v2.qcow2', 'b'],
    ['--merge', '', 'a.qcow2', 'one'], ['--add', 'a.qcow2', 'n' * 1024]],
    ids=['empty-name', 'v2', 'empty-source', 'long-name'])
def test_refused(texts, our_img, stock, tmp_path, args):
    same_result(texts, our_img, pair(stock, tmp_path), ['bitmap', *args])


@pytest.mark.parametrize('line', CONVERT)
def test_convert(texts, our_img, stock, tmp_path, line):
    same_result(texts, our_img, pair(stock, tmp_path),
                ['convert', *line.split()])


@pytest.mark.parametrize('line', [
    'info a.qcow2', 'info --output=json a.qcow2', 'info b.qcow2',
    'resize a.qcow2 +1M', 'resize b.qcow2 +1M', 'resize --shrink b.qcow2 7500k',
    'snapshot -c s b.qcow2'])
def test_other_commands(texts, our_img, stock, tmp_path, line):
    folders = pair(stock, tmp_path)
    args = line.split()
    if args[0] == 'info':
        for folder in folders:
            (folder / 'r.raw').unlink()
    theirs, mine = (outcome(tool, args, folder) for tool, folder in
                    zip((texts.img[0], our_img), folders))
    for one in theirs, mine:
        one.out = re.sub(r'(disk size: |"actual-size": ).*', r'\1', one.out)
    mine.err += 'Try block-dirty-bitmap-remove to delete this bitmap from ' \
        'disk\n' if 'is inconsistent' in mine.err and \
        'Try ' not in mine.err else ''
    if theirs != mine:
        pytest_fail(mention(args, theirs, mine))
    for name in 'a.qcow2', 'b.qcow2':
        assert bits(folders[0] / name) == bits(folders[1] / name)
        texts.run('check', '-q', folders[1] / name)


@pytest.mark.parametrize('seed', range(6))
def test_recording(texts, our_img, lamella, tmp_path, seed):
    """One workload by each tool, and by both in turn, marks the same bits."""
    rng = random.Random(seed)
    images = [tmp_path / name for name in ('theirs', 'ours', 'mixed')]
    options = rng.choice(['', ',cluster_size=512', ',cluster_size=4k',
                          ',extended_l2=on', ',cluster_size=2M',
                          ',lazy_refcounts=on'])
    names = ['b%d' % i for i in range(3)]
    for image in images:
        texts.run('create', '-q', '-f', 'qcow2', '-o', 'size=40M' + options,
                  image)
    sizes = [512 << rng.randrange(12) for _ in names]
    for turn in range(4):
        name = rng.choice(names)
        action = rng.choice(['--clear', '--disable', '--enable',
                             '--merge=' + rng.choice(names)])
        writes = []
        for _ in range(8):
            offset = rng.randrange(40 * MiB - 2 * MiB) & -512
            length = rng.randrange(1, 512) * 512
            writes.append('write %d %d' % (offset, length))
            writes.append('%s %d %d' % (rng.choice(
                ['write -z', 'write -zu', 'discard']), offset + 3 * length,
                rng.randrange(1, 512) * 512))
        for k, image in enumerate(images):
            tools = (texts, lamella, (lamella, texts)[turn % 2])[k]
            if turn == 0:
                for n, size in zip(names, sizes):
                    tools.run('bitmap', '--add', '-g', size, image, n)
            else:
                tools.run('bitmap', action, image, name)
            tools.io_run(image, *writes)
        assert bits(images[0]) == bits(images[1]) == bits(images[2])
    for image in images:
        texts.run('check', '-q', image)
        lamella.run('check', '-q', image)


def test_dead_extension(texts, our_img, lamella, stock, tmp_path):
    """A program without bitmaps has written: they are gone with our first
    change, and their clusters leak."""
    image = shutil.copy(stock / 'b.qcow2', tmp_path / 'x.qcow2')
    with open(image, 'r+b') as file:
        file.seek(88)
        file.write(bytes(8))
    theirs, mine = (outcome(tool, ['info', image.name], tmp_path) for tool in
                    (texts.img[0], our_img))
    assert theirs.err and theirs.err == mine.err.rstrip('\n')
    lamella.io_run(image, 'read 0 512')
    assert struct.pack('>I', 0x23852875) in image.read_bytes()[:1024]
    lamella.io_run(image, 'write 0 512')
    assert struct.pack('>I', 0x23852875) not in image.read_bytes()[:1024]
    assert run(*texts.img, 'check', image, status=None).returncode == 3
    lamella.run('bitmap', '--add', image, 'there')
    assert bits(image) == {'there': (2, 64 * KiB, [])}


def test_killed(lamella, texts, stock, tmp_path):
    """Not closed: what recorded is inconsistent, the rest is as it was."""
    image = shutil.copy(stock / 'b.qcow2', tmp_path / 'x.qcow2')
    before = bits(image)
    run(*lamella.io, image, '-c', 'write 0 64k', '-c', 'flush', '-c',
        'sigraise 9', status=None)
    after = bits(image)
    assert after['there'][0] == 3 and after['quiet'] == before['quiet']
    info = json.loads(texts.run('info', '--output=json', image))
    listed = info['format-specific']['data']['bitmaps']
    assert listed[0]['flags'] == ['in-use', 'auto']
    texts.run('check', '-q', image)
    lamella.run('bitmap', '--remove', image, 'there')
    assert bits(image) == {'quiet': before['quiet']}


def test_empty_disk(texts, lamella, tmp_path):
    """The genuine tool loses such a bitmap, and opens no image that has one
    stored."""
    image = tmp_path / 'empty.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', image, '0')
    failed = run(*lamella.img, 'bitmap', '--add', image, 'new', status=1)
    assert 'A disk of 0 bytes cannot have dirty bitmaps' in failed.stderr
    texts.run('check', '-q', image)
