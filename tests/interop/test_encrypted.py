# SPDX-License-Identifier: MIT
"""Encrypted images: genuine tools make and write them, lamella reads; and the
reverse."""
import random
import subprocess

import pytest

from harness import (KiB, MiB, build_dir, need_libcrypto, run,
                     wait_until)

SIZE = 3 * MiB
SECRET = ['--object', 'secret,id=s0,data=swordfish']
IO_COMMANDS = ['write -P 1 0 1M', 'write -P 2 1000 3000', 'write -P 3 65535 2',
               'write -P 4 1048577 70000', 'write -z 2M 64k',
               'write -z 300000 5000', 'discard 1M 64k', 'flush']


@pytest.fixture(autouse=True)
def needs_libcrypto(lamella):
    need_libcrypto()


def create_options(fmt, options):
    """-o for @options, which are named as LUKS images name them."""
    prefix = 'encrypt.' if fmt == 'qcow2' else ''
    chosen = ['encrypt.format=luks'] if fmt == 'qcow2' else []
    chosen += [prefix + 'key-secret=s0', prefix + 'iter-time=1']
    for option in options:
        own = option.split('=')[0] in ('cluster_size', 'extended_l2', 'compat',
                                       'preallocation', 'data_file')
        chosen.append(option if own else prefix + option)
    return ['-o', ','.join(chosen)]


def node(fmt, path, secret='s0'):
    key = 'encrypt.key-secret' if fmt == 'qcow2' else 'key-secret'
    return 'driver=%s,%s=%s,file.filename=%s' % (fmt, key, secret, path)


def contents(tools, fmt, path, tmp_path):
    out = tmp_path / ('%s.out' % tools.name)
    tools.run('convert', *SECRET, '--image-opts', '-O', 'raw', node(fmt, path),
              out)
    data = out.read_bytes()
    out.unlink()
    return data


def write(tools, fmt, path):
    commands = [part for command in IO_COMMANDS for part in ('-c', command)]
    run(*tools.io, *SECRET, '--image-opts', node(fmt, path), *commands)


CASES = [
    ('luks', []),
    ('luks', ['cipher-alg=aes-128', 'cipher-mode=cbc', 'ivgen-alg=plain']),
    ('luks', ['cipher-alg=aes-256', 'cipher-mode=cbc', 'ivgen-alg=essiv',
              'ivgen-hash-alg=sha256']),
    ('luks', ['cipher-alg=aes-192', 'hash-alg=sha512']),
    ('luks', ['cipher-mode=ctr', 'hash-alg=sha1']),
    ('luks', ['cipher-alg=aes-128', 'cipher-mode=ecb', 'hash-alg=md5']),
    ('qcow2', []),
    ('qcow2', ['compat=0.10']),
    ('qcow2', ['cluster_size=512', 'cipher-mode=cbc', 'ivgen-alg=essiv']),
    ('qcow2', ['extended_l2=on', 'cluster_size=2M']),
    ('qcow2', ['preallocation=metadata']),
]


@pytest.mark.parametrize('fmt, options', CASES,
                         ids=[' '.join([f, *o]) for f, o in CASES])
@pytest.mark.parametrize('ours_first', [False, True], ids=['theirs', 'ours'])
def test_both_ways(fmt, options, ours_first, reference, lamella, tmp_path):
    maker, other = (lamella, reference) if ours_first else (reference, lamella)
    source, image = tmp_path / 'source.raw', tmp_path / 'image'
    source.write_bytes(random.Random(1).randbytes(SIZE - 5 * 512) +
                       bytes(5 * 512))
    maker.run('convert', *SECRET, '-f', 'raw', '-O', fmt,
              *create_options(fmt, options), source, image)
    assert contents(other, fmt, image, tmp_path) == source.read_bytes()
    for tools in (maker, other):
        write(tools, fmt, image)
        assert contents(lamella, fmt, image, tmp_path) == \
            contents(reference, fmt, image, tmp_path)
    if fmt == 'qcow2':
        reference.run('check', *SECRET, '--image-opts', node(fmt, image))
        lamella.run('check', image)
    for output in ('human', 'json'):
        assert lamella.run('info', '--output=' + output, image) == \
            reference.run('info', '--output=' + output, image)
        shown = [run(*tools.img, 'map', '--output=' + output, *SECRET,
                     '--image-opts', node(fmt, image), status=None)
                 for tools in (lamella, reference)]
        assert shown[0].stdout == shown[1].stdout
        assert shown[0].returncode == shown[1].returncode


