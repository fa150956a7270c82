#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library from Python, without anything to compile: size and first bytes of
the disk that an image shows.

    read.py IMAGE
"""
import ctypes
import os
import sys


class Error(ctypes.Structure):
    """struct lam_error"""
    _fields_ = [('code', ctypes.c_int), ('message', ctypes.c_char * 1020)]


def load(name=os.environ.get('LIBLAMELLA', 'liblamella.so.0')):
    library = ctypes.CDLL(name)
    image, error = ctypes.c_void_p, ctypes.POINTER(Error)
    library.lam_image_open.argtypes = [ctypes.c_char_p, ctypes.c_void_p,
                                       ctypes.POINTER(image), error]
    library.lam_image_close.argtypes = [image, error]
    library.lam_image_size.argtypes = [image]
    library.lam_image_size.restype = ctypes.c_uint64
    library.lam_image_read.argtypes = [image, ctypes.c_void_p, ctypes.c_uint64,
                                       ctypes.c_uint64, error]
    return library


class Image:
    """An image open for reading; a failure is an OSError."""

    def __init__(self, library, path):
        self.library, self.handle = library, ctypes.c_void_p()
        self.call('lam_image_open', os.fsencode(path), None,
                  ctypes.byref(self.handle))

    def call(self, name, *arguments):
        error = Error()
        if getattr(self.library, name)(*arguments, ctypes.byref(error)) < 0:
            raise OSError(error.code, error.message.decode())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.call('lam_image_close', self.handle)

    def __len__(self):
        return self.library.lam_image_size(self.handle)

    def read(self, length, offset):
        data = ctypes.create_string_buffer(length)
        self.call('lam_image_read', self.handle, data, length, offset)
        return data.raw


def main(path):
    with Image(load(), path) as image:
        size = len(image)
        print('%d bytes, first: %s' % (size, image.read(min(16, size), 0)))


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(error.strerror)
