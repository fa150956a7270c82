/* SPDX-License-Identifier: MIT */
/*
 * blake3.c - the BLAKE3 hash, which libcrypto does not have.
 *
 * A binary tree over chunks of 1 KiB.  The stack holds the roots of subtrees
 * that are complete, the largest first.  Two of them become one when the next
 * comes, not before: nobody knows sooner whether theirs is the root of all,
 * which is marked.  64 chunks in a row, which have a subtree to themselves, are
 * hashed eight at a time.
 */
#include "crypto/blake3.h"

#include <assert.h>
#include <string.h>

#include "base/arith.h"
#include "base/bytes.h"

enum {
    BLOCK = 64,
    BLOCK_WORDS = 16,
    ROUNDS = 7,
    LANES = 8,
    GROUP = 64,                 /* chunks */
    CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8,
};

static const uint32_t iv[BLAKE3_WORDS] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* Which word of the block each round takes where. */
static const uint8_t schedule[ROUNDS][BLOCK_WORDS] = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    { 2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8 },
    { 3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1 },
    { 10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6 },
    { 12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4 },
    { 9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7 },
    { 11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13 },
};

/* For a word and for LANES of them. */
#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define MIX(a, b, c, d, x, y)                                               \
    do {                                                                    \
        a += b + (x); d ^= a; d = ROTATE(d, 16);                            \
        c += d;       b ^= c; b = ROTATE(b, 12);                            \
        a += b + (y); d ^= a; d = ROTATE(d, 8);                             \
        c += d;       b ^= c; b = ROTATE(b, 7);                             \
    } while (0)
#define ROUND(v, m, s)                                                      \
    do {                                                                    \
        MIX(v[0], v[4], v[8], v[12], m[(s)[0]], m[(s)[1]]);                 \
        MIX(v[1], v[5], v[9], v[13], m[(s)[2]], m[(s)[3]]);                 \
        MIX(v[2], v[6], v[10], v[14], m[(s)[4]], m[(s)[5]]);                \
        MIX(v[3], v[7], v[11], v[15], m[(s)[6]], m[(s)[7]]);                \
        MIX(v[0], v[5], v[10], v[15], m[(s)[8]], m[(s)[9]]);                \
        MIX(v[1], v[6], v[11], v[12], m[(s)[10]], m[(s)[11]]);              \
        MIX(v[2], v[7], v[8], v[13], m[(s)[12]], m[(s)[13]]);               \
        MIX(v[3], v[4], v[9], v[14], m[(s)[14]], m[(s)[15]]);               \
    } while (0)

/* ------------------------------------------------------------ one block */

/* What a chaining value is made of: the last step before the root may differ
 * from others. */
struct node {
    uint32_t cv[BLAKE3_WORDS];
    uint32_t block[BLOCK_WORDS];
    uint64_t counter;
    uint32_t length, flags;
};

static void compress(const struct node *n, uint32_t flags,
                     uint32_t out[BLAKE3_WORDS])
{
    uint32_t v[BLOCK_WORDS];

    memcpy(v, n->cv, sizeof n->cv);
    memcpy(v + 8, iv, 4 * sizeof *iv);
    v[12] = (uint32_t)n->counter;
    v[13] = (uint32_t)(n->counter >> 32);
    v[14] = n->length;
    v[15] = n->flags | flags;
    for (int r = 0; r < ROUNDS; r++)
        ROUND(v, n->block, schedule[r]);
    for (int i = 0; i < BLAKE3_WORDS; i++)
        out[i] = v[i] ^ v[i + 8];
}

static void parent_node(struct node *n, const uint32_t left[BLAKE3_WORDS],
                        const uint32_t right[BLAKE3_WORDS])
{
    memcpy(n->cv, iv, sizeof iv);
    memcpy(n->block, left, sizeof iv);
    memcpy(n->block + BLAKE3_WORDS, right, sizeof iv);
    n->counter = 0;
    n->length = BLOCK;
    n->flags = PARENT;
}

