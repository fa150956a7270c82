# SPDX-License-Identifier: MIT
"""Damaged qcow2 images: one function a defect.

base() makes a small valid image in memory, without any tool; each function in
DEFECTS patches it in one place and says in its docstring what is wrong.  The
same image serves the checker (what it reports, next to the genuine tool) and
the opener (what it refuses).  Section numbers are the format document's.

    python3 defects.py DIRECTORY      writes every image, for a look by hand
"""

import struct
import sys
import zlib

COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

# Host clusters of the base image.
HEADER, REFTABLE, REFBLOCK, L1, L2, DATA0, DATA1, PACKED, SN_L1, SN_TABLE = \
    range(10)
BM_DIRECTORY, BM_TABLE, BM_DATA = 8, 9, 10
DATA_FILE = "data.raw"


class Image:
    """Bytes of an image, and the few fields that the defects patch."""

    def __init__(self, data, cluster_bits=16):
        self.data = bytearray(data)
        self.cs = 1 << cluster_bits

    def at(self, cluster, offset=0):
        return cluster * self.cs + offset

    def u32(self, offset):
        return struct.unpack_from(">I", self.data, offset)[0]

    def u64(self, offset):
        return struct.unpack_from(">Q", self.data, offset)[0]

    def put(self, fmt, offset, value):
        end = offset + struct.calcsize(">" + fmt)
        if len(self.data) < end:
            self.data.extend(bytes(end - len(self.data)))
        struct.pack_into(">" + fmt, self.data, offset, value)

    def put32(self, offset, value):
        self.put("I", offset, value)

    def put64(self, offset, value):
        self.put("Q", offset, value)

    def l1(self, index, value=None, table=L1):
        offset = self.at(table, index * 8)
        if value is not None:
            self.put64(offset, value)
        return self.u64(offset)

    def l2(self, index, value=None, size=8):
        offset = self.at(L2, index * size)
        if value is not None:
            self.put64(offset, value)
        return self.u64(offset)

    def refcount(self, cluster, value=None):
        offset = self.at(REFBLOCK, cluster * 2)
        if value is not None:
            self.put("H", offset, value)
        return struct.unpack_from(">H", self.data, offset)[0]


def _deflate(data):
    codec = zlib.compressobj(6, zlib.DEFLATED, -12)
    return codec.compress(data) + codec.flush()


def base(snapshot=False, extended_l2=False, version=3, bitmap=False,
         data_file=False):
    """A valid image, 1 MiB, clusters of 64 KiB:

    guest cluster 0, 1   data in host clusters 5 and 6
    guest cluster 2      zero, nothing stored
    guest cluster 3      zero, keeping no host cluster (unallocated in v2)
    guest cluster 4, 5   compressed, packed into host cluster 7
    others               unallocated

    With @data_file guest cluster 0 alone is stored, in DATA_FILE, which the
    caller makes.
    """
    img = Image(b"")
    cs = img.cs
    fields = struct.pack(
        ">IIQIIQIIQQIIQ", 0x514649fb, version, 0, 0, 16, 1 << 20, 0, 1,
        L1 * cs, REFTABLE * cs, 1, 0, 0)
    if version >= 3:
        fields += struct.pack(">QQQIIB7x", 0x10 if extended_l2 else 0, 0, 0, 4,
                              112, 0)
    img.data = bytearray(fields)
    img.put64(img.at(REFTABLE), REFBLOCK * cs)
    img.l1(0, COPIED | L2 * cs)
    size = 16 if extended_l2 else 8
    img.l2(0, COPIED | DATA0 * cs, size)
    img.l2(1, COPIED | DATA1 * cs, size)
    if extended_l2:
        img.put64(img.at(L2, 8), 0xffffffff)
        img.put64(img.at(L2, 24), 0x0000000f | 0xf0 << 32)
        img.put64(img.at(L2, 40), 0xffffffff << 32)
    elif version >= 3:
        img.l2(2, ZERO)
        img.l2(3, ZERO)
    img.data.extend(bytes(img.at(DATA0) - len(img.data)))
    img.data += b"A" * cs + b"B" * cs
    at = img.at(PACKED)
    for index, byte in ((4, b"C"), (5, b"D")):
        payload = _deflate(byte * cs)
        sectors = (at + len(payload) - 1) // 512 - at // 512
        img.l2(index, COMPRESSED | sectors << 54 | at, size)
        img.data += payload
        at += len(payload)
    img.data.extend(bytes(img.at(PACKED + 1) - len(img.data)))
    for cluster in range(PACKED):
        img.refcount(cluster, 1)
    img.refcount(PACKED, 2)
    if snapshot:
        _add_snapshot(img, size)
    if bitmap:
        _add_bitmap(img)
    if data_file:
        _use_data_file(img)
    return img


