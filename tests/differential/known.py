# SPDX-License-Identifier: MIT
"""Differences between the genuine tools and ours that are on purpose, as random
commands come upon them: the reason, and how to recognise it.  Those of single
command lines stand in lines/on-purpose.txt."""
import re

KNOWN = []


class Known:
    def __init__(self, reason, ends, applies):
        self.reason, self.ends, self.applies = reason, ends, applies


def on_purpose(reason, ends=False):
    """@ends: the images may differ as well, so the sequence ends."""
    def note(applies):
        KNOWN.append(Known(reason, ends, applies))
        return applies
    return note


def failed(a, b):
    return a.status == b.status and a.status != 0


@on_purpose('The help is our own text')
def own_help(words, a, b):
    return a.status == b.status and re.search(
        r'Usage|usage:|[Hh]elp', a.out + a.err)


@on_purpose('The version says who we are')
def own_version(words, a, b):
    return a.status == b.status == 0 and ' version ' in a.out


def known(words, a, b):
    """The first that applies, or None."""
    for entry in KNOWN:
        if entry.applies(words, a, b):
            return entry
    return None
