/* SPDX-License-Identifier: MIT */
/*
 * slot.h - one key slot of a LUKS volume: its material and its place in the
 * header.
 */
#ifndef LAM_LUKS_SLOT_H
#define LAM_LUKS_SLOT_H

#include "format/luks/volume.h"

/* The key that @passphrase finds in slot @i, which is active; *@fits: it is
 * the volume's. */
int slot_open(const struct luks_volume *volume, size_t i,
              const char *passphrase, uint8_t key[LUKS_MAX_KEY], bool *fits,
              struct lam_error *err);

/* Salt, iterations and state of slot @i for @passphrase, in memory, and its
 * material on disk. */
int slot_make(struct luks_volume *volume, size_t i, const char *passphrase,
              uint64_t iter_time, struct lam_error *err);

/* The same for the passphrase of slot @from, which is as it was made. */
int slot_copy(struct luks_volume *volume, size_t from, size_t to,
              struct lam_error *err);

/* Iterations that cost @iter_time milliseconds, divided by @share. */
int slot_iterations(const struct luks_volume *volume, size_t out_length,
                    uint64_t iter_time, unsigned share, uint32_t *out,
                    struct lam_error *err);

/* Overwrite the material of slot @i, several times, durably. */
int slot_wipe(const struct luks_volume *volume, size_t i,
              struct lam_error *err);

/* Write the header's entry of slot @i without its state, or the state alone:
 * four bytes in one sector, which decide.  Durable. */
int slot_write_entry(const struct luks_volume *volume, size_t i,
                     struct lam_error *err);
int slot_write_state(const struct luks_volume *volume, size_t i,
                     struct lam_error *err);

#endif
