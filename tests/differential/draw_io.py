# SPDX-License-Identifier: MIT
"""Random scripts for qemu-io."""
from draw_names import draw_name

FLAGS = ('-C', '-q', '-v', '-b', '-n', '-u', '-z', '-c', '-f', '-r', '-x',
         '-P', '-s', '-l', '-p')
REST = ('flush', 'map', 'info', 'length', 'aio_flush', 'f', 'quit', 'close',
        'help', 'help read', 'foo', '', '  ', 'read', 'map -q', 'sleep 1',
        'truncate', 'truncate x', 'remove_break x', 'resume x', 'break x y',
        'help truncate', 'help foo', 'reopen', 'reopen -r', 'reopen -w',
        'reopen -c none', 'reopen -c foo', 'reopen -o lazy-refcounts=on',
        'reopen -o read-only=on', 'reopen -o foo=x', 'reopen -x', 'open',
        'length x', 'flush x', 'map x', 'info x', 'aio_flush x', 'q', 'alloc')


def draw_range(draw):
    return '%s %s' % (draw.number() if draw.chance(.1) else draw.offset(),
                      draw.number() if draw.chance(.05) else draw.length())


def draw_write(draw):
    pattern = draw.often((str(1 + draw.below(255)),),
                         ('0', '256', '-1', 'x', '0xcd'), .08)
    kind = draw.one('write', 'write', 'aio_write')
    if draw.chance(.6):
        return '%s -P %s %s' % (kind, pattern, draw_range(draw))
    if draw.chance(.6):
        flags = draw.one('-z', '-z', '-z -u', '-z -n', '-z -f', '-zu', '-z -q')
        return '%s %s %s' % (kind, flags, draw_range(draw))
    if draw.chance(.6):
        return 'write -c -P %s %d %d' % (pattern, draw.below(32) * 65536,
                                         draw.one(65536, 131072, 4096))
    if draw.chance(.4):
        return 'writev -P %s %d %d %d' % (pattern, draw.offset(),
                                          draw.length(), draw.one(512, 4096))
    return '%s %s %s' % (kind, ' '.join(draw.some(FLAGS, 2)), draw_range(draw))


def draw_read(draw):
    kind = draw.one('read', 'read', 'r', 'aio_read')
    flags = draw.often(('', '-P 0', '-P 7', '-q', '-P 0 -s 10 -l 20', '-C'),
                       FLAGS + ('-P x', '-s x -P 0', '-l 9999999 -P 0'), .1)
    if draw.chance(.15):
        return 'read -v %d %d' % (draw.offset(), draw.one(16, 100, 512))
    if draw.chance(.2):
        return 'readv %s %d %d 512' % (draw.one('', '-P 0', '-q'),
                                       draw.offset(), draw.length())
    return '%s %s %s' % (kind, flags, draw_range(draw))


def draw_other(draw):
    kind = draw.one('discard', 'alloc', 'truncate', 'rest', 'discard', 'rest')
    if kind == 'discard':
        return 'discard %s%s' % (draw.often(('', '-q '), ('-C ', '-x ')),
                                 draw_range(draw))
    if kind == 'alloc':
        return 'alloc %s' % draw_range(draw)
    if kind == 'truncate':
        return 'truncate %s%s' % (
            draw.often(('',), ('-m off ', '-m falloc ', '-m foo ',
                               '-m metadata '), .3), draw.size())
    return draw.one(*REST)


def draw_script(draw):
    commands = []
    for _ in range(1 + draw.below(4)):
        kind = draw.one(draw_write, draw_write, draw_read, draw_other)
        commands.append(kind(draw))
        # Which of two is done first is nobody's business.
        if commands[-1].startswith('aio_'):
            commands.append('aio_flush')
    return commands


def draw_io(draw, world):
    name = world.image(draw)
    before, text = draw_name(draw, name, world.formats.get(name), plain=.85)
    words = ['qemu-io', *before]
    for chance, more in ((.08, ['-r']), (.03, ['-s']), (.03, ['-n']),
                         (.02, ['-C']), (.03, ['-U']), (.03, ['-m']),
                         (.05, ['-t', draw.cache()]),
                         (.08, ['-d', draw.often(('unmap', 'ignore', 'off',
                                                  'on'), ('foo', ''))]),
                         (.02, ['-i', draw.one('threads', 'foo', 'native')])):
        if draw.chance(chance):
            words += more
    for command in draw_script(draw):
        words += ['-c', command]
    return words + [text]
