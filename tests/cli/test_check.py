# SPDX-License-Identifier: MIT
"""check beside the genuine tools."""
import json

import pytest

from differential import assert_same, assert_understood, outcome
from images import DAMAGED, GOOD

OPTIONS = [[], ['-q'], ['--output=json'], ['-q', '--output=json'],
           ['-f', 'qcow2'], ['-U'], ['-T', 'none']]

LINES = [
    ['check'], ['check', 'a', 'b'], ['check', '-r', 'foo', 'kinds.qcow2'],
    ['check', '-f', 'foo', 'kinds.qcow2'],
    ['check', '-T', 'foo', 'kinds.qcow2'],
    ['check', '--output=foo', 'kinds.qcow2'], ['check', 'missing.qcow2'],
    ['check', '--image-opts', '-f', 'raw', 'kinds.qcow2'],
    ['check', '--image-opts', 'driver=qcow2,file.filename=kinds.qcow2'],
    ['check', '--force-share', '--out', 'json', 'kinds.qcow2'],
]


@pytest.mark.parametrize('name', GOOD)
def test_good(texts, our_img, images, name):
    for options in OPTIONS:
        assert_same(texts, our_img, ['check', *options, name], images)


@pytest.mark.parametrize('name', DAMAGED)
def test_damaged(texts, our_img, images, name):
    for options in OPTIONS:
        assert_same(texts, our_img, ['check', *options, name], images)
    assert outcome(our_img, ['check', name], images).status == DAMAGED[name]


@pytest.mark.parametrize('line', LINES, ids=' '.join)
def test_command_line(texts, our_img, images, line):
    assert_same(texts, our_img, line, images)


@pytest.mark.parametrize('name', GOOD + list(DAMAGED))
def test_older(older, our_img, images, name):
    assert_understood(older, our_img, ['check', '--output=json', name], images)


def test_missing_backing_file(our_img, images):
    """Unlike the genuine tool we need no other file to check this one."""
    done = outcome(our_img, ['check', '--output=json', 'orphan.qcow2'], images)
    assert done.status == 0
    assert json.loads(done.out)['check-errors'] == 0