def _add_bitmap(img):
    """One persistent bitmap "b0": directory, table and data in 8, 9, 10."""
    img.data.extend(bytes(img.at(BM_DIRECTORY) - len(img.data)))
    img.data += struct.pack(">QIIBBHI", BM_TABLE * img.cs, 1, 2, 1, 16, 2, 0)
    img.data += b"b0".ljust(8, b"\0")
    img.put64(img.at(BM_TABLE), BM_DATA * img.cs)
    img.data.extend(bytes(img.at(BM_DATA + 1) - len(img.data)))
    img.data[img.at(BM_DATA)] = 0x33
    for cluster in (BM_DIRECTORY, BM_TABLE, BM_DATA):
        img.refcount(cluster, 1)
    img.put64(88, 1)
    img.data[112:144] = struct.pack(">IIIIQQ", 0x23852875, 24, 1, 0, 32,
                                    BM_DIRECTORY * img.cs)


def _use_data_file(img):
    img.put64(72, 4)
    img.data[112:128] = struct.pack(">II", 0x44415441, 8) + DATA_FILE.encode()
    del img.data[img.at(DATA0):]
    for cluster in (DATA0, DATA1, PACKED):
        img.refcount(cluster, 0)
    for index in range(16):
        img.l2(index, 0)
    img.l2(0, COPIED)
    img.l2(3, COPIED | 3 * img.cs)


def _add_snapshot(img, size):
    img.l1(0, L2 * img.cs)
    for index in (0, 1):
        img.l2(index, img.l2(index, size=size) & ~COPIED, size)
    img.put64(img.at(SN_L1), COPIED | L2 * img.cs)
    img.data.extend(bytes(img.at(SN_TABLE) - len(img.data)))
    img.data += struct.pack(">QIHHIIQII", SN_L1 * img.cs, 1, 1, 2, 1, 0, 0, 0,
                            24)
    img.data += struct.pack(">QQQ", 0, 1 << 20, 0) + b"1" + b"s0"
    for cluster in (L2, DATA0, DATA1):
        img.refcount(cluster, 2)
    img.refcount(PACKED, 4)
    img.refcount(SN_L1, 1)
    img.refcount(SN_TABLE, 1)
    img.put32(60, 1)
    img.put64(64, SN_TABLE * img.cs)


DEFECTS = {}


def defect(**kind):
    """Registers a function, with the arguments of base() that it wants."""
    def register(function):
        DEFECTS[function.__name__] = (function, kind)
        return function
    return register


def make(name):
    """The image with defect @name, as bytes."""
    function, kind = DEFECTS[name]
    img = base(**kind)
    function(img)
    return bytes(img.data)


# ------------------------------------------------------------- no defect

@defect()
def valid(img):
    """The base image: no tool may find anything."""


@defect(snapshot=True)
def valid_snapshot(img):
    """With an internal snapshot: also valid."""


@defect(extended_l2=True)
def valid_subclusters(img):
    """With extended L2 entries: also valid."""


@defect(version=2)
def valid_v2(img):
    """Version 2: also valid."""


