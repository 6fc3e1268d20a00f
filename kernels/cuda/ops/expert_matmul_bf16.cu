// Products of routed rows with their experts' matrices, bf16 operands, weights as they lie in
// memory: out[p] = w * x[p] + bias for the places p of a tile, all of one expert.
//
// As matmul_few_bf16.cu, whose loads and names of layouts these are; what is its own is that rows
// of x are found through the list of sources, and which matrix through the tile. Variants:
//
//   expert_few_*    tiles of up to 8 places: a block has 16 outputs and splits k over its warps.
//                   Bound by memory; wins while experts have few rows each (decode).
//   expert_many_*   tiles of up to 64 places: a warp has 32 outputs. Weights are read an eighth as
//                   often; wins where most experts have more rows than that (prefill).
//
// Blocks beyond the number of tiles leave at once. f32 weights, columns in an order and odd shapes
// go to expert_wide.cu.
#include "expert_matmul.cuh"

KERNEL(expert_few_plain, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<PlainRows<bf16>, false>(a); }
KERNEL(expert_many_plain, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<PlainRows<bf16>, false, 2>(a); }
KERNEL(expert_few_f8_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<F8Rows<bf16, 2>, false>(a); }
KERNEL(expert_many_f8_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<F8Rows<bf16, 2>, false, 1>(a); }
KERNEL(expert_few_f8_s4, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<F8Rows<bf16, 4>, false>(a); }
KERNEL(expert_many_f8_s4, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<F8Rows<bf16, 4>, false, 1>(a); }
KERNEL(expert_few_codes4_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 1, false, false>, false>(a); }
KERNEL(expert_many_codes4_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 1, false, false>, false, 1>(a); }
KERNEL(expert_few_codes4_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 2, false, false>, false>(a); }
KERNEL(expert_many_codes4_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 2, false, false>, false, 1>(a); }
KERNEL(expert_few_codes4_s4, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 4, false, false>, false>(a); }
KERNEL(expert_many_codes4_s4, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 4, false, false>, false, 2>(a); }
KERNEL(expert_few_codes4_minimum_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 1, true, false>, false>(a); }
KERNEL(expert_many_codes4_minimum_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 1, true, false>, false, 1>(a); }
KERNEL(expert_few_codes4_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 2, true, false>, false>(a); }
KERNEL(expert_many_codes4_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 2, true, false>, false, 1>(a); }
KERNEL(expert_few_table4_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 1, false, true>, true>(a); }
KERNEL(expert_many_table4_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 1, false, true>, true, 1>(a); }
KERNEL(expert_few_table4_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 2, false, true>, true>(a); }
KERNEL(expert_many_table4_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 2, false, true>, true, 1>(a); }
KERNEL(expert_few_table4_s4, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 4, 4, false, true>, true>(a); }
KERNEL(expert_many_table4_s4, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 4, 4, false, true>, true, 1>(a); }
KERNEL(expert_few_codes8_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 8, 1, false, false>, false>(a); }
KERNEL(expert_many_codes8_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 8, 1, false, false>, false, 2>(a); }
KERNEL(expert_few_codes8_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 8, 2, false, false>, false>(a); }
KERNEL(expert_many_codes8_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 8, 2, false, false>, false, 2>(a); }
KERNEL(expert_few_codes8_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<bf16, 8, 2, true, false>, false>(a); }
KERNEL(expert_many_codes8_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<bf16, 8, 2, true, false>, false, 2>(a); }
