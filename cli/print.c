/* SPDX-License-Identifier: MIT */
/*
 * print.c - human sizes, JSON and names, as qemu-img prints them.
 */
#include <string.h>

#include "print.h"

/* The unit changes at 1000 of a unit, not at 1024: 1000 KiB is "0.977 MiB". */
const char *human_size(uint64_t bytes, char buf[32])
{
    static const char *const units[] = {
        "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
    };
    size_t unit = 0;
    double value = (double)bytes;

    while (value >= 1000 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, 32, "%0.3g %s", value, units[unit]);
    return buf;
}

/* Bytes of the valid UTF-8 sequence at @s and its code point, or 0. */
static size_t utf8_decode(const unsigned char *s, size_t length,
                          uint32_t *code_point)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {
        { 0x80, 0x00, 0x0 }, { 0xe0, 0xc0, 0x80 },
        { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 },
    };

    for (size_t n = 0; n < 4 && n < length; n++) {
        if ((s[0] & forms[n].mask) != forms[n].lead)
            continue;
        uint32_t cp = s[0] & (unsigned char)~forms[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            cp = cp << 6 | (s[i] & 0x3f);
        }
        if (cp < forms[n].least || cp > 0x10ffff ||
            (cp >= 0xd800 && cp <= 0xdfff))
            return 0;
        if ((cp & 0xfffe) != 0xfffe && (cp < 0xfdd0 || cp > 0xfdef))
            *code_point = cp;   /* else a noncharacter, replaced as well */
        return n + 1;
    }
    return 0;
}

/* The end of a broken sequence: one replacement stands for its lead byte and
 * the continuation bytes that follow it. */
static size_t utf8_skip(const unsigned char *s, size_t length)
{
    size_t n = 1;

    while (n < length && n < 6 && s[0] >= 0xc0 && (s[n] & 0xc0) == 0x80)
        n++;
    return n;
}

static void json_code_point(FILE *out, uint32_t cp)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *special = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;

    if (special) {
        fprintf(out, "\\%c", to[special - from]);
    } else if (cp >= 0x10000) {
        cp -= 0x10000;
        fprintf(out, "\\u%04X\\u%04X", 0xd800 | cp >> 10,
                0xdc00 | (cp & 0x3ff));
    } else if (cp < 0x20 || cp >= 0x7f) {
        fprintf(out, "\\u%04X", cp);
    } else {
        putc((int)cp, out);
    }
}

void print_json_string(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t length = strlen(text);

    putc('"', out);
    while (length) {
        uint32_t cp = 0xfffd;
        size_t n = utf8_decode(s, length, &cp);
        if (!n)
            n = utf8_skip(s, length);
        json_code_point(out, cp);
        s += n;
        length -= n;
    }
    putc('"', out);
}

static void indent(FILE *out, unsigned level)
{
    fprintf(out, "\n%*s", (int)(level * 4), "");
}

static void print_value(FILE *out, struct json_object *value, unsigned level);

static void print_array(FILE *out, struct json_object *array, unsigned level)
{
    size_t count = json_object_array_length(array);

    putc('[', out);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? "," : "", out);
        indent(out, level + 1);
        print_value(out, json_object_array_get_idx(array, i), level + 1);
    }
    indent(out, level);
    putc(']', out);
}

static void print_object(FILE *out, struct json_object *object, unsigned level)
{
    const char *separator = "";

    putc('{', out);
    json_object_object_foreach(object, key, value) {
        fputs(separator, out);
        indent(out, level + 1);
        print_json_string(out, key);
        fputs(": ", out);
        print_value(out, value, level + 1);
        separator = ",";
    }
    indent(out, level);
    putc('}', out);
}

static void print_value(FILE *out, struct json_object *value, unsigned level)
{
    switch (json_object_get_type(value)) {
    case json_type_object:
        print_object(out, value, level);
        break;
    case json_type_array:
        print_array(out, value, level);
        break;
    case json_type_string:
        print_json_string(out, json_object_get_string(value));
        break;
    default:
        fputs(json_object_to_json_string(value), out);
    }
}

void print_json(FILE *out, struct json_object *value)
{
    print_value(out, value, 0);
    putc('\n', out);
}

/* In runs: stderr is not buffered, and a damaged image fills many lines. */
void print_escaped(FILE *out, const char *text)
{
    const char *from = text;

    for (const char *s = text; *s; s++) {
        unsigned char byte = (unsigned char)*s;

        if (byte >= 0x20 && byte != 0x7f)
            continue;
        fwrite(from, 1, (size_t)(s - from), out);
        fprintf(out, "\\x%02x", byte);
        from = s + 1;
    }
    fputs(from, out);
}