@pytest.mark.parametrize('options', [
    [], ['compat=0.10'], ['cluster_size=512'], ['preallocation=metadata'],
    ['extended_l2=on', 'cluster_size=16k'], ['data_file']])
def test_old_encryption(options, reference, lamella, tmp_path):
    """Made by either, written by both in turn."""
    for maker in (lamella, reference):
        image = tmp_path / ('made by ' + maker.name)
        chosen = [option + '=' + str(image) + '.data' if option == 'data_file'
                  else option for option in options]
        maker.run('create', '-q', *SECRET, '-f', 'qcow2', '-o', ','.join(
            ['encrypt.format=aes', 'encrypt.key-secret=s0', *chosen]), image,
            SIZE)
        if 'preallocation=metadata' in options:
            # The genuine tool shows what the host's zeroes decrypt to.
            run(*maker.io, *SECRET, '--image-opts', node('qcow2', image), '-c',
                'write -P 9 0 3M')
        for tools in (reference, lamella):
            write(tools, 'qcow2', image)
            assert contents(lamella, 'qcow2', image, tmp_path) == \
                contents(reference, 'qcow2', image, tmp_path)
            tools.run('resize', *SECRET, '--image-opts', node('qcow2', image),
                      '+1M')
        reference.run('check', *SECRET, '--image-opts', node('qcow2', image))
        for output in ('human', 'json'):
            assert lamella.run('info', '--output=' + output, image) == \
                reference.run('info', '--output=' + output, image)
        done = run(*lamella.img, 'amend', *SECRET, '--image-opts', '-o',
                   'encrypt.state=active,encrypt.new-secret=s0',
                   node('qcow2', image), status=1)
        assert 'Only LUKS encryption options can be amended' in done.stderr


OTHERS = [('serpent-128', 'cbc', 'essiv'), ('serpent-192', 'xts', 'plain64'),
          ('serpent-256', 'ctr', 'plain'), ('twofish-128', 'xts', 'essiv'),
          ('twofish-192', 'xts', 'plain'), ('twofish-256', 'cbc', 'essiv'),
          ('twofish-256', 'ecb', 'plain64'), ('cast5-128', 'cbc', 'plain64'),
          ('cast5-128', 'ctr', 'plain'), ('cast5-128', 'ecb', 'plain'),
          ('cast5-128', 'cbc', 'essiv')]


@pytest.mark.parametrize('cipher, mode, ivgen', OTHERS)
def test_other_ciphers(cipher, mode, ivgen, reference, lamella, tmp_path):
    """The genuine tool reads what is ours, and writes into it."""
    image = tmp_path / 'image'
    # A hash as long as the only key that the cipher has.
    hashed = ['ivgen-hash-alg=md5'] if cipher == 'cast5-128' else []
    done = run(*lamella.img, 'create', '-q', *SECRET, '-f', 'luks',
               *create_options('luks', [
                   'cipher-alg=' + cipher, 'cipher-mode=' + mode,
                   'ivgen-alg=' + ivgen, *(hashed if ivgen == 'essiv' else [])
               ]), image, '128k', status=None)
    if 'built without libnettle' in done.stderr:
        pytest.skip('lamella was built without libnettle')
    assert done.returncode == 0, done.stderr
    for tools, commands in ((lamella, ['write -P 1 0 128k']),
                            (reference, ['read -P 1 0 128k',
                                         'write -P 2 1000 70000']),
                            (lamella, ['read -P 2 1000 70000',
                                       'read -P 1 71000 60072'])):
        run(*tools.io, *SECRET, '--image-opts', node('luks', image),
            *[part for command in commands for part in ('-c', command)])
    assert lamella.run('info', image) == reference.run('info', image)


