// A CUDA driver without a device, for tests/driver.rs: device memory is host memory, kernels only
// leave a line in a log, and everything that a real driver would answer with undefined behaviour
// (a dead handle, a thread without the context) ends the process with a message.
//
// Built three times: as a driver of CUDA 12.2, with -DNEW as one of 13.0, and with -DPARTIAL as a
// library that lacks functions. Signatures are those of the driver API's reference.

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef unsigned long long Address;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200,
       NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900 };

static void broken(const char *why) {
  fprintf(stderr, "fake driver: %s\n", why);
  abort();
}

// What was run, in order, for tests to compare.
static char text[1 << 16];
static size_t length;
static int ran;
static void note(const char *format, ...) {
  va_list list;
  va_start(list, format);
  length += vsnprintf(text + length, sizeof text - length, format, list);
  va_end(list);
  if (length >= sizeof text) broken("the log is full");
}
const char *fake_log(void) { return text; }
void fake_clear(void) { length = 0; text[0] = 0; }

// Handles: one struct for all, never freed, so that a dead one is seen.
enum Kind { CONTEXT, STREAM, EVENT, MODULE, FUNCTION, GRAPH, EXEC, MEMORY, HOST, KINDS };
static int live[KINDS];
struct Op { int kind; Address to, from; size_t bytes; int value; char line[160]; };
struct Handle {
  enum Kind kind;
  int alive;
  struct Handle *of;      // a function's module
  char name[64];
  int time;               // an event's
  int capturing;          // a stream's
  struct Op *ops;         // a graph's
  int count;
};
static struct Handle *make(enum Kind kind) {
  struct Handle *h = calloc(1, sizeof *h);
  h->kind = kind;
  h->alive = 1;
  live[kind]++;
  return h;
}
static struct Handle *check(void *handle, enum Kind kind) {
  struct Handle *h = handle;
  if (!h || h->kind != kind || !h->alive || (h->of && !h->of->alive)) broken("a dead handle");
  return h;
}
static void destroy(void *handle, enum Kind kind) {
  check(handle, kind)->alive = 0;
  live[kind]--;
}
// Handles that are alive, all kinds.
int fake_live(void) {
  int sum = 0;
  for (int i = 0; i < KINDS; i++) sum += live[i];
  return sum;
}

// The next call of a function fails; an error of a kernel is then every call's.
static char failing[64];
static int failure, sticky;
void fake_fail(const char *function, int code) {
  snprintf(failing, sizeof failing, "%s", function);
  failure = code;
}
static int fails(const char *function) {
  if (sticky) return sticky;
  if (!failure || strcmp(function, failing)) return OK;
  int code = failure;
  failure = 0;
  if (code >= 700 && code < 800) sticky = code;
  return code;
}
#define TRY() do { int code = fails(__func__); if (code) return code; } while (0)

static struct Handle *context;
static int retained;
static _Thread_local struct Handle *current;
#define HERE() do { if (!current || current != context || !context->alive) broken(__func__); TRY(); } while (0)

static int number(const char *variable, int otherwise) {
  const char *value = getenv(variable);
  return value ? atoi(value) : otherwise;
}

Result cuDriverGetVersion(int *version) {
#ifdef NEW
  *version = 13000;
#else
  *version = number("FAKE_VERSION", 12020);
#endif
  return OK;
}
Result cuInit(unsigned flags) { return number("FAKE_INIT", flags ? INVALID_VALUE : OK); }
Result cuDeviceGetCount(int *count) { *count = number("FAKE_DEVICES", 1); return OK; }
Result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
Result cuDeviceGetName(char *name, int size, int device) {
  snprintf(name, size, "Fake %d", device);
  return OK;
}
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = 1 << 30; return OK; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  switch (attribute) {
    case 16: *value = 108; return OK;     // multiprocessors
    case 75: *value = 8; return OK;       // capability
    case 76: *value = 0; return OK;
    case 97: *value = 166912; return OK;  // shared memory of a block
  }
  return INVALID_VALUE;
}
Result cuGetErrorName(Result error, const char **name) {
  switch (error) {
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; return OK;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return OK;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; return OK;
    case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; return OK;
  }
  *name = 0;
  return INVALID_VALUE;
}

