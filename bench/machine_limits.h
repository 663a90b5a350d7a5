#pragma once

// What this machine can do at most, measured: the limits that benchmarks are set beside.

#include <cstdint>

#include "core/threads/worker_pool.h"

namespace coterie {

// Bytes per second of reading memory far larger than the caches, all workers of the pool together;
// the best of several passes.
double MeasureReadBytesPerSecond(WorkerPool& pool);

// How long what one core wrote takes to reach another: one way of a value that two threads hand to
// each other. Says whether the cores share a cache; on virtual machines that changes by the minute.
double MeasureCoreToCoreSeconds();

// Multiply-adds per second out of registers, all workers together, with the best instruction the
// CPU has; 0 where it has none. f32: FMA of AVX-512 or AVX2; bf16: vdpbf16ps.
double MeasureF32MacsPerSecond(WorkerPool& pool);
double MeasureBF16MacsPerSecond(WorkerPool& pool);

// The same of 8-bit integers: vpdpbusd of AVX-512 VNNI, else vpmaddubsw and vpmaddwd of AVX2.
double MeasureInt8MacsPerSecond(WorkerPool& pool);

}  // namespace coterie
