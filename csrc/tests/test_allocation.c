/* No request allocates: this program brings its own malloc, also for what libc does by itself, and counts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../kernels.h"
#include "../mrn.h"
#include "check.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

#if defined(SANITIZED)

int main(void) {
    puts("allocations: skipped, the sanitizer has its own malloc");
    return 0;
}

#else

static size_t calls;

/* Memory that is only ever taken: enough for a test. Each block has its size before it. */
static void *take(size_t bytes, size_t alignment) {
    static unsigned char heap[64 << 20] __attribute__((aligned(4096)));
    static size_t used;
    calls++;
    const size_t start = (used + sizeof(size_t) + alignment - 1) / alignment * alignment;
    if (bytes > sizeof heap - start)
        return NULL;
    used = start + bytes;
    memcpy(heap + start - sizeof bytes, &bytes, sizeof bytes);
    return heap + start;
}

void *malloc(size_t bytes) {
    return take(bytes, 64);
}
void free(void *block) {
    (void)block;
}
void *calloc(size_t count, size_t bytes) {
    return take(count * bytes, 64); /* static memory is zero, and never used twice */
}
void *realloc(void *block, size_t bytes) {
    void *made = take(bytes, 64);
    size_t before = 0;
    if (block)
        memcpy(&before, (unsigned char *)block - sizeof before, sizeof before);
    return made && block ? memcpy(made, block, before < bytes ? before : bytes) : made;
}
void *aligned_alloc(size_t alignment, size_t bytes) {
    return take(bytes, alignment);
}
int posix_memalign(void **block, size_t alignment, size_t bytes) {
    *block = take(bytes, alignment);
    return *block ? 0 : ENOMEM;
}

static void check_predict(const uint32_t *widths, size_t isa, uint32_t precision) {
    static float weight[70 * 70], ones[70], x[300 * 70], y[300 * 70];
    for (size_t u = 0; u < 70; u++)
        ones[u] = 1;
    const mrn_layer layers[] = {{.weight = weight,
                                 .inputs = widths[0],
                                 .units = widths[1],
                                 .activation = MRN_ACTIVATION_gelu,
                                 .weight_scale = ones},
                                {.weight = weight,
                                 .inputs = widths[1],
                                 .units = widths[2],
                                 .activation = MRN_ACTIVATION_softmax,
                                 .weight_scale = ones}};
    const mrn_network network = {
        .layers = layers, .layer_count = 2, .columns = widths[0], .precision = precision};
    static const size_t rows[] = {1, 3, 17, 300};
    mrn_plan plan;
    mrn_model *model;
    if (mrn_model_plan(&network, isa, &plan) != MRN_OK)
        return; /* this set has not the precision */
    void *block = aligned_alloc(plan.alignment, plan.model_bytes);
    void *scratch = aligned_alloc(plan.alignment, plan.scratch_bytes);
    const size_t before = calls;
    CHECK(mrn_model_open(&network, isa, block, plan.model_bytes, &model) == MRN_OK, "open");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK(mrn_model_predict(model, x, rows[i], y, scratch) == MRN_OK, "predict");
    CHECK(calls == before, "%s: %zu allocations", mrn_isa_name(isa), calls - before);
}

static void check_index(void) {
    static const char texts[] = "Hamburg"
                                "Hanover"
                                "Halle";
    static const uint64_t ends[] = {7, 14, 19};
    static const double scores[] = {1.5, 2, 3};
    static mrn_workspace workspace;
    const mrn_entries entries = {.count = 3, .texts = texts, .text_ends = ends, .scores = scores};
    signed char verdicts[3];
    char *file;
    size_t bytes, count, block_bytes;
    mrn_index index;
    mrn_reader *reader;
    mrn_fault fault;
    mrn_completion completions[5];
    static char found[8192];
    int partial;
    const mrn_index *const indexes[] = {&index};
    const mrn_segments segments = {.count = 1, .indexes = indexes};
    const mrn_options exact = {.limit = 5}, typed = {.limit = 5, .edits = 2};
    CHECK(mrn_index_build(&entries, verdicts, &file, &bytes) == MRN_OK, "build");
    CHECK(calls > 0, "the counter does not count");
    void *scratch = malloc(mrn_index_scratch_bytes(bytes));
    const size_t before = calls;
    CHECK(mrn_index_open(file, bytes, scratch, mrn_index_scratch_bytes(bytes), &index, &fault) == MRN_OK,
          "open");
    CHECK(calls == before, "open: %zu allocations", calls - before);
    CHECK(mrn_reader_plan(&segments, &block_bytes) == MRN_OK, "plan");
    void *block = aligned_alloc(MRN_BLOCK_ALIGN,
                                (block_bytes + MRN_BLOCK_ALIGN - 1) / MRN_BLOCK_ALIGN * MRN_BLOCK_ALIGN);
    const size_t opened = calls;
    CHECK(mrn_reader_open(&segments, block, block_bytes, &reader) == MRN_OK, "open a reader");
    CHECK(mrn_reader_complete(reader, "ha", 2, &exact, &workspace, completions, &count, found, sizeof found,
                              &partial) == MRN_OK &&
              count == 3,
          "complete");
    CHECK(mrn_reader_complete(reader, "hamurg", 6, &typed, &workspace, completions, &count, found,
                              sizeof found, &partial) == MRN_OK &&
              count > 0,
          "complete with an error");
    CHECK(mrn_reader_complete_json(reader, "ha", 2, &exact, &workspace, found, sizeof found, &bytes) ==
              MRN_OK,
          "complete as JSON");
    CHECK(calls == opened, "%zu allocations", calls - opened);
}

int main(void) {
    static const uint32_t widths[][3] = {{4, 16, 3}, {32, 9, 32}, {70, 65, 17}};
    static const char json[] = "{\"instances\": [[1, 2.5e-3], [123456789012345678901234567890, 0.1]]}";
    float x[4];
    size_t rows;
    for (size_t isa = 0; isa < mrn_isa_count(); isa++)
        for (size_t i = 0; mrn_isa_usable(isa) && i < sizeof widths / sizeof *widths; i++)
            for (uint32_t precision = 0; precision < mrn_precision_count(); precision++)
                check_predict(widths[i], isa, precision);
    const size_t before = calls;
    CHECK(mrn_json_rows(json, sizeof json - 1, 2, x, 4, &rows) == MRN_OK && rows == 2, "json_rows");
    CHECK(calls == before, "json_rows: %zu allocations", calls - before);
    check_index();
    puts("allocations: none on a request");
    return 0;
}

#endif
