# SPDX-License-Identifier: MIT
"""`convert -c` of what is compressed already: payloads go over as they are,
where type and cluster size agree, and nothing of that can be seen from the
guest's side."""
import os
import random
import struct

import pytest

from harness import KiB, MiB, run

SIZE = 4 * MiB
ZSTD = ('-o', 'compression_type=zstd')


def words(count, seed):
    """Bytes that shrink, and differ everywhere."""
    rng = random.Random(seed)
    text = b' '.join(b'%06x' % rng.getrandbits(20)
                     for _ in range(count // 7 + 1))
    return text[:count]


def payloads(path):
    """{guest offset: (sectors' bytes, offset in the file)} of the compressed
    clusters of an image without extended entries."""
    image = path.read_bytes()
    bits, = struct.unpack_from('>I', image, 20)
    l1_size, l1 = struct.unpack_from('>IQ', image, 36)
    cluster, shift = 1 << bits, 62 - (bits - 8)
    found = {}
    for i in range(l1_size):
        table, = struct.unpack_from('>Q', image, l1 + 8 * i)
        table &= 0x00fffffffffffe00
        for j in range(cluster // 8 if table else 0):
            entry, = struct.unpack_from('>Q', image, table + 8 * j)
            if not entry >> 62 & 1:
                continue
            start = entry & ((1 << shift) - 1)
            sectors = (entry >> shift & ((1 << (bits - 8)) - 1)) + 1
            end = (start & ~511) + sectors * 512
            found[(i * (cluster // 8) + j) * cluster] = (image[start:end],
                                                         start)
    return found


def bytes_of(path):
    return {guest: body for guest, (body, _) in payloads(path).items()}


def same_payloads(source, target):
    """All of @target's are @source's, but for what lies behind the end of the
    source's file."""
    ours, theirs = bytes_of(target), bytes_of(source)
    assert ours
    for guest, body in ours.items():
        assert body.startswith(theirs[guest]), hex(guest)


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """Words, a hole, a cluster or two of noise, words up to an odd end."""
    path = tmp_path_factory.mktemp('raw') / 'a.raw'
    noise = random.Random(5).randbytes(300 * KiB)
    path.write_bytes(words(2 * MiB, 1) + bytes(MiB) + noise +
                     words(SIZE - 3 * MiB - len(noise) - 1536, 2))
    return path


def check(reference, image):
    run(*reference.img, 'check', '-q', '-f', 'qcow2', image)


def same(reference, a, b, *formats):
    run(*reference.img, 'compare', '-q', *formats, a, b)


KINDS = [(), ZSTD, ('-o', 'cluster_size=4k'),
         ('-o', 'cluster_size=2M'), ('-o', 'cluster_size=512'),
         ('-o', 'cluster_size=4k,compression_type=zstd')]


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: ','.join(kind[1:])
                         or 'default')
@pytest.mark.parametrize('maker', ['genuine', 'ours'])
def test_payloads_are_kept(reference, lamella, raw, tmp_path, kind, maker):
    tools = reference if maker == 'genuine' else lamella
    source, target = tmp_path / 'source', tmp_path / 'target'
    tools.run('convert', '-c', '-f', 'raw', '-O', 'qcow2', *kind, raw, source)
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', *kind, source,
                target)
    check(reference, target)
    same(reference, raw, target, '-f', 'raw', '-F', 'qcow2')
    if 'cluster_size=512' not in kind:      # none is short enough
        ours, theirs = bytes_of(target), bytes_of(source)
        kept = [guest for guest in ours
                if ours[guest].startswith(theirs.get(guest, b'-'))]
        assert len(kept) >= 0.9 * len(ours) - 1


def test_does_not_grow(reference, lamella, raw, tmp_path):
    """However often it is copied."""
    lamella.run('convert', '-c', '-O', 'qcow2', '-f', 'raw', raw,
                tmp_path / '0')
    sizes = []
    for i in range(5):
        lamella.run('convert', '-c', '-m', '1', '-f', 'qcow2', '-O', 'qcow2',
                    tmp_path / str(i), tmp_path / str(i + 1))
        sizes.append(os.stat(tmp_path / str(i + 1)).st_size)
    assert sizes[-1] <= sizes[0] + 64 * KiB
    check(reference, tmp_path / '5')
    same(reference, raw, tmp_path / '5', '-f', 'raw', '-F', 'qcow2')


@pytest.mark.parametrize('source,target', [
    ((), ZSTD), (ZSTD, ()), ((), ('-o', 'cluster_size=32k')),
    (('-o', 'cluster_size=32k'), ())])
def test_what_differs_is_compressed_anew(reference, lamella, raw, tmp_path,
                                         source, target):
    lamella.run('convert', '-c', '-f', 'raw', '-O', 'qcow2', *source, raw,
                tmp_path / 'source')
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', *target,
                tmp_path / 'source', tmp_path / 'target')
    check(reference, tmp_path / 'target')
    same(reference, raw, tmp_path / 'target', '-f', 'raw', '-F', 'qcow2')


@pytest.mark.parametrize('options', [
    ('-o', 'refcount_bits=1'), ('-o', 'refcount_bits=64'),
    ('-o', 'extended_l2=on'), ('-o', 'compat=0.10'),
    ('-o', 'lazy_refcounts=on'), ('-S', '0'), ('-S', '1M'), ('-t', 'none'),
    ('-m', '16', '-W')], ids=lambda options: options[-1])
def test_targets(reference, lamella, raw, tmp_path, options):
    source, target = tmp_path / 'source', tmp_path / 'target'
    reference.run('convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, source)
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', *options,
                source, target)
    check(reference, target)
    same(reference, raw, target, '-f', 'raw', '-F', 'qcow2')


def make_chain(tools, raw, folder):
    """A compressed base, some clusters of it covered."""
    tools.run('convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, 'base.qcow2',
              cwd=folder)
    tools.run('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
              'qcow2', 'top.qcow2', cwd=folder)
    tools.io_run('top.qcow2', 'write -P 7 64k 64k', 'write -P 8 300k 5k',
                 'write -c -P 9 1M 128k', 'write -z 1536k 64k', cwd=folder)


def test_out_of_a_chain(reference, lamella, raw, tmp_path):
    make_chain(reference, raw, tmp_path)
    top, target = tmp_path / 'top.qcow2', tmp_path / 'target'
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', top, target)
    check(reference, target)
    same(reference, top, target)
    below, here = bytes_of(tmp_path / 'base.qcow2'), bytes_of(target)
    assert here[0].startswith(below[0])
    assert MiB in here and not here[MiB].startswith(below[MiB])
    assert 1536 * KiB not in here


def test_onto_the_same_backing_file(reference, lamella, raw, tmp_path):
    """Only what the overlay has is copied, compressed as it is."""
    make_chain(reference, raw, tmp_path)
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', '-B',
                'base.qcow2', '-F', 'qcow2', 'top.qcow2', 'target',
                cwd=tmp_path)
    check(reference, tmp_path / 'target')
    same(reference, tmp_path / 'top.qcow2', tmp_path / 'target')
    assert set(bytes_of(tmp_path / 'target')) >= {MiB, MiB + 64 * KiB}
    assert 0 not in bytes_of(tmp_path / 'target')


def test_out_of_a_snapshot(reference, lamella, raw, tmp_path):
    source, target = tmp_path / 'source', tmp_path / 'target'
    reference.run('convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, source)
    reference.run('snapshot', '-c', 'one', source)
    reference.io_run(source, 'write -P 3 0 1M')
    lamella.run('convert', '-c', '-l', 'one', '-f', 'qcow2', '-O', 'qcow2',
                source, target)
    check(reference, target)
    same(reference, raw, target, '-f', 'raw', '-F', 'qcow2')


@pytest.mark.parametrize('first', [3 * MiB, 3 * MiB + 4096])
def test_two_sources(reference, lamella, tmp_path, first):
    """The second one's clusters pass only where they begin at a cluster of
    the target."""
    one, two = words(first, 4), words(MiB + 512, 5)
    (tmp_path / 'one.raw').write_bytes(one)
    (tmp_path / 'two.raw').write_bytes(two)
    (tmp_path / 'all.raw').write_bytes(one + two)
    for name in 'one', 'two':
        reference.run('convert', '-c', '-f', 'raw', '-O', 'qcow2',
                      name + '.raw', name, cwd=tmp_path)
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', 'one', 'two',
                'target', cwd=tmp_path)
    check(reference, tmp_path / 'target')
    same(reference, tmp_path / 'all.raw', tmp_path / 'target', '-f', 'raw',
         '-F', 'qcow2')


def test_into_an_image_with_a_past(reference, lamella, raw, tmp_path):
    """What it held is replaced; its snapshot is not."""
    source, target = tmp_path / 'source', tmp_path / 'target'
    reference.run('convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, source)
    reference.run('create', '-q', '-f', 'qcow2', target, str(SIZE + MiB))
    reference.io_run(target, 'write -P 5 0 2M', 'write -c -P 6 2M 64k')
    reference.run('snapshot', '-c', 'past', target)
    reference.io_run(target, 'write -P 7 1M 2M')
    lamella.run('convert', '-n', '-c', '-f', 'qcow2', '-O', 'qcow2', source,
                target)
    check(reference, target)
    reference.run('convert', '-l', 'past', '-O', 'raw', target,
                  tmp_path / 'past.raw')
    past = (tmp_path / 'past.raw').read_bytes()
    assert past[:2 * MiB] == b'\5' * (2 * MiB)
    assert past[2 * MiB:2 * MiB + 64 * KiB] == b'\6' * (64 * KiB)
    reference.run('convert', '-O', 'raw', target, tmp_path / 'now.raw')
    now, wanted = (tmp_path / 'now.raw').read_bytes(), raw.read_bytes()
    assert now[:len(wanted)] == wanted


@pytest.mark.parametrize('kind', [(), ZSTD, ('-o', 'cluster_size=2M')])
def test_compressed_zeroes_are_not_stored(reference, lamella, tmp_path, kind):
    (tmp_path / 'a.raw').write_bytes(words(2 * MiB, 1) + bytes(4 * MiB) +
                                     words(2 * MiB, 2))
    source, target = tmp_path / 'source', tmp_path / 'target'
    reference.run('convert', '-c', '-S', '0', '-f', 'raw', '-O', 'qcow2',
                  *kind, tmp_path / 'a.raw', source)
    assert 4 * MiB in bytes_of(source)
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', *kind, source,
                target)
    assert 4 * MiB not in bytes_of(target) and 0 in bytes_of(target)
    same(reference, tmp_path / 'a.raw', target, '-f', 'raw', '-F', 'qcow2')
    lamella.run('convert', '-c', '-S', '0', '-f', 'qcow2', '-O', 'qcow2',
                *kind, source, target)
    assert 4 * MiB in bytes_of(target)


def test_file_ends_with_its_last_payload(reference, lamella, tmp_path):
    """Its last sector is not all there; the payload is."""
    (tmp_path / 'a.raw').write_bytes(words(MiB, 1))
    source, target = tmp_path / 'source', tmp_path / 'target'
    reference.run('convert', '-c', '-f', 'raw', '-O', 'qcow2',
                  tmp_path / 'a.raw', source)
    body, start = max(payloads(source).values(), key=lambda p: p[1])
    os.truncate(source, start + len(body.rstrip(b'\0')))
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', source, target)
    check(reference, target)
    same(reference, tmp_path / 'a.raw', target, '-f', 'raw', '-F', 'qcow2')


@pytest.mark.parametrize('missing', [600, 5000, 40000])
def test_cut_file_is_an_error(reference, lamella, tmp_path, missing):
    (tmp_path / 'a.raw').write_bytes(words(MiB, 1))
    source, target = tmp_path / 'source', tmp_path / 'target'
    reference.run('convert', '-c', '-f', 'raw', '-O', 'qcow2',
                  tmp_path / 'a.raw', source)
    body, start = max(payloads(source).values(), key=lambda p: p[1])
    os.truncate(source, start + len(body.rstrip(b'\0')) - missing)
    done = run(*lamella.img, 'convert', '-c', '-f', 'qcow2', '-O', 'qcow2',
               source, target, status=1)
    assert 'error while reading at byte' in done.stderr
    assert done.stderr.count('\n') == 1 and str(source) in done.stderr
    assert not target.exists()


def test_content_is_not_judged(reference, lamella, tmp_path):
    """A payload that cannot be inflated goes over; who reads it is told, of
    the source as of the target."""
    (tmp_path / 'a.raw').write_bytes(words(MiB, 1))
    source, target = tmp_path / 'source', tmp_path / 'target'
    reference.run('convert', '-c', '-f', 'raw', '-O', 'qcow2',
                  tmp_path / 'a.raw', source)
    body, start = payloads(source)[128 * KiB]
    with open(source, 'r+b') as image:
        image.seek(start)
        image.write(bytes(255 - byte for byte in body[:1024]))
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', source, target)
    check(reference, target)
    same_payloads(source, target)
    for image in source, target:
        done = run(*lamella.img, 'convert', '-f', 'qcow2', '-O', 'raw', image,
                   tmp_path / 'out.raw', status=1)
        assert 'compressed cluster' in done.stderr


def test_entries_that_share_and_overlap(reference, lamella, tmp_path):
    """Two entries for one payload, and one that claims too many sectors: odd,
    allowed, and each cluster still reads as it did."""
    (tmp_path / 'a.raw').write_bytes(words(MiB, 1))
    source, target = tmp_path / 'source', tmp_path / 'target'
    lamella.run('convert', '-c', '-m', '1', '-f', 'raw', '-O', 'qcow2',
                tmp_path / 'a.raw', source)
    with open(source, 'r+b') as image:
        image.seek(40)
        l1, = struct.unpack('>Q', image.read(8))
        image.seek(l1)
        table, = struct.unpack('>Q', image.read(8))
        table &= 0x00fffffffffffe00
        image.seek(table)
        entries = list(struct.unpack('>16Q', image.read(128)))
        entries[3] = entries[2]
        entries[9] = entries[4]
        entries[5] += 3 << 54
        image.seek(table)
        image.write(struct.pack('>16Q', *entries))
    run(*lamella.img, 'check', '-q', '-r', 'all', source, status=None)
    check(reference, source)
    lamella.run('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', source, target)
    check(reference, target)
    same(reference, source, target)
