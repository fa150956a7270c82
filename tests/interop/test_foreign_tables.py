# SPDX-License-Identifier: MIT
"""VDI, Parallels, QED and qcow: the genuine tools write and lamella reads, and
the other way."""
import json
import re
import struct
import subprocess

import pytest

from foreign import convert, make_sources, said, same
from harness import GENUINE, KiB, MiB, run, wait_until

# (format, options of create)
KINDS = [('vdi', 'static=off'), ('vdi', 'static=on'),
         ('parallels', 'cluster_size=1M'), ('parallels', 'cluster_size=64k'),
         ('qed', 'cluster_size=64k'), ('qed', 'cluster_size=4k,table_size=2'),
         ('qcow', '')]
CASES = [(fmt, options, source) for fmt, options in KINDS
         for source in ('mixed', 'empty', 'sparse')
         if not (source == 'empty' and fmt == 'qcow')
         and not (source == 'sparse' and options == 'static=on')]


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp('raw'), 5 * MiB + 5120)


def write(tools, fmt, image, *lines):
    out = tools.io_run(image, *lines, options=('-f', fmt))
    assert 'failed' not in out and 'error' not in out, out


def refusal(tools, *arguments):
    return re.sub(r'^[^:]*: ', '', run(*tools.img, *arguments,
                                       status=1).stderr)


@pytest.mark.parametrize('fmt,options,source', CASES)
def test_reads_theirs(fmt, options, source, sources, reference, lamella,
                      tmp_path):
    image = tmp_path / 'theirs'
    convert(reference, fmt, sources[source], image, options)
    same(lamella, fmt, sources[source], image)
    for form in ('human', 'json'):
        # Not declared: the format is found out.
        arguments = ['info', '--output', form, image]
        assert said(lamella, *arguments) == said(reference, *arguments)
    if fmt != 'qcow':
        arguments = ['check', '--output=json', image]
        assert said(lamella, *arguments) == said(reference, *arguments)
    arguments = ['map', '-f', fmt, '--output=json', image]
    assert lamella.run(*arguments) == reference.run(*arguments)


@pytest.mark.parametrize('fmt,options,source', CASES)
def test_they_read_ours(fmt, options, source, sources, lamella, tmp_path):
    if not GENUINE:
        pytest.skip('no genuine qemu-img here')
    image = tmp_path / 'ours'
    convert(lamella, fmt, sources[source], image, options)
    for tools in GENUINE:
        same(tools, fmt, sources[source], image)
        if fmt != 'qcow':
            tools.run('check', '-f', fmt, image)
    same(lamella, fmt, sources[source], image)


WRITES = ['write -P 1 3M 1k', 'write -P 2 0 8k', 'write -P 3 1000k 900k',
          'write -z 1100k 100k', 'write -P 4 1120k 512', 'read -P 0 1101k 18k',
          'write -P 5 5242368 512', 'read -P 3 1000k 100k', 'flush',
          'write -P 6 2560k 64k', 'write -z 0 4k', 'write -z 3M 1M']


@pytest.mark.parametrize('fmt,options', KINDS)
def test_writes(fmt, options, reference, lamella, tmp_path):
    """The same requests to both, and then the other's turn."""
    extra = ['-o', options] if options else []
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    for tools, image in ((lamella, ours), (reference, theirs)):
        tools.run('create', '-q', '-f', fmt, *extra, image, '5M')
        write(tools, fmt, image, *WRITES)
    for tools in (lamella, reference):
        tools.run('compare', '-f', fmt, '-F', fmt, ours, theirs)
    for tools, image in ((reference, ours), (lamella, theirs)):
        write(tools, fmt, image, 'write -P 7 4M 300k', 'write -P 8 1M 700k')
        if fmt != 'qcow':
            tools.run('check', '-f', fmt, image)
    for tools in (lamella, reference):
        tools.run('compare', '-f', fmt, '-F', fmt, ours, theirs)


@pytest.mark.parametrize('fmt', ['qed', 'qcow'])
def test_backing_file(fmt, sources, reference, lamella, tmp_path):
    """Copy-on-write over a base that ends inside a cluster."""
    base = tmp_path / 'base.raw'
    base.write_bytes(sources['mixed'].read_bytes())
    images = []
    for name, tools in (('ours', lamella), ('theirs', reference)):
        image = tmp_path / name
        said_so = tools.run('create', '-f', fmt, '-b', 'base.raw', '-F', 'raw',
                            image, '7M')
        images.append((image, said_so.replace(name, '')))
        write(tools, fmt, image, 'write -P 1 100k 3k', 'write -z 1M 128k',
              'write -P 2 6M 100')
    assert images[0][1] == images[1][1]
    for tools in (lamella, reference):
        tools.run('compare', '-f', fmt, '-F', fmt, images[0][0], images[1][0])
    info = ['info', '-f', fmt, '--output=json', '--backing-chain']
    assert said(lamella, *info, images[1][0]) == \
        said(reference, *info, images[1][0])


