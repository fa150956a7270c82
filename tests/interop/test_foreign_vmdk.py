# SPDX-License-Identifier: MIT
"""VMDK images: the genuine tools write and lamella reads, and the other way."""
import re

import pytest

from foreign import convert, said, same
from harness import GENUINE, GiB, KiB, MiB, make_mixed_file, run
from vmdk_files import UNMAPPED, ZERO, cowd, descriptor, sesparse, stored

SUBFORMATS = ['monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse',
              'twoGbMaxExtentFlat', 'streamOptimized']
WRITABLE = ['subformat=' + name for name in SUBFORMATS[:4]] + [
    'zeroed_grain=on']


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Raw files: mixed and of odd size, sparse beyond 4 GiB."""
    top = tmp_path_factory.mktemp('raw')
    mixed, sparse = top / 'mixed', top / 'sparse'
    make_mixed_file(mixed, 5 * MiB + 5120, seed=12)
    with sparse.open('wb') as out:
        out.truncate(4 * GiB + 3 * MiB)
        for place in (2 * GiB - 100, 4 * GiB - 70 * KiB, 4 * GiB + MiB):
            out.seek(place)
            out.write(b'across two gigabytes' * 7000)
    return {'mixed': mixed, 'sparse': sparse}


def agree(ours, theirs, image):
    for arguments in (['info'], ['info', '--output=json'],
                      ['map', '--output=json'], ['check'],
                      ['check', '--output=json']):
        arguments = [arguments[0], '-f', 'vmdk', *arguments[1:], image]
        assert said(ours, *arguments) == said(theirs, *arguments)


# The large one where it makes a difference.
CASES = [('mixed', name) for name in SUBFORMATS] + [
    ('sparse', 'monolithicSparse'), ('sparse', 'twoGbMaxExtentSparse'),
    ('sparse', 'twoGbMaxExtentFlat')]


@pytest.mark.parametrize('source,subformat', CASES)
def test_reads_theirs(subformat, source, sources, genuine, reference, lamella,
                      tmp_path):
    image = tmp_path / 'theirs.vmdk'
    convert(genuine, 'vmdk', sources[source], image, 'subformat=' + subformat)
    same(lamella, 'vmdk', sources[source], image)
    agree(lamella, reference, image)


@pytest.mark.parametrize('source,subformat', CASES)
def test_they_read_ours(subformat, source, sources, lamella, tmp_path):
    if not GENUINE:
        pytest.skip('no genuine qemu-img here')
    image = tmp_path / 'ours.vmdk'
    convert(lamella, 'vmdk', sources[source], image, 'subformat=' + subformat)
    for tools in (*GENUINE, lamella):
        same(tools, 'vmdk', sources[source], image)
        tools.run('check', '-f', 'vmdk', image)
    agree(lamella, GENUINE[-1], image)


def without_cid(path):
    return re.sub(rb'\nCID=\w{8}\n', b'', path.read_bytes())


def new_image(tools, folder, options, size):
    """Without zeroes in front of a short random number, which moves the rest
    in the genuine tool's."""
    folder.mkdir()
    for _ in range(9):
        tools.run('create', '-q', '-f', 'vmdk', '-o', options,
                  folder / 'disk.vmdk', size)
        with (folder / 'disk.vmdk').open('rb') as disk:
            if re.search(rb'\nCID=\w{8}\n', disk.read(1024)):
                break
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('options', [
    'subformat=' + name for name in SUBFORMATS] + [
    'compat6=on,adapter_type=lsilogic', 'zeroed_grain=on,toolsversion=9',
    'hwversion=7,adapter_type=legacyESX'])
def test_new_images(options, reference, lamella, tmp_path):
    """The same files byte for byte, but for the random number in them."""
    for size in (512, 1000, 33 * MiB, 5 * GiB + 512):
        ours, theirs = tmp_path / ('o%d' % size), tmp_path / ('t%d' % size)
        names = new_image(lamella, ours, options, size)
        assert new_image(reference, theirs, options, size) == names
        for name in names:
            assert (ours / name).stat().st_size == \
                (theirs / name).stat().st_size
            if (ours / name).stat().st_size < MiB:
                assert without_cid(ours / name) == without_cid(theirs / name)


SCRIPT = ['write -P 1 0 64k', 'write -P 2 100k 200k',
          'write -P 3 2147480000 10000', 'write -P 4 4294967000 512',
          'write -z 1M 3M', 'write -P 6 1M 4k', 'write -z 64k 64k', 'flush',
          'write -P 9 33550000 20000', 'write -P 8 130k 300k',
          'write -z 140k 1k', 'write -P 7 33554432 64k']


