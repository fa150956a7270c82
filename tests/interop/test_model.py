# SPDX-License-Identifier: MIT
"""Images that the model test has made, read and continued by the genuine tool.

tests/sim/test-model leaves a chain of three layers of each shape, with all
kinds of operations behind it, and what disks and snapshots are to hold.  The
genuine tool checks them, compares them, reads their snapshots; then both write
to the top layer in turn.
"""
import os
import re
import subprocess

import pytest

from harness import build_dir
from workload import Shape, Workload, assert_same, guest_bytes, io_script

SHAPES = 22         # of tests/sim/files.h, before those that are encrypted
LAYERS = 3


def leave(seed, folder):
    """Run the model; the layers that it leaves."""
    env = dict(os.environ, LAM_SEED=str(seed), LAM_OPS='50',
               LAM_LEAVE=str(folder))
    done = subprocess.run([os.path.join(build_dir(), 'tests', 'sim',
                                        'test-model')], env=env, timeout=120,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return [folder / ('layer%d.qcow2' % number) for number in range(LAYERS)]


def is_encrypted(image):
    """The header's encryption method, bytes 32 to 36."""
    return image.read_bytes()[32:36] != b'\0\0\0\0'


def snapshots(tools, image):
    text = tools.run('snapshot', '-l', image)
    return re.findall(r'^\d+ +(\S+)', text, re.MULTILINE)


def verify(tools, image, tmp_path):
    """What the model says, by @tools."""
    tools.run('check', '-q', '-f', 'qcow2', image)
    assert_same(guest_bytes(tools, image, tmp_path),
                image.with_suffix('.raw').read_bytes(),
                '%s by %s' % (image.name, tools.name))
    expected = {path.name.split('-')[1][:-len('.raw')]: path
                for path in image.parent.glob(image.stem + '.snapshot-*.raw')}
    assert sorted(snapshots(tools, image)) == sorted(expected)
    for name, path in expected.items():
        found = guest_bytes(tools, image, tmp_path, '-l', name)
        content = path.read_bytes()
        if tools.name != 'lamella':
            # The genuine tool reads a snapshot at the size of today's disk.
            length = min(len(found), len(content))
            found, content = found[:length], content[:length]
        assert_same(found, content,
                    '%s, snapshot %s' % (image.name, name))


@pytest.mark.parametrize('seed', range(SHAPES))
def test_left_by_the_model(seed, reference, lamella, tmp_path, monkeypatch):
    folder = tmp_path / 'model'
    folder.mkdir()
    monkeypatch.chdir(folder)   # where the tools look for data files
    images = leave(seed, folder)
    readable = []
    for image in images:
        if is_encrypted(image):
            break               # and so is what is above it, in part
        readable.append(image)
    assert readable
    for image in readable:
        verify(reference, image, tmp_path)
        verify(lamella, image, tmp_path)
    if len(readable) == LAYERS:
        go_on(seed, readable[-1], reference, lamella, tmp_path)


def go_on(seed, image, reference, lamella, tmp_path):
    """Written to by the genuine tool and by ours, in turn."""
    content = bytearray(image.with_suffix('.raw').read_bytes())
    if not content:
        return
    shape = Shape('left', size=len(content), cluster=4096, compress=False,
                  discard=False)
    work = Workload(seed, shape, content)
    for tools in (reference, lamella, reference, lamella):
        io_script(tools, image, work.commands(10))
        for reader in (reference, lamella):
            reader.run('check', '-q', '-f', 'qcow2', image)
            assert_same(guest_bytes(reader, image, tmp_path), work.model,
                        'written by %s, read by %s' % (tools.name,
                                                       reader.name))
    image.with_suffix('.raw').write_bytes(work.model)
    verify(reference, image, tmp_path)