@defect()
def valid_trailing_garbage(img):
    """Bytes behind the last cluster that has a refcount."""
    img.data += b"x" * 100000


@defect(bitmap=True)
def valid_bitmap(img):
    """With a persistent bitmap: also valid."""


@defect(data_file=True)
def valid_data_file(img):
    """With an external data file: also valid."""


# -------------------------------------------------------------- refcounts

@defect()
def leak(img):
    """A cluster with refcount 1 that nobody references (14.2: leak)."""
    img.refcount(8, 1)


@defect()
def leak_two(img):
    """Refcount 3 where there is one reference; COPIED is wrong as well."""
    img.refcount(DATA0, 3)


@defect()
def leak_far(img):
    """A leaked cluster far behind the end of the file."""
    img.refcount(1000, 1)


@defect()
def refcount_zero_data(img):
    """A data cluster in use with refcount 0 (14.2: needs a rebuild)."""
    img.refcount(DATA1, 0)


@defect()
def refcount_zero_header(img):
    """The header cluster counts as free."""
    img.refcount(HEADER, 0)


@defect()
def refcount_zero_l2(img):
    """The L2 table counts as free."""
    img.refcount(L2, 0)


@defect()
def refcount_low_packed(img):
    """Two payloads in a host cluster with refcount 1."""
    img.refcount(PACKED, 1)


@defect(snapshot=True)
def refcount_low_shared(img):
    """A data cluster of two L1 tables with refcount 1."""
    img.refcount(DATA0, 1)


@defect()
def refblock_missing(img):
    """No refcount block at all: every refcount is 0."""
    img.put64(img.at(REFTABLE), 0)


@defect()
def refblock_unaligned(img):
    """A refcount table entry that is not a multiple of the cluster size."""
    img.put64(img.at(REFTABLE), REFBLOCK * img.cs + 512)


@defect()
def refblock_reserved(img):
    """Reserved bits in a refcount table entry (5.1)."""
    img.put64(img.at(REFTABLE), REFBLOCK * img.cs | 1)


@defect()
def refblock_beyond_eof(img):
    """A second refcount block that lies behind the end of the file."""
    img.put64(img.at(REFTABLE, 8), 100 * img.cs)


@defect()
def refblock_shared(img):
    """A refcount table that names one block twice."""
    img.put64(img.at(REFTABLE, 8), REFBLOCK * img.cs)


@defect()
def refblock_on_data(img):
    """A second refcount block on top of a data cluster."""
    img.put64(img.at(REFTABLE, 8), DATA0 * img.cs)


@defect()
def reftable_empty(img):
    """A refcount table of no clusters."""
    img.put32(56, 0)


@defect()
def reftable_beyond_eof(img):
    """The refcount table lies behind the end of the file."""
    img.put64(48, 100 * img.cs)


@defect()
def refcount_order_wrong(img):
    """Counters of 8 bits read from a block that was written with 16."""
    img.put32(96, 3)


# ----------------------------------------------------------------- COPIED

@defect()
def copied_missing_l1(img):
    """COPIED clear in an L1 entry whose L2 table has refcount 1 (3.5)."""
    img.l1(0, L2 * img.cs)


@defect()
def copied_missing_data(img):
    """COPIED clear in an L2 entry whose cluster has refcount 1."""
    img.l2(0, DATA0 * img.cs)


@defect(snapshot=True)
def copied_set_shared(img):
    """COPIED set on a cluster with refcount 2."""
    img.l2(0, COPIED | DATA0 * img.cs)


@defect(snapshot=True)
def copied_set_l1_shared(img):
    """COPIED set on an L2 table with refcount 2."""
    img.l1(0, COPIED | L2 * img.cs)


@defect()
def copied_compressed(img):
    """COPIED on a compressed entry (3.3)."""
    img.l2(4, img.l2(4) | COPIED)


