# SPDX-License-Identifier: MIT
"""The same command written otherwise, or wrongly: options behind their
positional arguments, abbreviated, glued, left out, twice, or unheard of."""
import re

LONG = {'-f': '--format', '-O': '--target-format', '-U': '--force-share',
        '-q': '--quiet', '-p': '--progress', '-o': '--options',
        '-t': '--cache', '-T': '--source-cache', '-b': '--backing',
        '-c': '--create', '-l': '--list', '-a': '--apply', '-d': '--delete',
        '-s': '--size', '-F': '--backing-format', '-r': '--repair'}
JUNK = ('--foo', '-Z', '--help', '-q', '-p', '-U', '--output=json', '--output',
        '--image-opts', '--object', '-T', '--', '--force', '--size', '-c', '',
        '--format', '-f', 'raw', '--no-create', '--shrink', '--all', '-o',
        '--backing-chain', '--target-image-opts', '-h', '--version',
        'extra.img', '--object=secret,id=t,data=x', '--object=foo,id=a',
        '--object=secret,id=s,data=x', '--object=secret', '-W', '-S', '-m')


def abbreviated(draw, words):
    places = [i for i, word in enumerate(words)
              if re.match(r'--[a-z-]{4}', word)]
    if places:
        place = draw.one(*places)
        name, equals, value = words[place].partition('=')
        short = name[:3 + draw.below(len(name) - 2)]
        words[place:place + 1] = [short + equals + value] \
            if draw.chance(.6) or not equals else [short, value]


def lengthened(draw, words):
    places = [i for i, word in enumerate(words) if word in LONG]
    if places:
        place = draw.one(*places)
        words[place] = LONG[words[place]]


def glued(draw, words):
    places = [i for i, word in enumerate(words[:-1])
              if re.match(r'-[fFObogSlmrtT]$', word)]
    if places:
        place = draw.one(*places)
        words[place:place + 2] = [words[place] + words[place + 1]]


def moved(draw, words):
    """The last argument comes before the options."""
    if len(words) > 2:
        words.insert(2 if words[0] == 'qemu-io' else 1, words.pop())


def dropped(draw, words):
    if len(words) > 1:
        words.pop(draw.below(len(words)))


def doubled(draw, words):
    place = draw.below(len(words))
    words.insert(place, words[place])


def strewn(draw, words):
    words.insert(draw.below(len(words) + 1), draw.one(*JUNK))


def draw_spelling(draw, words):
    while draw.chance(.2):
        draw.one(abbreviated, abbreviated, lengthened, glued, glued, moved,
                 moved, dropped, doubled, strewn, strewn)(draw, words)
        if not words:
            return ['--help']
    return words
