// Block tables: entries that were granted before a step are scattered into them.
#include "cache.cuh"

struct GrantArgs {
  u64 tables;  // u32 [slots * pages_per_slot]
  u64 list;    // U2 [count]: place in the tables, page
  u32 count;
  u32 pad;
};

KERNEL(cache_grant, GrantArgs, 256, 1) {
  u32 i = blockIdx.x * 256 + threadIdx.x;
  if (i >= a.count) return;
  U2 grant = at<const U2>(a.list)[i];
  at<u32>(a.tables)[grant.x] = grant.y;
}