# What is wrong, as (host offset, struct code, value), in an image with data at
# 0, 3M and 8M: clusters of 1 MiB from 1 MiB on; the L1 table at 64 KiB, L2 at
# 384 KiB.
DAMAGE = {
    'parallels': [[(48, '<I', 0)], [(48, '<I', 1)], [(48, '<I', 0x2001)],
                  [(64 + 4 * 3, '<I', 1)],
                  [(48, '<I', 0), (44, '<I', 0x746f6e59)]],
    'qed': [[(0x60000, '<Q', 1 << 40)], [(0x60000, '<Q', 0xc1000)],
            [(0x60000, '<Q', 0xc0000)], [(0x10000, '<Q', 1 << 33)],
            [(0x10000, '<Q', 77)], [(0x60400, '<Q', 2)],
            [(0x60400, '<Q', 1 << 50), (16, '<Q', 2)]],
}


def look(tools, fmt, image):
    """Exit status, and what is counted."""
    argv = [*tools.img, 'check', '-f', fmt, '--output=json', image]
    done = run(*argv, status=None)
    said = json.loads(done.stdout)
    return done.returncode, {key: said.get(key) for key in (
        'corruptions', 'leaks', 'check-errors', 'total-clusters')}


@pytest.mark.parametrize('fmt,damage', [
    (fmt, damage) for fmt, cases in DAMAGE.items() for damage in cases])
def test_repairs_as_theirs(fmt, damage, reference, lamella, tmp_path):
    """Entries that point nowhere are dropped, and clusters parted."""
    if fmt == 'parallels' and reference.version < (10,):
        pytest.skip('repairs less')
    image = tmp_path / 'image'
    reference.run('create', '-q', '-f', fmt, image, '9M')
    reference.io_run(image, 'write -q -P 1 0 64k', 'write -q -P 2 3M 1M',
                     'write -q -P 3 8M 70k', options=('-f', fmt))
    data = bytearray(image.read_bytes())
    for offset, code, value in damage:
        struct.pack_into(code, data, offset, value)
    found = {}
    for tools in reference, lamella:
        image.write_bytes(data)
        found[tools] = [look(tools, fmt, image)]
        done = run(*tools.img, 'check', '-r', 'all', '-f', fmt, image,
                   status=None)
        found[tools] += [done.returncode, look(tools, fmt, image)]
        found[tools].append(look(reference, fmt, image))
        tools.run('convert', '-f', fmt, '-O', 'raw', image, tmp_path / 'raw')
        found[tools].append((tmp_path / 'raw').read_bytes())
    assert found[lamella] == found[reference]
    assert found[lamella][0][1]['corruptions']


def test_qed_grows_and_is_rebased(reference, lamella, tmp_path):
    base, image = tmp_path / 'base.raw', tmp_path / 'image'
    base.write_bytes(b'b' * (3 * MiB))
    lamella.run('create', '-q', '-f', 'qed', '-o', 'cluster_size=4k,'
                'table_size=2', '-b', 'base.raw', '-F', 'raw', image, '2M')
    write(lamella, 'qed', image, 'write -P 1 2093056 4k')
    lamella.run('resize', '-f', 'qed', image, '9M')
    for tools in (lamella, reference):
        write(tools, 'qed', image, 'read -P 98 0 2093056',
              'read -P 1 2093056 4k', 'read -P 0 2M 7M')
    write(lamella, 'qed', image, 'write -P 2 8M 1M')
    lamella.run('rebase', '-f', 'qed', '-b', '', image)
    assert 'backing' not in reference.run('info', '-f', 'qed', image)
    write(reference, 'qed', image, 'read -P 98 0 2093056', 'read -P 2 8M 1M')
    reference.run('check', '-f', 'qed', image)


def test_qcow_with_aes(reference, lamella, tmp_path):
    """Made, filled and written by either, read by both."""
    secret = ['--object', 'secret,id=s,data=hello']
    options = ['-o', 'encrypt.format=aes,encrypt.key-secret=s']
    source = tmp_path / 'source'
    source.write_bytes(bytes(range(256)) * 1024)
    if 'built without' in run(*lamella.img, 'create', '-f', 'qcow', *secret,
                              *options, tmp_path / 'x', '1M',
                              status=None).stderr:
        pytest.skip('a build without encryption')
    for maker in (lamella, reference):
        image = tmp_path / ('made by ' + maker.name)
        name = 'driver=qcow,file.filename=%s,encrypt.key-secret=s' % image
        maker.run('convert', *secret, '-O', 'qcow', *options, source, image)
        for n, tools in enumerate((lamella, reference)):
            run(*tools.io, *secret, '--image-opts', '-c',
                'write -P 7 %d 60k' % (5120 + n), '-c',
                'write -P 8 %dk 3k' % (200 + n * 11), name)
        out = [tmp_path / 'ours', tmp_path / 'theirs']
        for tools, path in zip((lamella, reference), out):
            tools.run('convert', *secret, '--image-opts', '-O', 'raw', name,
                      path)
        assert out[0].read_bytes() == out[1].read_bytes()
        assert out[0].read_bytes()[:5120] == source.read_bytes()[:5120]
        assert said(lamella, 'info', image) == said(reference, 'info', image)


