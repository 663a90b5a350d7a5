#include "python/bindings/gil.h"

namespace coterie {

GilReleased::GilReleased() : state_(PyGILState_Check() ? PyEval_SaveThread() : nullptr) {}

GilReleased::~GilReleased() {
  if (state_ == nullptr) return;
  try {
    PyEval_RestoreThread(state_);
  } catch (...) {  // glibc's forced unwinding of a thread that Python ends.
    while (true) pause();
  }
}

}  // namespace coterie
