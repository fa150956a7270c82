# SPDX-License-Identifier: MIT
"""Options of a qcow2 node that say what becomes of freed space, and what a
write is checked against, beside the genuine tools."""
import json
import os
import struct

import pytest

from harness import KiB, MiB, allocated, run

OFFSET_MASK = 0x00fffffffffffe00


def node(path, options=''):
    return 'driver=qcow2,file.filename=%s%s' % (path,
                                                options and ',' + options)


def entries(path, indices):
    """The words of L2 entries of the first table."""
    with open(path, 'rb') as image:
        data = image.read()
    l1 = struct.unpack_from('>Q', data, 40)[0]
    table = struct.unpack_from('>Q', data, l1)[0] & OFFSET_MASK
    size = 16 if data[79] & 0x10 else 8
    return [struct.unpack_from('>QQ' if size == 16 else '>Q', data,
                               table + i * size) for i in indices]


def flags(words):
    """Entries without their host offsets, which need not be the same."""
    return [(word[0] & ~OFFSET_MASK, bool(word[0] & OFFSET_MASK), *word[1:])
            for word in words]


def make(tools, folder, options=''):
    """4 MiB of 8 MiB written."""
    folder.mkdir()
    image = folder / 'a.qcow2'
    opts = ['-o', options] if options else []
    run(*tools.img, 'create', '-q', '-f', 'qcow2', *opts, image, '8M',
        cwd=folder)
    run(*tools.io, '-f', 'qcow2', '-c', 'write -P 1 0 4M', image, cwd=folder)
    return image


def io(tools, image, options, *commands):
    argv = []
    for command in commands:
        argv += ['-c', command]
    return run(*tools.io, '--image-opts', *argv, node(image, options),
               cwd=image.parent, status=None)


def checked(tools, image):
    done = run(*tools.img, 'check', '--output=json', image, cwd=image.parent,
               status=None)
    return done.returncode, json.loads(done.stdout).get('allocated-clusters')


DISCARDS = [
    'discard=ignore', 'discard=unmap', 'discard=unmap,pass-discard-request=off',
    'discard=ignore,pass-discard-request=on',
    'discard=unmap,discard-no-unref=on', 'discard=ignore,discard-no-unref=on',
    'discard=unmap,discard-no-unref=on,pass-discard-request=off',
]


# Each on a part of its own.
REQUESTS = ['discard 64k 1M', 'write -z -u 1280k 512k', 'write -z 2M 512k',
            'discard 3073k 100k']


def on_disk(path):
    """What it occupies once it is written."""
    with open(path, 'rb') as data:
        os.fsync(data.fileno())
    return allocated(path)


@pytest.mark.parametrize('create', ['', 'extended_l2=on', 'data_file=d',
                                    'data_file=d,data_file_raw=on'])
@pytest.mark.parametrize('options', DISCARDS)
def test_discard(options, create, lamella, texts, tmp_path):
    """Entries, host space and what is read, all as by the genuine tool."""
    seen = []
    for tools in (texts, lamella):
        image = make(texts, tmp_path / tools.name, create)
        host = image.parent / 'd' if 'data_file' in create else image
        before = on_disk(host)
        assert io(tools, image, options, *REQUESTS).returncode == 0
        freed = round((before - on_disk(host)) / (64 * KiB))
        run(*texts.img, 'convert', '-f', 'qcow2', '-O', 'raw', image, 'out',
            cwd=image.parent)
        seen.append({
            'entries': flags(entries(image, (0, 1, 2, 16, 17, 20, 27, 28, 32, 39, 48, 49))),
            'freed': freed,
            'check': checked(texts, image),
            'content': (image.parent / 'out').read_bytes(),
        })
    if 'raw' in create:
        # It must show the zeroes; the genuine tool may leave old bytes there.
        host = tmp_path / lamella.name / 'd'
        assert host.read_bytes()[:8 * MiB] == seen[1]['content']
    for key in seen[0]:
        assert seen[0][key] == seen[1][key], key


@pytest.mark.parametrize('command', ['-d', '-a'])
@pytest.mark.parametrize('options', [
    '', 'pass-discard-snapshot=off', 'pass-discard-other=on',
    'discard=ignore,pass-discard-snapshot=on'])
def test_snapshot_that_goes(options, command, lamella, texts, tmp_path):
    """Its 4 MiB, or those written since, leave the host or stay there."""
    freed = []
    for tools in (texts, lamella):
        image = make(texts, tmp_path / tools.name)
        run(*texts.img, 'snapshot', '-c', 's', image)
        run(*texts.io, '-f', 'qcow2', '-c', 'write -P 2 0 4M', image)
        before = on_disk(image)
        run(*tools.img, 'snapshot', command, 's', '--image-opts',
            node(image, options))
        freed.append(round((before - on_disk(image)) / MiB))
        assert checked(texts, image)[0] == 0
    assert freed[0] == freed[1]
    assert freed[0] == (0 if 'snapshot=off' in options else 4)