@pytest.mark.parametrize('options', WRITABLE)
def test_taking_turns(options, genuine, lamella, tmp_path):
    """Both write into one image, one after the other."""
    image, raw = tmp_path / 'shared.vmdk', tmp_path / 'model.raw'
    lamella.run('create', '-q', '-f', 'vmdk', '-o', options, image, '6G')
    lamella.run('create', '-q', '-f', 'raw', raw, '6G')
    lamella.io_run(raw, *SCRIPT, options=['-f', 'raw'])
    for i in range(0, len(SCRIPT), 3):
        tools = (lamella, genuine)[i // 3 % 2]
        tools.io_run(image, *SCRIPT[i:i + 3], options=['-f', 'vmdk'])
    for tools in (lamella, genuine):
        same(tools, 'vmdk', raw, image)
        tools.run('check', '-f', 'vmdk', image)


@pytest.mark.parametrize('options', ['zeroed_grain=on',
                                     'subformat=twoGbMaxExtentSparse'])
def test_parent(options, genuine, reference, lamella, tmp_path):
    base, top = tmp_path / 'base.vmdk', tmp_path / 'top.vmdk'
    model = tmp_path / 'model.raw'
    genuine.run('create', '-q', '-f', 'vmdk', base, '40M')
    genuine.io_run(base, 'write -P 1 0 1M', 'write -P 1 33M 2M')
    lamella.run('create', '-q', '-f', 'vmdk', '-o', options, '-b', base,
                '-F', 'vmdk', top)
    lamella.io_run(top, 'write -P 2 30k 1k', 'write -z 64k 128k',
                   'write -P 3 34M 100k')
    genuine.run('convert', '-O', 'raw', top, model)
    same(lamella, 'vmdk', model, top)
    agree(lamella, reference, top)
    lamella.io_run(top, 'read -P 1 0 30k', 'read -P 2 30k 1k',
                   'read -P 0 64k 128k', 'read -P 1 192k 800k')
    assert said(lamella, 'info', '--backing-chain', top) == \
        said(reference, 'info', '--backing-chain', top)

    lamella.run('commit', top)
    for tools in (lamella, genuine):
        same(tools, 'vmdk', model, base)
        same(tools, 'vmdk', model, top)


def test_parent_has_changed(lamella, tmp_path):
    base, top = tmp_path / 'base.vmdk', tmp_path / 'top.vmdk'
    lamella.run('create', '-q', '-f', 'vmdk', base, '1M')
    lamella.run('create', '-q', '-f', 'vmdk', '-b', 'base.vmdk', '-F', 'vmdk',
                top)
    lamella.io_run(top, 'read 0 64k')
    lamella.io_run(base, 'read 0 64k')
    lamella.io_run(top, 'read 0 64k')
    lamella.io_run(base, 'write 0 512')
    done = run(*lamella.io, '-c', 'read 0 64k', top, status=1)
    assert re.search(r"'base.vmdk' has changed: its CID is \w{8}, and "
                     r'parentCID \w{8}\n', done.stderr)


REFUSED = {
    'adapter_type=floppy': 'invalid parameter value: floppy',
    'subformat=vmfs': 'invalid parameter value: vmfs',
    'compat6,hwversion=7': 'compat6 cannot be enabled with hwversion set',
    'subformat=monolithicFlat,zeroed_grain=on':
        "Flat image can't enable zeroed grain",
    'subformat=monolithicFlat,backing_file=base.vmdk,backing_fmt=vmdk':
        "Flat image can't have backing file",
    'backing_file=base.raw,backing_fmt=raw': 'backing_file must be a vmdk '
                                             'image',
    'preallocation=metadata': 'Unsupported preallocation mode: metadata',
}


@pytest.mark.parametrize('options', REFUSED)
def test_refused(options, reference, lamella, tmp_path):
    """In the same words, and nothing is left behind."""
    lamella.run('create', '-q', '-f', 'vmdk', tmp_path / 'base.vmdk', '1M')
    lamella.run('create', '-q', '-f', 'raw', tmp_path / 'base.raw', '1M')
    for tools in (lamella, reference):
        done = run(*tools.img, 'create', '-q', '-f', 'vmdk', '-o', options,
                   'x.vmdk', '1M', cwd=tmp_path, status=1)
        assert done.stderr.split(': ', 2)[2] == REFUSED[options] + '\n'
        left = {path.name for path in tmp_path.iterdir()}
        if tools is lamella:
            assert left == {'base.vmdk', 'base.raw'}


def test_stream_is_written_once(genuine, lamella, tmp_path):
    """Grains that are there are not replaced; others may come, in pieces."""
    image = tmp_path / 'x.vmdk'
    lamella.run('create', '-q', '-f', 'vmdk', '-o',
                'subformat=streamOptimized', image, '3M')
    lamella.io_run(image, 'write -P 1 64k 128k', 'write -P 2 1M 1k',
                   'write -P 3 2110000 512', 'write -z 2500k 1k')
    for command in ('write -P 4 64k 64k', 'write 100k 512', 'write -z 64k 64k'):
        done = run(*lamella.io, '-f', 'vmdk', '-c', command, image,
                   status=None)
        assert 'failed: Input/output error' in done.stdout + done.stderr
    for tools in (lamella, genuine):
        tools.io_run(image, 'read -P 1 64k 128k', 'read -P 2 1M 1k',
                     'read -P 0 1025k 63k', 'read -P 3 2110000 512',
                     'read -P 0 2500k 100k')
        tools.run('check', '-f', 'vmdk', image)


DESCRIPTOR = '''# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="%s"

# Extent description
%s

ddb.adapterType = "ide"
'''


def test_extents_by_hand(reference, lamella, tmp_path):
    """Ranges of one file, a zero extent, one that is not to be written."""
    image, flat = tmp_path / 'x.vmdk', tmp_path / 'flat'
    flat.write_bytes(b'\1' * MiB + b'\2' * MiB)
    image.write_text(DESCRIPTOR % (
        'twoGbMaxExtentFlat', 'RW 1024 FLAT "flat" 2048\r\nRW 512 ZERO\n'
        'RDONLY 2048 FLAT "flat" 0\n'))
    script = ['read -P 2 0 512k', 'read -P 0 512k 256k', 'read -P 1 768k 1M']
    lamella.io_run(image, *script, options=['-r', '-f', 'vmdk'])
    lamella.io_run(image, 'write -P 3 1k 1k', options=['-f', 'vmdk'])
    assert flat.read_bytes()[MiB + KiB:MiB + 2 * KiB] == b'\3' * KiB
    for place in ('520k', '800k'):
        done = run(*lamella.io, '-f', 'vmdk', '-c', 'write %s 512' % place,
                   image, status=None)
        assert 'Read-only file system' in done.stdout + done.stderr
    image.write_text(DESCRIPTOR % ('vmfs', 'RW 2048 VMFS "flat"'))
    agree(lamella, reference, image)


@pytest.mark.parametrize('grain,capacity', [(128, 2048), (8, 2048),
                                            (1, 10000), (128, 1048576)])
def test_esx_extent(grain, capacity, reference, lamella, tmp_path):
    """Tables of 4096 entries, also more than one of them."""
    last = capacity // grain - 1
    (tmp_path / 'esx').write_bytes(cowd([0, 3, 4, last], grain, capacity))
    image = tmp_path / 'x.vmdk'
    image.write_bytes(descriptor('RW %d VMFSSPARSE "esx"' % capacity,
                                 kind='vmfsSparse'))
    agree(lamella, reference, image)
    for tools, name in (reference, 'theirs'), (lamella, 'ours'):
        tools.run('convert', '-f', 'vmdk', '-O', 'raw', image, tmp_path / name)
    assert (tmp_path / 'ours').read_bytes() == \
        (tmp_path / 'theirs').read_bytes()


@pytest.mark.parametrize('entries,grains', [
    ({}, 0), ({0: stored(0), 4: stored(2), 5: ZERO, 6: UNMAPPED, 7: ZERO | 9,
              4095: stored(1), 4096: stored(3), 8191: stored(4)}, 5),
    ({i: stored(4200 - i) for i in range(4200)}, 4201)],
    ids=['empty', 'few', 'many'])
def test_space_efficient_extent(entries, grains, reference, lamella, tmp_path):
    """Entries of 64 bits that number tables and grains."""
    (tmp_path / 'esx').write_bytes(sesparse(entries, grains))
    image = tmp_path / 'x.vmdk'
    image.write_bytes(descriptor('RW 65536 SESPARSE "esx"', kind='seSparse'))
    agree(lamella, reference, image)
    for tools, name in (reference, 'theirs'), (lamella, 'ours'):
        tools.run('convert', '-f', 'vmdk', '-O', 'raw', image, tmp_path / name)
    assert (tmp_path / 'ours').read_bytes() == \
        (tmp_path / 'theirs').read_bytes()


def test_untrusted(lamella, tmp_path):
    """What is guessed is no VMDK, and none opens another file."""
    image, flat = tmp_path / 'x.vmdk', tmp_path / 'flat'
    flat.write_bytes(b'\1' * MiB)
    image.write_text(DESCRIPTOR % ('monolithicFlat',
                                   'RW 2048 FLAT "flat" 0'))
    assert 'file format: raw' in lamella.run('info', '--untrusted', image)
    done = run(*lamella.img, 'info', '--untrusted', '-f', 'vmdk', image,
               status=1)
    assert "the header names the extent file 'flat', and the policy is to " \
        'open none' in done.stderr


def test_unchecked_backing_file_is_missing(reference, lamella, tmp_path):
    """Its content ID is needed whatever is not checked."""
    texts = []
    for tools in reference, lamella:
        texts.append(run(*tools.img, 'create', '-q', '-u', '-f', 'vmdk', '-b',
                         'missing', '-F', 'vmdk', 'disk', '1M', status=1,
                         cwd=tmp_path).stderr.split(':', 1)[1])
        (tmp_path / 'disk').unlink(missing_ok=True)
    assert texts[0] == texts[1]
