# SPDX-License-Identifier: MIT
"""Fixtures: both programs under their usual names, and the stage."""
import os
import subprocess

import pytest

from stage import make_stage, needed


@pytest.fixture(scope='session')
def ours(lamella, tmp_path_factory):
    """A folder with our program as qemu-img and as qemu-io."""
    folder = tmp_path_factory.mktemp('bin')
    for name in 'qemu-img', 'qemu-io':
        os.symlink(os.path.abspath(lamella.img[0]), folder / name)
    return str(folder)


@pytest.fixture(scope='session')
def stage(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp('stage')
    make_stage(texts, folder)
    return folder


@pytest.fixture
def rooms(line, stage, tmp_path):
    """Two copies of what the line needs, one for each."""
    for name in 'theirs', 'ours':
        room = tmp_path / name
        room.mkdir()
        subprocess.run(['cp', '-a', '--sparse=always', '-t', room,
                        *(stage / name for name in needed(line, stage))],
                       check=True)
    return tmp_path / 'theirs', tmp_path / 'ours'
