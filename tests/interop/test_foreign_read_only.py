# SPDX-License-Identifier: MIT
"""bochs, cloop and DMG, made by recipe: lamella and the genuine tool read."""
import pytest

from foreign_files import bochs, cloop, dmg
from harness import KiB, make_mixed_file, run

RECIPES = {
    'bochs': bochs,
    'bochs-v1': lambda disk: bochs(disk, 128 * KiB, 1),
    'cloop': cloop,
    'dmg': dmg,
    'dmg-resources': lambda disk: dmg(disk, resources=True),
    'dmg-zlib': lambda disk: dmg(disk, ('zlib', 'raw')),
    # Several files, and all that there is lies in the first one.
    'dmg-parts': lambda disk: dmg(disk, ('zlib', 'raw'), segments=2),
    'dmg-adc': lambda disk: dmg(disk, ('adc', 'zlib')),
}
# The genuine tool has bzip2 in another package, and ADC not at all.
THEIRS = ['bochs', 'bochs-v1', 'cloop', 'dmg-zlib', 'dmg-parts']


@pytest.fixture(scope='module')
def disk(tmp_path_factory):
    path = tmp_path_factory.mktemp('raw') / 'disk'
    make_mixed_file(path, 1024 * KiB, seed=13)
    return path


def make(recipe, disk, tmp_path):
    image = tmp_path / ('image.' + recipe.split('-')[0])
    image.write_bytes(RECIPES[recipe](disk.read_bytes()))
    return image


@pytest.mark.parametrize('recipe', RECIPES)
def test_reads(recipe, disk, lamella, tmp_path):
    fmt, image = recipe.split('-')[0], make(recipe, disk, tmp_path)
    lamella.run('compare', '-f', 'raw', '-F', fmt, disk, image)
    # Found out, by content or by name.
    lamella.run('convert', '-O', 'raw', image, tmp_path / 'out')
    assert (tmp_path / 'out').read_bytes() == disk.read_bytes()
    out = lamella.io_run(image, 'read 65000 1100', 'read -v 3 70000',
                         options=('-r', '-f', fmt))
    assert 'failed' not in out
    refused = run(*lamella.img, 'create', '-f', fmt, tmp_path / 'x', '1M',
                  status=1)
    assert "'%s' does not support image creation" % fmt in refused.stderr
    assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize('recipe', THEIRS)
def test_beside_the_genuine_tool(recipe, disk, lamella, reference, tmp_path):
    fmt, image = recipe.split('-')[0], make(recipe, disk, tmp_path)
    reference.run('compare', '-f', 'raw', '-F', fmt, disk, image)
    for form in ('human', 'json'):
        arguments = ['info', '--output', form, image]
        assert lamella.run(*arguments) == reference.run(*arguments)
    for arguments in (['check', '-f', fmt, image],
                      ['resize', '-f', fmt, image, '2M'],
                      ['create', '-f', fmt, '-o', 'help'],
                      ['measure', '-O', fmt, '--size', '1M']):
        said = [run(*tools.img, *arguments, status=None)
                for tools in (lamella, reference)]
        assert said[0].returncode == said[1].returncode


def test_what_it_cannot_inflate(disk, lamella, tmp_path):
    image = tmp_path / 'image.dmg'
    image.write_bytes(dmg(disk.read_bytes(), ('zlib', 'lzfse')))
    refused = run(*lamella.img, 'convert', '-f', 'dmg', '-O', 'raw', image,
                  tmp_path / 'out', status=1)
    assert 'LZFSE, which is not supported' in refused.stderr
    assert not (tmp_path / 'out').exists()


def test_the_other_parts_are_missed(disk, lamella, tmp_path):
    whole = dmg(disk.read_bytes(), ('raw',), segments=2)
    image = tmp_path / 'image.dmg'
    image.write_bytes(whole[1 << 19:])
    refused = run(*lamella.img, 'convert', '-f', 'dmg', '-O', 'raw', image,
                  tmp_path / 'out', status=1)
    assert 'one of 2 files' in refused.stderr
    assert not (tmp_path / 'out').exists()


def test_untrusted_does_not_guess(disk, lamella, tmp_path):
    for recipe in ('bochs', 'cloop', 'dmg'):
        image = make(recipe, disk, tmp_path)
        arguments = ['info', '--untrusted', image]
        assert 'file format: raw' in lamella.run(*arguments)
        named = ['info', '--untrusted', '-f', recipe, image]
        assert 'file format: ' + recipe in lamella.run(*named)
