# SPDX-License-Identifier: MIT
"""Images on HTTP and FTP servers."""
import json
import os
import shutil

import pytest

from harness import KiB, MiB, make_mixed_file, run
from web import CERTIFICATE, Ftp, Web


@pytest.fixture(scope='module', autouse=True)
def client(lamella):
    told = run(*lamella.img, 'info', 'http://127.0.0.1:1/', status=1).stderr
    if 'has no HTTP' in told:
        pytest.skip('built without libcurl')
    assert 'CURL: Error opening file: Failed to connect' in told


@pytest.fixture(scope='module')
def folder(lamella, tmp_path_factory):
    """A disk, the same as an image, and an overlay on that."""
    path = tmp_path_factory.mktemp('web')
    make_mixed_file(path / 'disk.raw', 5 * MiB, 7)
    lamella.run('convert', '-f', 'raw', '-O', 'qcow2', path / 'disk.raw',
                path / 'disk.qcow2')
    lamella.run('create', '-q', '-f', 'qcow2', '-b', 'disk.qcow2', '-F',
                'qcow2', path / 'top.qcow2')
    return path


@pytest.fixture(scope='module')
def web(folder):
    with Web(folder) as server:
        yield server


def node(url, **options):
    return 'json:' + json.dumps({'driver': 'raw', 'file': {
        'driver': 'http', 'url': url, **options}})


def fails(lamella, name, *args):
    return run(*lamella.img, *(args or ('info',)), name, status=1).stderr


def test_reads(lamella, web, folder, tmp_path):
    url = web.url + 'disk.qcow2'
    told = json.loads(lamella.run('info', '--output=json', url))
    assert told['filename'] == url and told['format'] == 'qcow2'
    assert told['children'][0]['info'] == {
        'children': [], 'filename': url, 'format': 'http',
        'virtual-size': os.path.getsize(folder / 'disk.qcow2')}
    assert 'actual-size' not in told
    lamella.run('check', url)
    lamella.run('compare', url, folder / 'disk.raw')
    for name in 'disk.raw', 'disk.qcow2', 'top.qcow2':
        lamella.run('convert', '-O', 'raw', web.url + name, tmp_path / 'out')
        assert (tmp_path / 'out').read_bytes() == \
            (folder / 'disk.raw').read_bytes(), name
    mapped = json.loads(lamella.run('map', '--output=json', '-f', 'raw',
                                    web.url + 'disk.raw'))
    assert [(m['start'], m['length'], m['offset']) for m in mapped] == \
        [(0, 5 * MiB, 0)]


def test_names_below(lamella, web, folder, tmp_path):
    top = tmp_path / 'top.qcow2'
    chain = json.loads(lamella.run('info', '--backing-chain', '--output=json',
                                   web.url + 'top.qcow2'))
    assert [layer['filename'] for layer in chain] == [
        web.url + 'top.qcow2', web.url + 'disk.qcow2']
    lamella.run('create', '-q', '-f', 'qcow2', '-b', web.url + 'disk.qcow2',
                '-F', 'qcow2', top)
    lamella.io_run(top, 'write -P 9 1000 3000')
    lamella.io_run(top, 'read -P 9 1000 3000')
    lamella.run('rebase', '-b', '', top)
    shutil.copy(folder / 'disk.raw', tmp_path / 'want')
    lamella.io_run(tmp_path / 'want', 'write -P 9 1000 3000',
                   options=['-f', 'raw'])
    lamella.run('compare', top, tmp_path / 'want')


def test_reads_ahead(lamella, web):
    def ranges(readahead, *reads):
        web.requests.clear()
        lamella.io_run(node(web.url + 'disk.raw', readahead=readahead),
                       *reads, options=['-r'])
        return [headers['Range'] for method, _, headers in web.requests
                if method == 'GET']

    near = ['read 64k 1k', 'read 65k 1k', 'read 127k 1k']
    assert ranges('64k', *near) == ['bytes=65536-%d' % (129 * KiB - 1)]
    assert ranges(0, *near) == ['bytes=%d-%d' % (at * KiB, at * KiB + 1023)
                                for at in (64, 65, 127)]
    # It ends where the file does, and long reads do not look ahead.
    assert ranges('1M', 'read 5242368 512') == ['bytes=5242368-5242879']
    assert ranges('64k', 'read 0 64k') == ['bytes=0-65535']
    assert 'Range' not in web.requests[0][2]        # HEAD


def test_many_readers(lamella, web, folder, tmp_path):
    for readahead in 0, 512, 300 * KiB:
        lamella.run('convert', '-m', '16', '-W', '-O', 'raw',
                    node(web.url + 'disk.raw', readahead=readahead),
                    tmp_path / 'out')
        assert (tmp_path / 'out').read_bytes() == \
            (folder / 'disk.raw').read_bytes()
    lamella.run('bench', '-c', '300', '-d', '16', '-S', '70000', '-s', '4096',
                '-f', 'raw', web.url + 'disk.raw')


def test_options(lamella, web):
    secret = ['--object', 'secret,id=s,data=pass']
    url = web.url + 'disk.raw'
    web.requests.clear()
    name = node(url, cookie='a=b', username='me', timeout=9, sslverify=False)
    told = json.loads(lamella.run('info', '--output=json', name))
    assert json.loads(told['filename'][5:])['file'] == {
        'url': url, 'driver': 'http', 'username': 'me', 'cookie': 'a=b',
        'sslverify': False}
    assert all(headers['Cookie'] == 'a=b' and 'Authorization' in headers
               for _, _, headers in web.requests)
    # What does not change what is read stays out of the name.
    told = json.loads(lamella.run('info', '--output=json',
                                  node(url, readahead='4k', timeout=9)))
    assert told['filename'] == url
    web.requests.clear()
    lamella.run('info', *secret, node(url, **{'cookie-secret': 's'}))
    assert web.requests[0][2]['Cookie'] == 'pass'
    asks = url + '?auth'
    assert 'error: 401' in fails(lamella, asks)
    lamella.run('info', *secret, node(asks, **{'username': 'me',
                                               'password-secret': 's'}))
    lamella.run('info', asks.replace('//', '//me:pass@'))
    lamella.run('info', '--image-opts',
                'driver=raw,file.driver=http,file.timeout=9,file.url=' + url)


