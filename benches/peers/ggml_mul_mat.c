// Times matrix products of ggml's CPU backend on one thread, with the weights where llama.cpp
// would put them (repacked, for the types that it repacks). Build: benches/peers/llama_cpp.sh.
//
//   ggml_mul_mat ROWS COLS SET_BYTES      then lines of "TYPE M MILLISECONDS" on standard input;
//   each is answered by the CPU seconds of one product of ROWS x COLS weights with M activations:
//   the median pass over enough different matrices to fill SET_BYTES. 0: no such type.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

static uint64_t state = 88172645463325252u;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

// CPU time, so that other work on the machine counts little.
static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static enum ggml_type type_of(const char *name) {
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const char *known = ggml_type_name((enum ggml_type)t);
        if (known && strcasecmp(known, name) == 0) return (enum ggml_type)t;
    }
    return GGML_TYPE_COUNT;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Weights of one type.
struct set {
    enum ggml_type type;
    int count;
    struct ggml_context *context;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor **tensors;
};

static void fill(struct set *set, enum ggml_type type, int64_t rows, int64_t cols, size_t bytes) {
    if (set->context) {
        ggml_backend_buffer_free(set->buffer);
        ggml_free(set->context);
        free(set->tensors);
    }
    size_t each = ggml_row_size(type, cols) * (size_t)rows;
    set->type = type;
    set->count = bytes / each > 0 ? (int)(bytes / each) : 1;
    struct ggml_init_params params = {(size_t)(set->count + 1) * ggml_tensor_overhead(), NULL, true};
    set->context = ggml_init(params);
    set->tensors = malloc(sizeof(*set->tensors) * (size_t)set->count);
    for (int i = 0; i < set->count; i++)
        set->tensors[i] = ggml_new_tensor_2d(set->context, type, cols, rows);
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
    ggml_backend_dev_get_extra_bufts_t extra =
        (ggml_backend_dev_get_extra_bufts_t)ggml_backend_reg_get_proc_address(
            ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts");
    set->buffer = NULL;
    for (ggml_backend_buffer_type_t *buft = extra ? extra(device) : NULL; buft && *buft; buft++) {
        set->buffer = ggml_backend_alloc_ctx_tensors_from_buft(set->context, *buft);
        if (set->buffer && set->tensors[0]->extra) break;
        if (set->buffer) ggml_backend_buffer_free(set->buffer);
        set->buffer = NULL;
        for (int i = 0; i < set->count; i++) {
            set->tensors[i]->buffer = NULL;
            set->tensors[i]->data = NULL;
        }
    }
    if (!set->buffer)
        set->buffer =
            ggml_backend_alloc_ctx_tensors_from_buft(set->context, ggml_backend_cpu_buffer_type());
    uint64_t *data = malloc(each + 8);
    for (size_t i = 0; i < each / 8 + 1; i++) data[i] = next();
    for (int i = 0; i < set->count; i++) ggml_backend_tensor_set(set->tensors[i], data, 0, each);
    free(data);
}

static double time_of(struct set *set, ggml_backend_t backend, int64_t cols, int64_t m, double ms) {
    struct ggml_init_params params = {
        (size_t)(set->count + 4) * ggml_tensor_overhead() +
            ggml_graph_overhead_custom((size_t)set->count + 4, false), NULL, true};
    struct ggml_context *context = ggml_init(params);
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, cols, m);
    struct ggml_cgraph *graph = ggml_new_graph_custom(context, (size_t)set->count + 4, false);
    // With many rows one product is long enough by itself.
    int count = m > 64 ? 1 : set->count;
    for (int i = 0; i < count; i++)
        ggml_build_forward_expand(graph, ggml_mul_mat(context, set->tensors[i], x));
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    float *values = malloc(sizeof(float) * (size_t)(cols * m));
    for (int64_t i = 0; i < cols * m; i++) values[i] = (float)(i % 61) / 30.0f - 1.0f;
    ggml_backend_tensor_set(x, values, 0, sizeof(float) * (size_t)(cols * m));
    double times[1000];
    int done = 0;
    double start = seconds_now();
    while (done < 1000 && (done < 3 || seconds_now() - start < ms / 1e3)) {
        double before = seconds_now();
        ggml_backend_graph_compute(backend, graph);
        times[done++] = (seconds_now() - before) / count;
    }
    qsort(times, (size_t)done, sizeof(double), by_size);
    free(values);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    return times[done / 2];
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int64_t rows = atoll(argv[1]), cols = atoll(argv[2]);
    size_t bytes = (size_t)atoll(argv[3]);
    ggml_time_init();
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, 1);
    struct set set = {GGML_TYPE_COUNT, 0, NULL, NULL, NULL};
    char name[32];
    long m;
    double ms;
    while (scanf("%31s %ld %lf", name, &m, &ms) == 3) {
        enum ggml_type type = type_of(name);
        double seconds = 0;
        if (type != GGML_TYPE_COUNT && cols % ggml_blck_size(type) == 0) {
            if (type != set.type) fill(&set, type, rows, cols, bytes);
            seconds = time_of(&set, backend, cols, m, ms);
        }
        printf("%.9f\n", seconds);
        fflush(stdout);
    }
    return 0;
}