Result cuDevicePrimaryCtxRetain(void **c, int device) {
  (void)device;
  if (!retained++) {
    context = make(CONTEXT);
    sticky = 0;
  }
  *c = context;
  return OK;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  if (!retained) broken("released once too often");
  if (!--retained) destroy(context, CONTEXT);
  return OK;
}
Result cuCtxSetCurrent(void *c) { current = c ? check(c, CONTEXT) : 0; return OK; }

// Memory: claims are host memory; `FAKE_MEMORY` bytes of it.
struct Claim { Address at; size_t bytes; struct Claim *next; };
static struct Claim *claims;
static size_t claimed;
static size_t capacity(void) { return (size_t)number("FAKE_MEMORY", 1 << 28); }
Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  HERE();
  *total = capacity();
  *free_bytes = *total - claimed;
  return OK;
}
Result cuMemAlloc_v2(Address *at, size_t bytes) {
  HERE();
  if (!bytes) return INVALID_VALUE;
  if (bytes > capacity() - claimed) return OUT_OF_MEMORY;
  struct Claim *c = malloc(sizeof *c);
  c->at = *at = (Address)aligned_alloc(256, (bytes + 255) / 256 * 256);
  c->bytes = bytes;
  c->next = claims;
  claims = c;
  claimed += bytes;
  live[MEMORY]++;
  return OK;
}
Result cuMemFree_v2(Address at) {
  for (struct Claim **c = &claims; *c; c = &(*c)->next)
    if ((*c)->at == at) {
      struct Claim *gone = *c;
      *c = gone->next;
      claimed -= gone->bytes;
      live[MEMORY]--;
      free((void *)at);
      free(gone);
      TRY();
      return OK;
    }
  broken("memory that is not claimed");
  return OK;
}
static void inside(Address at, size_t bytes) {
  for (struct Claim *c = claims; c; c = c->next)
    if (at >= c->at && at + bytes <= c->at + c->bytes) return;
  broken("device memory that is not claimed");
}
Result cuMemHostAlloc(void **at, size_t bytes, unsigned flags) {
  HERE();
  if (flags) return INVALID_VALUE;
  if (bytes > capacity()) return OUT_OF_MEMORY;
  *at = malloc(bytes);
  live[HOST]++;
  return OK;
}
Result cuMemFreeHost(void *at) { free(at); live[HOST]--; TRY(); return OK; }

// Work runs when it is queued, or goes into the graph that is recorded.
Result cuStreamCreate(void **stream, unsigned flags) {
  HERE();
  if (flags != 1) broken("a stream that waits for the default stream");
  *stream = make(STREAM);
  return OK;
}
Result cuStreamDestroy_v2(void *stream) { destroy(stream, STREAM); TRY(); return OK; }
Result cuStreamSynchronize(void *stream) {
  if (check(stream, STREAM)->capturing) broken("waiting for a stream that records");
  HERE();
  return OK;
}
enum { COPY, FILL, LAUNCH };
static void run(const struct Op *op) {
  ran++;
  note("%s\n", op->line);
  if (op->kind == COPY) memmove((void *)op->to, (void *)op->from, op->bytes);
  if (op->kind == FILL) memset((void *)op->to, op->value, op->bytes);
}
static struct Handle *recorded;
static Result queue(void *stream, struct Op op) {
  if (!check(stream, STREAM)->capturing) {
    run(&op);
    return OK;
  }
  recorded->ops = realloc(recorded->ops, (recorded->count + 1) * sizeof op);
  recorded->ops[recorded->count++] = op;
  return OK;
}
static Result copy(void *stream, const char *what, Address to, Address from, size_t bytes) {
  struct Op op = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
  snprintf(op.line, sizeof op.line, "%s %zu", what, bytes);
  return queue(stream, op);
}
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
  HERE();
  inside(to, bytes);
  return copy(stream, "upload", to, (Address)from, bytes);
}
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
  HERE();
  inside(from, bytes);
  return copy(stream, "download", (Address)to, from, bytes);
}
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
  HERE();
  inside(to, bytes);
  inside(from, bytes);
  return copy(stream, "copy", to, from, bytes);
}
Result cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *stream) {
  HERE();
  inside(to, bytes);
  struct Op op = {.kind = FILL, .to = to, .bytes = bytes, .value = value};
  snprintf(op.line, sizeof op.line, "fill %zu", bytes);
  return queue(stream, op);
}

