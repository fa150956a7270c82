# SPDX-License-Identifier: MIT
"""Random commands for qemu-img, one function a subcommand."""
from drawing import BAD_SIZES
from draw_names import draw_name, objects
from draw_options import draw_dashes, draw_key_slots

TAGS = ('one', 'two', '1', '2', 'x y', 'three', '3', '')
BITMAPS = ('b0', 'b1', 'off', 'new', 'b2', '')


def source(draw, world, flag='-f'):
    name = world.image(draw)
    return draw_name(draw, name, world.formats.get(name), flag)


def maybe(draw, probability, *words):
    return list(words) if draw.chance(probability) else []


def output(draw):
    return maybe(draw, .4, '--output=' + draw.often(('json',) * 4 + ('human',),
                                                    ('xml', '')))


def draw_backing(draw, world):
    if draw.chance(.1):
        return ['-b', draw.one('missing.qcow2', '', 'json:{}')]
    name = world.image(draw)
    form = world.formats.get(name, 'raw')
    return ['-b', name] + (['-F', draw.often((form,), ('foo', 'raw', 'qcow2'),
                                             .08)] if draw.chance(.92) else [])


def draw_create(draw, world):
    form = draw.format()
    name = world.new(draw, form)
    options = draw_dashes(draw, form)
    words = ['create', *maybe(draw, .92, '-f', form), *maybe(draw, .3, '-q'),
             *options]
    size = [draw.size()] if draw.chance(.92) else []
    if draw.chance(.35 if form in ('qcow2', 'qed', 'qcow') else .04):
        words += draw_backing(draw, world) + maybe(draw, .1, '-u')
        size = size if draw.chance(.5) else []
    if any('falloc' in word or 'full' in word for word in options):
        size = ['2M']
    return words + objects(draw, form + ' '.join(options)) + [name] + size


def draw_info(draw, world):
    before, name = source(draw, world)
    return ['info', *before, *output(draw),
            *maybe(draw, .3, '--backing-chain'), *maybe(draw, .2, '-U'), name]


def draw_map(draw, world):
    before, name = source(draw, world)
    return ['map', *before, *output(draw),
            *maybe(draw, .15, '--start-offset=' + draw.size()),
            *maybe(draw, .15, '--max-length=' + draw.size()),
            *maybe(draw, .1, '-U'), name]


def draw_check(draw, world):
    before, name = source(draw, world)
    return ['check', *before, *output(draw), *maybe(draw, .1, '-q'),
            *maybe(draw, .25, '-r', draw.often(('leaks', 'all'), ('foo', ''))),
            *maybe(draw, .1, '-T', draw.cache()), *maybe(draw, .1, '-U'), name]


def draw_snapshot(draw, world):
    before, name = source(draw, world)
    act = draw.often((['-l'], ['-c', draw.one(*TAGS)], ['-a', draw.one(*TAGS)],
                      ['-d', draw.one(*TAGS)]),
                     (['-l', '-c', 'one'], [], ['-c'], ['-l', '-l']), .08)
    if draw.chance(.6):
        before = objects(draw, name)
        name = world.image(draw)
    return ['snapshot', *before, *maybe(draw, .1, '-q'),
            *maybe(draw, .1, '-U'), *act, name]


def draw_resize(draw, world):
    before, name = source(draw, world)
    size = draw.often(('+1M', '+100k', '-64k', '2M', '5M', '1234567', '+512',
                       '+0', '-512', '0', '512'), BAD_SIZES + ('+', '-', '+x'))
    mode = draw.prealloc()
    return ['resize', *before, *maybe(draw, .4, '--shrink'),
            *maybe(draw, .15, '-q'),
            *(['--preallocation=' + mode] if draw.chance(.2) and
              len(size) < 8 and size[-1:] not in 'EP' else []), name, size]


def draw_commit(draw, world):
    before, name = source(draw, world)
    return ['commit', *before, *maybe(draw, .3, '-d'), *maybe(draw, .1, '-q'),
            *maybe(draw, .15, '-b', world.image(draw)),
            *maybe(draw, .1, '-t', draw.cache()),
            *maybe(draw, .05, '-r', draw.one('1G', '0', 'x', '-1')), name]