/* The last block of a chunk, all others hashed. */
static void chunk_node(struct node *n, const uint8_t *bytes, size_t length,
                       uint64_t counter)
{
    uint8_t last[BLOCK];

    memcpy(n->cv, iv, sizeof iv);
    n->counter = counter;
    n->flags = CHUNK_START;
    for (;; bytes += BLOCK, length -= BLOCK) {
        n->length = (uint32_t)min_u64(length, BLOCK);
        memset(last, 0, sizeof last);
        memcpy(last, bytes, n->length);
        for (int i = 0; i < BLOCK_WORDS; i++)
            n->block[i] = le32_get(last + 4 * i);
        if (length <= BLOCK)
            break;
        compress(n, 0, n->cv);
        n->flags = 0;
    }
    n->flags |= CHUNK_END;
}

/* ------------------------------------------------------------ eight blocks */

typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

/* LANES chunks, or pairs of chaining values, that follow each other. */
struct batch {
    const uint8_t *bytes;
    size_t stride;              /* from one to the next */
    unsigned blocks;            /* of each */
    uint64_t counter;           /* of the first, @step more for each */
    uint64_t step;
    uint32_t start, every, end; /* flags */
};

static inline __attribute__((always_inline))
void load_lanes(const struct batch *b, unsigned block,
                lanes m[BLOCK_WORDS])
{
    uint32_t words[BLOCK_WORDS][LANES];

    for (size_t lane = 0; lane < LANES; lane++) {
        const uint8_t *p = b->bytes + lane * b->stride +
                           (size_t)block * BLOCK;
        for (size_t w = 0; w < BLOCK_WORDS; w++)
            words[w][lane] = le32_get(p + 4 * w);
    }
    memcpy(m, words, sizeof words);
}

static inline __attribute__((always_inline))
void run_batch(const struct batch *b, uint32_t (*out)[BLAKE3_WORDS])
{
    lanes cv[BLAKE3_WORDS], m[BLOCK_WORDS];
    lanes v[BLOCK_WORDS] = { { 0 } };   /* or gcc -O3 warns for nothing */
    lanes low, high, none = { 0 };

    for (int lane = 0; lane < LANES; lane++) {
        uint64_t counter = b->counter + (uint64_t)lane * b->step;
        low[lane] = (uint32_t)counter;
        high[lane] = (uint32_t)(counter >> 32);
    }
    for (int i = 0; i < BLAKE3_WORDS; i++)
        cv[i] = none + iv[i];
    for (unsigned k = 0; k < b->blocks; k++) {
        load_lanes(b, k, m);
        for (int i = 0; i < BLAKE3_WORDS; i++)
            v[i] = cv[i];
        for (int i = 0; i < 4; i++)
            v[8 + i] = none + iv[i];
        v[12] = low;
        v[13] = high;
        v[14] = none + (uint32_t)BLOCK;
        v[15] = none + (b->every | (k == 0 ? b->start : 0) |
                        (k + 1 == b->blocks ? b->end : 0));
        ROUND(v, m, schedule[0]);
        ROUND(v, m, schedule[1]);
        ROUND(v, m, schedule[2]);
        ROUND(v, m, schedule[3]);
        ROUND(v, m, schedule[4]);
        ROUND(v, m, schedule[5]);
        ROUND(v, m, schedule[6]);
        for (int i = 0; i < BLAKE3_WORDS; i++)
            cv[i] = v[i] ^ v[i + 8];
    }
    for (int i = 0; i < BLAKE3_WORDS; i++)
        for (int lane = 0; lane < LANES; lane++)
            out[lane][i] = cv[i][lane];
}

static void run_portable(const struct batch *b, uint32_t (*out)[BLAKE3_WORDS])
{
    run_batch(b, out);
}

#if defined(__x86_64__)
__attribute__((target("avx2")))
static void run_avx2(const struct batch *b, uint32_t (*out)[BLAKE3_WORDS])
{
    run_batch(b, out);
}

static void run(const struct batch *b, uint32_t (*out)[BLAKE3_WORDS])
{
    if (__builtin_cpu_supports("avx2"))
        run_avx2(b, out);
    else
        run_portable(b, out);
}
#else
static void run(const struct batch *b, uint32_t (*out)[BLAKE3_WORDS])
{
    run_portable(b, out);
}
#endif

/* The chaining values @count, a power of two of at least 2, become half as
 * many, in place. */
