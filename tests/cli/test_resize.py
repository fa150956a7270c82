# SPDX-License-Identifier: MIT
"""resize and preallocation beside the genuine tool: the words, the length of
the file, the map, the contents; and what the genuine tool makes of our images.
"""
import filecmp
import json
import os
import random
import re
import shutil

import pytest

from differential import mention, outcome
from harness import KiB, MiB, need_libcrypto, pytest_fail, random_bytes, run

LINES = [
    '', 'a.qcow2', '-h a.qcow2 --foo', 'a.qcow2 1M 2M', 'a.qcow2 +', '--foo',
    'a.qcow2 x', 'a.qcow2 0', 'a.qcow2 8E', 'a.qcow2 +8E', 'a.qcow2 -1E',
    'a.qcow2 4611686018427387904', 'a.qcow2 18446744073709551615',
    'a.qcow2 1000', 'a.qcow2 +1', 'a.qcow2 1M', 'a.qcow2 -1M', '-- a.qcow2 -1M',
    '-q a.qcow2 -8k', 'a.qcow2 -q -1M', 'a.qcow2 --shrink', 'a.qcow2 ++1M',
    '--shrink a.qcow2 -1M', '--shrink -q a.qcow2 1M', '--shrink a.qcow2 512',
    'a.qcow2 64M', 'a.qcow2 +0', '-q a.qcow2 +64k', 'a.qcow2 1.5G',
    '--preallocation=foo a.qcow2 +1M', '--preallocation a.qcow2 +1M',
    '--preallocation=metadata a.qcow2 64M', '--preallocation=full a.qcow2 1M',
    '--preallocation=falloc --shrink a.qcow2 1M',
    '--preallocation=metadata a.qcow2 +1M', 'a.qcow2 +1M --preallocation=full',
    'nope.qcow2 +1M', '-f foo a.qcow2 1M', '-f qcow2 r.raw 1M',
    '-f qcow2 --image-opts a.qcow2 1M',
    '--image-opts driver=qcow2,file.filename=a.qcow2 +1M',
    'r.raw +1M', '-f raw r.raw +1M', '-f raw r.raw +1k',
    '-f raw --preallocation=metadata r.raw +1M',
    '-f raw --preallocation=falloc r.raw +1M',
    '-f raw --preallocation=full r.raw +1M', '-f raw --shrink r.raw 100k',
    '-f raw r.raw 100k', '-f raw --shrink r.raw 0', 'v2.qcow2 +1M',
    '--shrink v2.qcow2 -1M', 'broken.qcow2 +1M', '--shrink snap.qcow2 1M',
    'snap.qcow2 +1G',
]


