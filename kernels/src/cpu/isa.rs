//! Which instruction sets the ops may use, asked of the processor once.
//!
//! An [`Isa`] is a rung of one ladder: each rung includes those below. A value is only ever made
//! for a rung that this processor has, so holding one is the proof that its kernels may run.
//! Tests walk [`Isa::available`]; AMX is not used yet (the packed layout suits its tiles).

/// A rung that the processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Rung);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rung {
    /// Plain Rust: what the compiler makes of it for the target (SSE2, NEON).
    Portable,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX2 and byte dot products in 256-bit registers (AVX-VNNI).
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ and VNNI.
    Avx512,
    /// AVX-512 and products of bf16 pairs.
    Avx512Bf16,
}

use Rung::{Avx2, Avx512, Avx512Bf16, AvxVnni, Portable};

#[cfg(target_arch = "x86_64")]
fn has(rung: Rung) -> bool {
    use std::arch::is_x86_feature_detected as cpu;
    let avx2 = cpu!("avx2")
        && cpu!("fma")
        && cpu!("f16c")
        && cpu!("bmi1")
        && cpu!("bmi2")
        && cpu!("lzcnt")
        && cpu!("popcnt");
    let avx512 = avx2
        && cpu!("avx512f")
        && cpu!("avx512bw")
        && cpu!("avx512vl")
        && cpu!("avx512dq")
        && cpu!("avx512vnni");
    match rung {
        Portable => true,
        Avx2 => avx2,
        AvxVnni => avx2 && cpu!("avxvnni"),
        Avx512 => avx512,
        Avx512Bf16 => avx512 && cpu!("avx512bf16"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(rung: Rung) -> bool {
    rung == Portable
}

impl Isa {
    /// The best rung of this processor.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().next_back().unwrap_or(Self(Portable))
    }

    /// All rungs of this processor, plainest first.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        [Portable, Avx2, AvxVnni, Avx512, Avx512Bf16].into_iter().filter(|&r| has(r)).map(Self)
    }

    /// Plain Rust only, whatever the processor.
    #[must_use]
    pub fn portable() -> Self {
        Self(Portable)
    }

    /// AVX2, FMA, F16C (and the bit instructions that come with them).
    #[must_use]
    pub fn has_avx2(self) -> bool {
        self.0 >= Avx2
    }

    /// Byte dot products in 256-bit registers, as the AVX-VNNI encoding.
    #[must_use]
    pub fn has_avx_vnni(self) -> bool {
        self.0 == AvxVnni
    }

    /// AVX-512 F, BW, VL, DQ, VNNI.
    #[must_use]
    pub fn has_avx512(self) -> bool {
        self.0 >= Avx512
    }

    /// Products of bf16 pairs in 512-bit registers.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        self.0 == Avx512Bf16
    }

    /// A word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Portable => "portable",
            Avx2 => "avx2",
            AvxVnni => "avx2+vnni",
            Avx512 => "avx512+vnni",
            Avx512Bf16 => "avx512+vnni+bf16",
        }
    }
}