def draw_rebase(draw, world):
    before, name = source(draw, world)
    return ['rebase', *before, *maybe(draw, .3, '-u'),
            *maybe(draw, .1, '-c'), *maybe(draw, .1, '-q'),
            *maybe(draw, .1, '-t', draw.cache()),
            *maybe(draw, .1, '-T', draw.cache()),
            *(draw_backing(draw, world) if draw.chance(.8) else
              ['-b', ''] if draw.chance(.8) else []), name]


def draw_target(draw, world):
    """For --target-image-opts."""
    name = world.image(draw)
    form = world.formats.get(name, 'raw')
    more = draw.often(('', '', ',discard=unmap', ',file.driver=file',
                       ',cache.direct=on', ',key-secret=s',
                       ',encrypt.key-secret=s'), (',foo=1', ',read-only=on'))
    return 'driver=%s,file.filename=%s%s' % (form, name, more)


def draw_convert(draw, world):
    before, name = source(draw, world)
    form = draw.often(('qcow2',) * 6 + ('raw',) * 3 + ('vdi', 'vmdk', 'vpc',
                      'vhdx', 'qed', 'qcow', 'parallels', 'luks'),
                      ('foo', 'file', ''), .05)
    words = ['convert', *before, *maybe(draw, .95, '-O', form)]
    for chance, more in (
            (.15, ['-c']), (.15, ['-S', draw.often(('0', '512', '4k', '64k',
                                                    '1k'), BAD_SIZES)]),
            (.12, ['-l', draw.one('one', 'snapshot.name=two', '1', 'nope',
                                  'snapshot.id=1', 'snapshot.foo=1')]),
            (.1, ['-W']), (.1, ['--bitmaps']), (.05, ['-C']),
            (.05, ['--skip-broken-bitmaps']), (.04, ['--target-is-zero']),
            (.05, ['-n']), (.05, ['-U']), (.05, ['--salvage']),
            (.08, ['-t', draw.cache()]), (.08, ['-T', draw.cache()]),
            (.05, ['-m', draw.one('1', '16', '0', '17', 'x')]),
            (.04, ['-r', draw.one('1G', '0', 'x')]), (.05, ['-p'])):
        if draw.chance(chance):
            words += more
    if draw.chance(.25):
        words += draw_dashes(draw, form, 2)
    if draw.chance(.12):
        backing = draw_backing(draw, world)
        words += ['-B' if word == '-b' else word for word in backing]
    more = [world.image(draw)] if draw.chance(.1) else []
    target = world.new(draw, form)
    if form == 'luks' and draw.chance(.8):
        words += ['-o', 'key-secret=s,iter-time=10'] + objects(draw, 'secret')
    if draw.chance(.06):
        return ['convert', *before, *maybe(draw, .1, '-p'),
                *objects(draw, 'secret'), *maybe(draw, .95, '-n'),
                '--target-image-opts', name, draw_target(draw, world)]
    if '-n' in words or draw.chance(.04):
        target = world.image(draw)
    return words + [name, *more, target]


def draw_compare(draw, world):
    name = world.image(draw)
    before, text = draw_name(draw, name, world.formats.get(name), plain=.9)
    other = world.image(draw)
    form = ['-F', world.formats.get(other, 'raw')] if draw.chance(.6) else []
    return ['compare', *before, *form, *maybe(draw, .3, '-s'),
            *maybe(draw, .2, '-q'), *maybe(draw, .1, '-U'),
            *maybe(draw, .1, '-T', draw.cache()), text, other]


def draw_measure(draw, world):
    form = draw.often(('qcow2', 'qcow2', 'raw', 'luks'),
                      ('vdi', 'vmdk', 'vpc', 'vhdx', 'qed', 'qcow', 'foo', ''))
    words = ['measure', *maybe(draw, .9, '-O', form), *output(draw)]
    if draw.chance(.4):
        words += draw_dashes(draw, form, 2)
    if form == 'luks' and draw.chance(.8):
        words += ['-o', 'key-secret=s,iter-time=10'] + objects(draw, 'secret')
    if draw.chance(.3):
        return words + ['--size', draw.size()]
    before, name = source(draw, world)
    return words + before + maybe(draw, .1, '-l', draw.one(*TAGS)) + [name]