@defect()
def copied_unallocated(img):
    """COPIED on an entry that has nothing: nobody minds."""
    img.l2(8, COPIED)


# ---------------------------------------------------------------- entries

@defect()
def cluster_twice(img):
    """Two guest clusters share one host cluster with refcount 1."""
    img.l2(1, COPIED | DATA0 * img.cs)


@defect()
def l2_reserved(img):
    """Reserved bits in an L2 entry."""
    img.l2(0, img.l2(0) | 1 << 57)


@defect()
def l2_reserved_unallocated(img):
    """Reserved bits in an L2 entry that has nothing."""
    img.l2(8, 1 << 57)


@defect()
def l2_reserved_zero(img):
    """Reserved bits in the entry of a zero cluster."""
    img.l2(2, ZERO | 2)


@defect(snapshot=True)
def l2_reserved_shared(img):
    """Reserved bits in an L2 table of two L1 tables."""
    img.l2(0, img.l2(0) | 1 << 57)


@defect()
def l1_reserved(img):
    """Reserved bits in an L1 entry."""
    img.l1(0, img.l1(0) | 1 << 57)


@defect(snapshot=True)
def l1_reserved_snapshot(img):
    """Reserved bits in the L1 entries of the disk and of a snapshot."""
    img.l1(0, img.l1(0) | 1 << 3)
    img.l1(0, img.l1(0, table=SN_L1) | 1 << 60, table=SN_L1)


@defect()
def l1_reserved_data(img):
    """Reserved bits in an L1 entry that names guest data."""
    img.l1(0, COPIED | 1 << 57 | DATA0 * img.cs)


@defect()
def l1_without_table(img):
    """An L1 entry with COPIED and no offset: half of one, after a cut (3.2)."""
    img.l1(0, COPIED)


@defect()
def l1_cut(img):
    """The file ends inside the first entry of the L1 table."""
    del img.data[img.at(L1, 4):]


@defect()
def l1_unaligned(img):
    """An L1 entry that is not a multiple of the cluster size."""
    img.l1(0, COPIED | L2 * img.cs + 512)


@defect()
def l2_unaligned(img):
    """A data cluster that is not a multiple of the cluster size."""
    img.l2(0, COPIED | DATA0 * img.cs + 512)


@defect()
def l2_zero_unaligned(img):
    """A zero cluster that keeps an unaligned host offset."""
    img.l2(0, COPIED | DATA0 * img.cs + 512 | ZERO)


@defect()
def l2_table_beyond_eof(img):
    """An L2 table behind the end of the file."""
    img.l1(0, COPIED | 100 * img.cs)


@defect()
def data_beyond_eof(img):
    """A data cluster behind the end of the file."""
    img.l2(8, COPIED | 100 * img.cs)


@defect()
def data_at_eof(img):
    """A data cluster directly behind the last one: not even a byte there."""
    img.l2(8, COPIED | 8 * img.cs)


@defect()
def compressed_beyond_eof(img):
    """A payload behind the end of the file."""
    img.l2(8, COMPRESSED | 100 * img.cs)


@defect()
def data_on_header(img):
    """A zero-length table's neighbour: L2 entry that names the L1 table."""
    img.l2(8, COPIED | L1 * img.cs)


@defect(version=2)
def zero_in_v2(img):
    """A zero cluster in a version 2 image (3.3): fatal on access only."""
    img.l2(8, ZERO)


@defect()
def l1_cleared(img):
    """The L1 entry is gone: L2 table and data are leaks."""
    img.l1(0, 0)


@defect()
def l1_twice(img):
    """Two L1 entries name one L2 table."""
    img.put64(24, (512 << 20) + (1 << 20))
    img.put32(36, 2)
    img.l1(1, COPIED | L2 * img.cs)


@defect()
def l1_at_zero(img):
    """The L1 table at offset 0, on the header (2.7)."""
    img.put64(40, 0)


