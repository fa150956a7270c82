# SPDX-License-Identifier: MIT
"""Chains with encrypted layers: overlays of them, what is done with them, and
what is said of them beside the genuine tool."""
import itertools
import json
import shutil

import pytest

from harness import MiB, need_libcrypto, run

SECRET = ['--object', 'secret,id=s,data=abc']
KEYS = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10'
LAYERS = ('driver=qcow2,file.filename=top,encrypt.key-secret=s,'
          'backing.encrypt.key-secret=s')
PATTERNS = ((1, 0, 128), (2, 512, 64))


@pytest.fixture(scope='module', autouse=True)
def ciphers():
    need_libcrypto()


def qcow2(name):
    return 'driver=qcow2,encrypt.key-secret=s,file.filename=' + name


def luks(name):
    return 'driver=luks,key-secret=s,file.filename=' + name


@pytest.fixture(scope='module')
def made(our_lamella, tmp_path_factory):
    """base <- top, both encrypted; plain: what they read as."""
    folder = tmp_path_factory.mktemp('layers')
    content = bytearray(2 * MiB)
    for pattern, start, length in PATTERNS:
        content[start << 10:(start + length) << 10] = (
            bytes([pattern]) * (length << 10))
    (folder / 'plain').write_bytes(content)
    create(our_lamella, folder, 'base', '2M')
    write(our_lamella, folder, qcow2('base'), PATTERNS[0])
    run(our_lamella, 'overlay', '-q', *SECRET, '--image-opts', '-o', KEYS,
        qcow2('base'), 'top', cwd=folder)
    write(our_lamella, folder, LAYERS, PATTERNS[1])
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / 'x')


def create(our_lamella, folder, name, size, *args, form='qcow2', options=KEYS):
    run(our_lamella, 'create', '-q', *SECRET, '-f', form, '-o', options, *args,
        name, size, cwd=folder)


def write(our_lamella, folder, name, pattern):
    run(our_lamella, 'io', *SECRET, '--image-opts', name, '-c',
        'write -P %d %dk %dk' % pattern, cwd=folder)


def same(reference, folder, name):
    reference.run('compare', '-q', *SECRET, '--image-opts', name,
                  'driver=raw,file.filename=plain', cwd=folder)


def test_overlay_records_the_path(reference, folder):
    """Ids of secrets are whose who opens it."""
    info = json.loads(reference.run('info', '--output=json', 'top',
                                    cwd=folder))
    assert info['backing-filename'] == 'base'
    assert info['backing-filename-format'] == 'qcow2'
    assert info['encrypted']
    same(reference, folder, LAYERS)


@pytest.mark.parametrize('image', [
    LAYERS, LAYERS + ',backing.driver=qcow2,backing.file.filename=base'],
    ids=['named by the header', 'named twice'])
def test_overlay_of_encrypted_layers(image, our_lamella, reference, folder):
    """One above the other, as often as one likes."""
    run(our_lamella, 'overlay', '-q', *SECRET, '--image-opts', '-o', KEYS,
        image, 'third', cwd=folder)
    third = (qcow2('third') + ',backing.encrypt.key-secret=s,'
             'backing.backing.encrypt.key-secret=s')
    same(reference, folder, third)
    run(our_lamella, 'overlay', '-q', *SECRET, '--image-opts', '-o', KEYS,
        third, 'fourth', cwd=folder)
    for name, below in ('third', 'top'), ('fourth', 'third'):
        info = json.loads(reference.run('info', '--output=json', name,
                                        cwd=folder))
        assert info['backing-filename'] == below


def test_overlay_of_another_chain(our_lamella, folder):
    """What no header names below is not found by a path."""
    shutil.copy(folder / 'base', folder / 'copy')
    run(our_lamella, 'create', '-q', '-f', 'qcow2', '-u', '-b', 'top', '-F',
        'qcow2', 'third', '2M', cwd=folder)
    third = ('driver=qcow2,file.filename=third,backing.encrypt.key-secret=s,'
             'backing.')
    for name in (qcow2('top') + ',backing.driver=raw,'
                 'backing.file.filename=plain',
                 qcow2('top') + ',backing.driver=qcow2,'
                 'backing.file.filename=copy,backing.encrypt.key-secret=s',
                 third + 'backing.driver=raw,backing.backing.file.filename='
                 'plain'):
        done = run(our_lamella, 'overlay', *SECRET, '--image-opts', '-o', KEYS,
                   name, 'fourth', cwd=folder, status=1)
        assert 'not described by a path alone' in done.stderr
        assert not (folder / 'fourth').exists()


