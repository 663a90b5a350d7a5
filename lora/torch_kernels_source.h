#pragma once

// CUDA source of the element-wise operations of TorchOps, compiled on the machine that runs them
// (NVRTC), so that building libcoterie_train needs no CUDA compiler. Activations are bf16, as raw
// 16-bit words; all arithmetic is f32. Blocks have kThreads threads; a row of 8-value vectors each.

namespace coterie {

inline constexpr int kTorchKernelThreads = 256;

inline constexpr char kTorchKernelsSource[] = R"CUDA(
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

__device__ inline float Wide(u16 v) { return __uint_as_float((u32)v << 16); }
__device__ inline u16 Narrow(float v) {
  u16 out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(v));
  return out;
}

struct Eight { float v[8]; };
__device__ inline Eight Load(const u16* p) {
  const uint4 raw = *(const uint4*)p;
  const u32 w[4] = {raw.x, raw.y, raw.z, raw.w};
  Eight out;
  for (int i = 0; i < 4; ++i) {
    out.v[2 * i] = __uint_as_float(w[i] << 16);
    out.v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
  }
  return out;
}
__device__ inline Eight Load(const float* p) {
  const float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
__device__ inline void Store(u16* p, const Eight& e) {
  u32 w[4];
  for (int i = 0; i < 4; ++i) w[i] = (u32)Narrow(e.v[2 * i]) | ((u32)Narrow(e.v[2 * i + 1]) << 16);
  *(uint4*)p = make_uint4(w[0], w[1], w[2], w[3]);
}
__device__ inline void Store(float* p, const Eight& e) {
  ((float4*)p)[0] = make_float4(e.v[0], e.v[1], e.v[2], e.v[3]);
  ((float4*)p)[1] = make_float4(e.v[4], e.v[5], e.v[6], e.v[7]);
}

__device__ inline float BlockSum(float v) {
  __shared__ float parts[32];
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = v;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < (int)blockDim.x / 32; ++i) sum += parts[i];
  return sum;
}
__device__ inline float BlockMax(float v) {
  __shared__ float parts[32];
  for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  __syncthreads();
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = v;
  __syncthreads();
  float top = parts[0];
  for (int i = 1; i < (int)blockDim.x / 32; ++i) top = fmaxf(top, parts[i]);
  return top;
}

// stream += y (where there is one); kept = stream; normed = kept / rms * w. One row a block.
extern "C" __global__ void add_norm(float* stream, const u16* y, const float* w, u16* kept,
                                    u16* normed, int d, float epsilon) {
  const i64 at = (i64)blockIdx.x * d;
  float squares = 0;
  for (int i = threadIdx.x * 8; i < d; i += blockDim.x * 8) {
    Eight x = Load(stream + at + i);
    if (y != nullptr) {
      const Eight add = Load(y + at + i);
      for (int j = 0; j < 8; ++j) x.v[j] += add.v[j];
      Store(stream + at + i, x);
    }
    Store(kept + at + i, x);
    for (int j = 0; j < 8; ++j) {
      const float v = Wide(Narrow(x.v[j]));
      squares += v * v;
    }
  }
  const float scale = rsqrtf(BlockSum(squares) / d + epsilon);
  for (int i = threadIdx.x * 8; i < d; i += blockDim.x * 8) {
    Eight x = Load(kept + at + i);
    for (int j = 0; j < 8; ++j) x.v[j] *= scale * w[i + j];
    Store(normed + at + i, x);
  }
}

extern "C" __global__ void row_norm(const u16* x, const float* w, u16* normed, int d, float epsilon) {
  const i64 at = (i64)blockIdx.x * d;
  float squares = 0;
  for (int i = threadIdx.x * 8; i < d; i += blockDim.x * 8) {
    const Eight v = Load(x + at + i);
    for (int j = 0; j < 8; ++j) squares += v.v[j] * v.v[j];
  }
  const float scale = rsqrtf(BlockSum(squares) / d + epsilon);
  for (int i = threadIdx.x * 8; i < d; i += blockDim.x * 8) {
    Eight v = Load(x + at + i);
    for (int j = 0; j < 8; ++j) v.v[j] *= scale * w[i + j];
    Store(normed + at + i, v);
  }
}

