#pragma once

// What this machine can do at most, measured: the limits that benchmarks are set beside.

#include <cstdint>

#include "core/threads/worker_pool.h"

namespace coterie {

// Bytes per second of reading memory far larger than the caches, all workers of the pool together;
// the best of several passes.
double MeasureReadBytesPerSecond(WorkerPool& pool);

// Multiply-adds of 8-bit integers per second out of registers, all workers together, with the best
// instruction the CPU has: vpdpbusd of AVX-512 VNNI, else vpmaddubsw and vpmaddwd of AVX2. 0 where
// there is neither.
double MeasureInt8MacsPerSecond(WorkerPool& pool);

}  // namespace coterie
