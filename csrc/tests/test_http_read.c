/* mrn_http_read: what it takes, what it leaves to a full parser, and that it reads nothing beyond the bytes.
 */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "guard.h"

#include "../mrn.h"

static int read_text(const char *text, mrn_http_request *request) {
    return mrn_http_read(text, strlen(text), request);
}

#define HEAD "POST /v1/models/net/predict HTTP/1.1\r\nHost: x\r\n"

static void test_taken(void) {
    mrn_http_request r;
    const char *text = "POST /a?b=c?d HTTP/1.1\r\nhost: x\r\ncontent-TYPE: application/octet-stream\r\n"
                       "Content-Length: 3\r\nconnection: Keep-Alive\r\nAccept-Encoding: gzip\r\n"
                       "Inference-Header-Content-Length: 0\r\nx-request-id:abc\r\n\r\nxyz";
    CHECK(read_text(text, &r) == MRN_OK, "declined");
    CHECK(r.route == strlen("POST /a") && r.target == strlen("POST /a?b=c?d"), "%u %u", r.route, r.target);
    CHECK(strcmp(text + r.body, "xyz") == 0, "body at %u", r.body);
    CHECK(r.kind == MRN_HTTP_OCTETS && r.fields == 3 && r.header_length == 0, "%u %u", r.kind, r.fields);
    CHECK(r.present == (1U << MRN_HTTP_ACCEPT | 1U << MRN_HTTP_ID), "%x", r.present);
    CHECK(strncmp(text + r.field[MRN_HTTP_ID], "abc", r.field_bytes[MRN_HTTP_ID]) == 0, "id");

    CHECK(read_text("GET / HTTP/1.1\r\n\r\n", &r) == MRN_OK, "no header");
    CHECK(r.route == 5 && r.target == 5 && r.kind == MRN_HTTP_UNTOLD && r.fields == 0, "plain");
    CHECK(r.header_length == -1, "%lld", (long long)r.header_length);
    CHECK(read_text(HEAD "Content-Type: application/json; charset=utf-8\r\nX:\r\n\r\n", &r) == MRN_OK,
          "empty value");
    CHECK(r.kind == MRN_HTTP_JSON, "%u", r.kind);
}

static void test_declined(void) {
    static const char *const texts[] = {
        "",
        "G",
        "GET",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "PUT / HTTP/1.1\r\n\r\n",
        "GET x HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "get / HTTP/1.1\r\n\r\n",
        "GET /#a HTTP/1.1\r\n\r\n",
        "GET /\t HTTP/1.1\r\n\r\n",
        "GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\nA: b\n\r\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b \r\n\r\n",
        "GET / HTTP/1.1\r\nA: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nA\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nx",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        HEAD "Content-Length: 2\r\n\r\nx",
        HEAD "Content-Length: 1\r\n\r\nxy",
        HEAD "Content-Length: +1\r\n\r\nx",
        HEAD "Content-Length: \r\n\r\n",
        HEAD "Content-Length: 1, 1\r\n\r\nx",
        HEAD "Content-Length: 18446744073709551617\r\n\r\nx",
        HEAD "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        HEAD "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD "Content-Encoding: gzip\r\n\r\n",
        HEAD "Expect: 100-continue\r\n\r\n",
        HEAD "Upgrade: h2c\r\n\r\n",
        HEAD "ORIGIN: http://x\r\n\r\n",
        HEAD "Connection: close\r\n\r\n",
        HEAD "Connection: keep-alive, x\r\n\r\n",
        HEAD "Content-Type: text/plain\r\n\r\n",
        HEAD "Content-Type: application/json;charset=latin1\r\n\r\n",
        HEAD "traceparent: a\r\nTraceparent: b\r\n\r\n",
        HEAD "Inference-Header-Content-Length: x\r\n\r\n",
    };
    mrn_http_request r;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        CHECK(read_text(texts[i], &r) == MRN_E_DECLINED, "taken: %s", texts[i]);
    CHECK(mrn_http_read(NULL, 0, &r) == MRN_E_ARGUMENT, "no data");
    CHECK(mrn_http_read("", 0, NULL) == MRN_E_ARGUMENT, "no result");
}

static void test_limits(void) {
    static char text[MRN_HTTP_HEAD_MAX + 64];
    mrn_http_request r;
    for (int headers = MRN_HTTP_HEADERS_MAX - 1; headers <= MRN_HTTP_HEADERS_MAX + 1; headers++) {
        int at = sprintf(text, "GET / HTTP/1.1\r\n");
        for (int i = 0; i < headers; i++)
            at += sprintf(text + at, "A: b\r\n");
        sprintf(text + at, "\r\n");
        CHECK((read_text(text, &r) == MRN_OK) == (headers <= MRN_HTTP_HEADERS_MAX), "%d headers", headers);
    }
    for (int bytes = MRN_HTTP_HEAD_MAX - 1; bytes <= MRN_HTTP_HEAD_MAX + 1; bytes++) {
        const int at = sprintf(text, "GET / HTTP/1.1\r\nA: ");
        memset(text + at, 'b', (size_t)(bytes - at - 4));
        sprintf(text + bytes - 4, "\r\n\r\n");
        CHECK((read_text(text, &r) == MRN_OK) == (bytes <= MRN_HTTP_HEAD_MAX), "a head of %d bytes", bytes);
    }
}

/* Every beginning of a request, with nothing readable behind it. */
static void test_beginnings(void) {
    const char *text =
        HEAD "Content-Type: application/json\r\nContent-Length: 3\r\nX-Request-Id: a\r\n\r\nabc";
    const size_t bytes = strlen(text);
    mrn_http_request r;
    for (size_t some = 0; some <= bytes; some++) {
        guarded block = guard(some, 1, 1);
        if (some > 0)
            memcpy(block.block, text, some);
        CHECK((mrn_http_read(block.block, some, &r) == MRN_OK) == (some == bytes), "%zu of %zu bytes", some,
              bytes);
        unguard(block);
    }
}

int main(void) {
    test_taken();
    test_declined();
    test_limits();
    test_beginnings();
    puts("test_http_read: ok");
    return 0;
}
