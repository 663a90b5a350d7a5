#pragma once

#include <Python.h>
#include <unistd.h>

#include <memory>

namespace coterie {

// Gives the GIL to other Python threads for a scope, if this thread has it.
//
// Unlike pybind11::gil_scoped_release, it survives the end of the interpreter: a daemon thread that
// asks for the GIL again then is ended by Python in a way that would tear through C++ destructors
// and abort the process; here it waits for the process to end.
class GilReleased {
 public:
  GilReleased();
  ~GilReleased();
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

// A native object as Python owns it. Its destructor may wait for threads, so it runs without the
// GIL; in a child of fork() it does not run at all, for there the threads are not.
template <typename T>
std::shared_ptr<T> OwnedByPython(std::unique_ptr<T> object) {
  return {object.release(), [opened_by = getpid()](T* owned) {
            if (getpid() != opened_by) return;
            GilReleased released;
            delete owned;
          }};
}

}  // namespace coterie
