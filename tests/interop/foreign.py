# SPDX-License-Identifier: MIT
"""What the tests of other formats have in common: sources, and how a tool
makes an image of one and compares them."""
import re

from harness import GiB, MiB, make_mixed_file


def make_sources(top, mixed=9 * MiB + 5120):
    """Raw files: mixed and of odd size, empty, sparse beyond 2 GiB."""
    sources = {name: top / name for name in ('mixed', 'empty', 'sparse')}
    make_mixed_file(sources['mixed'], mixed, seed=11)
    sources['empty'].write_bytes(b'')
    with sources['sparse'].open('wb') as out:
        out.truncate(2 * GiB + 3 * MiB)
        out.seek(2 * GiB + MiB - 100)
        out.write(b'behind two gigabytes' * 30)
    return sources


def convert(tools, fmt, source, image, options='', *more):
    extra = ['-o', options] if options else []
    tools.run('convert', '-f', 'raw', '-O', fmt, *extra, *more, source, image)


def same(tools, fmt, source, image):
    tools.run('compare', '-f', 'raw', '-F', fmt, source, image)


def said(tools, *arguments):
    """But for what the file system may still change its mind about."""
    return re.sub(r'(disk size|"actual-size"): .*', r'\1',
                  tools.run(*arguments))