// dx (+)= the gradient of norm(x) * w from dy; narrow, where there is one: dx in bf16.
extern "C" __global__ void norm_backward(const u16* x, const float* w, const u16* dy, float* dx,
                                         u16* narrow, int d, float epsilon, int add) {
  const i64 at = (i64)blockIdx.x * d;
  float squares = 0, dot = 0;
  for (int i = threadIdx.x * 8; i < d; i += blockDim.x * 8) {
    const Eight v = Load(x + at + i), g = Load(dy + at + i);
    for (int j = 0; j < 8; ++j) {
      squares += v.v[j] * v.v[j];
      dot += v.v[j] * g.v[j] * w[i + j];
    }
  }
  const float scale = rsqrtf(BlockSum(squares) / d + epsilon);
  const float pull = BlockSum(dot) * scale * scale / d;
  for (int i = threadIdx.x * 8; i < d; i += blockDim.x * 8) {
    const Eight v = Load(x + at + i), g = Load(dy + at + i);
    Eight out;
    if (add) out = Load(dx + at + i);
    for (int j = 0; j < 8; ++j) {
      const float part = scale * (g.v[j] * w[i + j] - v.v[j] * pull);
      out.v[j] = add ? out.v[j] + part : part;
    }
    Store(dx + at + i, out);
    if (narrow != nullptr) Store(narrow + at + i, out);
  }
}

// Rotates the first n_heads heads of each row in place; sign -1 turns back.
extern "C" __global__ void rope(u16* rows, const int* positions, const float* cosines,
                                const float* sines, i64 row_values, int n_heads, int head_dim,
                                int n_pairs, int adjacent, float sign) {
  u16* row = rows + blockIdx.x * row_values;
  const i64 at = (i64)positions[blockIdx.x] * n_pairs;
  for (int i = threadIdx.x; i < n_heads * n_pairs; i += blockDim.x) {
    const int pair = i % n_pairs;
    u16* head = row + i / n_pairs * head_dim;
    u16* a = head + (adjacent ? 2 * pair : pair);
    u16* b = head + (adjacent ? 2 * pair + 1 : pair + n_pairs);
    const float c = cosines[at + pair], s = sign * sines[at + pair];
    const float x = Wide(*a), y = Wide(*b);
    *a = Narrow(x * c - y * s);
    *b = Narrow(x * s + y * c);
  }
}

__device__ inline float Gate(float x, int gelu, float* slope) {
  if (!gelu) {
    const float s = 1 / (1 + __expf(-x));
    *slope = s * (1 + x * (1 - s));
    return x * s;
  }
  const float k = 0.7978845608028654f;
  const float t = tanhf(k * (x + 0.044715f * x * x * x));
  *slope = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * k * (1 + 3 * 0.044715f * x * x);
  return 0.5f * x * (1 + t);
}

// y [n, f] = gating(gate) * up of rows [gate | up].
extern "C" __global__ void activate(const u16* gate_up, u16* y, i64 n_values, int f, int gelu) {
  const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= n_values) return;
  const i64 at = i / f * 2 * f + i % f;
  const Eight g = Load(gate_up + at), u = Load(gate_up + at + f);
  Eight out;
  float slope;
  for (int j = 0; j < 8; ++j) out.v[j] = Gate(g.v[j], gelu, &slope) * u.v[j];
  Store(y + i, out);
}

// Puts the gradients of gate and up in their place.
extern "C" __global__ void activate_backward(u16* gate_up, const u16* dy, i64 n_values, int f,
                                             int gelu) {
  const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= n_values) return;
  const i64 at = i / f * 2 * f + i % f;
  const Eight g = Load(gate_up + at), u = Load(gate_up + at + f), d = Load(dy + i);
  Eight dg, du;
  for (int j = 0; j < 8; ++j) {
    float slope;
    du.v[j] = Gate(g.v[j], gelu, &slope) * d.v[j];
    dg.v[j] = slope * u.v[j] * d.v[j];
  }
  Store(gate_up + at, dg);
  Store(gate_up + at + f, du);
}

