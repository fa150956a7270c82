/* SPDX-License-Identifier: MIT */
/*
 * object.h - --object in its parts: what was said becomes a tree, the tree is
 * held against what its kind may be told, and then the object is made.
 *
 * Trees are json-c's.  One that comes of key=value has strings for leaves until
 * it has been looked at.
 */
#ifndef LAMELLA_CLI_OBJECT_H
#define LAMELLA_CLI_OBJECT_H

#include <json-c/json.h>

#include "option.h"

/* "secret,id=ID,data=TEXT": the first word is the "qom-type" without its key;
 * "rules.0.match=x" is nested.  The caller puts *@out. */
int object_from_text(const char *text, struct json_object **out,
                     struct lam_error *err);
int object_from_json(const char *text, struct json_object **out,
                     struct lam_error *err);

/* ----------------------------------------------------------- what it may be */

enum member_kind {
    MEMBER_END,                 /* closes a list of members */
    MEMBER_STRING, MEMBER_BOOL, MEMBER_INT,
    MEMBER_WORD,                /* one of some */
    MEMBER_PART,                /* an object with members of its own */
    MEMBER_LIST,
};

struct member {
    const char *name;
    enum member_kind kind;
    bool required;
    const char *type;           /* as help calls it; NULL: as the kind says.  Of
                                   an integer with limits: their name */
    const char *const *words;   /* MEMBER_WORD: ends with NULL */
    const struct member *inner; /* MEMBER_PART: its members; MEMBER_LIST: what
                                   each of its values is */
    int64_t least, most;        /* MEMBER_INT with a @type */
};

/*
 * Every member is known and of the right kind, and none is missing that has to
 * be there; integers and switches become such in the tree.  @json: it comes of
 * JSON, where a "1" is not a 1.
 */
int object_check(struct json_object *tree, const struct member *members,
                 bool json, struct lam_error *err);

/* The same for one of them, whatever else there is. */
int object_check_one(struct json_object *tree, const struct member *member,
                     bool json, struct lam_error *err);

/* "qom-type" and "id", which all have. */
extern const struct member object_type, object_id;

/* A kind of objects. */
struct object_kind {
    const char *name;
    const struct member *members;   /* the first two are qom-type and id */
    /* Makes one of a tree that has been checked. */
    int (*make)(const struct cli *cli, struct json_object *tree,
                struct lam_error *err);
};

const struct object_kind *object_kind_find(const char *name);
void object_kinds_print(void);
void object_members_print(const struct object_kind *kind);

/* 0 if @kind is one that programs with machines and networks have, and @tree
 * has what that needs. */
int object_check_foreign(struct json_object *tree, const char *kind, bool json,
                         struct lam_error *err);

/* For kinds: a member of a checked tree; NULL, @otherwise if it is not said. */
const char *object_text(struct json_object *tree, const char *name);
int64_t object_number(struct json_object *tree, const char *name,
                      int64_t otherwise);
bool object_switch(struct json_object *tree, const char *name, bool otherwise);

/* ------------------------------------------------------------------- making */

int object_make_secret(const struct cli *cli, struct json_object *tree,
                       struct lam_error *err);
int object_make_tls(const struct cli *cli, struct json_object *tree,
                    struct lam_error *err);
int object_make_throttle(const struct cli *cli, struct json_object *tree,
                         struct lam_error *err);
int object_make_main_loop(const struct cli *cli, struct json_object *tree,
                          struct lam_error *err);
int object_make_threads(const struct cli *cli, struct json_object *tree,
                        struct lam_error *err);
int object_make_reservations(const struct cli *cli, struct json_object *tree,
                             struct lam_error *err);
/* What decides who may speak to a server: nothing here has one, but the name is
 * taken. */
int object_make_name(const struct cli *cli, struct json_object *tree,
                     struct lam_error *err);

extern const struct member throttle_members[];

#endif