@pytest.mark.parametrize('options, text', [
    ({'readahead': 1000},
     'HTTP_READAHEAD_SIZE 1000 is not a multiple of 512'),
    ({'timeout': 10001}, 'timeout parameter is too large or negative'),
    ({'timeout': -1}, 'timeout parameter is too large or negative'),
    ({'sslverify': 'x'}, "Parameter 'sslverify' expects 'on' or 'off'"),
    ({'cookie': 'a', 'cookie-secret': 's'},
     'curl driver cannot handle both cookie and cookie secret'),
    ({'password-secret': 's'}, "No secret with id 's'"),
    ({'host': 'x'}, "Block protocol 'http' doesn't support the option 'host'"),
    ({'url': 'http:/x'}, "http curl driver cannot handle the URL 'http:/x' "
     "(does not start with 'http://')"),
], ids=lambda value: isinstance(value, dict) and '-'.join(value) or '')
def test_bad_options(lamella, web, options, text):
    name = node(**{'url': web.url + 'disk.raw', **options})
    assert text in fails(lamella, name)


def test_bad_servers(lamella, web, folder):
    url = web.url + 'disk.raw'
    for fault, text in (
            ('404', 'CURL: Error opening file: The requested URL returned '
             'error: 404'),
            ('no-ranges', "Server does not support 'range' (byte ranges)."),
            ('no-length', "Server didn't report file size."),
            ('elsewhere', 'CURL: Error opening file: ')):
        assert text in fails(lamella, url + '?' + fault), fault
    # What is not what was asked for is not taken for it.
    for fault in 'whole', 'shifted', 'no-range', 'grown', 'cut', 'stall':
        # The one that goes silent is waited for; how quick a machine is that
        # answers does not matter.
        name = node(url + '?' + fault, timeout=2 if fault == 'stall' else 60)
        # Twice: what failed is not kept.
        again = [] if fault == 'stall' else ['-c', 'read -P 0 1M 64k']
        done = run(*lamella.io, '-r', '-c', 'read -P 0 1M 64k', *again, name,
                   status=1)
        assert (done.stdout + done.stderr).count('read failed') == \
            1 + len(again) // 2, fault
        assert 'verification' not in done.stdout, fault
    told = fails(lamella, url + '?no-range')
    assert told.count('\n') == 1 and 'Input/output error' in told
    lamella.io_run(url + '?redirect', 'read 1M 64k', options=['-r'])
    # The whole file begins with what was asked for.
    lamella.io_run(url + '?whole', 'read 0 4k', options=['-r', '-f', 'raw'])


def test_is_not_written(lamella, web, folder, tmp_path):
    url = web.url + 'disk.qcow2'
    before = (folder / 'disk.qcow2').read_bytes()
    for args in (['resize', url, '6M'], ['check', '-r', 'all', url],
                 ['snapshot', '-c', 'x', url], ['rebase', '-u', '-b', '', url],
                 ['convert', '-n', '-O', 'qcow2', folder / 'disk.raw', url]):
        told = run(*lamella.img, *args, status=1).stderr
        assert 'curl driver does not support writes' in told, args
    for args in (['create', '-f', 'qcow2', web.url + 'new', '1M'],
                 ['convert', '-O', 'qcow2', folder / 'disk.raw',
                  web.url + 'new']):
        told = run(*lamella.img, *args, status=1).stderr
        assert "Protocol driver 'http' does not support image creation" in told
    assert (folder / 'disk.qcow2').read_bytes() == before


def test_untrusted(lamella, web, tmp_path):
    top = tmp_path / 'top.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', '-b', web.url + 'disk.qcow2',
                '-F', 'qcow2', top)
    web.requests.clear()
    run(*lamella.img, 'map', '--untrusted', top, status=1)
    assert 'to speak to no server' in fails(lamella, web.url + 'disk.qcow2',
                                            'info', '--untrusted')
    assert web.requests == []


def test_tls(lamella, folder, tmp_path):
    (tmp_path / 'pem').write_text(CERTIFICATE)
    with Web(folder, tmp_path / 'pem') as server:
        url = server.url + 'disk.raw'
        assert 'certificate' in fails(lamella, url)
        assert server.requests == []
        name = node(url, driver='https', sslverify='off')
        lamella.run('compare', name, folder / 'disk.raw')


def test_ftp(lamella, folder, tmp_path):
    with Ftp(folder.parent) as server:
        url = server.url + folder.name + '/disk.raw'
        told = json.loads(lamella.run('info', '--output=json', '-f', 'raw',
                                      url))
        assert told['children'][0]['info']['format'] == 'ftp'
        lamella.run('convert', '-f', 'raw', '-O', 'raw', url, tmp_path / 'out')
        assert (tmp_path / 'out').read_bytes() == \
            (folder / 'disk.raw').read_bytes()
        assert set(server.users) == {'anonymous'}
        lamella.io_run(url.replace('//', '//me:x@'), 'read 1M 4k',
                       options=['-r', '-f', 'raw'])
        assert 'me' in server.users
        assert 'CURL: Error opening file' in fails(lamella, server.url + 'no')