def test_other_frees_moved_tables(lamella, tmp_path):
    """The L2 table that a snapshot's removal leaves behind."""
    left = []
    for name, option in (('off', 'pass-discard-other=off'),
                         ('on', 'pass-discard-other=on')):
        image = make(lamella, tmp_path / name)
        run(*lamella.img, 'snapshot', '-c', 's', image)
        run(*lamella.img, 'snapshot', '-d', 's', '--image-opts',
            node(image, 'pass-discard-snapshot=off,' + option))
        left.append(on_disk(image))
    assert left[1] < left[0]


def test_snapshots_are_thin(lamella, texts, tmp_path):
    """Tables that were written anew leave no space behind: what is more than
    with the genuine tool are the L2 tables of the snapshots."""
    sizes = []
    for tools in (texts, lamella):
        image = make(texts, tmp_path / tools.name)
        for name in ('a', 'b', 'c'):
            run(*tools.img, 'snapshot', '-c', name, image)
        sizes.append(on_disk(image))
    assert sizes[1] <= sizes[0] + 3 * 64 * KiB


@pytest.mark.parametrize('option, freed', [('', 16), ('discard=ignore', 0)])
def test_zeroes_in_version_2(lamella, texts, tmp_path, option, freed):
    """Without a backing file they are discards, and the host hears of them."""
    for tools in (texts, lamella):
        image = make(texts, tmp_path / tools.name, 'compat=0.10')
        before = on_disk(image)
        assert io(tools, image, option, 'write -z 64k 1M').returncode == 0
        assert round((before - on_disk(image)) / (64 * KiB)) == freed


def test_not_in_version_2(lamella, texts, tmp_path):
    said = []
    for tools in (texts, lamella):
        image = make(texts, tmp_path / tools.name, 'compat=0.10')
        done = io(tools, image, 'discard-no-unref=on', 'read 0 512')
        assert done.returncode == 1
        said.append(done.stderr.split(': ', 1)[1])
    assert said[1] in said[0] or said[0].strip() in said[1]


@pytest.mark.parametrize('options', [
    'discard-no-unref=x', 'pass-discard-request=x', 'pass-discard-other=',
    'pass-discard-snapshot=1', 'overlap-check=x', 'overlap-check.template=x',
    'overlap-check.active-l1=x', 'overlap-check.foo=on',
    'overlap-check=all,overlap-check.template=none'])
def test_wrong_values(options, lamella, texts, tmp_path):
    said = []
    for tools in (texts, lamella):
        image = make(texts, tmp_path / tools.name)
        before = image.read_bytes()
        done = io(tools, image, options, 'write 0 512')
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert image.read_bytes() == before
        said.append(done.stderr.strip().split(': ')[-1])
    assert said[0] == said[1]


# What a guest's cluster is made to lie on, and the class that guards it.  The
# tables that the header names are guarded anyway.
GUARDED = {'refcount-block': 2, 'active-l2': 4, 'inactive-l1': 3,
           'inactive-l2': 4}


def aim(image, cluster):
    """Guest cluster 0 lies on host cluster @cluster, by an L2 table that only
    the active L1 table names."""
    with open(image, 'r+b') as out:
        data = out.read()
        l1 = struct.unpack_from('>Q', data, 40)[0]
        table = struct.unpack_from('>Q', data, l1)[0] & OFFSET_MASK
        out.seek(table)
        out.write(struct.pack('>Q', 1 << 63 | cluster << 16))


def aimed(tools, folder, name):
    image = make(tools, folder)
    cluster = GUARDED[name]
    if name.startswith('inactive'):
        run(*tools.img, 'snapshot', '-c', 's', image)
        run(*tools.io, '-f', 'qcow2', '-c', 'write -P 3 1M 64k', image)
        with open(image, 'rb') as data:
            head = data.read()
        entry = struct.unpack_from('>Q', head, 64)[0]
        l1 = struct.unpack_from('>Q', head, entry)[0]
        l2 = struct.unpack_from('>Q', head, l1)[0] & OFFSET_MASK
        cluster = (l1 if name == 'inactive-l1' else l2) >> 16
    aim(image, cluster)
    return image


@pytest.mark.parametrize('name', GUARDED)
def test_one_class(name, lamella, texts, tmp_path):
    """Guarded alone, and guarded by all but it."""
    for number, (options, refused) in enumerate((
            ('overlap-check=none', False),
            ('overlap-check=none,overlap-check.%s=on' % name, True),
            ('overlap-check.template=all,overlap-check.%s=off' % name, False),
            ('overlap-check.template=constant,overlap-check.%s=on' % name,
             True))):
        for tools in (texts, lamella):
            image = aimed(texts, tmp_path / ('%s-%d' % (tools.name, number)),
                          name)
            done = io(tools, image, options, 'write -P 7 1k 512')
            seen = 'Input/output error' in done.stdout + done.stderr or \
                'overlaps with' in done.stderr
            assert seen == refused, '%s %s\n%s' % (tools, options, done.stderr)
