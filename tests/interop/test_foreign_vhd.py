# SPDX-License-Identifier: MIT
"""VHD images: the genuine tools write and lamella reads, and the other way."""
import struct

import pytest

from foreign import convert, make_sources, said, same
from harness import GENUINE, GiB, KiB, MiB, run
from vhd_files import (BLOCK, DIFFERENCING, UNUSED, block, differencing,
                       dynamic, fixed, footer)

OPTIONS = ['subformat=dynamic', 'subformat=fixed', 'force_size=on',
           'subformat=fixed,force_size=on']
# A fixed disk without data is one that the genuine tool cannot open.
CASES = [(source, options) for source in ('mixed', 'empty', 'sparse')
         for options in OPTIONS[:4 if source == 'mixed' else 2]
         if source != 'empty' or 'fixed' not in options]


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp('raw'))


@pytest.mark.parametrize('source,options', CASES)
def test_reads_theirs(source, options, sources, genuine, reference, lamella,
                      tmp_path):
    image = tmp_path / 'theirs.vhd'
    convert(genuine, 'vpc', sources[source], image, options)
    same(lamella, 'vpc', sources[source], image)
    for form in ('human', 'json'):
        arguments = ['info', '-f', 'vpc', '--output', form, image]
        assert said(lamella, *arguments) == said(reference, *arguments)
    if 'fixed' not in options:
        arguments = ['map', '-f', 'vpc', '--output=json', image]
        assert lamella.run(*arguments) == reference.run(*arguments)


@pytest.mark.parametrize('source,options', CASES)
def test_they_read_ours(source, options, sources, lamella, tmp_path):
    if not GENUINE:
        pytest.skip('no genuine qemu-img here')
    image = tmp_path / 'ours.vhd'
    convert(lamella, 'vpc', sources[source], image, options)
    for tools in GENUINE:
        same(tools, 'vpc', sources[source], image)
    same(lamella, 'vpc', sources[source], image)
    back = tmp_path / 'back.raw'
    lamella.run('convert', '-f', 'vpc', '-O', 'raw', image, back)
    lamella.run('compare', '-f', 'raw', '-F', 'raw', sources[source], back)


def test_nothing_fixed(sources, lamella, tmp_path):
    image = tmp_path / 'empty.vhd'
    convert(lamella, 'vpc', sources['empty'], image, 'subformat=fixed')
    same(lamella, 'vpc', sources['empty'], image)
    assert image.stat().st_size == 512


def without_chance(path):
    """The file but for times, names and the sums over them."""
    data = bytearray(path.read_bytes())
    for at in (0, len(data) - 512):
        if data[at:at + 8] != b'conectix':
            continue
        data[at + 24:at + 28] = bytes(4)
        data[at + 64:at + 84] = bytes(20)
    return data


@pytest.mark.parametrize('size', [0, 1, 511, 34816, 34817, 10 * MiB, 68 * MiB,
                                  508 * MiB + 512, 2 * GiB, 3 * GiB + 1,
                                  32 * GiB, 127 * GiB, 136899993088,
                                  136899993600, 136899993601, 2040 * GiB])
def test_new_images(size, reference, lamella, tmp_path):
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    for options in ('subformat=dynamic', 'force_size=on'):
        for tools, path in ((reference, theirs), (lamella, ours)):
            tools.run('create', '-q', '-f', 'vpc', '-o', options, path, size)
        assert without_chance(ours) == without_chance(theirs)


def test_taking_turns(genuine, lamella, tmp_path):
    """Both write into one image, one after the other."""
    image, raw = tmp_path / 'shared.vhd', tmp_path / 'model.raw'
    lamella.run('create', '-q', '-f', 'vpc', '-o', 'force_size=on', image,
                '20M')
    lamella.run('create', '-q', '-f', 'raw', raw, '20M')
    script = ['write -P %d %d %d' % (i + 1, (i * 7919 * KiB) % (19 * MiB),
                                     1 + i * 1337 % (90 * KiB))
              for i in range(40)]
    script += ['write -z 3M 300k', 'write -z 8M 4M', 'write -P 9 9M 1k',
               'flush']
    lamella.io_run(raw, *script, options=['-f', 'raw'])
    for i in range(0, len(script), 11):
        tools = (lamella, genuine)[i % 2]
        tools.io_run(image, *script[i:i + 11], options=['-f', 'vpc'])
    for tools in (lamella, genuine):
        same(tools, 'vpc', raw, image)


