# SPDX-License-Identifier: MIT
"""What programs that call qemu-img make of its output: their patterns, limits,
keys and words, each held against ours.  Whole command lines of theirs are in
tests/differential/lines/callers.txt."""
import json
import os
import re
import resource
import subprocess

import pytest

from harness import KiB, MiB, random_bytes, run


@pytest.fixture(scope='module')
def place(our_img, lamella, tmp_path_factory):
    """base.qcow2 below top.qcow2, with a bitmap, a snapshot; a raw file."""
    folder = tmp_path_factory.mktemp('callers')
    (folder / 'a.raw').write_bytes(random_bytes(3, MiB) + bytes(3 * MiB))

    def img(*words):
        run(our_img, *words, cwd=folder)

    img('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'base.qcow2')
    img('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2',
        'top.qcow2')
    run(*lamella.io, '-c', 'write -q -P 7 1M 64k', 'top.qcow2', cwd=folder)
    img('snapshot', '-c', 'tag', 'top.qcow2')
    img('bitmap', '--add', 'top.qcow2', 'dirty')
    return folder


def out(our_img, place, *words, status=0):
    return run(our_img, *words, cwd=place, status=status).stdout


# ------------------------------------------------------------------- numbers

def test_version(our_img, place):
    first = out(our_img, place, '--version').splitlines()[0]
    words = first.split()
    assert words[:2] == ['qemu-img', 'version'] and len(words) >= 4
    for pattern in (r'qemu-img version ([0-9\.]*)',
                    r'version\s+([0-9a-z\-\.]+)'):
        assert re.search(pattern, first)[1] == words[2]
    assert [int(part) for part in words[2].split('.')] >= [7, 2]


def progress_of(our_img, place, *words):
    done = subprocess.run([our_img, *words], cwd=place, stdout=subprocess.PIPE,
                          check=True)
    return done.stdout.decode()


@pytest.mark.parametrize('words', [
    'convert -p -O raw top.qcow2 p.raw', 'convert -p -c -O qcow2 a.raw p.qcow2',
    'rebase -p -u -b base.qcow2 -F qcow2 top.qcow2',
    'compare -p base.qcow2 a.raw'])
def test_progress(our_img, place, words):
    """Records that end in \\r, from 0 to 100, never back; then one \\n."""
    *records, rest = progress_of(our_img, place, *words.split()).split('\r')
    assert rest in ('\n', 'Images are identical.\n\n')
    shown = []
    for record in records:
        assert re.fullmatch(r' {4}\(\d{1,3}\.\d\d/100%\)', record)
        vdsm = re.match(r'\s*\(([\d.]+)/100%\)\s*', record)[1]
        assert vdsm == re.search(r'\((\S+)/100%\)', record)[1] \
            == record.strip().strip('(%)').split('/')[0] \
            == re.search(r'(\d+\.\d+)', record)[1]
        shown.append(float(vdsm))
    assert shown[0] == 0 and shown[-1] == 100 and shown == sorted(shown)


# ---------------------------------------------------------------------- JSON

INFO_KEYS = ('format', 'virtual-size', 'actual-size', 'cluster-size',
             'filename', 'backing-filename', 'full-backing-filename',
             'backing-filename-format', 'snapshots', 'dirty-flag', 'children',
             'format-specific')
DATA_KEYS = ('compat', 'compression-type', 'lazy-refcounts', 'refcount-bits',
             'corrupt', 'extended-l2', 'bitmaps')
ABSENT = ('backing-filename', 'full-backing-filename', 'encrypted',
          'backing-filename-format', 'snapshots')


def test_info_keys(our_img, place):
    info = json.loads(out(our_img, place, 'info', '-U', '--output=json',
                          'top.qcow2'))
    assert not set(INFO_KEYS) - set(info)
    data = info['format-specific']['data']
    assert info['format-specific']['type'] == 'qcow2'
    assert not set(DATA_KEYS) - set(data)
    assert set(data['bitmaps'][0]) >= {'name', 'flags', 'granularity'}
    assert info['snapshots'][0]['name'] == 'tag'
    child = info['children'][0]['info']
    assert child['filename'] == 'top.qcow2' and child['children'] == []


def test_absent_means_absent(our_img, place):
    """No null anywhere, and no key for what there is not."""
    for name in 'a.raw', 'base.qcow2', 'top.qcow2':
        text = out(our_img, place, 'info', '--output=json', name)
        assert 'null' not in text
        if name != 'top.qcow2':
            info = json.loads(text)
            assert not set(ABSENT) & set(info)
            data = info.get('format-specific', {}).get('data', {})
            assert not {'bitmaps', 'data-file'} & set(data)


def test_kinds_of_json(our_img, place):
    def load(*words):
        return json.loads(out(our_img, place, *words))

    chain = load('info', '--backing-chain', '--output=json', 'top.qcow2')
    assert [layer['filename'] for layer in chain] == ['top.qcow2', 'base.qcow2']
    extents = load('map', '--output=json', 'top.qcow2')
    for extent in extents:
        assert set(extent) >= {'start', 'length', 'depth', 'present', 'zero',
                               'data'}
        assert not extent['data'] or 'offset' in extent
    assert sum(extent['length'] for extent in extents) == 4 * MiB
    sizes = load('measure', '--output=json', '-O', 'qcow2', 'top.qcow2')
    assert set(sizes) == {'required', 'fully-allocated', 'bitmaps'}
    report = load('check', '--output=json', 'top.qcow2')
    assert set(report) >= {'filename', 'format', 'check-errors',
                           'image-end-offset', 'total-clusters',
                           'allocated-clusters'}


def test_json_is_utf8(our_img, place):
    """Whatever bytes the name has."""
    name = os.fsencode(place) + b'/\xff"\\\n\x01.raw'
    with open(name, 'wb') as image:
        image.write(bytes(KiB))
    done = subprocess.run([our_img, 'info', '--output=json', name],
                          stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout.decode('utf-8'))['format'] == 'raw'


# ------------------------------------------------------------------ for people

LINES = [
    ('info top.qcow2', r'(?m)^file format: (\w+)'),
    ('info top.qcow2', r'virtual size: .* \((\d+) bytes\)'),
    ('info top.qcow2', r'(?m)^disk size: '),
    ('info top.qcow2', r'(?m)^backing file: base\.qcow2$'),
    ('info top.qcow2', r'(?m)^Snapshot list:$'),
    ('info top.qcow2', r'compat: 1\.1'),
    ('check base.qcow2', r'(?m)^Image end offset: \d+$'),
    ('check base.qcow2', r'(?m)^No errors were found on the image\.$'),
    ('check base.qcow2', r'(?m)^\d+/\d+ = [\d.]+% allocated, '),
    ('compare base.qcow2 a.raw', r'^Images are identical\.$'),
    ('measure -O qcow2 a.raw', r'(?m)^required size: \d+$'),
    ('measure -O qcow2 a.raw', r'(?m)^fully allocated size: \d+$'),
    ('snapshot -l top.qcow2', r'(?m)^\d+\s+tag\s'),
    ('map base.qcow2', r'^Offset +Length +Mapped to +File\n0 +0x'),
]


@pytest.mark.parametrize('words,pattern', LINES)
def test_lines(our_img, place, words, pattern):
    done = run(our_img, *words.split(), cwd=place)
    assert re.search(pattern, done.stdout) and done.stderr == ''


def test_a_line_for_each_layer(our_img, place):
    text = out(our_img, place, 'info', '--backing-chain', 'top.qcow2')
    assert re.findall(r'(?m)^image: (.*)', text) == ['top.qcow2', 'base.qcow2']
    other = out(our_img, place / '..', 'info',
                os.path.join(place.name, 'top.qcow2'))
    assert re.search(r'(?m)^backing file: base\.qcow2 \(actual path: (.*)\)$',
                     other)


# -------------------------------------------------------------------- failures

FAILURES = [
    ('info nowhere', 1, 'No such file or directory'),
    ('create -f raw -o preallocation=metadata x.raw 1M', 1,
     'Unsupported preallocation mode'),
    ('snapshot -d nope base.qcow2', 1, 'snapshot not found'),
    ('convert -l nope -O raw base.qcow2 x.raw', 1, "Can't find snapshot"),
    ('info -f luks a.raw', 1, ''),
    ('info -f qcow2 a.raw', 1, 'Image is not in qcow2 format'),
    ('create -f qcow2 -b nowhere -F qcow2 x.qcow2', 1,
     'No such file or directory'),
    ('convert -n -O raw base.qcow2 small.raw', 1,
     'output file is smaller than input file'),
    ('check a.raw', 63, 'does not support checks'),
    ('compare top.qcow2 a.raw', 1, ''), ('compare a.raw nowhere', 2, ''),
]


@pytest.mark.parametrize('words,status,text', FAILURES)
def test_failures(our_img, place, words, status, text):
    (place / 'small.raw').write_bytes(bytes(KiB))
    before = set(os.listdir(place))
    done = run(our_img, *words.split(), cwd=place, status=status)
    assert text in done.stderr
    assert set(os.listdir(place)) == before


def test_download_cut_off(our_img, place):
    """A VMDK of which the beginning is there."""
    run(our_img, 'convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized',
        'a.raw', 'a.vmdk', cwd=place)
    os.truncate(place / 'a.vmdk', 20000)
    done = run(our_img, 'info', 'a.vmdk', cwd=place, status=1)
    assert re.search(r'expecting at least \d+ bytes', done.stderr)


@pytest.fixture
def held(lamella, place):
    """Somebody else has base.qcow2 and may write to it."""
    argv = [*lamella.io, 'base.qcow2']
    with subprocess.Popen(argv, cwd=place, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as holder:
        holder.stdin.write('length\n')
        holder.stdin.flush()
        assert '4 MiB' in holder.stdout.readline()
        yield
        holder.stdin.close()


def test_lock_text(our_img, held, place):
    """What packer waits for, while somebody else has the image."""
    done = run(our_img, 'info', 'base.qcow2', cwd=place, status=1)
    assert 'Failed to get shared "write" lock\nIs another process using ' \
        'the image [base.qcow2]?' in done.stderr
    run(our_img, 'info', '-U', 'base.qcow2', cwd=place)


def test_overlay_of_what_is_in_use(our_img, held, place):
    """A virtual machine is about to go on in it."""
    for size in [], ['8M']:
        done = run(our_img, 'create', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
                   'qcow2', 'over.qcow2', *size, cwd=place)
        assert not done.stderr
    run(our_img, 'create', '-f', 'qcow2', '-b', 'over.qcow2', '-F', 'qcow2',
        'second.qcow2', cwd=place)
    done = run(our_img, 'create', '-f', 'qcow2', 'base.qcow2', '1M', cwd=place,
               status=1)
    assert 'Failed to get "write" lock' in done.stderr


def limited(limits):
    def apply():
        for kind, value in limits:
            resource.setrlimit(kind, (value, value))
    return apply


@pytest.mark.parametrize('words,memory,seconds', [
    ('info --output=json top.qcow2', 1 << 30, 2),
    ('info --backing-chain --output=json top.qcow2', 1 << 30, 2),
    ('convert -t none -T none -W -m 16 -O qcow2 -c top.qcow2 l.qcow2', 2 << 30,
     30),
    ('convert -O raw top.qcow2 l.raw', 2 << 30, 30)])
def test_limits(our_img, place, words, memory, seconds):
    """Address space and processor time as callers limit them."""
    done = subprocess.run(
        [our_img, *words.split()], cwd=place, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, env=dict(os.environ, MALLOC_ARENA_MAX='3'),
        preexec_fn=limited(((resource.RLIMIT_AS, memory),
                            (resource.RLIMIT_CPU, seconds))))
    assert (done.returncode, done.stderr) == (0, b'')
