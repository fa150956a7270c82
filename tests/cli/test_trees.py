# SPDX-License-Identifier: MIT
"""Images on images, in archives and behind filters: what is read and written
through them."""
import json
import time

from harness import KiB, MiB, random_bytes, run


def write_raw(path, size=MiB):
    data = random_bytes(11, 64 * KiB)
    with open(path, 'wb') as image:
        image.truncate(size)
        for offset in (0, size // 2):
            image.seek(offset)
            image.write(data)
    return path


def make_archive(lamella, folder):
    """A qcow2 image behind 1,536 bytes of something else."""
    raw = write_raw(folder / 'disk.raw')
    lamella.run('convert', '-f', 'raw', '-O', 'qcow2', raw,
                folder / 'disk.qcow2')
    with open(folder / 'x.ova', 'wb') as archive:
        archive.write(random_bytes(3, 1536))
        archive.write((folder / 'disk.qcow2').read_bytes())
    return raw


def test_image_in_archive(lamella, tmp_path):
    raw = make_archive(lamella, tmp_path)
    name = 'json:' + json.dumps({
        'driver': 'qcow2', 'file': {
            'driver': 'raw', 'offset': 1536,
            'file': {'driver': 'file', 'filename': 'x.ova'}}})
    for number, options in enumerate(([], ['-C'], ['-m', '1'])):
        out = tmp_path / ('out%d.raw' % number)
        lamella.run('convert', *options, '-O', 'raw', name, out, cwd=tmp_path)
        assert out.read_bytes() == raw.read_bytes()


def test_image_on_image(lamella, tmp_path):
    """A disk whose contents are a qcow2 image, inside a qcow2 image: it cannot
    grow, but what it has can be written."""
    raw = make_archive(lamella, tmp_path)
    lamella.run('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'disk.qcow2',
                'outer.qcow2', cwd=tmp_path)
    name = 'driver=qcow2,file.driver=qcow2,file.file.filename=outer.qcow2'
    lamella.run('compare', '--image-opts', name,
                'driver=raw,file.filename=disk.raw', cwd=tmp_path)
    lamella.io_run(name, 'write -P 7 0 64k', 'read -P 7 0 64k',
                   options=['--image-opts'], cwd=tmp_path)
    lamella.run('convert', '--image-opts', '-O', 'raw', name, 'out.raw',
                cwd=tmp_path)
    expected = bytearray(raw.read_bytes())
    expected[:64 * KiB] = b'\7' * (64 * KiB)
    assert (tmp_path / 'out.raw').read_bytes() == expected
    lamella.run('check', 'outer.qcow2', cwd=tmp_path)


def test_copy_on_read(lamella, tmp_path):
    raw = write_raw(tmp_path / 'base.raw')
    lamella.run('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw',
                'top.qcow2', cwd=tmp_path)
    name = 'driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2'
    lamella.io_run(name, 'read 0 512', 'read 600k 1k',
                   options=['--image-opts'], cwd=tmp_path)
    own = json.loads(lamella.run('map', '--output=json', 'top.qcow2',
                                 cwd=tmp_path))
    assert [(e['start'], e['length']) for e in own
            if e['depth'] == 0 and e['present']] == \
        [(0, 64 * KiB), (576 * KiB, 64 * KiB)]
    lamella.run('convert', '-O', 'raw', 'top.qcow2', 'out.raw', cwd=tmp_path)
    assert (tmp_path / 'out.raw').read_bytes() == raw.read_bytes()


def test_compress(lamella, tmp_path):
    raw = write_raw(tmp_path / 'disk.raw')
    lamella.run('create', '-q', '-f', 'qcow2', 'out.qcow2', '1M', cwd=tmp_path)
    lamella.run('convert', '-n', '-f', 'raw', '--target-image-opts', raw,
                'driver=compress,file.driver=qcow2,file.file.filename='
                'out.qcow2', cwd=tmp_path)
    lamella.run('compare', 'out.qcow2', raw, cwd=tmp_path)
    extents = json.loads(lamella.run('map', '--output=json', 'out.qcow2',
                                     cwd=tmp_path))
    assert not [e for e in extents if e['data'] and not e['compressed']
                and e['length'] > 64 * KiB]
    lamella.run('check', 'out.qcow2', cwd=tmp_path)


def test_throttle(lamella, tmp_path):
    """40 requests at 100 a second, of which the first ten or so are free."""
    (tmp_path / 'a.raw').write_bytes(random_bytes(5, 256 * KiB))
    start = time.monotonic()
    run(*lamella.img, 'bench', '-c', '40', '-d', '1', '--object',
        'throttle-group,id=g,x-iops-total=100', '--image-opts',
        'driver=throttle,throttle-group=g,file.filename=a.raw', cwd=tmp_path)
    assert time.monotonic() - start > 0.25
