# The commands of this project. Each installs what it needs; see .ci/setup.
#   make demo          builds, fetches two small models and answers eight prompts
#   make test          builds and runs every test
#   make test-peers    adapters and gradients against PEFT and llama.cpp: PEER=PYTHON, see docs/adapters.md
#   make test-torch    the trainer on LibTorch against the CPU's: TORCH=PYTHON, see docs/gpu.md
#   make bench         measures beside llama.cpp, which it builds first; WRITE=docs writes docs/performance.md;
#                      PEER=none measures alone, PEER=PYTHON beside the llama-cpp-python of that interpreter
#   make replay        replays traces of requests; LLAMA_SERVER=PROGRAM sets llama.cpp's server beside it, and
#                      WRITE=docs writes docs/replay.md
#   make fuzz          runs every fuzzer for a minute (SECONDS=...)
#   make sanitize      the tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   make sanitize-threads   those with threads under ThreadSanitizer
#   make build         the release build of libraries, tests and tools
#   make stub          writes python/coterie/_coterie.pyi anew from the compiled module
#   make install       the Python package and the coterie command into .venv
.PHONY: demo test test-peers test-torch bench replay fuzz sanitize sanitize-threads build install setup models format \
  stub check clean

MODELS ?= small
SMALL_MODELS := smollm2-135m qwen2.5-coder-0.5b gemma-3-270m
ifeq ($(MODELS),all)
  PULLED := $(SMALL_MODELS) qwen2.5-coder-1.5b
else ifeq ($(MODELS),none)
  PULLED :=
else
  PULLED := $(SMALL_MODELS)
endif

JOBS ?= $(shell nproc)
PYTHON_SOURCES := python tests/python bench router/training

setup:
	@.ci/setup

build: setup
	@cmake --preset release -DCOTERIE_BENCH=ON >/dev/null
	@cmake --build --preset release -j $(JOBS)

install: setup
	@CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) .venv/bin/python -m pip install -q \
	  --disable-pip-version-check --no-build-isolation --no-deps .

models: install
	@if [ -n "$(PULLED)" ]; then .venv/bin/coterie pull $(PULLED); fi

demo: install
	@.venv/bin/python bench/demo.py $(if $(filter all,$(MODELS)),--all)

test: build models
	@ctest --test-dir build/release --output-on-failure -j $(JOBS) \
	  $(if $(filter none,$(MODELS)),-LE model)
	@.venv/bin/python -m pytest -q tests/python \
	  -m "not peer$(if $(filter none,$(MODELS)), and not model)"

# PEER: an interpreter with torch, transformers, peft, gguf and llama-cpp-python.
test-peers: install models
	@COTERIE_PEERS=$(PEER) .venv/bin/python -m pytest -q -s -m peer \
	  tests/python/test_adapter_peers.py tests/python/test_training_peers.py

# TORCH: an interpreter with torch. DEVICE=cuda for a GPU; else torch's CPU.
test-torch: setup
	@cmake -S . -B build/torch -G Ninja -DCMAKE_BUILD_TYPE=Release -DCOTERIE_TORCH=ON \
	  -DCMAKE_PREFIX_PATH="$$($(TORCH) -c 'import torch; print(torch.utils.cmake_prefix_path)')" >/dev/null
	@cmake --build build/torch --target torch_trainer_tests -j $(JOBS)
	@COTERIE_TORCH_DEVICE=$(or $(DEVICE),torch:cpu) ctest --test-dir build/torch -L torch --output-on-failure

# llama.cpp, built for this CPU: ten minutes on two cores, once.
BUILT_PEER := build/peer/bin/python
$(BUILT_PEER):
	@echo "building llama.cpp to measure beside (PEER=none: without)"
	@python3 -m venv build/peer
	@build/peer/bin/pip install -q llama-cpp-python==0.3.36 || { rm -rf build/peer; exit 1; }

BENCH_PEER := $(or $(PEER),$(BUILT_PEER))
bench: build models $(filter $(BUILT_PEER),$(BENCH_PEER))
	@.venv/bin/python bench/run.py $(if $(filter none,$(BENCH_PEER)),,--peer $(BENCH_PEER)) \
	  $(if $(WRITE),--write $(WRITE) --random)

replay: build models
	@.venv/bin/python bench/replay.py $(if $(LLAMA_SERVER),--llama-server $(LLAMA_SERVER)) \
	  $(if $(WRITE),--write $(WRITE))

stub: install
	@.venv/bin/pybind11-stubgen coterie._coterie -o build/stub >/dev/null
	@cp build/stub/coterie/_coterie.pyi python/coterie/_coterie.pyi

# SECONDS counts up by itself in bash, so the script takes another name.
fuzz:
	@SECONDS_EACH=$(or $(SECONDS),60) JOBS=$(JOBS) .ci/fuzz $(TARGETS)

sanitize: setup
	@cmake --preset asan >/dev/null && cmake --build --preset asan -j $(JOBS)
	@ctest --test-dir build/asan --output-on-failure -j $(JOBS) -LE model

# TSan slows threads tenfold: only what has them.
THREADED := core_memory_tests core_threads_tests experts_tests lora_tests router_tests \
  runtime_tests
sanitize-threads: setup
	@cmake --preset tsan >/dev/null && cmake --build --preset tsan -j $(JOBS) --target $(THREADED)
	@for tests in $(THREADED); do \
	  TSAN_OPTIONS=halt_on_error=1 $$(find build/tsan/tests -name $$tests -type f) --gtest_brief=1 \
	    || exit 1; done

check: setup
	@.ci/checks

format:
	@git ls-files '*.h' '*.cc' | grep -v -e '_tables\.' -e '^tests/install/' | xargs clang-format -i
	@.venv/bin/ruff format $(PYTHON_SOURCES)

clean:
	@rm -rf build