def test_compressed(sources, reference, lamella, tmp_path):
    """qcow: packed by convert, which the genuine one fails at, and by io."""
    source, image = sources['mixed'], tmp_path / 'ours'
    convert(lamella, 'qcow', source, image, '', '-c')
    assert image.stat().st_size < source.stat().st_size
    for tools in (lamella, reference):
        same(tools, 'qcow', source, image)
    reference.run('create', '-q', '-f', 'qcow', tmp_path / 'theirs', '5M')
    write(reference, 'qcow', tmp_path / 'theirs', 'write -c -P 1 0 4k',
          'write -c -P 2 1M 4k')
    for image, kept in ((tmp_path / 'ours', None), (tmp_path / 'theirs', 1)):
        if kept:
            write(lamella, 'qcow', image, 'read -P 1 0 4k', 'read -P 2 1M 4k')
        write(lamella, 'qcow', image, 'write -P 5 1M 10k', 'write -P 6 77 1000',
              'write -c -P 7 2M 8k', 'read -P 5 1M 10k')
        write(reference, 'qcow', image, 'read -P 5 1M 10k',
              'read -P 6 77 1000', 'read -P 7 2M 8k')


def test_clusters_of_three_sectors(sources, reference, lamella, tmp_path):
    """Which the genuine tool makes and reads, and its check does not know."""
    for name, tools in (('ours', lamella), ('theirs', reference)):
        convert(tools, 'parallels', sources['mixed'], tmp_path / name,
                'cluster_size=1536')
        for other in (lamella, reference):
            same(other, 'parallels', sources['mixed'], tmp_path / name)


def test_options(reference, lamella, tmp_path):
    """What -o help lists, and what is said of values that cannot be."""
    for fmt in ('vdi', 'parallels', 'qed', 'qcow'):
        assert lamella.run('create', '-f', fmt, '-o', 'help') == \
            reference.run('create', '-f', fmt, '-o', 'help')
    for fmt, options, size in (
            ('qed', 'cluster_size=5', '1M'), ('qed', 'table_size=3', '1M'),
            ('qed', 'cluster_size=128M', '1M'), ('vdi', 'static=x', '1M'),
            ('vdi', 'foo=1', '1M'), ('parallels', 'cluster_size=4G', '1M'),
            ('parallels', 'cluster_size=0', '1M'), ('qcow', '', '0'),
            ('vdi', 'preallocation=metadata', '1M')):
        lines = []
        for tools in (lamella, reference):
            image = tmp_path / tools.name
            command = ['create', '-q', '-f', fmt, image, size]
            if options:
                command[1:1] = ['-o', options]
            lines.append(refusal(tools, *command).replace(str(image), ''))
        assert lines[0] == lines[1]
        assert not (tmp_path / lamella.name).exists()


def test_parallels_discards(reference, lamella, tmp_path):
    """Whole clusters read as zero, and what is around them stays."""
    image = tmp_path / 'disk'
    lamella.run('create', '-q', '-f', 'parallels', '-o', 'cluster_size=64k',
                image, '1M')
    write(lamella, 'parallels', image, 'write -P 4 0 1M', 'flush',
          'discard 100k 200k', 'discard 960k 64k')
    for tools in lamella, reference:
        write(tools, 'parallels', image, 'read -P 4 0 128k',
              'read -P 0 128k 128k', 'read -P 4 256k 704k',
              'read -P 0 960k 64k')
    assert image.stat().st_blocks * 512 <= 900 * KiB


@pytest.mark.parametrize('killed', [False, True])
@pytest.mark.parametrize('mode', ['falloc', 'truncate'])
def test_parallels_takes_space_ahead(mode, killed, reference, lamella,
                                     tmp_path):
    """Whoever is killed leaves it behind the image, where it is a leak."""
    image = tmp_path / 'disk'
    lamella.run('create', '-q', '-f', 'parallels', image, '10M')
    tree = 'driver=parallels,file.filename=%s,prealloc-mode=%s,' \
        'prealloc-size=%d' % (image, mode, 4 * MiB)
    with subprocess.Popen([*lamella.io, '--image-opts', tree], text=True,
                          stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL) as process:
        process.stdin.write('write -P 7 5M 64k\nflush\n')
        process.stdin.flush()
        wait_until(process, lambda: image.stat().st_size == 6 * MiB)
        assert image.stat().st_size == 6 * MiB
        taken = image.stat().st_blocks * 512 >= 4 * MiB
        assert taken == (mode == 'falloc')
        if killed:
            process.kill()
    if killed:
        run(*lamella.img, 'check', '-q', '-r', 'all', image, status=None)
    assert image.stat().st_size == 2 * MiB
    reference.run('check', '-f', 'parallels', image)
    for tools in lamella, reference:
        write(tools, 'parallels', image, 'read -P 7 5M 64k',
              'read -P 0 5184k 960k')