APPS = [b'win ', b'qemu', b'qem2', b'd2v ', b'vpc ', b'vs  ', b'tap\0',
        b'CTXS', b'\0\0\0\0']


@pytest.mark.parametrize('app', APPS, ids=repr)
def test_sizes(app, reference, lamella, tmp_path):
    """Whose geometry counts."""
    image = tmp_path / 'x.vhd'
    for chs in ((302, 4, 17), (65535, 16, 255), (0, 0, 0), (100, 4, 17)):
        image.write_bytes(dynamic(foot=footer(app=app, chs=chs)))
        arguments = ['info', '-f', 'vpc', '--output=json', image]
        done = [run(*tools.img, *arguments, status=None)
                for tools in (lamella, reference)]
        assert done[0].stdout == done[1].stdout
        assert done[0].returncode == done[1].returncode
        # By its geometry the disk is a few sectors larger than the table.
        assert ('Page table too small' in done[0].stderr) == \
            (app in (b'qemu', b'vpc ') and chs == (302, 4, 17))


def test_old_fixed(reference, lamella, tmp_path):
    """A footer of 511 bytes, as the first programs wrote it."""
    image, raw = tmp_path / 'x.vhd', tmp_path / 'x.raw'
    raw.write_bytes(b'fixed disk' * 512 + bytes(MiB - 5120))
    image.write_bytes(fixed(raw.read_bytes(), size=MiB)[:-1])
    for tools in (lamella, reference):
        same(tools, 'vpc', raw, image)


def test_bitmaps(genuine, lamella, tmp_path):
    """What a dynamic disk has of a block, it has whatever the bitmap says; who
    writes there says so."""
    image = tmp_path / 'x.vhd'
    image.write_bytes(dynamic([UNUSED, 4], block(b'\xaa' * BLOCK,
                                                 bytes(512))))
    for tools in (lamella, genuine):
        tools.io_run(image, 'read -P 0xaa 2M 2M', options=['-f', 'vpc'])
    lamella.io_run(image, 'write -P 1 3M 512', options=['-f', 'vpc'])
    assert image.read_bytes()[2048:2560] == b'\xff' * 512
    genuine.io_run(image, 'read -P 0xaa 2M 1M', 'read -P 1 3M 512',
                   options=['-f', 'vpc'])


@pytest.mark.parametrize('absolute', [False, True])
def test_differencing(absolute, lamella, tmp_path):
    """What its bitmap names is the overlay's, the rest its parent's."""
    name = 'C:\\disks\\base.vhd' if absolute else '.\\base.vhd'
    (tmp_path / 'base.vhd').write_bytes(
        dynamic([4], block(b'\x11' * BLOCK), footer(10 * MiB)))
    top = tmp_path / 'top.vhd'
    top.write_bytes(differencing(name, [0, 9, 4095], b'\x22' * BLOCK,
                                 absolute=absolute))
    lamella.io_run(top, 'read -P 0x22 0 512', 'read -P 0x11 512 4096',
                   'read -P 0x22 4608 512', 'read -P 0x11 5120 1M',
                   'read -P 0x22 2096640 512', 'read -P 0 2M 1M',
                   options=['-r', '-f', 'vpc'])
    text = lamella.run('info', '-f', 'vpc', top)
    assert 'backing file: base.vhd' in text
    assert struct.unpack('>I', top.read_bytes()[60:64])[0] == DIFFERENCING


def test_differencing_is_not_written(lamella, tmp_path):
    top = tmp_path / 'top.vhd'
    (tmp_path / 'base.vhd').write_bytes(dynamic())
    top.write_bytes(differencing('base.vhd', [0], b'\x22'))
    before = top.read_bytes()
    done = run(*lamella.io, '-f', 'vpc', '-c', 'write 0 512', top, status=1)
    assert 'a differencing VHD can only be read' in done.stderr
    assert top.read_bytes() == before


def test_first_block_of_a_new_disk(reference, lamella, tmp_path):
    """Is there, as that of a raw one is; who converts writes what there is."""
    maps = []
    for tools in reference, lamella:
        image = tmp_path / ('%d.vhd' % len(maps))
        tools.run('create', '-q', '-f', 'vpc', '-o',
                  'subformat=fixed,force_size=on', image, '1M')
        maps.append(tools.run('map', '-f', 'vpc', '--output=json', image))
    assert maps[0] == maps[1]
