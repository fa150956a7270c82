# SPDX-License-Identifier: MIT
"""Random ways to name an image: plain, by options, as JSON, through filters."""
import json

FILTERS = ('copy-on-read', 'compress', 'preallocate', 'throttle', 'raw',
           'blkdebug')
GOOD = (
    ('read-only', 'on'), ('read-only', 'off'), ('cache.direct', 'on'),
    ('cache.no-flush', 'on'), ('discard', 'unmap'), ('discard', 'ignore'),
    ('detect-zeroes', 'on'), ('detect-zeroes', 'off'), ('force-share', 'on'),
    ('auto-read-only', 'on'), ('node-name', 'n0'), ('file.locking', 'off'),
    ('file.locking', 'auto'), ('file.aio', 'threads'), ('file.node-name', 'n1'),
    ('file.read-only', 'on'), ('file.drop-cache', 'on'),
    ('file.discard', 'unmap'), ('file.detect-zeroes', 'on'),
    ('file.auto-read-only', 'on'), ('file.cache.direct', 'on'),
)
GOOD_QCOW2 = (
    ('lazy-refcounts', 'on'), ('l2-cache-size', '1M'), ('cache-size', '2M'),
    ('l2-cache-entry-size', '4k'), ('refcount-cache-size', '256k'),
    ('cache-clean-interval', '10'), ('overlap-check', 'all'),
    ('overlap-check', 'none'), ('overlap-check.template', 'cached'),
    ('pass-discard-request', 'on'), ('pass-discard-other', 'on'),
    ('pass-discard-snapshot', 'off'), ('discard-no-unref', 'on'),
    ('backing', ''), ('backing.driver', 'qcow2'), ('backing.driver', 'raw'),
    ('backing.file.filename', 'raw.img'),
)
BAD = (
    ('foo', 'x'), ('read-only', 'maybe'), ('discard', 'x'), ('driver', 'foo'),
    ('detect-zeroes', 'unmap'), ('cache.direct', ''), ('file.foo', 'x'),
    ('file.driver', 'foo'), ('file.aio', 'x'), ('l2-cache-size', 'x'),
    ('l2-cache-size', '-1'), ('l2-cache-entry-size', '1000'),
    ('overlap-check', 'x'), ('cache-clean-interval', 'x'), ('backing', 'x'),
    ('node-name', '1x'), ('filename', 'x'), ('file', 'x'), ('size', '1000'),
    ('offset', '512'), ('size', '1M'), ('offset', 'x'), ('encrypt.format', 'x'),
    ('key-secret', 's'), ('file.file.filename', 'x'), ('data-file', 'x'),
)


def draw_extra(draw, form):
    good = GOOD + (GOOD_QCOW2 if form == 'qcow2' else ())
    if form == 'raw':
        good += (('offset', '0'), ('offset', '65536'), ('size', '65536'))
    return dict(draw.often(good, BAD, .15)
                for _ in range(draw.one(0, 0, 1, 1, 2)))


def draw_pairs(draw, name, form):
    """Options of a tree of nodes; the usual is form over file."""
    pairs = {'file.filename': name}
    if form and draw.chance(.95):
        pairs['driver'] = form
    if draw.chance(.3):
        pairs['file.driver'] = 'file'
    pairs.update(draw_extra(draw, form))
    if draw.chance(.15):
        pairs = {'file.' + key: value for key, value in pairs.items()}
        pairs['driver'] = draw.one(*FILTERS)
        if pairs['driver'] == 'throttle':
            pairs['throttle-group'] = 'g'
    if draw.chance(.05):
        pairs.pop(draw.one(*sorted(pairs)))
    return pairs


def typed(value):
    """A value as JSON would have it."""
    return {'on': True, 'off': False}.get(
        value, int(value) if value.isdigit() else value)


def nested(pairs):
    tree = {}
    for key, value in pairs.items():
        *path, last = key.split('.')
        node = tree
        for part in path:
            if not isinstance(node.setdefault(part, {}), dict):
                return None
            node = node[part]
        if isinstance(node.get(last), dict):
            return None
        node[last] = value
    return tree