def draw_amend(draw, world):
    before, name = source(draw, world)
    form = world.formats.get(name, 'qcow2')
    if draw.chance(.2):
        luks = draw.chance(.5)
        name = 'luks.img' if luks else 'luks.qcow2'
        return ['amend', *maybe(draw, .9, '--object',
                                'secret,id=s,file=secret.txt'),
                *maybe(draw, .7, '--object', 'secret,id=t,file=other.txt'),
                *maybe(draw, .1, '-p'), *maybe(draw, .2, '--force'),
                '-o', draw_key_slots(draw, '' if luks else 'encrypt.'),
                '--image-opts', 'driver=luks,key-secret=s,file.filename=' + name
                if luks else 'driver=qcow2,encrypt.key-secret=s,'
                'file.filename=' + name]
    return ['amend', *before, *maybe(draw, .1, '-q'), *maybe(draw, .1, '-p'),
            *(draw_dashes(draw, form, 2) or
              ['-o', draw.one('compat=0.10', 'compat=1.1', 'refcount_bits=8',
                              'lazy_refcounts=on', 'lazy_refcounts=off')]),
            *maybe(draw, .05, '--force'), *maybe(draw, .05, '-t',
                                                 draw.cache()), name]


def draw_bitmap(draw, world):
    before, name = source(draw, world)
    acts = [draw.often((['--add'], ['--remove'], ['--clear'], ['--enable'],
                        ['--disable'], ['--merge', draw.one(*BITMAPS)]), ([],),
                       .03)]
    if draw.chance(.2):
        acts += [draw.one(['--disable'], ['--enable'], ['--clear'],
                          ['--merge', 'b0'])]
    if draw.chance(.7):
        before, name = [], draw.one('bm.qcow2', world.image(draw))
    return ['bitmap', *before, *(word for act in acts for word in act),
            *maybe(draw, .15, '-g', draw.one('4k', '64k', '1M', '100', 'x',
                                             '4G')),
            *maybe(draw, .1, '-b', world.image(draw)),
            *maybe(draw, .05, '-F', 'qcow2'), name, draw.one(*BITMAPS)]


def draw_dd(draw, world):
    before, name = source(draw, world)
    form = draw.often(('raw', 'raw', 'qcow2', 'vdi', 'vpc'), ('foo', ''), .05)
    words = ['dd', *before, *maybe(draw, .7, '-O', form), 'if=' + name,
             'of=' + world.new(draw, form)]
    for chance, key, values in (
            (.6, 'bs', ('512', '4k', '1M', '64k', '3', '0', 'x')),
            (.3, 'count', ('3', '0', '1', '100', 'x', '-1')),
            (.3, 'skip', ('1', '0', '7', '10000', 'x')), (.04, 'foo', ('1',)),
            (.03, 'seek', ('1',)), (.03, 'conv', ('notrunc',)),
            (.03, 'status', ('none',))):
        if draw.chance(chance):
            words.append(key + '=' + draw.often(values[:3], values, .2))
    return words + maybe(draw, .05, '-U')


def draw_bench(draw, world):
    before, name = source(draw, world)
    words = ['bench', *before, '-c', draw.often(('1', '7', '20'), ('0', 'x'))]
    for chance, more in (
            (.3, ['-w']), (.2, ['--pattern', draw.one('5', '256', 'x')]),
            (.2, ['-s', draw.one('4k', '512', '0', 'x', '1M')]),
            (.2, ['-S', draw.one('4k', '0', 'x', '64k')]),
            (.2, ['-o', draw.one('0', '64k', 'x', '2M')]),
            (.2, ['-d', draw.one('1', '64', '0', 'x')]),
            (.1, ['--flush-interval', draw.one('1', '2', 'x', '0')]),
            (.1, ['--no-drain']), (.1, ['-t', draw.cache()]), (.05, ['-U']),
            (.1, ['-n']), (.1, ['-i', draw.one('threads', 'native', 'foo')])):
        if draw.chance(chance):
            words += more
    return words + [name]


def draw_img(draw, world):
    kind = draw.one(
        *[draw_create] * 6, *[draw_info] * 4, *[draw_map] * 3,
        *[draw_check] * 2, *[draw_snapshot] * 4, *[draw_resize] * 3,
        *[draw_commit] * 3, *[draw_rebase] * 3, *[draw_convert] * 8,
        *[draw_compare] * 2, *[draw_measure] * 3, *[draw_amend] * 4,
        *[draw_bitmap] * 4, *[draw_dd] * 3, *[draw_bench] * 2)
    return kind(draw, world)
