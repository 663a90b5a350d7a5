#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/time/time.h"

namespace coterie {

// How often a waiting call looks for Ctrl-C.
inline constexpr absl::Duration kSignalPatience = absl::Milliseconds(50);

// A thread that works outside Python and can be asked to stop. The end of the interpreter asks all
// of them to stop and waits for them, so that none runs while the process is taken down.
// Thread-safe.
class NativeThread {
 public:
  // `work` owns what it uses and needs no GIL.
  explicit NativeThread(std::function<void(std::stop_token)> work);
  // Asks to stop and waits. Call without the GIL.
  ~NativeThread();
  NativeThread(const NativeThread&) = delete;
  NativeThread& operator=(const NativeThread&) = delete;

  void RequestStop();
  // Waits at most `patience` for the work to end; true if it has.
  bool WaitFor(absl::Duration patience);

  // Lets a thread that was asked to stop end by itself, whenever that is.
  static void Abandon(std::unique_ptr<NativeThread> thread);

 private:
  struct State;
  friend class NativeThreads;

  std::shared_ptr<State> state_;
  std::thread thread_;
};

// Called once, when the module is imported.
void StopNativeThreadsAtExit();

// Waits without the GIL until the thread ends, looking for signals meanwhile. Ctrl-C raises
// KeyboardInterrupt: the work is asked to stop, and abandoned if it does not within moments.
void WaitInterruptibly(std::unique_ptr<NativeThread> thread);

// The result of `call(stop_token)`, which runs on a thread of its own without the GIL. It owns what
// it uses: after Ctrl-C it may outlive the caller.
template <typename Call>
std::invoke_result_t<Call, std::stop_token> CallInterruptibly(Call call) {
  using Result = std::invoke_result_t<Call, std::stop_token>;
  auto result = std::make_shared<std::optional<Result>>();
  WaitInterruptibly(std::make_unique<NativeThread>(
      [result, call = std::move(call)](std::stop_token stop) { *result = call(stop); }));
  return std::move(**result);
}

}  // namespace coterie
