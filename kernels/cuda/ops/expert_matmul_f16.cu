// Products of routed rows with their experts' matrices, f16 operands: see expert_matmul_bf16.cu,
// of which this is the twin for the other type.
#include "expert_matmul.cuh"

KERNEL(expert_few_plain, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<PlainRows<f16>, false>(a); }
KERNEL(expert_many_plain, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<PlainRows<f16>, false, 2>(a); }
KERNEL(expert_few_f8_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<F8Rows<f16, 2>, false>(a); }
KERNEL(expert_many_f8_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<F8Rows<f16, 2>, false, 1>(a); }
KERNEL(expert_few_f8_s4, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<F8Rows<f16, 4>, false>(a); }
KERNEL(expert_many_f8_s4, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<F8Rows<f16, 4>, false, 1>(a); }
KERNEL(expert_few_codes4_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 1, false, false>, false>(a); }
KERNEL(expert_many_codes4_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 1, false, false>, false, 1>(a); }
KERNEL(expert_few_codes4_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 2, false, false>, false>(a); }
KERNEL(expert_many_codes4_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 2, false, false>, false, 1>(a); }
KERNEL(expert_few_codes4_s4, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 4, false, false>, false>(a); }
KERNEL(expert_many_codes4_s4, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 4, false, false>, false, 2>(a); }
KERNEL(expert_few_codes4_minimum_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 1, true, false>, false>(a); }
KERNEL(expert_many_codes4_minimum_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 1, true, false>, false, 1>(a); }
KERNEL(expert_few_codes4_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 2, true, false>, false>(a); }
KERNEL(expert_many_codes4_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 2, true, false>, false, 1>(a); }
KERNEL(expert_few_table4_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 1, false, true>, true>(a); }
KERNEL(expert_many_table4_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 1, false, true>, true, 1>(a); }
KERNEL(expert_few_table4_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 2, false, true>, true>(a); }
KERNEL(expert_many_table4_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 2, false, true>, true, 1>(a); }
KERNEL(expert_few_table4_s4, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 4, 4, false, true>, true>(a); }
KERNEL(expert_many_table4_s4, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 4, 4, false, true>, true, 1>(a); }
KERNEL(expert_few_codes8_s1, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 8, 1, false, false>, false>(a); }
KERNEL(expert_many_codes8_s1, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 8, 1, false, false>, false, 2>(a); }
KERNEL(expert_few_codes8_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 8, 2, false, false>, false>(a); }
KERNEL(expert_many_codes8_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 8, 2, false, false>, false, 2>(a); }
KERNEL(expert_few_codes8_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 5) { expert_few<CodeRows<f16, 8, 2, true, false>, false>(a); }
KERNEL(expert_many_codes8_minimum_s2, ExpertArgs, 32 * EXPERT_WARPS, 2) { expert_many<CodeRows<f16, 8, 2, true, false>, false, 2>(a); }
