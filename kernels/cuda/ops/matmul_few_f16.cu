// Products of a few rows (up to 64, more in turns): f16 operands, weights as they lie in memory.
//
// Bound by memory: each weight goes from global memory to registers once, 16 bytes a lane, is made
// a small whole number there and multiplied by tensor cores as operand A (16 of the result's
// columns), with 8 rows of x as operand B. So a warp has many loads on their way and no weight
// passes through shared memory. Variants, by name:
//
//   few_plain_nC              numbers
//   few_f8_S_nC               e4m3fn; S (s1, s2, s4) mma steps, each of 16 of k, share a scale. The
//                             largest is for longer groups too
//   few_codes4_S_nC           4-bit codes
//   few_codes4_zero_S_nC      with a zero point beside each scale
//   few_codes4_minimum_S_nC   with a minimum beside each scale: the sum of x is one more mma
//   few_table4_S_nC           4-bit codes looked up in a table
//   few_codes8_S_nC           8-bit codes; _zero and _minimum as above
//
// C (1, 2, 4, 8) times 8 rows of x are multiplied at once: the least that holds the rows wins. With
// 4 a block has 32 columns of the result rather than 16, so that x is read half as often; with 8
// there are too few registers for that. For more rows than a few dozen the sums bound it, and weights that are expanded once and multiplied
// by the vendor's library (or matmul_tiles.cu) win.
#include "matmul_few.cuh"

