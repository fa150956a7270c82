# SPDX-License-Identifier: MIT
"""Random lists for -o: options of each format with good and bad values."""
from drawing import BAD_SIZES

BOOL = object()
SIZE = object()
SUBFORMATS = ('monolithicSparse', 'monolithicFlat', 'streamOptimized',
              'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat', 'foo', '')

OPTIONS = {
    'qcow2': {
        'compat': ('0.10', '1.1', 'v2', 'v3', 'v4', '', '1.0'),
        'cluster_size': ('512', '1k', '4k', '64k', '2M', '16k', '4M', '256',
                         '1000', 'x', '', '0', '65535'),
        'lazy_refcounts': BOOL, 'extended_l2': BOOL,
        'refcount_bits': ('1', '2', '4', '8', '16', '32', '64', '3', '0',
                          '128', 'x', '-1', ''),
        'compression_type': ('zlib', 'zstd', 'lzo', '', 'ZLIB'),
        'preallocation': ('off', 'metadata', 'falloc', 'full', 'foo', ''),
        'data_file_raw': BOOL, 'data_file': ('new.data', 'raw.img', ''),
        'size': SIZE, 'backing_fmt': ('raw', 'qcow2', 'foo', ''),
        'backing_file': ('raw.img', 'q.qcow2', 'missing', ''),
        'encryption': ('off',),
        'encrypt.format': ('luks', 'aes', 'foo', ''),
        'encrypt.key-secret': ('s', 'nope', ''),
        'encrypt.iter-time': ('10', '0', 'x', '-1'),
        'encrypt.cipher-alg': ('aes-256', 'aes-128', 'foo', 'serpent-256'),
        'encrypt.cipher-mode': ('xts', 'cbc', 'foo'),
        'encrypt.ivgen-alg': ('plain64', 'plain', 'essiv', 'foo'),
        'encrypt.hash-alg': ('sha256', 'sha1', 'foo', 'sha512'),
    },
    'raw': {'size': SIZE,
            'preallocation': ('off', 'falloc', 'full', 'metadata', 'foo'),
            'nocow': BOOL, 'extent_size_hint': ('1M', '0', 'x', '64k'),
            'cluster_size': ('64k',), 'backing_file': ('raw.img',)},
    'luks': {'key-secret': ('s', 'nope'), 'iter-time': ('10', '0'),
             'cipher-alg': ('aes-256', 'aes-128', 'foo'), 'size': SIZE,
             'cipher-mode': ('xts', 'cbc', 'foo'), 'detached-header': BOOL,
             'hash-alg': ('sha256', 'sha1', 'foo'),
             'ivgen-alg': ('plain64', 'plain', 'essiv', 'foo')},
    'vdi': {'static': BOOL, 'size': SIZE},
    'vmdk': {'subformat': SUBFORMATS, 'compat6': BOOL, 'zeroed_grain': BOOL,
             'adapter_type': ('ide', 'lsilogic', 'buslogic', 'legacyESX',
                              'foo'),
             'hwversion': ('4', '6', '14', 'x'), 'size': SIZE,
             'toolsversion': ('1', '2147483647', 'x'),
             'backing_file': ('raw.img', 'missing'), 'backing_fmt': ('vmdk',)},
    'vpc': {'subformat': ('dynamic', 'fixed', 'foo'), 'force_size': BOOL,
            'size': SIZE},
    'vhdx': {'subformat': ('dynamic', 'fixed', 'foo'), 'size': SIZE,
             'block_size': ('1M', '2M', '0', '3M', '512M', 'x'),
             'block_state_zero': BOOL, 'log_size': ('1M', '2M', '0', 'x')},
    'qed': {'cluster_size': ('4k', '64k', '1k', '1G', 'x'), 'size': SIZE,
            'table_size': ('1', '2', '4', '16', '3', '32'),
            'backing_file': ('raw.img', 'missing'),
            'backing_fmt': ('raw', 'qcow2', 'foo')},
    'qcow': {'size': SIZE, 'backing_file': ('raw.img', 'missing'),
             'backing_fmt': ('raw', 'foo'), 'encryption': ('off',)},
    'parallels': {'cluster_size': ('1M', '64k', '4k', '100', 'x'),
                  'size': SIZE},
}
# How many of the values above are good ones is not said: most are.
ODD = ('help', '?', 'foo=1', 'foo', '=', 'cluster_size', 'nosize',
       'lazy_refcounts', 'compat', 'size=1M,size=2M', ',', 'help=on', '')
RISKY = ('size', 'data_file', 'backing_file', 'encrypt.format', 'encryption')


# What amend says of key slots; for qcow2 with "encrypt." in front.
KEY_SLOTS = {
    'state': ('active', 'inactive', 'foo', ''),
    'new-secret': ('s', 't', 'nope', ''), 'old-secret': ('s', 't', 'nope', ''),
    'keyslot': ('1', '7', '0', '8', '-1', 'x', ''),
    'iter-time': ('10', '20', '0', 'x'),
}


def draw_key_slots(draw, prefix):
    names = [name for name in KEY_SLOTS if draw.chance(.5)] or ['state']
    return ','.join('%s%s=%s' % (prefix, name,
                                 draw_value(draw, KEY_SLOTS[name]))
                    for name in names)


def draw_value(draw, values):
    if values is BOOL:
        return draw.boolean()
    if values is SIZE:
        return draw.often(('1M', '2M', '100k', '1234567'), BAD_SIZES)
    # The first are the sensible ones.
    good = values[:max(1, (len(values) + 1) // 2)]
    return draw.often(good, values, .25)


def draw_list(draw, form, most=3):
    """"a=1,b=2", or None."""
    options = OPTIONS.get(form) or OPTIONS['qcow2']
    words = []
    for name in draw.some(sorted(options), most):
        if name in RISKY and draw.chance(.7):
            continue
        words.append('%s=%s' % (name, draw_value(draw, options[name])))
    if draw.chance(.04):
        words.append(draw.one(*ODD))
    return ','.join(words) or None


def draw_dashes(draw, form, most=3):
    """The list as words of a command: one -o, or several."""
    words = draw_list(draw, form, most)
    if words is None:
        return []
    if draw.chance(.15):
        return [piece for one in words.split(',') for piece in ('-o', one)]
    return ['-o', words]
