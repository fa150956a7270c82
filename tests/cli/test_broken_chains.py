# SPDX-License-Identifier: MIT
"""Chains that cannot be: loops however they are named, layers that are missing
or are no images.  One line that names the layer, and nothing has changed."""
import os

import pytest

from harness import run

TOP = 'l3'
JOBS = [
    ['commit', TOP], ['commit', '-b', 'l0', TOP], ['rebase', '-b', '', TOP],
    ['stream', TOP], ['overlay', TOP, 'new'], ['chain', TOP],
    ['convert', '-O', 'raw', TOP, 'new'],
]


@pytest.fixture(scope='module')
def made(our_lamella, tmp_path_factory):
    folder = tmp_path_factory.mktemp('chain')
    for number in range(4):
        name = 'l%d' % number
        below = ['-b', 'l%d' % (number - 1), '-F', 'qcow2']
        run(our_lamella, 'create', '-q', '-f', 'qcow2',
            *(below if number else []), name, '4M', cwd=folder)
        run(our_lamella, 'io', '-c', 'write -P %d %dk 128k' % (
            number + 1, number * 256), name, cwd=folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    for name in 'l0', 'l1', 'l2', 'l3':
        (tmp_path / name).write_bytes((made / name).read_bytes())
    return tmp_path


def close_by(how, our_lamella, folder):
    """What l0 calls l3."""
    name = {'name': 'l3', 'dots': './../' + folder.name + '/l3',
            'json': 'json:{"driver":"qcow2","file":{"driver":"file",'
                    '"filename":"l3"}}'}.get(how, how)
    if how == 'symlink':
        os.symlink('l3', folder / how)
    elif how == 'hardlink':
        os.link(folder / 'l3', folder / how)
    elif how == 'absolute':
        name = str(folder / 'l3')
    run(our_lamella, 'rebase', '-u', '-b', name, '-F', 'qcow2', 'l0',
        cwd=folder)


def state(folder):
    def content(path):
        return path.read_bytes() if path.is_file() else None
    return {path.name: (content(path), path.lstat().st_mtime_ns,
                        path.lstat().st_mode) for path in folder.iterdir()}


def refused(our_lamella, folder, *named):
    before = state(folder)
    for job in JOBS:
        done = run(our_lamella, *job, cwd=folder, status=1)
        assert done.stderr.count('\n') == 1, job
        for words in named:
            assert words in done.stderr, job
        assert state(folder) == before, job


@pytest.mark.parametrize('how', ['name', 'dots', 'absolute', 'json', 'symlink',
                                 'hardlink'])
def test_loop(how, our_lamella, folder):
    close_by(how, our_lamella, folder)
    refused(our_lamella, folder, 'creates an infinite loop')


@pytest.mark.parametrize('how,words', [
    ('missing', 'No such file or directory'), ('folder', 'regular file'),
    ('dangling', 'No such file or directory'), ('itself', 'symbolic links'),
    ('empty', 'not in qcow2 format'), ('other', 'not in qcow2 format')])
def test_layer(how, words, our_lamella, folder):
    layer = folder / 'l1'
    layer.unlink()
    if how == 'folder':
        layer.mkdir()
    elif how == 'dangling':
        layer.symlink_to('gone')
    elif how == 'itself':
        layer.symlink_to('l1')
    elif how != 'missing':
        layer.write_bytes(b'' if how == 'empty' else bytes(65536))
    refused(our_lamella, folder, words, "'l1'")


def test_data_file_is_the_image(our_lamella, tmp_path):
    run(our_lamella, 'create', '-q', '-f', 'qcow2', '-o', 'data_file=d', 'x',
        '1M', cwd=tmp_path)
    (tmp_path / 'd').unlink()
    os.link(tmp_path / 'x', tmp_path / 'd')
    before = state(tmp_path)
    for job in ['map', 'x'], ['resize', 'x', '2M'], ['overlay', 'x', 'new']:
        done = run(our_lamella, *job, cwd=tmp_path, status=1)
        assert done.stderr.count('\n') == 1
        assert 'data file is the image file itself' in done.stderr
        assert state(tmp_path) == before