KERNEL(few_plain_n1, FewArgs, 32 * FEW_WARPS, 3) { few<PlainRows<f16>, false, 1, 1>(a); }
KERNEL(few_plain_n2, FewArgs, 32 * FEW_WARPS, 2) { few<PlainRows<f16>, false, 1, 2>(a); }
KERNEL(few_plain_n4, FewArgs, 32 * FEW_WARPS, 1) { few<PlainRows<f16>, false, 2, 4>(a); }
KERNEL(few_plain_n8, FewArgs, 32 * FEW_WARPS, 2) { few<PlainRows<f16>, false, 1, 8>(a); }
KERNEL(few_f8_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<F8Rows<f16, 2>, false, 1, 1>(a); }
KERNEL(few_f8_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<F8Rows<f16, 2>, false, 1, 2>(a); }
KERNEL(few_f8_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<F8Rows<f16, 2>, false, 2, 4>(a); }
KERNEL(few_f8_s2_n8, FewArgs, 32 * FEW_WARPS, 1) { few<F8Rows<f16, 2>, false, 1, 8>(a); }
KERNEL(few_f8_s4_n1, FewArgs, 32 * FEW_WARPS, 3) { few<F8Rows<f16, 4>, false, 1, 1>(a); }
KERNEL(few_f8_s4_n2, FewArgs, 32 * FEW_WARPS, 2) { few<F8Rows<f16, 4>, false, 1, 2>(a); }
KERNEL(few_f8_s4_n4, FewArgs, 32 * FEW_WARPS, 1) { few<F8Rows<f16, 4>, false, 2, 4>(a); }
KERNEL(few_f8_s4_n8, FewArgs, 32 * FEW_WARPS, 1) { few<F8Rows<f16, 4>, false, 1, 8>(a); }
KERNEL(few_codes4_s1_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 1, false, false, NO_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes4_s1_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 1, false, false, NO_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes4_s1_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 1, false, false, NO_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes4_s1_n8, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 1, false, false, NO_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes4_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 2, false, false, NO_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes4_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 2, false, false, NO_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes4_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 2, false, false, NO_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes4_s2_n8, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 2, false, false, NO_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes4_s4_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 4, false, false, NO_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes4_s4_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 4, false, false, NO_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes4_s4_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 4, false, false, NO_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes4_s4_n8, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 4, false, false, NO_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes4_zero_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 2, false, false, ALL_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes4_zero_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 2, false, false, ALL_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes4_zero_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 2, false, false, ALL_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes4_zero_s2_n8, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 2, false, false, ALL_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes4_zero_s4_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 4, false, false, ALL_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes4_zero_s4_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 4, false, false, ALL_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes4_zero_s4_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 4, false, false, ALL_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes4_zero_s4_n8, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 4, false, false, ALL_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes4_minimum_s1_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 1, true, false>, false, 1, 1>(a); }
KERNEL(few_codes4_minimum_s1_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 1, true, false>, false, 1, 2>(a); }
KERNEL(few_codes4_minimum_s1_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 1, true, false>, false, 2, 4>(a); }
KERNEL(few_codes4_minimum_s1_n8, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 1, true, false>, false, 1, 8>(a); }
KERNEL(few_codes4_minimum_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 2, true, false>, false, 1, 1>(a); }
KERNEL(few_codes4_minimum_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 2, true, false>, false, 1, 2>(a); }
KERNEL(few_codes4_minimum_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 2, true, false>, false, 2, 4>(a); }
KERNEL(few_codes4_minimum_s2_n8, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 2, true, false>, false, 1, 8>(a); }
KERNEL(few_table4_s1_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 1, false, true, NO_ZEROS>, true, 1, 1>(a); }
KERNEL(few_table4_s1_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 1, false, true, NO_ZEROS>, true, 1, 2>(a); }
KERNEL(few_table4_s1_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 1, false, true, NO_ZEROS>, true, 2, 4>(a); }
KERNEL(few_table4_s1_n8, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 1, false, true, NO_ZEROS>, true, 1, 8>(a); }
KERNEL(few_table4_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 2, false, true, NO_ZEROS>, true, 1, 1>(a); }
KERNEL(few_table4_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 2, false, true, NO_ZEROS>, true, 1, 2>(a); }
KERNEL(few_table4_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 2, false, true, NO_ZEROS>, true, 2, 4>(a); }
KERNEL(few_table4_s2_n8, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 2, false, true, NO_ZEROS>, true, 1, 8>(a); }
KERNEL(few_table4_s4_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 4, 4, false, true, NO_ZEROS>, true, 1, 1>(a); }
KERNEL(few_table4_s4_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 4, false, true, NO_ZEROS>, true, 1, 2>(a); }
KERNEL(few_table4_s4_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 4, 4, false, true, NO_ZEROS>, true, 2, 4>(a); }
KERNEL(few_table4_s4_n8, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 4, 4, false, true, NO_ZEROS>, true, 1, 8>(a); }
KERNEL(few_codes8_s1_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 8, 1, false, false, NO_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes8_s1_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 8, 1, false, false, NO_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes8_s1_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 8, 1, false, false, NO_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes8_s1_n8, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 8, 1, false, false, NO_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes8_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 8, 2, false, false, NO_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes8_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 8, 2, false, false, NO_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes8_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 8, 2, false, false, NO_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes8_s2_n8, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 8, 2, false, false, NO_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes8_zero_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 8, 2, false, false, ALL_ZEROS>, false, 1, 1>(a); }
KERNEL(few_codes8_zero_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 8, 2, false, false, ALL_ZEROS>, false, 1, 2>(a); }
KERNEL(few_codes8_zero_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 8, 2, false, false, ALL_ZEROS>, false, 2, 4>(a); }
KERNEL(few_codes8_zero_s2_n8, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 8, 2, false, false, ALL_ZEROS>, false, 1, 8>(a); }
KERNEL(few_codes8_minimum_s2_n1, FewArgs, 32 * FEW_WARPS, 3) { few<CodeRows<f16, 8, 2, true, false>, false, 1, 1>(a); }
KERNEL(few_codes8_minimum_s2_n2, FewArgs, 32 * FEW_WARPS, 2) { few<CodeRows<f16, 8, 2, true, false>, false, 1, 2>(a); }
KERNEL(few_codes8_minimum_s2_n4, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 8, 2, true, false>, false, 2, 4>(a); }
KERNEL(few_codes8_minimum_s2_n8, FewArgs, 32 * FEW_WARPS, 1) { few<CodeRows<f16, 8, 2, true, false>, false, 1, 8>(a); }