@defect()
def l1_beyond_eof(img):
    """The L1 table behind the end of the file."""
    img.put64(40, 100 * img.cs)


# ------------------------------------------------------------ subclusters

@defect(extended_l2=True)
def subcluster_both(img):
    """A subcluster both allocated and zero (3.4)."""
    img.put64(img.at(L2, 8), 0xffffffff | 1 << 32)


@defect(extended_l2=True)
def subcluster_no_host(img):
    """Allocated subclusters without a host cluster."""
    img.put64(img.at(L2, 8 * 16 + 8), 1)


@defect(extended_l2=True)
def subcluster_compressed(img):
    """A compressed entry whose bitmap is not 0."""
    img.put64(img.at(L2, 4 * 16 + 8), 1 << 32)


@defect(extended_l2=True)
def subcluster_unaligned(img):
    """Allocated subclusters at an unaligned host offset."""
    img.put64(img.at(L2), COPIED | DATA0 * img.cs + 512)


@defect(extended_l2=True)
def subcluster_unaligned_unused(img):
    """An unaligned host offset of which no subcluster is in use."""
    img.put64(img.at(L2), COPIED | DATA0 * img.cs + 512)
    img.put64(img.at(L2, 8), 0)


@defect(extended_l2=True)
def subcluster_zero_bit(img):
    """Bit 0 of an extended entry, which has no meaning (3.4)."""
    img.put64(img.at(L2), img.u64(img.at(L2)) | 1)


@defect(extended_l2=True)
def subcluster_reserved(img):
    """Reserved bits in the first word of an extended entry."""
    img.put64(img.at(L2, 8 * 16), 1 << 57)


@defect(extended_l2=True)
def subcluster_copied(img):
    """COPIED missing where only preallocated subclusters are."""
    img.put64(img.at(L2), DATA0 * img.cs)
    img.put64(img.at(L2, 8), 0)


# ------------------------------------------------------ external data file

@defect(data_file=True)
def data_file_compressed(img):
    """A compressed cluster in an image with an external data file (12)."""
    img.l2(4, COMPRESSED | 3 * img.cs)


@defect(data_file=True)
def data_file_not_copied(img):
    """COPIED missing on a cluster in the data file."""
    img.l2(3, 3 * img.cs)


@defect(data_file=True)
def data_file_offset(img):
    """An offset in the data file that is not the guest offset."""
    img.l2(3, COPIED | 5 * img.cs)


@defect(data_file=True)
def data_file_unaligned(img):
    """An unaligned offset in the data file."""
    img.l2(3, COPIED | 3 * img.cs + 512)


@defect(data_file=True, snapshot=True)
def data_file_snapshot(img):
    """An internal snapshot and an external data file."""


# --------------------------------------------------------------- bitmaps

@defect(bitmap=True)
def bitmap_autoclear(img):
    """The autoclear bit is clear: the bitmaps' clusters are leaks."""
    img.put64(88, 0)


@defect(bitmap=True)
def bitmap_leak(img):
    """A bitmap table that does not name the data any more."""
    img.put64(img.at(BM_TABLE), 0)


@defect(bitmap=True)
def bitmap_table_reserved(img):
    """Reserved bits in a bitmap table entry."""
    img.put64(img.at(BM_TABLE), BM_DATA * img.cs | 4)


@defect(bitmap=True)
def bitmap_table_unaligned(img):
    """A bitmap table at an unaligned offset."""
    img.put64(img.at(BM_DIRECTORY), BM_TABLE * img.cs + 512)


@defect(bitmap=True)
def bitmap_data_unaligned(img):
    """A cluster of bitmap data at an unaligned offset."""
    img.put64(img.at(BM_TABLE), BM_DATA * img.cs + 512)


@defect(bitmap=True)
def bitmap_table_beyond_eof(img):
    """A bitmap table behind the end of the file."""
    img.put64(img.at(BM_DIRECTORY), 100 * img.cs)


