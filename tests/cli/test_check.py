# SPDX-License-Identifier: MIT
"""check beside the genuine tools."""
import json
import os
import sys

import pytest

from differential import assert_same, assert_understood, mention, outcome
from harness import pytest_fail
from images import DAMAGED, GOOD

sys.path.append(os.path.join(os.path.dirname(__file__), '..', 'image'))
from defects import make                                    # noqa: E402

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


# A table that is not aligned is reported and not read: the genuine tool takes
# what stands there for entries, and reports those.
NOT_READ = 'l1-unaligned.qcow2'


@pytest.mark.parametrize('name', DAMAGED)
def test_damaged(texts, our_img, images, name):
    for options in OPTIONS if name != NOT_READ else ():
        assert_same(texts, our_img, ['check', *options, name], images)
    assert outcome(our_img, ['check', name], images).status == DAMAGED[name]


@pytest.mark.parametrize('line', LINES, ids=' '.join)
def test_command_line(texts, our_img, images, line):
    assert_same(texts, our_img, line, images)


@pytest.mark.parametrize('name', GOOD + list(DAMAGED))
def test_older(older, our_img, images, name):
    assert_understood(older, our_img, ['check', '--output=json', name], images)


REPAIRED = ['cluster_twice', 'leak_two', 'l1_twice', 'l2_zero_unaligned',
            'refcount_zero_data', 'refblock_missing', 'copied_missing_l1',
            'data_at_eof', 'l1_cleared', 'l2_unaligned', 'corrupt_bit',
            'refcount_low_shared', 'subcluster_unaligned_unused', 'valid_v2']


@pytest.mark.parametrize('options', [[], ['-q'], ['--output=json']],
                         ids=['text', 'quiet', 'json'])
@pytest.mark.parametrize('what', ['leaks', 'all'])
@pytest.mark.parametrize('name', REPAIRED)
def test_repair(texts, our_img, tmp_path, name, what, options):
    args = ['check', '-f', 'qcow2', '-r', what, *options, 'w.qcow2']
    done = []
    for tool in (texts.img[0], our_img):
        (tmp_path / 'w.qcow2').write_bytes(make(name))
        done.append(outcome(tool, args, tmp_path))
    if done[0] != done[1]:
        pytest_fail(mention(args, *done))


def test_repair_needs_the_image_alone(texts, our_img, images):
    assert_same(texts, our_img, ['check', '-U', '-r', 'all', 'leak.qcow2'],
                images)


def test_unaligned_table(our_img, images):
    done = outcome(our_img, ['check', NOT_READ], images)
    assert 'ERROR l2_offset=40200: Table is not cluster aligned; L1 entry ' \
        'corrupted\n' in done.err
    assert done.err.count('ERROR') == 1


def test_missing_backing_file(our_img, images):
    """Unlike the genuine tool we need no other file to check this one."""
    done = outcome(our_img, ['check', '--output=json', 'orphan.qcow2'], images)
    assert done.status == 0
    assert json.loads(done.out)['check-errors'] == 0
