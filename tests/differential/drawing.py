# SPDX-License-Identifier: MIT
"""What random commands are made of: numbers, words, good and bad values."""
import random

MODES = ('off', 'metadata', 'falloc', 'full')
CACHES = ('none', 'writeback', 'writethrough', 'directsync', 'unsafe')
FORMATS = ('qcow2', 'raw', 'vdi', 'vmdk', 'vpc', 'vhdx', 'qed', 'qcow',
           'parallels', 'luks')
# What is no format, or none that is written.
STRANGE = ('file', 'foo', '', 'bochs', 'dmg', 'cloop', 'null-co', 'blkdebug',
           'QCOW2', 'qcow3', 'host_device')
GOOD_SIZES = ('1M', '64k', '100k', '3M', '5000000', '1234567', '512', '0',
              '10M', '2M', '65537', '1.5M', '16777216b', '0x20000', '1000')
BAD_SIZES = ('-1', 'x', '1X', '', '1 M', '1Mb', '8E', '9223372036854775807',
             '9223372036854775808', '18446744073709551615', '99999999999999P',
             '1e3', '.5M', '1.M', '0x', '1k1', '16E', '1.5', '0.1k', '1M ',
             ' 1M', '+1M', 'inf', 'nan', '0x1.8p3', '1,5M', '7.9999E')
BAD_BOOLS = ('maybe', 'ON', '1', 'yes', 'no', 'true', 'false', 'y', 'n', '',
             'On', 'off ')


class Draw:
    """A source of choices; the same seed gives the same ones."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, probability):
        return self.random.random() < probability

    def one(self, *choices):
        return self.random.choice(choices)

    def below(self, limit):
        return self.random.randrange(limit)

    def some(self, choices, most=2):
        """Up to @most different ones, in any order."""
        return self.random.sample(choices,
                                  min(len(choices), self.below(most + 1)))

    def often(self, usual, seldom, probability=.12):
        """One of @usual; with @probability one of @seldom."""
        return self.one(*(seldom if self.chance(probability) else usual))

    def size(self):
        return self.often(GOOD_SIZES, BAD_SIZES)

    def boolean(self):
        return self.often(('on', 'off'), BAD_BOOLS)

    def format(self):
        return self.often(('qcow2',) * 12 + ('raw',) * 4 + FORMATS, STRANGE,
                          .06)

    def cache(self):
        return self.often(CACHES, ('foo', '', 'NONE', 'write'), .15)

    def prealloc(self):
        return self.often(MODES, ('foo', '', 'Off', 'on'), .15)

    def offset(self, limit=4 << 20):
        unit = self.one(512, 4096, 65536, 1, 1000)
        return self.below(limit // unit) * unit

    def length(self):
        return self.one(512, 4096, 65536, 1000, 100000, 1 << 20, 131072, 1536)

    def number(self):
        """As somebody may write an offset or a length for qemu-io."""
        return self.often((str(self.offset()), '64k', '0', '1M', '0x1000'),
                          BAD_SIZES, .06)
