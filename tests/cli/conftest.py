# SPDX-License-Identifier: MIT
"""Fixtures of the command's tests: our program under qemu-img's name, the
version that settles texts, and a folder of images of every kind."""
import os

import pytest

from harness import GENUINE, MiB, make_mixed_file
from images import make_images


@pytest.fixture(scope='session')
def our_img(lamella, tmp_path_factory):
    """Our program, called qemu-img."""
    link = tmp_path_factory.mktemp('bin') / 'qemu-img'
    os.symlink(os.path.abspath(lamella.img[0]), link)
    return str(link)


@pytest.fixture(scope='session')
def our_lamella(lamella):
    return os.path.abspath(lamella.img[0])


@pytest.fixture(scope='session')
def older():
    if not GENUINE or GENUINE[0].version >= (10,):
        pytest.skip('no genuine qemu-img older than 10 here')
    return GENUINE[0]


@pytest.fixture(scope='session')
def images(reference, tmp_path_factory):
    """A folder with images of every kind, made by the genuine tools; tests
    only read them."""
    folder = tmp_path_factory.mktemp('images')
    make_mixed_file(folder / 'mixed.raw', 8 * MiB, 1)
    make_images(reference, folder)
    return folder
