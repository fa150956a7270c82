# SPDX-License-Identifier: MIT
"""Servers of files for the tests: HTTP with ranges, TLS, and faults that are
asked for behind the "?" of a URL; and FTP."""
import base64
import http.server
import os
import re
import socketserver
import ssl
import threading

# Of nobody: made for these tests, for 127.0.0.1.
CERTIFICATE = '''\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgdPQi2vPohQ+KvB/k
tjCjUaNUEoSiRRjY6cL3wAV3fuehRANCAATyS8omeLIPfRyX2IHa2VWTLQhkA9XB
aEYUPb56n3jm2yNVJ0RbCg8/b+KnwCdMrx1+mUy35EmiP1PUT/vr68oh
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIURB9MWLB1BCcxw4B2MEbuAeIRo0YwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjE4MjIxNloYDzIxMjYxMDI5
MTgyMjE2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATyS8omeLIPfRyX2IHa2VWTLQhkA9XBaEYUPb56n3jm2yNVJ0RbCg8/
b+KnwCdMrx1+mUy35EmiP1PUT/vr68oho2QwYjAdBgNVHQ4EFgQUAKifyRWez8Ve
YFQ8F2hBDe267gUwHwYDVR0jBBgwFoAUAKifyRWez8VeYFQ8F2hBDe267gUwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IGrTYN5juPGOq19PL79vxNL9mqSv2h6OYI82yqmwccpWAiEAjMWnOS+/pQyl//Pc
kKZYKlrI74oTclbwAcvF675Sarg=
-----END CERTIFICATE-----
'''


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def say(self, status, *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def answer(self, whole):
        path, _, fault = self.path.partition('?')
        self.server.requests.append((self.command, self.path,
                                     dict(self.headers)))
        if fault == 'redirect':
            return self.say(302, ('Location', path))
        if fault == 'elsewhere':
            return self.say(302, ('Location', 'file:///etc/passwd'))
        if fault == 'auth' and self.headers.get('Authorization') != \
                'Basic ' + base64.b64encode(b'me:pass').decode():
            return self.say(401, ('WWW-Authenticate', 'Basic realm="x"'))
        if fault.isdigit():
            return self.say(int(fault))
        try:
            with open(os.path.join(self.server.folder, path[1:]), 'rb') as f:
                self.send(f.read(), whole, fault)
        except FileNotFoundError:
            self.say(404)

    def send(self, data, whole, fault):
        asked = re.match(r'bytes=(\d+)-(\d+)', self.headers.get('Range', ''))
        first, last, size = 0, len(data) - 1, len(data)
        if asked and fault != 'whole':
            first, last = (min(int(n), last) for n in asked.groups())
            shown = first + 512 if fault == 'shifted' else first
            size += fault == 'grown'
            self.send_response(206)
            if fault != 'no-range':
                self.send_header('Content-Range', 'bytes %d-%d/%d' % (
                    shown, last, size))
        else:
            self.send_response(200)
        if fault != 'no-ranges':
            self.send_header('Accept-Ranges', 'bytes')
        if fault == 'no-length':
            self.send_header('Connection', 'close')
            self.close_connection = True
        else:
            self.send_header('Content-Length', str(last + 1 - first))
        self.end_headers()
        if not whole:
            return
        if fault == 'stall' and first:
            self.server.gone.wait()
        if fault == 'cut' and first:
            last = (first + last) // 2
            self.close_connection = True
        try:
            self.wfile.write(data[first:last + 1])
        except OSError:                 # it has what it wanted
            self.close_connection = True


class Web(http.server.ThreadingHTTPServer):
    """Serves @folder at .url until the end of "with"; .requests are those that
    came: (method, path, headers)."""
    daemon_threads = True
    block_on_close = False

    def __init__(self, folder, tls=None):
        super().__init__(('127.0.0.1', 0), Handler)
        self.folder, self.requests = str(folder), []
        self.gone = threading.Event()
        self.url = '%s://127.0.0.1:%d/' % ('https' if tls else 'http',
                                           self.server_port)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(.01,),
                         daemon=True).start()
        return self

    def __exit__(self, *_):
        self.gone.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):         # a client that does not trust us
        pass


class FtpHandler(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b'\r\n')

    def handle(self):
        self.passive, self.rest, self.folder = None, 0, self.server.folder
        self.say('220 ready')
        for line in self.rfile:
            word, _, value = line.decode().strip().partition(' ')
            command = getattr(self, 'do_' + word.upper(), None)
            if word.upper() == 'QUIT':
                return self.say('221 bye')
            if command:
                command(value)
            else:
                self.say('502 no')

    def do_USER(self, name):
        self.server.users.append(name)
        self.say('331 and a password')

    def do_PASS(self, _):
        self.say('230 in')

    def do_PWD(self, _):
        self.say('257 "/"')

    def do_TYPE(self, _):
        self.say('200 yes')

    def do_CWD(self, name):
        self.folder = os.path.join(self.folder, name.lstrip('/'))
        self.say('250 yes')

    def do_EPSV(self, _):
        self.passive = socketserver.TCPServer(('127.0.0.1', 0), None)
        self.say('229 passive (|||%d|)' % self.passive.server_address[1])

    def do_SIZE(self, name):
        try:
            self.say('213 %d' % os.path.getsize(os.path.join(self.folder,
                                                             name)))
        except FileNotFoundError:
            self.say('550 no such file')

    def do_REST(self, offset):
        self.rest = int(offset)
        self.say('350 yes')

    def do_RETR(self, name):
        with open(os.path.join(self.folder, name), 'rb') as f:
            f.seek(self.rest)
            data = f.read()
        self.say('150 %d bytes' % len(data))
        client, _ = self.passive.socket.accept()
        with client:
            try:
                client.sendall(data)
                said = '226 done'
            except OSError:
                said = '426 it went away'
        self.passive.server_close()
        self.say(said)


class Ftp(socketserver.ThreadingTCPServer):
    """The same for FTP; .users are the names that were given."""
    daemon_threads = True
    block_on_close = False

    def __init__(self, folder):
        super().__init__(('127.0.0.1', 0), FtpHandler)
        self.folder, self.users = str(folder), []
        self.url = 'ftp://127.0.0.1:%d/' % self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(.01,),
                         daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        pass