@pytest.mark.parametrize('options, said', [
    (['cipher-alg=cast5-128', 'cipher-mode=xts'],
     'Unsupported cipher mode xts'),
    (['cipher-alg=cast5-128', 'cipher-mode=cbc', 'ivgen-alg=essiv'],
     'Cipher cast5-128 not supported with essiv'),
    (['cipher-alg=twofish-256', 'ivgen-alg=essiv', 'ivgen-hash-alg=sha1'],
     'No Twofish cipher with key size 20 available'),
    (['cipher-alg=des', 'cipher-mode=cbc'], "Algorithm 'des' not supported"),
    (['detached-header=on'], "Parameter 'detached-header' is unexpected"),
])
def test_refused_ciphers(options, said, lamella, tmp_path):
    done = run(*lamella.img, 'create', '-q', *SECRET, '-f', 'luks',
               *create_options('luks', options), tmp_path / 'x', '1M',
               status=1)
    if 'libnettle' not in done.stderr:
        assert done.stderr == '%s: %s: %s\n' % (lamella.name,
                                                tmp_path / 'x', said)
    assert not (tmp_path / 'x').exists()


def detached(tmp_path, payload_sector):
    """A LUKS image in two files: a header, and all that follows."""
    whole, header, rest = [tmp_path / name for name in 'whole header rest'
                           .split()]
    source = tmp_path / 'source'
    source.write_bytes(random.Random(3).randbytes(256 * KiB))
    run(build_dir() + '/lamella', 'convert', *SECRET, '-O', 'luks',
        *create_options('luks', []), source, whole)
    data = whole.read_bytes()
    start = len(data) - 256 * KiB
    header.write_bytes(data[:104] + payload_sector.to_bytes(4, 'big') +
                       data[108:start])
    rest.write_bytes(bytes(512 * payload_sector) + data[start:])
    return source, header, rest, (
        'driver=luks,key-secret=s0,file.driver=file,file.filename=%s,'
        'header.driver=file,header.filename=%s' % (rest, header))


@pytest.mark.parametrize('sector', [0, 1, 9000])
def test_detached_header(sector, lamella, tmp_path, texts):
    """Read, written, resized, amended, described as by the genuine tool."""
    source, header, rest, name = detached(tmp_path, sector)
    kept = header.read_bytes()
    both = (lamella, texts)
    for tools in both:
        tools.run('compare', *SECRET, '--image-opts', name,
                  'driver=raw,file.filename=%s' % source)
    for tools in both:
        run(*tools.io, *SECRET, '--image-opts', name, '-c',
            'write -P 1 1000 2000', '-c', 'read -P 1 1000 2000')
        tools.run('resize', *SECRET, '--image-opts', name, '+64k')
        out = tmp_path / ('out ' + tools.name)
        tools.run('convert', *SECRET, '--image-opts', '-O', 'raw', name, out)
    assert header.read_bytes() == kept
    assert rest.stat().st_size == 512 * sector + 384 * KiB
    # What ours grew; in the genuine tool's part zeroes decrypt to noise.
    run(*texts.io, *SECRET, '--image-opts', name, '-c', 'read -P 0 256k 64k')
    second = ['--object', 'secret,id=s1,data=hunter2']
    lamella.run('amend', *SECRET, *second, '--image-opts', '-o',
                'state=active,new-secret=s1,iter-time=1', name)
    run(*texts.io, *second, '--image-opts',
        name.replace('=s0', '=s1'), '-c', 'read -P 1 1000 2000')
    for output in ('human', 'json'):
        shown = [tools.run('info', '--output=' + output, *SECRET,
                           '--image-opts', name) for tools in both]
        assert shown[0] == shown[1]
        assert ('etached header: true' in shown[0] or
                '"detached-header": true' in shown[0]) == (sector == 0)


