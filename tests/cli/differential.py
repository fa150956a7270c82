# SPDX-License-Identifier: MIT
"""Run a command line by the genuine qemu-img and by ours, and compare.

Ours is called by the name qemu-img (a link), so that it speaks as that program.
Version 10 is the reference for texts; an older one is compared by exit status
and, where the output is JSON, by the values that it knows.
"""
import json
import os
import re

from harness import contains, pytest_fail, run


class Outcome:
    def __init__(self, tool, done):
        self.status = done.returncode
        self.out = normalise(tool, done.stdout)
        self.err = normalise(tool, done.stderr)

    def __eq__(self, other):
        return (self.status, self.out, self.err) == \
            (other.status, other.out, other.err)

    def __str__(self):
        return 'exit status %d\n--- stdout\n%s--- stderr\n%s' % (
            self.status, self.out, self.err)


def normalise(tool, text):
    text = text.replace(tool, 'qemu-img')
    # The genuine tool names a missing file twice, ours once.
    return re.sub(r"(Could not open '[^']*': )\1", r'\1', text)


def outcome(tool, args, cwd):
    env = dict(os.environ, TZ='UTC')
    return Outcome(tool, run(tool, *args, status=None, cwd=cwd, env=env))


def mention(args, theirs, ours):
    return 'qemu-img %s\n=== genuine: %s\n=== ours: %s' % (
        ' '.join(map(repr, args)), theirs, ours)


def assert_same(genuine, ours, args, cwd, filter_out=None):
    """Exit status, stdout and stderr are equal; @filter_out cleans stdout."""
    theirs = outcome(genuine.img[0], args, cwd)
    mine = outcome(ours, args, cwd)
    if filter_out:
        theirs.out = filter_out(theirs.out)
        mine.out = filter_out(mine.out)
    if theirs != mine:
        pytest_fail(mention(args, theirs, mine))


def assert_understood(genuine, ours, args, cwd):
    """For a version whose texts differ: status, and JSON by value."""
    theirs = outcome(genuine.img[0], args, cwd)
    mine = outcome(ours, args, cwd)
    same = theirs.status == mine.status
    if same and theirs.status == 0 and any('json' in a for a in args):
        same = contains(json.loads(mine.out), json.loads(theirs.out))
    if not same:
        pytest_fail(mention(args, theirs, mine))
