#include "experts/lease.h"

#include <utility>

#include "experts/expert_cache.h"

namespace coterie {

Lease::Lease(Lease&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)),
      base_(std::move(other.base_)),
      model_(std::exchange(other.model_, nullptr)),
      kv_(std::move(other.kv_)),
      scratch_(std::move(other.scratch_)),
      origin_(std::move(other.origin_)),
      start_(other.start_) {}

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    Release();
    cache_ = std::exchange(other.cache_, nullptr);
    base_ = std::move(other.base_);
    model_ = std::exchange(other.model_, nullptr);
    kv_ = std::move(other.kv_);
    scratch_ = std::move(other.scratch_);
    origin_ = std::move(other.origin_);
    start_ = other.start_;
  }
  return *this;
}

Lease::~Lease() { Release(); }

void Lease::Release() {
  if (cache_ == nullptr) return;
  cache_->ReturnLease(*this);
  cache_ = nullptr;
  model_ = nullptr;
}

}  // namespace coterie