Result cuEventCreate(void **event, unsigned flags) {
  HERE();
  if (flags) broken("an event without a time");
  *event = make(EVENT);
  return OK;
}
Result cuEventDestroy_v2(void *event) { destroy(event, EVENT); TRY(); return OK; }
Result cuEventRecord(void *event, void *stream) {
  HERE();
  if (check(stream, STREAM)->capturing) broken("a mark in a graph");
  check(event, EVENT)->time = ran;
  return OK;
}
Result cuEventSynchronize(void *event) { check(event, EVENT); HERE(); return OK; }
// Each thing that ran took a quarter of a millisecond.
static Result elapsed(float *ms, void *from, void *to) {
  *ms = 0.25f * (check(to, EVENT)->time - check(from, EVENT)->time);
  return OK;
}
Result cuEventElapsedTime(float *ms, void *from, void *to) {
#ifdef NEW
  broken("the old function where there is a new one");
#endif
  HERE();
  return elapsed(ms, from, to);
}
#ifdef NEW
Result cuEventElapsedTime_v2(float *ms, void *from, void *to) { HERE(); return elapsed(ms, from, to); }
// Every kernel takes 24 bytes.
Result cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *size) {
  check(function, FUNCTION);
  if (index) return INVALID_VALUE;
  *offset = 0;
  *size = 24;
  return OK;
}
#endif

// Modules: any ELF file; any name but `absent` is in it.
Result cuModuleLoadData(void **module, const void *image) {
  HERE();
  if (memcmp(image, "\177ELF", 4)) return INVALID_IMAGE;
  *module = make(MODULE);
  return OK;
}
Result cuModuleUnload(void *module) { destroy(module, MODULE); TRY(); return OK; }
Result cuModuleGetFunction(void **function, void *module, const char *name) {
  HERE();
  check(module, MODULE);
  if (!strcmp(name, "absent")) return NOT_FOUND;
  struct Handle *h = make(FUNCTION);
  live[FUNCTION]--;  // goes with its module
  h->of = module;
  snprintf(h->name, sizeof h->name, "%s", name);
  *function = h;
  return OK;
}
Result cuFuncGetAttribute(int *value, int attribute, void *function) {
  check(function, FUNCTION);
  if (attribute != 1) return INVALID_VALUE;  // static shared memory
  *value = 1024;
  return OK;
}
Result cuFuncSetAttribute(void *function, int attribute, int value) {
  note("%s: attribute %d is %d\n", check(function, FUNCTION)->name, attribute, value);
  return OK;
}
Result cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty,
                      unsigned tz, unsigned shared, void *stream, void **parameters, void **extra) {
  HERE();
  struct Op op = {.kind = LAUNCH};
  if (!x || !y || !z || !tx || ty != 1 || tz != 1 || extra) return INVALID_VALUE;
  snprintf(op.line, sizeof op.line, "launch %s %ux%ux%u %u %u first %llu",
           check(function, FUNCTION)->name, x, y, z, tx, shared, *(Address *)parameters[0]);
  return queue(stream, op);
}

Result cuStreamBeginCapture_v2(void *stream, int mode) {
  HERE();
  if (mode != 1) broken("recording that watches other threads");
  check(stream, STREAM)->capturing = 1;
  recorded = make(GRAPH);
  return OK;
}
Result cuStreamEndCapture(void *stream, void **graph) {
  if (!check(stream, STREAM)->capturing) broken("no recording to end");
  check(stream, STREAM)->capturing = 0;
  *graph = recorded;
  return OK;
}
Result cuGraphDestroy(void *graph) { destroy(graph, GRAPH); return OK; }
Result cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
  HERE();
  if (flags) return INVALID_VALUE;
  struct Handle *h = make(EXEC), *g = check(graph, GRAPH);
  h->ops = g->ops;
  h->count = g->count;
  *exec = h;
  return OK;
}
#ifndef PARTIAL
Result cuGraphUpload(void *exec, void *stream) {
  HERE();
  check(exec, EXEC);
  check(stream, STREAM);
  return OK;
}
#endif
Result cuGraphLaunch(void *exec, void *stream) {
  HERE();
  check(stream, STREAM);
  for (int i = 0; i < check(exec, EXEC)->count; i++) run(&((struct Handle *)exec)->ops[i]);
  return OK;
}
Result cuGraphExecDestroy(void *exec) { destroy(exec, EXEC); return OK; }