static void run_parents(uint32_t (*cvs)[BLAKE3_WORDS], unsigned count)
{
    uint8_t pairs[LANES * BLOCK];
    struct node n;

    if (count < 2 * LANES) {
        for (unsigned i = 0; i < count / 2; i++) {
            parent_node(&n, cvs[2 * i], cvs[2 * i + 1]);
            compress(&n, 0, cvs[i]);
        }
        return;
    }
    for (unsigned at = 0; at < count; at += 2 * LANES) {
        for (size_t i = 0; i < LANES * BLOCK_WORDS; i++)
            le32_put(pairs + 4 * i, cvs[at + i / BLAKE3_WORDS]
                                       [i % BLAKE3_WORDS]);
        struct batch b = {
            .bytes = pairs, .stride = BLOCK, .blocks = 1, .every = PARENT,
        };
        run(&b, cvs + at / 2);
    }
}

/* GROUP chunks; the two halves of their subtree. */
static void run_group(const uint8_t *bytes, uint64_t counter,
                      uint32_t (*cvs)[BLAKE3_WORDS])
{
    struct batch b = {
        .stride = BLAKE3_CHUNK, .blocks = BLAKE3_CHUNK / BLOCK, .step = 1,
        .start = CHUNK_START, .end = CHUNK_END,
    };

    for (unsigned i = 0; i < GROUP; i += LANES) {
        b.bytes = bytes + (size_t)i * BLAKE3_CHUNK;
        b.counter = counter + i;
        run(&b, cvs + i);
    }
    for (unsigned count = GROUP; count > 2; count /= 2)
        run_parents(cvs, count);
}

/* ------------------------------------------------------------ the tree */

/* More is to come: what is complete on the stack has its place. */
static void merge(struct blake3 *b)
{
    struct node n;

    while (b->depth > (unsigned)__builtin_popcountll(b->chunks)) {
        parent_node(&n, b->stack[b->depth - 2], b->stack[b->depth - 1]);
        compress(&n, 0, b->stack[--b->depth - 1]);
    }
}

/* The root of a subtree of @chunks chunks, which come next. */
static void push(struct blake3 *b, const uint32_t cv[BLAKE3_WORDS],
                 unsigned chunks)
{
    merge(b);
    assert(b->depth < BLAKE3_DEPTH);
    memcpy(b->stack[b->depth++], cv, sizeof iv);
    b->chunks += chunks;
}

static void push_chunk(struct blake3 *b)
{
    uint32_t cv[BLAKE3_WORDS];
    struct node n;

    chunk_node(&n, b->chunk, b->fill, b->chunks);
    compress(&n, 0, cv);
    push(b, cv, 1);
    b->fill = 0;
}

void blake3_init(struct blake3 *b)
{
    memset(b, 0, sizeof *b);
}

void blake3_update(struct blake3 *b, const void *bytes, size_t length)
{
    const size_t group = (size_t)GROUP * BLAKE3_CHUNK;
    const uint8_t *p = bytes;

    while (length > 0) {
        if (b->fill == BLAKE3_CHUNK)
            push_chunk(b);
        size_t piece = min_u64(length, BLAKE3_CHUNK - b->fill);
        if (b->fill == 0 && b->chunks % GROUP == 0 && length >= group) {
            uint32_t cvs[GROUP][BLAKE3_WORDS];
            run_group(p, b->chunks, cvs);
            push(b, cvs[0], GROUP / 2);
            push(b, cvs[1], GROUP / 2);
            piece = group;
        } else {
            merge(b);
            memcpy(b->chunk + b->fill, p, piece);
            b->fill += piece;
        }
        p += piece;
        length -= piece;
    }
}

void blake3_finish(const struct blake3 *b, uint8_t out[BLAKE3_BYTES])
{
    uint32_t cv[BLAKE3_WORDS];
    unsigned depth = b->depth;
    struct node n;

    /* Without a chunk at hand the last of the stack are a group's halves. */
    if (b->fill > 0 || depth == 0) {
        chunk_node(&n, b->chunk, b->fill, b->chunks);
    } else {
        assert(depth >= 2);
        parent_node(&n, b->stack[depth - 2], b->stack[depth - 1]);
        depth -= 2;
    }
    while (depth > 0) {
        compress(&n, 0, cv);
        parent_node(&n, b->stack[--depth], cv);
    }
    compress(&n, ROOT, cv);
    for (int i = 0; i < BLAKE3_WORDS; i++)
        le32_put(out + 4 * i, cv[i]);
}
