// cuBLASLt without a device, for tests/driver.rs: products are computed on the CPU as the
// library's reference says, D = alpha * op(A) * op(B), column-major with leading dimensions, so
// that a matrix described wrongly gives a wrong result. Descriptions that leak are counted.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16BF = 14 };

struct Operation { int compute, scale, transposed_a; };
struct Layout { int type; uint64_t rows, columns; int64_t leading; };
struct Wishes { uint64_t workspace; uint32_t reduction, alignment[4]; };
// As cublasLtMatmulHeuristicResult_t.
struct Answer { uint64_t algorithm[8]; size_t workspace; Status state; float waves; int reserved[4]; };

static int live;
static void *make(size_t bytes) { live++; return calloc(1, bytes); }
static Status drop(void *what) { live--; free(what); return SUCCESS; }
int fake_live(void) { return live; }

size_t cublasLtGetVersion(void) { return 120803; }
Status cublasLtCreate(void **handle) { *handle = make(1); return SUCCESS; }
Status cublasLtDestroy(void *handle) { return drop(handle); }

Status cublasLtMatmulDescCreate(void **desc, int compute, int scale) {
  struct Operation *o = *desc = make(sizeof *o);
  o->compute = compute;
  o->scale = scale;
  return SUCCESS;
}
Status cublasLtMatmulDescDestroy(void *desc) { return drop(desc); }
Status cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *value, size_t bytes) {
  if (attribute != 3 || bytes != 4) return INVALID_VALUE;  // TRANSA, a 32-bit enum
  memcpy(&((struct Operation *)desc)->transposed_a, value, bytes);
  return SUCCESS;
}

Status cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
  struct Layout *l = *layout = make(sizeof *l);
  *l = (struct Layout){type, rows, columns, leading};
  return (uint64_t)leading >= rows ? SUCCESS : INVALID_VALUE;
}
Status cublasLtMatrixLayoutDestroy(void *layout) { return drop(layout); }

Status cublasLtMatmulPreferenceCreate(void **wishes) { *wishes = make(sizeof(struct Wishes)); return SUCCESS; }
Status cublasLtMatmulPreferenceDestroy(void *wishes) { return drop(wishes); }
Status cublasLtMatmulPreferenceSetAttribute(void *wishes, int attribute, const void *value, size_t bytes) {
  struct Wishes *w = wishes;
  if (attribute == 1 && bytes == 8) memcpy(&w->workspace, value, 8);
  else if (attribute == 3 && bytes == 4) memcpy(&w->reduction, value, 4);
  else if (attribute >= 5 && attribute <= 8 && bytes == 4) memcpy(&w->alignment[attribute - 5], value, 4);
  else return INVALID_VALUE;
  return SUCCESS;
}

// op(A) is m by k, op(B) k by n, D m by n.
static int fits(const struct Operation *o, const struct Layout *a, const struct Layout *b, const struct Layout *d) {
  uint64_t m = o->transposed_a ? a->columns : a->rows, k = o->transposed_a ? a->rows : a->columns;
  return m == d->rows && k == b->rows && b->columns == d->columns && a->type == b->type;
}
Status cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d,
                                      void *wishes, int count, struct Answer *answers, int *returned) {
  (void)handle;
  const struct Wishes *w = wishes;
  const struct Operation *o = operation;
  if (count < 1 || c != d || o->compute != 68 || o->scale != R_32F || !fits(o, a, b, d)) return INVALID_VALUE;
  if (w->workspace < (32 << 20) || w->reduction != 2) return INVALID_VALUE;
  for (int i = 0; i < 4; i++)
    if (w->alignment[i] < 2 || w->alignment[i] > 16) return INVALID_VALUE;
  // Seven outputs stand for what no algorithm computes.
  if (((struct Layout *)d)->rows == 7) return NOT_SUPPORTED;
  memset(answers, 0, sizeof *answers);
  answers->algorithm[0] = 42;
  *returned = 1;
  return SUCCESS;
}

static float get(const void *at, int type, uint64_t i) {
  if (type == R_32F) return ((const float *)at)[i];
  uint32_t bits = (uint32_t)((const uint16_t *)at)[i] << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
static void put(void *at, int type, uint64_t i, float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (type == R_32F) ((float *)at)[i] = x;
  else ((uint16_t *)at)[i] = bits >> 16;  // tests use numbers that bf16 holds
}
Status cublasLtMatmul(void *handle, void *operation, const float *alpha, const void *a, struct Layout *la,
                      const void *b, struct Layout *lb, const float *beta, const void *c, struct Layout *lc,
                      void *d, struct Layout *ld, const uint64_t *algorithm, void *workspace,
                      size_t workspace_bytes, void *stream) {
  (void)handle;
  const struct Operation *o = operation;
  if (*beta != 0 || c != d || lc != ld || algorithm[0] != 42 || !workspace || !stream) return INVALID_VALUE;
  if (workspace_bytes < (32 << 20) || !fits(o, la, lb, ld)) return INVALID_VALUE;
  for (uint64_t i = 0; i < ld->rows; i++)
    for (uint64_t j = 0; j < ld->columns; j++) {
      float sum = 0;
      for (uint64_t k = 0; k < lb->rows; k++) {
        uint64_t at = o->transposed_a ? k + i * la->leading : i + k * la->leading;
        sum += get(a, la->type, at) * get(b, lb->type, k + j * lb->leading);
      }
      put(d, ld->type, i + j * ld->leading, *alpha * sum);
    }
  return SUCCESS;
}