@pytest.fixture(scope='session')
def stock(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp('stock')
    for name, compat in (('a', 'v3'), ('v2', 'v2'), ('snap', 'v3')):
        name = folder / (name + '.qcow2')
        texts.run('create', '-q', '-f', 'qcow2', '-o', 'compat=' + compat, name,
                  '64M')
        texts.io_run(name, 'write -P 7 0 3M', 'write -P 8 60M 4M')
    for name in ('v2', 'snap'):
        texts.run('snapshot', '-c', 's', folder / (name + '.qcow2'))
    (folder / 'r.raw').write_bytes(b'data' * 64 * KiB)
    shutil.copy(folder / 'a.qcow2', folder / 'broken.qcow2')
    with open(folder / 'broken.qcow2', 'r+b') as image:
        image.seek(4)
        image.write(b'\0\0\0\7')
    return folder


def pair(stock, tmp_path, line):
    """Two folders with the images of @line."""
    folders = tmp_path / 'theirs', tmp_path / 'ours'
    for folder in folders:
        folder.mkdir()
        for name in os.listdir(stock):
            if re.search(r'(^|[ =])%s( |$)' % re.escape(name), line):
                shutil.copy(stock / name, folder)
    return folders


@pytest.mark.parametrize('line', LINES)
def test_command_line(texts, our_img, stock, tmp_path, line):
    folders = pair(stock, tmp_path, line)
    args = ['resize', *line.split()]
    if '-h' in args:
        assert run(our_img, *args, cwd=folders[1]).stdout.startswith('Usage:')
        return
    theirs, mine = (outcome(tool, args, folder) for tool, folder in
                    zip((texts.img[0], our_img), folders))
    if theirs != mine:
        pytest_fail(mention(args, theirs, mine))
    assert os.listdir(folders[0]) == os.listdir(folders[1])
    for name in os.listdir(folders[0]):
        if name in ('a.qcow2', 'v2.qcow2', 'snap.qcow2'):
            same_image(texts, *(folder / name for folder in folders))
        else:
            assert (folders[0] / name).read_bytes() == \
                (folders[1] / name).read_bytes()


def same_image(texts, theirs, mine):
    """Equal contents; ours is as correct, and no longer than theirs."""
    texts.run('compare', '-f', 'qcow2', '-F', 'qcow2', theirs, mine)
    run(texts.img[0], 'check', '-q', mine)
    assert texts.run('info', mine).count('SNAPSHOT') == \
        texts.run('info', theirs).count('SNAPSHOT')


def lengths(*paths):
    return [os.stat(path).st_size for path in paths]


CREATIONS = [
    (mode, options, size)
    for mode in ('off', 'metadata', 'falloc', 'full')
    for options, size in (
        ('cluster_size=64k', 10 * MiB), ('cluster_size=4k', 3 * MiB + 512),
        ('cluster_size=512', MiB), ('cluster_size=2M', 5 * MiB),
        ('cluster_size=512,refcount_bits=64', 2 * MiB),
        ('refcount_bits=1', 4 * MiB), ('extended_l2=on', 4 * MiB),
        ('compat=v2', 4 * MiB), ('cluster_size=4k', 0))]


@pytest.mark.parametrize('mode,options,size', CREATIONS)
def test_create(texts, our_img, tmp_path, mode, options, size):
    """Lengths are the genuine tool's, which are what measure calls fully
    allocated."""
    options += ',preallocation=' + mode
    theirs, mine = tmp_path / 'theirs', tmp_path / 'ours'
    for tool, path in ((texts.img[0], theirs), (our_img, mine)):
        run(tool, 'create', '-q', '-f', 'qcow2', '-o', options, path, size)
    run(texts.img[0], 'check', '-q', mine)
    texts.run('compare', '-f', 'qcow2', '-F', 'qcow2', theirs, mine)
    # With tables of several clusters the genuine tool leaves some unused, and
    # it takes one for a disk of no size.
    if 'refcount_bits=64' not in options and size:
        assert len(set(lengths(theirs, mine))) == 1
    if mode != 'off':
        figure = json.loads(run(our_img, 'measure', '-O', 'qcow2', '-o', options,
                                '--size', size, '--output=json').stdout)
        assert lengths(mine) == [figure['fully-allocated']]
    if mode in ('falloc', 'full'):
        assert os.stat(mine).st_blocks * 512 >= size


def map_kinds(tool, path):
    """Places aside: what is where."""
    return [(e['start'], e['length'], e['depth'], e['present'], e['zero'],
             e['data']) for e in
            json.loads(tool.run('map', '--output=json', path))]


def states_from(entries, start):
    """(zero, data) from guest offset @start on, a pair each 64 KiB."""
    return [next((zero, data) for first, length, _, _, zero, data in entries
                 if first <= at < first + length)
            for at in range(start, 5 * MiB, 64 * KiB)]


GROWTHS = [(mode, options, backing)
           for mode in ('off', 'metadata', 'falloc', 'full')
           for options in ('cluster_size=64k', 'cluster_size=4k',
                           'extended_l2=on', 'compat=v2')
           for backing in (0, 2 * MiB, 6 * MiB)]


@pytest.mark.parametrize('mode,options,backing', GROWTHS)
def test_growth(texts, our_img, tmp_path, mode, options, backing):
    """Grown from the middle of a cluster, over backing files of all lengths:
    zeroes in the new part, mapped as the genuine tool maps it."""
    paths = [tmp_path / 'theirs', tmp_path / 'ours']
    create = ['create', '-q', '-f', 'qcow2', '-o', options]
    if backing:
        (tmp_path / 'base').write_bytes(b'\xbb' * backing)
        create += ['-b', tmp_path / 'base', '-F', 'raw']
    texts.run(*create, paths[0], 3 * MiB + 3584)
    texts.io_run(paths[0], 'write -P 7 64k 100k')
    shutil.copy(*paths)
    run(our_img, 'resize', '-q', '--preallocation', mode, paths[1], 5 * MiB)
    run(texts.img[0], 'check', '-q', paths[1])
    texts.io_run(paths[1], 'read -P 0 3149312 2093568')
    if 'v2' in options and backing > 3 * MiB:
        return                  # the genuine tool cannot do this one
    texts.run('resize', '-q', '--preallocation', mode, paths[0], 5 * MiB)
    texts.run('compare', '-f', 'qcow2', '-F', 'qcow2', *paths)
    theirs, mine = (map_kinds(texts, path) for path in paths)
    # From where both are past the cluster that the old end lay in.
    start = 3 * MiB + 64 * KiB
    if mode != 'full' and 'v2' not in options and not (
            backing > 3 * MiB and 'extended' in options):
        assert states_from(theirs, start) == states_from(mine, start)


def test_zeroes_stay_zeroes(texts, our_img, tmp_path):
    """A cut last cluster that is zero has nothing behind the end to hide: it
    is not written."""
    maps = []
    for name, img in (('theirs', texts.img[0]), ('ours', our_img)):
        path = tmp_path / name
        texts.run('create', '-q', '-f', 'qcow2', '-o', 'preallocation=falloc',
                  path, '100k')
        texts.io_run(path, 'write -z 64k 36k')
        run(img, 'resize', '-q', path, '1M')
        maps.append(texts.run('map', '--output=json', path))
    assert '"start": 65536, "length": 65536, "depth": 0, "present": true, ' \
        '"zero": true, "data": false' in maps[0]
    assert maps[0] == maps[1]


# Clusters at first (mapped or not), and after two resizes.
SIZES = [('off', 0, 100), ('off', 70, 1768, 1910),
         ('metadata', 256, 257, 3500)]
LAYOUTS = [('cluster_size=512,refcount_bits=32', 512), ('cluster_size=512', 512),
           ('cluster_size=4k,compat=v2', 4 * KiB), ('cluster_size=64k', 64 * KiB),
           ('extended_l2=on', 64 * KiB)]


@pytest.mark.parametrize('mode', ['off', 'metadata', 'falloc'])
@pytest.mark.parametrize('options,cluster', LAYOUTS)
def test_layout(texts, our_img, tmp_path, options, cluster, mode):
    """Byte for byte what the genuine tool makes of the same image, as long as a
    cluster is enough for the refcount table."""
    paths = [tmp_path / 'theirs', tmp_path / 'ours']
    for start, *sizes in SIZES:
        if mode != 'off' and sizes[-1] * cluster > 100 * MiB:
            continue            # the same with more bytes
        texts.run('create', '-q', '-f', 'qcow2', '-o',
                  '%s,preallocation=%s' % (options, start), paths[0],
                  sizes[0] * cluster)
        shutil.copy(*paths)
        for size in sizes[1:]:
            for tool, path in zip((texts.img[0], our_img), paths):
                run(tool, 'resize', '-q', '--preallocation', mode, path,
                    size * cluster)
            assert filecmp.cmp(*paths, shallow=False), (start, size)


@pytest.mark.parametrize('cluster', ['512', '4k', '64k', '2M'])
@pytest.mark.parametrize('seed', [1, 2])
def test_up_and_down(texts, our_img, tmp_path, cluster, seed):
    """A random walk of sizes; beside it a plain file in memory."""
    rng = random.Random(seed)
    path = tmp_path / 'x.qcow2'
    raw = bytearray(4 * MiB)
    run(our_img, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=' + cluster,
        path, len(raw))
    for step in range(12):
        at = rng.randrange(len(raw) // 512) * 512
        count = min(rng.randrange(1, 400) * 512, len(raw) - at)
        texts.io_run(path, 'write -P %d %d %d' % (step + 1, at, count))
        raw[at:at + count] = bytes([step + 1]) * count
        if step == 5:
            texts.run('snapshot', '-c', 's', path)
        size = rng.randrange(1, 12 * MiB // 512) * 512
        run(our_img, 'resize', '-q', '--shrink', *(
            ['--preallocation', rng.choice(['off', 'metadata', 'falloc', 'full'])]
            if size > len(raw) else []), path, size)
        raw = raw[:size].ljust(size, b'\0')
        run(texts.img[0], 'check', '-q', path)
        (tmp_path / 'raw').write_bytes(raw)
        texts.run('compare', '-f', 'qcow2', '-F', 'raw', path,
                  tmp_path / 'raw')


@pytest.mark.parametrize('mode, backing', [
    ('metadata', None), ('metadata', 50000), ('metadata', 900000),
    ('falloc', None), ('falloc', 50000), ('full', None), ('full', 50000)])
@pytest.mark.parametrize('old', [150016, 164352, 65536])
def test_tail(texts, our_img, tmp_path, mode, backing, old):
    """Subclusters: the cluster that the old end lies in is part of what is
    preallocated, whether it is zero, absent, or not cut at all."""
    below = []
    if backing:
        (tmp_path / 'base.raw').write_bytes(bytes([9]) * backing)
        below = ['-b', 'base.raw', '-F', 'raw']
    start = tmp_path / 'start.qcow2'
    texts.run('create', '-q', '-f', 'qcow2', '-o',
              'cluster_size=64k,extended_l2=on', *below, start, str(old))
    if old == 150016:
        texts.io_run(start, 'write -P 7 8k 10k', 'write -z 140k 4k')
    maps, paths = [], [tmp_path / 'theirs.qcow2', tmp_path / 'mine.qcow2']
    for path, tool in zip(paths, (texts.img[0], our_img)):
        shutil.copyfile(start, path)
        run(tool, 'resize', '-q', '--preallocation', mode, path, 700416)
        maps.append(texts.run('map', '--output=json', path))
    assert maps[0] == maps[1]
    same_image(texts, *paths)


CUT = 150016, 700416            # the old end, in the third cluster; the new


@pytest.mark.parametrize('compat', ['v2', 'v3'])
@pytest.mark.parametrize('backing', [50000, 140000, 900000])
def test_cut_cluster(texts, our_img, tmp_path, backing, compat):
    """Over a backing file the cluster that the old end lies in gets its place
    in the row of the others, with what it showed: the genuine tool's bytes."""
    (tmp_path / 'base.raw').write_bytes(random_bytes(backing, backing))
    paths = [tmp_path / 'theirs.qcow2', tmp_path / 'mine.qcow2']
    texts.run('create', '-q', '-f', 'qcow2', '-o', 'compat=' + compat, '-b',
              'base.raw', '-F', 'raw', paths[0], CUT[0])
    shutil.copyfile(*paths)
    thin = tmp_path / 'thin.qcow2'
    shutil.copyfile(paths[0], thin)
    for tool, path in zip((texts.img[0], our_img), paths):
        run(tool, 'resize', '-q', '--preallocation=full', path, CUT[1])
    assert filecmp.cmp(*paths, shallow=False)
    run(our_img, 'resize', '-q', '--preallocation=metadata', thin, CUT[1])
    same_image(texts, paths[0], thin)
    assert lengths(thin) == lengths(paths[0])
    # What is behind the old end is a hole.
    assert os.stat(thin).st_blocks * 512 < 340 * KiB


CUT_KINDS = {
    'luks': 'encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=1',
    'data-file': 'data_file=x.data',
}


@pytest.mark.parametrize('mode', ['metadata', 'falloc'])
@pytest.mark.parametrize('backing', [50000, 900000])
@pytest.mark.parametrize('kind', CUT_KINDS)
def test_cut_cluster_elsewhere(texts, our_img, tmp_path, kind, backing, mode):
    """The same where zeroes on the host are noise, and in a data file."""
    if kind == 'luks':
        need_libcrypto()
    (tmp_path / 'base.raw').write_bytes(random_bytes(backing, backing))
    secret = ['--object', 'secret,id=s0,data=abc'] if kind == 'luks' else []
    node = 'driver=qcow2,file.filename=x.qcow2' + \
        (',encrypt.key-secret=s0' if secret else '')
    run(our_img, 'create', '-q', *secret, '-f', 'qcow2', '-o', CUT_KINDS[kind],
        '-b', 'base.raw', '-F', 'raw', 'x.qcow2', CUT[0], cwd=tmp_path)
    run(our_img, 'resize', '-q', *secret, '--image-opts',
        '--preallocation=' + mode, node, CUT[1], cwd=tmp_path)
    run(texts.img[0], 'convert', *secret, '--image-opts', '-O', 'raw', node,
        'out.raw', cwd=tmp_path)
    shown = (tmp_path / 'base.raw').read_bytes()[:CUT[0]]
    assert (tmp_path / 'out.raw').read_bytes() == shown.ljust(CUT[1], b'\0')
    run(our_img, 'check', *secret, '-q', '--image-opts', node, cwd=tmp_path)
    entries = json.loads(run(our_img, 'map', *secret, '--output=json',
                             '--image-opts', node, cwd=tmp_path).stdout)
    assert all(entry['present'] and not entry['depth'] and
               (secret or 'offset' in entry) for entry in entries
               if entry['start'] >= 128 * KiB)


def test_shrunk_file_is_short(texts, our_img, tmp_path):
    """Refcount blocks that describe nothing go, and the tail of the file."""
    paths = [tmp_path / 'theirs', tmp_path / 'ours']
    for tool, path in zip((texts.img[0], our_img), paths):
        run(tool, 'create', '-q', '-f', 'qcow2', '-o',
            'preallocation=metadata,cluster_size=4k', path, '256M')
        run(tool, 'resize', '-q', '--shrink', path, '8M')
        run(texts.img[0], 'check', '-q', path)
    # Our metadata lay in front of the data, and that of the larger disk is
    # free there.
    theirs, mine = lengths(*paths)
    assert theirs - MiB < mine < theirs + MiB


@pytest.mark.parametrize('raw', ['off', 'on'])
def test_data_file(texts, our_img, tmp_path, raw):
    """It follows the size both ways; a raw one stays the guest's disk."""
    path, data = tmp_path / 'x.qcow2', tmp_path / 'x.data'
    run(our_img, 'create', '-q', '-f', 'qcow2', '-o',
        'data_file=%s,data_file_raw=%s' % (data, raw), path, '4M')
    texts.io_run(path, 'write -P 7 0 4M')
    for size in ('2M', '4195328' if raw == 'off' else '8M', '3M', '5M'):
        run(our_img, 'resize', '-q', '--shrink', path, size)
        run(texts.img[0], 'check', '-q', path)
        assert os.stat(data).st_size == \
            json.loads(texts.run('info', '--output=json', path))['virtual-size']
        texts.io_run(path, 'read -P 7 0 2M')
        if size != '2M':
            texts.io_run(path, 'read -P 0 2M 1M')
        if raw == 'on':
            texts.run('compare', '-f', 'qcow2', '-F', 'raw', path, data)


def test_bitmaps_follow(texts, our_img, tmp_path):
    path = tmp_path / 'x.qcow2'
    texts.run('create', '-q', '-f', 'qcow2', path, '100M')
    texts.run('bitmap', '--add', '-g', '4096', path, 'b')
    texts.io_run(path, 'write 90M 64k', 'write 10M 64k')
    for size in ('50M', '800M'):
        run(our_img, 'resize', '-q', '--shrink', path, size)
        run(texts.img[0], 'check', '-q', path)
        flags = json.loads(texts.run('info', '--output=json', path))[
            'format-specific']['data']['bitmaps'][0]['flags']
        assert flags == ['auto']


@pytest.mark.parametrize('mode', ['off', 'metadata', 'falloc', 'full'])
@pytest.mark.parametrize('form', ['qcow2', 'raw'])
def test_convert(texts, our_img, images, tmp_path, form, mode):
    if (form, mode) == ('raw', 'metadata'):
        pytest.skip('a raw image has no metadata')
    run(our_img, 'convert', '-O', form, '-o', 'preallocation=' + mode,
        images / 'mixed.raw', tmp_path / 'out')
    texts.run('compare', '-F', form, '-f', 'raw', images / 'mixed.raw',
              tmp_path / 'out')


def test_io_truncate(texts, our_img, lamella, tmp_path):
    path = tmp_path / 'x.qcow2'
    run(our_img, 'create', '-q', '-f', 'qcow2', path, '1M')
    lamella.io_run(path, 'write -P 5 0 1M', 'truncate 100k',
                   'truncate -m metadata 2M')
    texts.io_run(path, 'read -P 5 0 100k', 'read -P 0 100k 1948k')
    run(texts.img[0], 'check', '-q', path)