def draw_json(draw, pairs):
    pairs = {key: value if draw.chance(.2) else typed(value)
             for key, value in pairs.items()}
    tree = nested(pairs) if draw.chance(.6) else pairs
    return 'json:' + json.dumps(tree or pairs,
                                separators=draw.one((',', ':'), (', ', ': ')))


# "swordfish" in all forms that a secret has; the last ones are encrypted with
# the secret "m", or would be.
MASTER = 'secret,id=m,format=base64,' \
    'data=MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDc='
ENCRYPTED = ('keyid=m', 'iv=MDEyMzQ1Njc4OWFiY2RlZg==', 'format=base64',
             'data=D+TLFtLo9yzOj/OoxPne6Q==')
SECRETS = (
    'id=s,file=secret.txt', 'id=s,file=secret.txt,format=raw',
    'id=s,data=swordfish', 'data=swordfish,id=s,format=raw',
    'id=s,format=base64,data=c3dvcmRmaXNo',
)
BAD_SECRETS = (
    'id=s,file=other.txt', 'id=s,file=missing.txt', 'id=s', 'file=secret.txt',
    'id=s,data=swordfish,file=secret.txt', 'id=s,data=', 'id=1s,data=x',
    'id=s,data=!,format=base64', 'id=s,data=x,format=foo', 'id=s,data=x,foo=1',
    'id=t,data=swordfish', 'id=s,data=swordfish,keyid=nope', '', 'id=',
    'id=s,keyid=m,data=x', 'id=s,iv=AAAA,data=swordfish', 'id=s,qom-type=x',
)


def secret(draw):
    if draw.chance(.15):
        fields = [field for field in ENCRYPTED if draw.chance(.93)]
        return ['--object', MASTER,
                '--object', ','.join(['secret,id=s', *fields])]
    if draw.chance(.1):
        return ['--object', json.dumps({
            'qom-type': draw.often(('secret',), ('foo', 1)),
            'id': draw.often(('s',), ('', 't', None)), 'data': 'swordfish'})]
    text = 'secret,' + draw.often(SECRETS, BAD_SECRETS)
    return ['--object=' + text] if draw.chance(.1) else ['--object', text]


def objects(draw, text):
    """What the name refers to."""
    words = []
    if 'throttle-group' in text and draw.chance(.9):
        words += ['--object', 'throttle-group,id=g']
    if ('luks' in text or 'secret' in text) and draw.chance(.9):
        words += secret(draw)
        words += secret(draw) if draw.chance(.05) else []
    return words


def draw_plain(draw, name):
    return draw.often((name,) * 8, (
        './' + name, 'file:' + name, 'blkdebug::' + name, 'file:./' + name,
        'blkdebug:read.conf:' + name, 'host_device:' + name, name + ' ',
        'raw:' + name, 'file://' + name, ''), .08)


def draw_name(draw, name, form, flag='-f', plain=.75):
    """(words before, the name): either -f and a name, or options."""
    if draw.chance(plain):
        words = [flag, form] if form and draw.chance(.7) else []
        if draw.chance(.03):
            words = [flag, draw.format()]
        text = draw_plain(draw, name)
        if form == 'luks' and flag == '-f':
            words, text = ['--image-opts'], \
                'driver=luks,key-secret=s,file.filename=' + name
        return words + objects(draw, text), text
    pairs = draw_pairs(draw, name, form)
    if 'luks' in (name.split('.')[0], form) and draw.chance(.8):
        pairs['key-secret' if form == 'luks' else 'encrypt.key-secret'] = 's'
    if draw.chance(.4):
        text = draw_json(draw, pairs)
        words = [flag, form] if draw.chance(.1) and form else []
    else:
        text = ','.join('%s=%s' % pair for pair in pairs.items())
        words = ['--image-opts'] if draw.chance(.97) else []
    return words + objects(draw, text), text