def test_detached_header_shared(lamella, texts, tmp_path):
    """Two disks have one header; a disk is written by one alone, where the
    genuine tool lets in a second one."""
    _, _, rest, name = detached(tmp_path, 0)
    other = tmp_path / 'other'
    other.write_bytes(rest.read_bytes())
    for number, tools in enumerate([lamella, texts], 1):
        before = rest.read_bytes()
        with subprocess.Popen(
                [*tools.io, *SECRET, '--image-opts', name],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as first:
            first.stdin.write(b'write -P %d 0 512\nflush\n' % number)
            first.stdin.flush()
            wait_until(first, lambda: rest.read_bytes() != before)
            for second in lamella, texts:
                run(*second.io, *SECRET, '--image-opts',
                    name.replace(str(rest), str(other)), '-c',
                    'write -P 2 512 512')
                if lamella in (tools, second):
                    done = run(*second.io, *SECRET, '--image-opts', name,
                               '-c', 'q', status=1)
                    assert 'using the image [%s]' % rest in done.stderr


def test_detached_header_refused(lamella, tmp_path):
    source, header, rest, name = detached(tmp_path, 600)
    cases = [
        (name.replace(str(header), str(source)), [],
         'Volume is not in LUKS format'),
        (name.replace('filename=%s,' % rest, 'filename=%s,' % header)
         .replace('header.filename=%s' % header, 'header.filename=%s' % rest),
         [], 'Volume is not in LUKS format'),
        (name.replace('key-secret=s0,', ''), [],
         "Parameter 'key-secret' is required for cipher"),
        (name.replace('driver=luks,key-secret=s0', 'driver=raw'), [], 'header'),
    ]
    for node_name, options, said in cases:
        done = run(*lamella.img, 'convert', *SECRET, *options, '--image-opts',
                   '-O', 'raw', node_name, tmp_path / 'out', status=1)
        assert said in done.stderr and done.stderr.count('\n') == 1
    rest.write_bytes(bytes(599 * 512))
    done = run(*lamella.img, 'info', *SECRET, '--image-opts', name, status=1)
    assert 'LUKS payload at sector 600 is beyond the end of the file of ' \
        '306688 bytes' in done.stderr
    # A header in front of its disk is not detached, if that is written to.
    whole = tmp_path / 'whole'
    done = run(*lamella.io, *SECRET, '--image-opts', '-c', 'q',
               'driver=luks,key-secret=s0,file.filename=%s,header.filename=%s'
               % (whole, whole), status=1)
    assert 'the detached header is the image file itself' in done.stderr
    # Cut in its key material.
    rest.write_bytes(bytes(700 * 512))
    header.write_bytes(header.read_bytes()[:70000])
    done = run(*lamella.img, 'info', *SECRET, '--image-opts', name, status=1)
    assert 'Keyslot 0 ends at sector 508 and is beyond the end of the ' \
        'detached header at 136' in done.stderr


def test_compressed_clusters_are_in_clear(reference, lamella, tmp_path):
    """The genuine tool writes them so; nobody can tell them from others."""
    image = tmp_path / 'mixed.qcow2'
    reference.run('create', '-q', *SECRET, '-f', 'qcow2',
                  *create_options('qcow2', []), image, SIZE)
    run(*reference.io, *SECRET, '--image-opts', node('qcow2', image), '-c',
        'write -c -P 7 64k 64k', '-c', 'write -P 8 128k 64k')
    expected = bytes(64 * KiB) + b'\7' * (64 * KiB) + b'\10' * (64 * KiB)
    assert contents(lamella, 'qcow2', image,
                    tmp_path)[:len(expected)] == expected
    # Part of it zeroed: what becomes of the rest is encrypted.
    run(*lamella.io, *SECRET, '--image-opts', node('qcow2', image), '-c',
        'write -z 64k 4k')
    assert contents(reference, 'qcow2', image, tmp_path) == \
        contents(lamella, 'qcow2', image, tmp_path)


def test_backing_file_and_overlay(reference, lamella, tmp_path):
    """Each layer by its own passphrase, named in its node."""
    base, top = tmp_path / 'base.luks', tmp_path / 'top.qcow2'
    reference.run('create', '-q', *SECRET, '-f', 'luks',
                  *create_options('luks', []), base, SIZE)
    run(*reference.io, *SECRET, '--image-opts', node('luks', base), '-c',
        'write -P 5 0 3M')
    second = ['--object', 'secret,id=s1,data=hunter2']
    lamella.run('create', '-q', *SECRET, '-f', 'qcow2', '-u', '-b', base,
                '-F', 'luks', *create_options('qcow2', []), top, SIZE)
    chain = node('qcow2', top) + ',backing.driver=luks,backing.key-secret=s0' \
        ',backing.file.filename=%s' % base
    run(*lamella.io, *SECRET, *second, '--image-opts', chain, '-c',
        'write -P 6 100000 1000')
    for tools in (lamella, reference):
        run(*tools.io, *SECRET, '--image-opts', chain, '-c',
            'read -P 5 0 100000', '-c', 'read -P 6 100000 1000', '-c',
            'read -P 5 101000 200000')


@pytest.mark.parametrize('cluster', ['512', '16k,extended_l2=on'])
def test_rounds_over_layers(cluster, reference, lamella, tmp_path):
    """Two encrypted layers, written by both tools in turn, and committed."""
    rng = random.Random(7)
    secrets = [*SECRET, '--object', 'secret,id=s1,data=hunter2']
    base, top = tmp_path / 'base.qcow2', tmp_path / 'top.qcow2'
    model = bytearray(SIZE)
    reference.run('create', '-q', *SECRET, '-f', 'qcow2',
                  *create_options('qcow2', []), base, SIZE)
    lamella.run('create', '-q', *secrets, '-f', 'qcow2', '-u', '-b', base,
                '-F', 'qcow2', '-o', 'cluster_size=' + cluster,
                *[part.replace('s0', 's1')
                  for part in create_options('qcow2', [])], top, SIZE)
    chain = node('qcow2', top, 's1') + ',backing.driver=qcow2,' \
        'backing.encrypt.key-secret=s0,backing.file.filename=%s' % base
    for turn in range(4):
        tools = (lamella, reference)[turn % 2]
        commands = []
        for _ in range(12):
            at = rng.randrange(SIZE - 200000)
            length = rng.choice([1, 512, 5000, 65536, 200000])
            byte = rng.randrange(3)
            model[at:at + length] = bytes([byte]) * length
            kind = '-P %d' % byte if byte else '-z'
            commands += ['-c', 'write %s %d %d' % (kind, at, length)]
        run(*tools.io, *secrets, '--image-opts', chain, *commands)
        if turn in (1, 2):
            tools.run('commit', '-q', *secrets, '--image-opts', chain)
        for reader in (lamella, reference):
            out = tmp_path / 'out'
            reader.run('convert', *secrets, '--image-opts', '-O', 'raw', chain,
                       out)
            assert out.read_bytes() == model
    for shown in (node('qcow2', base), chain):
        reference.run('check', '-q', *secrets, '--image-opts', shown)


@pytest.mark.parametrize('name, secret, status', [
    ('right', 'secret,id=s0,data=swordfish', 0),
    ('base64', 'secret,id=s0,data=c3dvcmRmaXNo,format=base64', 0),
    ('wrong', 'secret,id=s0,data=Swordfish', 1),
    ('empty', 'secret,id=s0,data=', 1),
    ('none', 'secret,id=s1,data=swordfish', 1),
])
def test_passphrases(name, secret, status, reference, lamella, tmp_path):
    image = tmp_path / 'a.luks'
    lamella.run('create', '-q', *SECRET, '-f', 'luks',
                *create_options('luks', []), image, '64k')
    done = [run(*tools.img, 'map', '--output=json', '--object', secret,
                '--image-opts', node('luks', image), status=status)
            for tools in (lamella, reference)]
    assert done[0].stdout == done[1].stdout
    assert done[0].stderr.split(': ')[1:] == done[1].stderr.split(': ')[1:]


def test_overlap(tmp_path):
    """A guest cluster that lies in the encryption header, counted and all."""
    path = tmp_path / 'a.qcow2'
    tool = build_dir() + '/lamella'
    run(tool, 'create', '-q', *SECRET, '-f', 'qcow2',
        *create_options('qcow2', []), path, '1M')
    data = bytearray(path.read_bytes())

    def get(at, size=8):
        return int.from_bytes(data[at:at + size], 'big')

    at = 112
    while get(at, 4) != 0x0537be77:
        at += 8 + (get(at + 4, 4) + 7) // 8 * 8
    last = (get(at + 8) + get(at + 16) - 1) >> 16   # of its clusters
    table = len(data) + 65535 >> 16                 # a new L2 table
    data += bytes((table + 1 << 16) - len(data))
    data[table << 16:(table << 16) + 8] = (last << 16).to_bytes(8, 'big')
    data[get(40):get(40) + 8] = (1 << 63 | table << 16).to_bytes(8, 'big')
    block = get(get(48))
    for cluster, count in ((last, 2), (table, 1)):
        data[block + 2 * cluster:block + 2 * cluster + 2] = \
            count.to_bytes(2, 'big')
    path.write_bytes(data)
    done = subprocess.run(
        [tool, 'check', *SECRET, '--image-opts', 'driver=qcow2,'
         'encrypt.key-secret=s0,file.filename=' + str(path)],
        capture_output=True, text=True)
    assert done.returncode == 2
    assert 'cluster %d holds the encryption header and something else' % last \
        in done.stdout + done.stderr
