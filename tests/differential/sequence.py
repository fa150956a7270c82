# SPDX-License-Identifier: MIT
"""Random commands one after the other, by the genuine tools and by ours, each
in a room of its own that begins as a part of the stage."""
import os
import re
import shlex
import shutil
import subprocess

from draw_img import draw_img
from draw_io import draw_io
from draw_spelling import draw_spelling
from drawing import Draw
from known import known, known_files
from outcome import compare_files, files_of, perform
from stage import needed

FORMATS = {'raw.img': 'raw', 'luks.img': 'luks', 'odd.raw': 'raw',
           'empty.raw': 'raw', 'zero.raw': 'raw', 'noise.raw': 'raw'}
FIRST = ('q.qcow2', 'raw.img', 'top.qcow2', 'mid.qcow2', 'snap.qcow2',
         'bm.qcow2', 'data.qcow2', 'rawdata.qcow2', 'comp.qcow2', 'v2.qcow2',
         'zstd.qcow2', 'ext.qcow2', 'tiny.qcow2', 'wide.qcow2', 'lazy.qcow2',
         'odd.raw', 'empty.raw', 'zero.raw', 'onraw.qcow2', 'long.qcow2',
         'noformat.qcow2', 'orphan.qcow2', 'loop.qcow2', 'half.qcow2',
         'double.qcow2', 'huge.qcow2', 'luks.qcow2', 'luks.img', 'leak.qcow2',
         'corrupt.qcow2', 'flagged.qcow2')
STRANGE_NAMES = ('n%d:%s', 'n%d,%s', 'n %d.%s', '\u00fc%d.%s', '-n%d.%s',
                 'n%d=%s', 'n%d"%s', 'file:n%d.%s', './n:%d.%s')
ALWAYS = ('raw.img', 'q.qcow2', 'secret.txt', 'other.txt', 'read.conf')


class World:
    """The images that there are: name -> format."""

    def __init__(self, draw):
        names = [draw.one(*FIRST) for _ in range(4)] + ['q.qcow2']
        self.formats = {name: FORMATS.get(name, 'qcow2') for name in names}
        self.count = 0

    def image(self, draw):
        if draw.chance(.02):
            return 'missing.qcow2'
        return draw.one(*self.formats)

    def new(self, draw, form):
        """A name for an image that may come to be."""
        self.count += 1
        name = draw.often(('n%d.%s',), STRANGE_NAMES, .06) % (
            self.count, form or 'x')
        self.formats[name] = form
        return name

    def keep(self, present):
        for name in set(self.formats) - present:
            del self.formats[name]
        self.formats.setdefault('q.qcow2', 'qcow2')


class Difference(Exception):
    """@lines lead to it; the last one shows it."""

    def __init__(self, commands, text):
        super().__init__(text)
        self.commands = commands
        self.line = ' ;; '.join(shlex.join(words) for words in commands)


class Rooms:
    """Both rooms, and what was compared in them already."""
    texts = False               # do the words of a failure count?

    def __init__(self, stage, folder, names, genuine, ours):
        self.genuine, self.ours, self.stage = genuine, ours, stage
        self.paths = [os.path.join(folder, room) for room in
                      ('theirs', 'ours')]
        for path in self.paths:
            shutil.rmtree(path, ignore_errors=True)
            os.makedirs(path)
            subprocess.run(['cp', '-a', '--sparse=always', '-t', path,
                            *(os.path.join(stage, name) for name in names)],
                           check=True)
        self.seen = {}

    def present(self):
        return files_of(self.paths[0])

    def step(self, words, changed):
        """None, or how the two differ; 'known' where that is known."""
        a = perform(os.path.dirname(self.genuine), words, self.paths[0],
                    changed, limit=20)
        b = perform(self.ours, words, self.paths[1], changed)
        if not b.same(a):
            reason = known(words, a, b, self.texts)
            if not reason:
                return '%s\n=== genuine: %s\n=== ours: %s' % (
                    shlex.join(words), a, b)
            if reason.ends or a.status != b.status:
                return 'known'
        found = compare_files(self.genuine, self.stage, self.paths, False,
                              self.seen)
        if found and known_files(words, a, b, found):
            return 'known'
        return '%s\n%s' % (shlex.join(words), found) if found else None


def draw_command(draw, world):
    words = (draw_io if draw.chance(.35) else draw_img)(draw, world)
    return draw_spelling(draw, words)


def starting_names(world_names, stage):
    return needed(' '.join([*world_names, *ALWAYS]), stage)


def run_seed(seed, steps, stage, folder, genuine, ours, say=None):
    """Raises Difference; returns how many commands were compared."""
    draw = Draw(seed)
    world = World(draw)
    rooms = Rooms(stage, folder, starting_names(world.formats, stage), genuine,
                  ours)
    commands = []
    for count in range(steps):
        words = draw_command(draw, world)
        commands.append(words)
        if say:
            say(shlex.join(words))
        try:
            found = rooms.step(words, count > 0)
        except subprocess.TimeoutExpired as slow:
            if os.path.dirname(slow.cmd[0]) == os.path.dirname(genuine):
                return count
            found = 'ours hangs: ' + shlex.join(words)
        if found == 'known':
            return count + 1
        if found:
            raise Difference(commands, found)
        world.keep(rooms.present())
    return steps


def shows(commands, stage, folder, genuine, ours):
    """How the two differ in the end, if they do so there and not before."""
    line = ' '.join(word for words in commands for word in words)
    rooms = Rooms(stage, folder, needed(line, stage), genuine, ours)
    for count, words in enumerate(commands):
        try:
            found = rooms.step(words, count > 0)
        except subprocess.TimeoutExpired:
            return None
        if found:
            return found if found != 'known' and words is commands[-1] else None
    return None


def without(commands, gone):
    """@commands less what @gone names: (command,) or (command, words)."""
    return [[word for j, word in enumerate(words) if (i, j) not in gone]
            for i, words in enumerate(commands) if (i,) not in gone]


def kind(text):
    """How both ended; what is made smaller stays of one kind."""
    return re.findall(r'^(?:=== \w+: exit status -?\d+|files)', text, re.M)


def shrink(difference, *where):
    """The same with fewer commands, then without pairs of words and words."""
    commands, text = difference.commands, str(difference)
    last = len(commands) - 1
    pieces = [{(i,)} for i in reversed(range(last))]
    places = range(len(commands[last]))
    pieces += [{(last, j), (last, j + 1)} for j in places[1:-1]]
    pieces += [{(last, j)} for j in places]
    gone = set()
    for piece in pieces:
        smaller = without(commands, gone | piece)
        if piece <= gone or not all(smaller):
            continue
        found = shows(smaller, *where)
        if found and kind(found) == kind(text):
            gone |= piece
            text = found
    return Difference(without(commands, gone), text)