@defect(bitmap=True)
def bitmap_data_beyond_eof(img):
    """Bitmap data behind the end of the file."""
    img.put64(img.at(BM_TABLE), 100 * img.cs)


@defect(bitmap=True)
def bitmap_directory_beyond_eof(img):
    """The bitmap directory behind the end of the file."""
    img.put64(136, 100 * img.cs)


@defect(bitmap=True)
def bitmap_directory_in_guest(img):
    """A guest cluster that is the bitmap directory, and is counted as such."""
    img.l2(8, BM_DIRECTORY * img.cs)
    img.refcount(BM_DIRECTORY, 2)


@defect(bitmap=True)
def bitmap_directory_size(img):
    """A directory longer than its entries."""
    img.put64(128, 40)


@defect(bitmap=True)
def bitmap_directory_short(img):
    """A directory too short for its entry."""
    img.put64(128, 24)


@defect(bitmap=True)
def bitmap_type(img):
    """A bitmap of unknown type."""
    img.data[img.at(BM_DIRECTORY, 16)] = 2


@defect(bitmap=True)
def bitmap_flags(img):
    """A reserved flag of a bitmap."""
    img.put32(img.at(BM_DIRECTORY, 12), 2 | 1 << 8)


@defect(bitmap=True)
def bitmap_granularity(img):
    """A granularity of 2^40."""
    img.data[img.at(BM_DIRECTORY, 17)] = 40


@defect(bitmap=True)
def bitmap_table_size(img):
    """A bitmap table of more entries than the format allows."""
    img.put32(img.at(BM_DIRECTORY, 8), 1 << 28)


@defect(bitmap=True)
def bitmap_table_bytes(img):
    """A bitmap table for more bits than a bitmap may have."""
    img.put32(img.at(BM_DIRECTORY, 8), 8193)


@defect(bitmap=True)
def bitmap_table_long(img):
    """A bitmap table of more entries than the disk needs."""
    img.put32(img.at(BM_DIRECTORY, 8), 2)


@defect(bitmap=True)
def bitmap_table_short(img):
    """A bitmap table of fewer entries than the disk needs."""
    img.put64(24, 1 << 29)
    img.data[img.at(BM_DIRECTORY, 17)] = 9


@defect(bitmap=True)
def bitmap_table_long_in_use(img):
    """The same of a bitmap in use is no defect: it is only to be removed."""
    img.put32(img.at(BM_DIRECTORY, 8), 2)
    img.put32(img.at(BM_DIRECTORY, 12), 3)


@defect(bitmap=True)
def bitmap_extra(img):
    """A bitmap with extra data."""
    img.put32(img.at(BM_DIRECTORY, 20), 8)
    img.put64(128, 40)


@defect(bitmap=True)
def bitmap_in_use(img):
    """A bitmap that was in use when the image was left: inconsistent."""
    img.put32(img.at(BM_DIRECTORY, 12), 3)


def _second_bitmap(img, entry):
    """Another entry of the directory, 32 bytes."""
    at = img.at(BM_DIRECTORY, 32)
    img.data[at:at + 32] = entry
    img.put32(120, 2)
    img.put64(128, 64)


@defect(bitmap=True)
def bitmap_same_name(img):
    """Two bitmaps of one name, and of one table and one data cluster."""
    _second_bitmap(img, img.data[img.at(BM_DIRECTORY):img.at(BM_DIRECTORY, 32)])


@defect(bitmap=True)
def bitmap_same_table(img):
    """Two bitmaps that share a table and data."""
    _second_bitmap(img, img.data[img.at(BM_DIRECTORY):img.at(BM_DIRECTORY, 24)]
                   + b"b1".ljust(8, b"\0"))


@defect(bitmap=True)
def bitmap_name_nul(img):
    """A NUL in the name of a bitmap."""
    img.data[img.at(BM_DIRECTORY, 25)] = 0


