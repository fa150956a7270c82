# SPDX-License-Identifier: MIT
"""info and map beside the genuine tools."""
import json

import pytest

from differential import assert_same, assert_understood, outcome
from harness import run
from images import BROKEN_NAMES, GOOD, HEADER_ONLY

INFO = [[], ['--output=json'], ['--backing-chain'],
        ['-b', '--output', 'json'], ['-f', 'raw'], ['-f', 'qcow2'],
        ['-f', 'foo'], ['-U', '--out', 'json']]

MAP = [[], ['--output=json'], ['-s', '100', '-l', '100k'],
       ['--output=json', '-s', '70000', '-l', '1'],
       ['--output=json', '-s', '65k', '-l', '3M'],
       ['--output=json', '-s', '100M'], ['--output=json', '-l', '0'],
       ['-f', 'raw', '--output=json']]

# Command lines that have nothing to do with a particular image.
LINES = [
    ['info'], ['info', 'a', 'b'], ['info', '--foo', 'zero.raw'],
    ['info', '-Z', 'zero.raw'], ['info', '-f'], ['info', '--output=xml', 'x'],
    ['info', '--o', 'json', 'zero.raw'], ['info', 'zero.raw', '-f', 'raw'],
    ['info', 'zero.raw', '-fraw', '--output=json'],
    ['info', '--image-opts', '-f', 'raw', 'zero.raw'],
    ['info', '--image-opts', 'driver=raw,file.filename=zero.raw'],
    ['info', '--image-opts', 'driver=qcow2,file.filename=kinds.qcow2'],
    ['info', 'file:zero.raw'],
    ['info', 'json:{"driver":"qcow2","file":{"driver":"file",'
     '"filename":"kinds.qcow2"}}'],
    ['info', 'json:{"driver":"qcow2","file.filename":"overlay.qcow2",'
     '"backing":null}'],
    ['map'], ['map', 'a', 'b'], ['map', '-s', 'x', 'zero.raw'],
    ['map', '-l', 'x', 'zero.raw'], ['map', '-l', '9E', 'zero.raw'],
    ['map', '--start-offset=-1', 'zero.raw'],
    ['map', '--image-opts', '-f', 'raw', 'zero.raw'],
    ['map', '--image-opts', 'driver=raw,file.filename=zero.raw'],
    ['map', '--output=json', 'json:{"driver":"qcow2","file":{"driver":"file",'
     '"filename":"overlay.qcow2"}}'],
    [], ['foo'], ['--foo'], ['--object'],
]


@pytest.mark.parametrize('name', GOOD + HEADER_ONLY + BROKEN_NAMES)
def test_info(texts, our_img, images, name):
    for options in INFO:
        if name == 'sub' and options[-1:] == ['foo']:
            continue    # which of two mistakes is told first
        if name in BROKEN_NAMES and 'foo' in options:
            continue
        assert_same(texts, our_img, ['info', *options, name], images)


@pytest.mark.parametrize('name', GOOD)
def test_map(texts, our_img, images, name):
    for options in MAP:
        assert_same(texts, our_img, ['map', *options, name], images)


@pytest.mark.parametrize('line', LINES, ids=' '.join)
def test_command_line(texts, our_img, images, line):
    assert_same(texts, our_img, line, images)


@pytest.mark.parametrize('name', GOOD + HEADER_ONLY)
def test_info_older(older, our_img, images, name):
    assert_understood(older, our_img, ['info', '--output=json', name], images)


@pytest.mark.parametrize('name', GOOD)
def test_map_older(older, our_img, images, name):
    assert_understood(older, our_img, ['map', '--output=json', name], images)


def test_strange_name(texts, our_img, tmp_path):
    name = b'we\'i"rd\\\t\xc3\xa9\xff\x01\x7f\xf0\x9f\x98\x80\xe2\x82.raw'
    (tmp_path / name.decode('utf-8', 'surrogateescape')).write_bytes(bytes(512))
    args = ['info', '--output=json',
            name.decode('utf-8', 'surrogateescape')]
    assert_same(texts, our_img, args, tmp_path)


def test_control_characters_do_not_reach_the_terminal(our_img, tmp_path,
                                                       reference):
    reference.run('create', '-q', '-u', '-f', 'qcow2', '-b', 'x\x1b[2Jy', '-F',
                  'raw', 'a.qcow2', '1M', cwd=tmp_path)
    done = outcome(our_img, ['info', 'a.qcow2'], tmp_path)
    assert '\x1b' not in done.out + done.err


def test_encrypted(our_img, reference, tmp_path):
    reference.run('create', '-q', '-f', 'qcow2', '--object',
                  'secret,id=s,data=x', '-o', 'encrypt.format=luks,'
                  'encrypt.key-secret=s,encrypt.iter-time=10', 'l.qcow2', '1M',
                  cwd=tmp_path)
    done = outcome(our_img, ['info', '--output=json', 'l.qcow2'], tmp_path)
    info = json.loads(done.out)
    assert done.status == 0 and info['encrypted'] is True
    done = outcome(our_img, ['map', 'l.qcow2'], tmp_path)
    assert done.status == 1 and 'encrypt.key-secret' in done.err


def test_loop(our_img, reference, tmp_path):
    for name in 'ab':
        reference.run('create', '-q', '-f', 'qcow2', name, '1M', cwd=tmp_path)
    for name, base in ('ab', 'ba'):
        reference.run('rebase', '-u', '-b', base, '-F', 'qcow2', name,
                      cwd=tmp_path)
    done = outcome(our_img, ['info', '--backing-chain', 'a'], tmp_path)
    assert done.status == 1
    assert done.err == \
        "qemu-img: Backing file 'a' creates an infinite loop.\n"
    # By another name: the file is the same.
    reference.run('rebase', '-u', '-b', './a', '-F', 'qcow2', 'a', cwd=tmp_path)
    done = outcome(our_img, ['info', '--backing-chain', 'a'], tmp_path)
    assert done.status == 1 and 'infinite loop' in done.err


def test_untrusted(our_lamella, images):
    done = run(our_lamella, 'info', '--untrusted', 'overlay.qcow2', cwd=images)
    assert 'backing file: mixed.qcow2' in done.stdout
    done = run(our_lamella, 'map', '--untrusted', 'overlay.qcow2', cwd=images,
               status=1)
    assert done.stderr.count('\n') == 1
    run(our_lamella, 'info', '--untrusted', '-b', 'overlay.qcow2', cwd=images,
        status=1)


def test_names(our_img, our_lamella):
    first = run(our_img, '--version').stdout.splitlines()[0].split()
    assert first[:2] == ['qemu-img', 'version'] and len(first) >= 4
    assert tuple(int(part) for part in first[2].split('.')) >= (7, 2)
    assert run(our_lamella, '--version').stdout.startswith('lamella ')
    done = run(our_lamella, 'info', status=1)
    assert done.stderr.startswith('lamella: ')


def test_closed_stdout(our_lamella, images):
    """A full disk behind stdout is an error, not silence."""
    with open('/dev/full', 'w') as full:
        import subprocess
        done = subprocess.run([our_lamella, 'map', '--output=json',
                               'kinds.qcow2'], stdout=full,
                              stderr=subprocess.PIPE, text=True, cwd=images)
    assert done.returncode == 1 and 'No space left' in done.stderr
