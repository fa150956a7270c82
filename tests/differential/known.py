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
        r'Usage|usage:|[Hh]elp|Example', ' '.join(words) + a.out + a.err)


@on_purpose('The version says who we are')
def own_version(words, a, b):
    return a.status == b.status == 0 and ' version ' in a.out


@on_purpose('Ours sees damage before it writes', ends=True)
def damage(words, a, b):
    return any('corrupt.qcow2' in word for word in words)


@on_purpose('The message says what is wrong, not that something is')
def plainer(words, a, b):
    return failed(a, b) and re.search(
        r'external data file|not a VHDX image', b.err) and re.search(
        r'Operation not supported|Invalid argument', a.err)


@on_purpose('The message names the image, not a node that nobody has named')
def node_names(words, a, b):
    return failed(a, b) and '#block' in a.err and '#block' not in b.err


@on_purpose('The same file twice is said plainly')
def same_file(words, a, b):
    return failed(a, b) and ' lock' in a.err and re.search(
        r'infinite loop|same file|twice', b.err)


@on_purpose('A loop of backing files is said to be one')
def loop(words, a, b):
    return failed(a, b) and 'infinite loop' in b.err and a.err


@on_purpose('Snapshots are taken without the backing file', ends=True)
def without_backing(words, a, b):
    return a.status == 1 and words[0] == 'snapshot' and \
        'Could not open backing file' in a.err


@on_purpose('Metadata are checked without a passphrase and the backing file')
def bare_check(words, a, b):
    return words[0] == 'check' and a.status == 1 and re.search(
        'key-secret|No secret with id|Could not open backing', a.err)


@on_purpose('Clusters, and holes of the host, are where each leaves them')
def places(words, a, b):
    return a.status == b.status and a.err == b.err and \
        words[0] in ('map', 'measure')


@on_purpose('Encryption by halves is refused by measure as well', ends=True)
def half_encrypted(words, a, b):
    return words[0] == 'measure' and "'encrypt.format' is missing" in b.err


@on_purpose('The long names that its own help has take a value', ends=True)
def snapshot_names(words, a, b):
    return words[0] == 'snapshot' and 'Expecting one image' in a.err


@on_purpose('The message names the file and the offset as well')
def read_errors(words, a, b):
    return failed(a, b) and 'error while reading' in a.err and \
        'error while reading' in b.err


@on_purpose('Compressed data may take the place of what is there', ends=True)
def compressed_over(words, a, b):
    return a.status == 1 and 'Input/output error' in a.out and \
        any(re.search('write -c|compress', word) for word in words)


@on_purpose('What failed is not told to be done by 100 %')
def all_done(words, a, b):
    return failed(a, b) and a.err == b.err and a.out.strip() == 'PROGRESS' and \
        b.out.strip() in ('', '(0.00/100%)')


@on_purpose('Images that hold no bitmaps take none', ends=True)
def no_bitmaps(words, a, b):
    return '--bitmaps' in words and 'does not support bitmaps' in b.err


@on_purpose('The genuine tool fails without a word', ends=True)
def without_a_word(words, a, b):
    return a.status == 1 and not a.err and words[0] == 'convert' and \
        'qcow' in ' '.join(words) and any('c' in word for word in words
                                          if re.match('-[a-zA-Z]+$', word))


@on_purpose('Zeroes of any length are written without data', ends=True)
def odd_zeroes(words, a, b):
    return words[0] == 'qemu-io' and \
        'write failed: Operation not supported' in a.out and \
        any('-z' in word and '-n' in word for word in words)


@on_purpose('The number that is wrong is named')
def wrong_number(words, a, b):
    return failed(a, b) and 'suffix -- -m' in a.out and 'suffix -- ' in b.out


@on_purpose('A number below zero is none')
def below_zero(words, a, b):
    return failed(a, b) and "iter-time' expects a number" in b.err


@on_purpose('A filter is told what it is above')
def bare_blkdebug(words, a, b):
    return b.status == 1 and "must start with 'blkdebug:'" in b.err


@on_purpose('The genuine tool does not open again what is below blkdebug')
def above_blkdebug(words, a, b):
    return words[0] == 'rebase' and 'blkdebug requires both' in a.err


@on_purpose('A longer name that its own help has is taken as well', ends=True)
def long_name(words, a, b):
    return a.status == 1 and 'unrecognized option' in a.err and \
        any(word.startswith('--') for word in words)


@on_purpose('An image of odd length is written to past the page cache',
            ends=True)
def odd_length(words, a, b):
    return "without 'resize': Image size is not a multiple" in a.err


@on_purpose('An empty disk can be a VMDK', ends=True)
def empty_vmdk(words, a, b):
    return 'Unsupported image type' in a.err and 'vmdk' in ' '.join(words)


@on_purpose('The genuine tool aborts', ends=True)
def aborted(words, a, b):
    return a.status < 0


MISTAKE = Known('Of several mistakes another one is named', False,
                lambda words, a, b: failed(a, b) and a.out == b.out and
                a.err and b.err)


def known(words, a, b, texts):
    """The first that applies, or None.  Unless @texts count, whoever fails in
    the same way and says something says the same."""
    for entry in KNOWN + ([] if texts else [MISTAKE]):
        if words and entry.applies(words, a, b):
            return entry
    return None


def is_output(words, name):
    """Is @name what convert, create or dd would have made?"""
    if words[0] == 'dd':
        return any(word.startswith('of=') and word.endswith(name)
                   for word in words)
    return words[0] == 'create' and any(map(name.endswith, words[1:])) or \
        words[0] == 'convert' and any(word.endswith(name)
                                      for word in (words[-1], words[1]))


def known_files(words, a, b, found):
    """Files that differ on purpose after a command."""
    text = ' '.join(words)
    return any((
        # What failed leaves an unfinished output behind, or takes away what
        # was there; ours touches nothing.
        failed(a, b) and (
            re.fullmatch(r'files: only theirs \[.*\], only ours \[\]', found)
            or is_output(words, found.split(':')[0])),
        # It lacks what the layers between hold.
        words[0] == 'convert' and '-B' in words,
        # Ends with its maker and the time.
        'vpc' in text and 'fixed' in text,
        # As long as the disk.
        found.startswith('data2.raw:'),
        # As long as the disk, and not as its last cluster.
        found.startswith('data.raw:') and words[0] == 'resize',
    ))