@defect(bitmap=True)
def bitmap_name_empty(img):
    """A bitmap without a name."""
    img.data[img.at(BM_DIRECTORY, 19)] = 0
    img.put64(128, 24)


@defect(bitmap=True)
def bitmap_name_long(img):
    """A name that is longer than the directory."""
    img.data[img.at(BM_DIRECTORY, 18)] = 0xff


@defect(bitmap=True)
def bitmap_no_table(img):
    """A bitmap whose table is at offset 0."""
    img.put64(img.at(BM_DIRECTORY), 0)


@defect(bitmap=True)
def bitmap_empty_table(img):
    """A bitmap table of no entries."""
    img.put32(img.at(BM_DIRECTORY, 8), 0)


@defect(bitmap=True)
def bitmap_table_long(img):
    """A table of 2^27 entries, of which the file has a cluster."""
    img.put32(img.at(BM_DIRECTORY, 8), 1 << 27)


@defect(bitmap=True)
def bitmap_ones_at_offset(img):
    """A table entry with an offset and the all-ones flag."""
    img.put64(img.at(BM_TABLE), BM_DATA * img.cs | 1)


@defect(bitmap=True)
def bitmap_data_is_l1(img):
    """Bitmap data in the cluster of the L1 table."""
    img.put64(img.at(BM_TABLE), struct.unpack_from(">Q", img.data, 40)[0])


@defect(bitmap=True)
def bitmap_data_is_directory(img):
    """Bitmap data in the cluster of the directory, an in_use bitmap."""
    img.put64(img.at(BM_TABLE), BM_DIRECTORY * img.cs)
    img.put32(img.at(BM_DIRECTORY, 12), 3)


@defect(bitmap=True)
def bitmap_directory_is_table(img):
    """The directory in the cluster of the bitmap's table."""
    img.put64(136, BM_TABLE * img.cs)


@defect(bitmap=True)
def bitmap_count(img):
    """More bitmaps in the header than in the directory."""
    img.put32(120, 2)


# -------------------------------------------------------------- snapshots

@defect(snapshot=True)
def snapshot_l1_unaligned(img):
    """A snapshot's L1 table at an unaligned offset (8.1)."""
    img.put64(img.at(SN_TABLE), SN_L1 * img.cs + 512)


@defect(snapshot=True)
def snapshot_l1_too_large(img):
    """A snapshot's L1 table of more entries than the format allows."""
    img.put32(img.at(SN_TABLE, 8), 0x10000000)


@defect(snapshot=True)
def snapshot_extra_short(img):
    """8 bytes of extra data, where version 3 needs 16."""
    table = img.at(SN_TABLE)
    img.put32(table + 36, 8)
    img.data[table + 48:] = b"1" + b"s0"


@defect(snapshot=True)
def snapshot_extra_long(img):
    """More than 1024 bytes of extra data."""
    img.put32(img.at(SN_TABLE, 36), 1025)


@defect(snapshot=True)
def snapshot_table_beyond_eof(img):
    """The snapshot table lies behind the end of the file."""
    img.put64(64, 100 * img.cs)


@defect(snapshot=True)
def snapshot_table_unaligned(img):
    """The snapshot table at an unaligned offset."""
    img.put64(64, SN_TABLE * img.cs + 512)


@defect(snapshot=True)
def snapshot_count(img):
    """More snapshots than the format allows."""
    img.put32(60, 65537)


# ----------------------------------------------------------------- header

@defect()
def dirty_bit(img):
    """The dirty bit: refcounts may be stale; these are not."""
    img.put64(72, 1)


@defect()
def corrupt_bit(img):
    """The corrupt bit on a sound image."""
    img.put64(72, 2)


def main():
    with open(f"{sys.argv[1]}/{DATA_FILE}", "wb") as out:
        out.truncate(1 << 20)
    for name in DEFECTS:
        with open(f"{sys.argv[1]}/{name}.qcow2", "wb") as out:
            out.write(make(name))


if __name__ == "__main__":
    main()
