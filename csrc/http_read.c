/* The head of a request that is plain and whole: what the frequent requests of a server look like.
 *
 * The bytes are hostile: every read is guarded by `end`, nothing is written but the result, nothing recurses.
 * Whatever is not plainly right, or would change where the request ends or how it is answered, is declined
 * and left to a full parser; so two parsers never see two different requests. */
#include <stdbool.h>
#include <string.h>

#include "mrn.h"

typedef struct cursor {
    const unsigned char *at;
    const unsigned char *end;
} cursor;

/* A part of the request. */
typedef struct text {
    const unsigned char *at;
    size_t bytes;
} text;

static bool take_bytes(cursor *c, const char *wanted, size_t bytes) {
    if ((size_t)(c->end - c->at) < bytes || memcmp(c->at, wanted, bytes) != 0)
        return false;
    c->at += bytes;
    return true;
}

/* Take a string literal, given with its quotes. */
#define TAKE(c, literal) take_bytes((c), (literal), sizeof(literal) - 1)

static unsigned char lower(unsigned char byte) {
    return byte >= 'A' && byte <= 'Z' ? (unsigned char)(byte + 0x20) : byte;
}

/* Whether a text is `wanted`, which is in lower case, in whatever case. */
static bool same(text t, const char *wanted, size_t bytes) {
    if (t.bytes != bytes)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (lower(t.at[i]) != (unsigned char)wanted[i])
            return false;
    return true;
}
#define SAME(t, literal) same((t), (literal), sizeof(literal) - 1)
#define EXACTLY(t, literal) ((t).bytes == sizeof(literal) - 1 && memcmp((t).at, (literal), (t).bytes) == 0)

/* A token character of RFC 9110 section 5.6.2. */
static bool is_token(unsigned char byte) {
    return (lower(byte) >= 'a' && lower(byte) <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' ||
           (byte != 0 && strchr("!#$%&'*+.^_`|~", byte) != NULL);
}

/* A character of a value, RFC 9110 section 5.5. */
static bool is_value(unsigned char byte) {
    return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

/* Take one header and the end of its line. Spaces behind a value are declined: parsers differ on them. */
static bool take_header(cursor *c, text *name, text *value) {
    *name = (text){.at = c->at};
    while (c->at < c->end && is_token(*c->at))
        c->at++;
    name->bytes = (size_t)(c->at - name->at);
    if (name->bytes == 0 || !TAKE(c, ":"))
        return false;
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t'))
        c->at++;
    *value = (text){.at = c->at};
    while (c->at < c->end && is_value(*c->at))
        c->at++;
    value->bytes = (size_t)(c->at - value->at);
    const unsigned char last = value->bytes == 0 ? 0 : c->at[-1];
    return last != ' ' && last != '\t' && TAKE(c, "\r\n");
}

/* A number of bytes: digits, at most twelve. */
static bool read_number(text t, int64_t *number) {
    enum { DIGITS = 12 };
    int64_t value = 0;
    if (t.bytes == 0 || t.bytes > DIGITS)
        return false;
    for (size_t i = 0; i < t.bytes; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return false;
        value = value * 10 + (t.at[i] - '0');
    }
    *number = value;
    return true;
}

static bool read_kind(text t, uint32_t *kind) {
    if (EXACTLY(t, "application/json") || EXACTLY(t, "application/json; charset=utf-8"))
        *kind = MRN_HTTP_JSON;
    else if (EXACTLY(t, "application/octet-stream"))
        *kind = MRN_HTTP_OCTETS;
    else
        return false;
    return true;
}

/* The headers that tell something. Each may come once. */
enum { LENGTH, TYPE, CONNECTION, HEADER_LENGTH, FIRST_FIELD };

static int known(text name) {
    static const struct {
        const char *name;
        size_t bytes;
    } names[] = {
#define NAME(literal) {literal, sizeof(literal) - 1}
        NAME("content-length"),  NAME("content-type"),
        NAME("connection"),      NAME("inference-header-content-length"),
        NAME("accept-encoding"), NAME("if-none-match"), /* fields, in the order of mrn_http_field */
        NAME("x-request-id"),    NAME("traceparent"),
        NAME("x-server-timing"),
#undef NAME
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (same(name, names[i].name, names[i].bytes))
            return (int)i;
    return -1;
}

/* Headers that make a request more than plain. */
static bool is_special(text name) {
    return SAME(name, "content-encoding") || SAME(name, "transfer-encoding") || SAME(name, "expect") ||
           SAME(name, "upgrade") || SAME(name, "origin") || SAME(name, "proxy-connection");
}

/* Note what a header tells; `seen` has a bit for each that came. */
static bool note(mrn_http_request *request, const unsigned char *start, text name, text value, unsigned *seen,
                 int64_t *length) {
    const int which = known(name);
    if (which < 0)
        return !is_special(name);
    if ((*seen & (1U << which)) != 0)
        return false;
    *seen |= 1U << which;
    switch (which) {
    case LENGTH:
        return read_number(value, length);
    case TYPE:
        return read_kind(value, &request->kind);
    case CONNECTION:
        return SAME(value, "keep-alive");
    case HEADER_LENGTH:
        request->fields++;
        return read_number(value, &request->header_length);
    default:
        request->fields++;
        request->field[which - FIRST_FIELD] = (uint32_t)(value.at - start);
        request->field_bytes[which - FIRST_FIELD] = (uint32_t)value.bytes;
        request->present |= 1U << (which - FIRST_FIELD);
        return true;
    }
}

static bool take_target(cursor *c, const unsigned char *start, mrn_http_request *request) {
    if (!TAKE(c, "POST ") && !TAKE(c, "GET "))
        return false;
    if (c->at == c->end || *c->at != '/')
        return false;
    request->route = 0;
    for (; c->at < c->end && *c->at > 0x20 && *c->at < 0x7f && *c->at != '#'; c->at++)
        if (*c->at == '?' && request->route == 0)
            request->route = (uint32_t)(c->at - start);
    request->target = (uint32_t)(c->at - start);
    if (request->route == 0)
        request->route = request->target;
    return TAKE(c, " HTTP/1.1\r\n");
}

int mrn_http_read(const void *data, size_t bytes, mrn_http_request *request) {
    if (data == NULL || request == NULL)
        return MRN_E_ARGUMENT;
    const unsigned char *const start = data;
    cursor c = {.at = start, .end = start + (bytes < MRN_HTTP_HEAD_MAX ? bytes : MRN_HTTP_HEAD_MAX)};
    *request = (mrn_http_request){.header_length = -1};
    if (!take_target(&c, start, request))
        return MRN_E_DECLINED;
    unsigned seen = 0;
    int64_t length = 0;
    for (size_t count = 0; !TAKE(&c, "\r\n"); count++) {
        text name;
        text value;
        if (count == MRN_HTTP_HEADERS_MAX || !take_header(&c, &name, &value) ||
            !note(request, start, name, value, &seen, &length))
            return MRN_E_DECLINED;
    }
    request->body = (uint32_t)(c.at - start);
    return (uint64_t)length == bytes - request->body ? MRN_OK : MRN_E_DECLINED;
}