__device__ inline u64 MixBits(u64 bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  return bits ^ (bits >> 31);
}

// The masks of lora/dropout.h: y = kept ? factor * x : 0.
extern "C" __global__ void drop(const u16* x, u16* y, i64 n_values, int n_cols, u64 site, u64 step,
                                u32 n_dropped, float factor) {
  const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= n_values) return;
  const u64 key = MixBits(site + (u64)(i / n_cols) * step);
  const u64 group = (u64)(i % n_cols) / 4;
  Eight v = Load(x + i);
  for (int g = 0; g < 2; ++g) {
    u64 bits = MixBits(key + (group + g) * step);
    for (int j = 4 * g; j < 4 * g + 4; ++j, bits >>= 16) {
      v.v[j] = (u32)(bits & 0xffff) < n_dropped ? 0 : v.v[j] * factor;
    }
  }
  Store(y + i, v);
}

// nll of each row's label; with backward, softmax minus one-hot in bf16 in the first half of the
// row's own memory: a value is written only once all before it were read.
extern "C" __global__ void cross_entropy(float* logits, const i64* labels, float* nll, int n_vocab,
                                         int backward) {
  float* row = logits + (i64)blockIdx.x * n_vocab;
  float top = -3.0e38f;
  for (int i = threadIdx.x * 4; i < n_vocab; i += blockDim.x * 4) {
    const float4 v = *(const float4*)(row + i);
    top = fmaxf(top, fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)));
  }
  top = BlockMax(top);
  float sum = 0;
  for (int i = threadIdx.x * 4; i < n_vocab; i += blockDim.x * 4) {
    const float4 v = *(const float4*)(row + i);
    sum += __expf(v.x - top) + __expf(v.y - top) + __expf(v.z - top) + __expf(v.w - top);
  }
  sum = BlockSum(sum);
  const int label = (int)labels[blockIdx.x];
  if (threadIdx.x == 0) nll[blockIdx.x] = logf(sum) + top - row[label];
  if (!backward) return;
  __syncthreads();
  const float scale = 1 / sum;
  u16* out = (u16*)row;
  for (int base = 0; base < n_vocab; base += blockDim.x * 4) {
    const int i = base + threadIdx.x * 4;
    float p[4] = {0, 0, 0, 0};
    if (i < n_vocab) {
      const float4 v = *(const float4*)(row + i);
      p[0] = __expf(v.x - top) * scale;
      p[1] = __expf(v.y - top) * scale;
      p[2] = __expf(v.z - top) * scale;
      p[3] = __expf(v.w - top) * scale;
    }
    __syncthreads();
    if (i >= n_vocab) continue;
    if (label >= i && label < i + 4) p[label - i] -= 1;
    const uint2 packed = make_uint2((u32)Narrow(p[0]) | ((u32)Narrow(p[1]) << 16),
                                    (u32)Narrow(p[2]) | ((u32)Narrow(p[3]) << 16));
    *(uint2*)(out + i) = packed;
  }
}

// Copies matrices: to[row * row_values + col] = scale * from[row * n_cols + col]. One table row:
// from, to, n_rows, n_cols, row_values, scaled.
extern "C" __global__ void place(const float* values, u16* operands, const i64* table,
                                 float scale) {
  const i64* e = table + (i64)blockIdx.y * 6;
  const float factor = e[5] ? scale : 1;
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < e[2] * e[3];
       i += (i64)gridDim.x * blockDim.x) {
    operands[e[1] + i / e[3] * e[4] + i % e[3]] = Narrow(factor * values[e[0] + i]);
  }
}
)CUDA";

}  // namespace coterie
