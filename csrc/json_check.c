#include "json_check.h"

#include <string.h>

#include "fold.h"
#include "mrn_format.h"

typedef struct cursor {
    const uint8_t *at, *end;
} cursor;

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t'))
        c->at++;
}

static int take(cursor *c, uint8_t byte) {
    if (c->at == c->end || *c->at != byte)
        return 0;
    c->at++;
    return 1;
}

static int take_word(cursor *c, const char *word) {
    size_t bytes = strlen(word);
    if ((size_t)(c->end - c->at) < bytes || memcmp(c->at, word, bytes) != 0)
        return 0;
    c->at += bytes;
    return 1;
}

static int take_digits(cursor *c) {
    const uint8_t *from = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9')
        c->at++;
    return c->at > from;
}

static int take_number(cursor *c) {
    take(c, '-');
    if (!take(c, '0') && !take_digits(c))
        return 0;
    if (take(c, '.') && !take_digits(c))
        return 0;
    if (take(c, 'e') || take(c, 'E')) {
        if (!take(c, '+'))
            take(c, '-');
        return take_digits(c);
    }
    return 1;
}

/* The four digits after \u; -1 when they are not there. */
static int take_unit(cursor *c) {
    int unit = 0;
    for (int i = 0; i < 4; i++, c->at++) {
        if (c->at == c->end)
            return -1;
        int byte = *c->at | 0x20;
        if (*c->at >= '0' && *c->at <= '9')
            unit = unit * 16 + (*c->at - '0');
        else if (byte >= 'a' && byte <= 'f')
            unit = unit * 16 + (byte - 'a' + 10);
        else
            return -1;
    }
    return unit;
}

static int take_escape(cursor *c) {
    if (!take(c, 'u')) {
        if (c->at == c->end || *c->at == 0 || strchr("\"\\/bfnrt", *c->at) == NULL)
            return 0;
        c->at++;
        return 1;
    }
    int unit = take_unit(c);
    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        return 0;
    if (unit < 0xd800 || unit > 0xdbff)
        return 1;
    if (!take_word(c, "\\u"))
        return 0;
    unit = take_unit(c);
    return unit >= 0xdc00 && unit <= 0xdfff;
}

static int take_string(cursor *c) {
    if (!take(c, '"'))
        return 0;
    while (c->at < c->end) {
        uint32_t point;
        if (*c->at == '"') {
            c->at++;
            return 1;
        }
        if (*c->at < 0x20)
            return 0;
        if (take(c, '\\')) {
            if (!take_escape(c))
                return 0;
            continue;
        }
        size_t length = utf8_decode(c->at, (size_t)(c->end - c->at), &point);
        if (length == 0)
            return 0;
        c->at += length;
    }
    return 0;
}

static int take_name(cursor *c) {
    skip_space(c);
    if (!take_string(c))
        return 0;
    skip_space(c);
    return take(c, ':');
}

static int take_plain(cursor *c) {
    if (c->at == c->end)
        return 0;
    switch (*c->at) {
    case '"':
        return take_string(c);
    case 't':
        return take_word(c, "true");
    case 'f':
        return take_word(c, "false");
    case 'n':
        return take_word(c, "null");
    default:
        return take_number(c);
    }
}

int json_valid(const uint8_t *text, size_t bytes) {
    uint8_t objects[MRN_JSON_DEPTH_MAX]; /* what is open: an object or an array */
    size_t depth = 0;
    cursor c = {text, text + bytes};
    for (;;) { /* a value is wanted */
        skip_space(&c);
        if (c.at < c.end && (*c.at == '{' || *c.at == '[')) {
            if (depth == MRN_JSON_DEPTH_MAX)
                return 0;
            int object = *c.at++ == '{';
            objects[depth++] = (uint8_t)object;
            skip_space(&c);
            if (!take(&c, object ? '}' : ']')) {
                if (object && !take_name(&c))
                    return 0;
                continue;
            }
            depth--;
        } else if (!take_plain(&c)) {
            return 0;
        }
        for (;;) { /* a value is behind */
            skip_space(&c);
            if (depth == 0)
                return c.at == c.end;
            int object = objects[depth - 1];
            if (take(&c, ',')) {
                if (object && !take_name(&c))
                    return 0;
                break;
            }
            if (!take(&c, object ? '}' : ']'))
                return 0;
            depth--;
        }
    }
}