@pytest.mark.parametrize('command', [
    ['commit', '-q'], ['stream', '-q'], ['rebase', '-b', '']],
    ids=lambda command: command[0])
def test_layers_change(command, our_lamella, reference, folder):
    run(our_lamella, *command, *SECRET, '--image-opts', LAYERS, cwd=folder)
    same(reference, folder, qcow2('base') if command[0] == 'commit'
         else qcow2('top'))
    reference.run('check', '-q', *SECRET, '--image-opts',
                  LAYERS if command[0] == 'commit' else qcow2('top'),
                  cwd=folder)


@pytest.mark.parametrize('command', [['stream'], ['rebase', '-b', '']],
                         ids=lambda command: command[0])
def test_compression_is_refused_first(command, our_lamella, folder):
    def state():
        return [((folder / name).read_bytes(),
                 (folder / name).stat().st_mtime_ns)
                for name in ('base', 'top')]
    before = state()
    done = run(our_lamella, *command, '-c', '-p', *SECRET, '--image-opts',
               LAYERS, cwd=folder, status=1)
    assert done.stderr == ('lamella: Compression and encryption not supported '
                           'at the same time\n')
    assert state() == before


def test_raw_cannot_be_compressed(our_img, reference, tmp_path):
    reference.run('create', '-q', '-f', 'raw', 'r', '1M', cwd=tmp_path)
    args = ['rebase', '-c', '-f', 'raw', '-b', 'gone', '-F', 'qcow2', 'r']
    assert (run(our_img, *args, cwd=tmp_path, status=1).stderr
            == run(*reference.img, *args, cwd=tmp_path, status=1).stderr)


def test_compared_strictly(our_img, our_lamella, reference, folder):
    """Encrypted data are had in another way than plain ones."""
    create(our_lamella, folder, 'l', '64k', form='luks',
           options='key-secret=s,iter-time=10')
    create(our_lamella, folder, 'e', '64k')
    create(our_lamella, folder, 'q', '64k', options='compat=1.1')
    names = (luks('l'), qcow2('e'), 'driver=qcow2,file.filename=q')
    for name in names:
        write(our_lamella, folder, name, (7, 0, 64))
    for a, b in itertools.combinations(names, 2):
        args = ['compare', '-s', *SECRET, '--image-opts', a, b]
        theirs = run(*reference.img, *args, cwd=folder, status=None)
        ours = run(our_img, *args, cwd=folder, status=theirs.returncode)
        assert ours.stdout == theirs.stdout


def test_told_in_ascii(our_img, our_lamella, reference, tmp_path):
    """Names that only JSON can say, and the order of keys."""
    name = 'd\u00e9j\u00e0 \u65e5\U0001f4bf'
    create(our_lamella, tmp_path, name, '1M')
    below = 'json:' + json.dumps({
        'driver': 'qcow2', 'encrypt.key-secret': 's',
        'file': {'driver': 'file', 'filename': name}}, ensure_ascii=False)
    create(our_lamella, tmp_path, 'top', '1M', '-b', below, '-F', 'qcow2')
    for form in 'human', 'json':
        args = ['info', '--backing-chain', '--output', form, *SECRET,
                '--image-opts', qcow2('top')]
        assert (run(our_img, *args, cwd=tmp_path).stdout
                == reference.run(*args, cwd=tmp_path))


def test_map_of_a_preallocated_subcluster(our_img, our_lamella, reference,
                                          folder):
    create(our_lamella, folder, 'low', '1M', options=KEYS + ',extended_l2=on')
    write(our_lamella, folder, qcow2('low'), (1, 4, 4))
    run(our_lamella, 'overlay', '-q', *SECRET, '--image-opts',
        '-o', KEYS, qcow2('low'), 'over', cwd=folder)
    args = ['map', '--output=json', *SECRET, '--image-opts',
            LAYERS.replace('top', 'over')]
    assert (run(our_img, *args, cwd=folder).stdout
            == reference.run(*args, cwd=folder))
