#pragma once

// What this CPU can run, by the tables of kernels that need it.

namespace coterie {

bool CanRunAvx2();        // AVX2, FMA, F16C.
bool CanRunAvx512();      // AVX-512 F, BW, DQ, VL, VNNI.
bool CanRunAvx512BF16();  // And BF16.

}  // namespace coterie
