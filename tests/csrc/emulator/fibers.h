// Runs CUDA C++ kernels on the CPU, for tests: each CUDA thread is a fiber, and a barrier or a warp collective is a switch
// to the next fiber. No timing and no memory model; what it finds, under AddressSanitizer and UBSan: accesses past global
// and shared memory, barriers that not every thread reaches, shared memory read before it was written (it starts as NaN
// patterns), asynchronous copies read before they were waited for, and races that an order of threads can show: every
// launch takes the threads in a new random order, so a missing barrier changes the result.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace prism::emulator {

inline constexpr int kWarpSize = 32;
inline constexpr size_t kStackBytes = 128 * 1024;
inline constexpr size_t kExchangeBytes = 64;

enum class State { kReady, kAtWarpBarrier, kAtBlockBarrier, kAtGridBarrier, kDone };

struct PendingCopy {
  void* to;
  const void* from;
  int bytes, from_bytes;  // what lies past from_bytes becomes 0
};

struct Block;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  Block* block = nullptr;
  dim3 thread;
  int linear = 0;
  State state = State::kReady;
  int exchanges = 0;  // warp collectives so far; its parity chooses the buffer
  std::vector<std::vector<PendingCopy>> copy_groups{1};  // cp.async: the last group is open
  void* fake_stack = nullptr;
};

struct Warp {
  alignas(16) unsigned char slots[2][kWarpSize][kExchangeBytes];
};

struct Block {
  dim3 index;
  std::vector<Warp> warps;
  std::unique_ptr<unsigned char[]> shared_memory;  // exactly what the launch asked for
  size_t shared_bytes = 0;
};

// All blocks of a cooperative launch, or one block of an ordinary one.
struct Launched {
  dim3 grid_dim, block_dim;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Fiber>> fibers;  // block by block
  std::function<void()> body;
  ucontext_t scheduler;
  Fiber* current = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
};

inline Launched*& Active() {
  static Launched* launched = nullptr;
  return launched;
}

inline Fiber& Current() { return *Active()->current; }

[[noreturn]] inline void Fail(const char* what) {
  std::fprintf(stderr, "cuda emulator: %s\n", what);
  std::abort();
}

inline void SwitchToScheduler(State next) {
  Launched& launched = *Active();
  Fiber& fiber = *launched.current;
  fiber.state = next;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(next == State::kDone ? nullptr : &fiber.fake_stack, launched.scheduler_stack,
                                 launched.scheduler_stack_bytes);
#endif
  swapcontext(&fiber.context, &launched.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &launched.scheduler_stack, &launched.scheduler_stack_bytes);
#endif
}

inline void FiberMain() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &Active()->scheduler_stack, &Active()->scheduler_stack_bytes);
#endif
  Active()->body();
  if (Current().copy_groups.size() > 1 || !Current().copy_groups.back().empty()) {
    Fail("a thread ended with asynchronous copies under way");
  }
  SwitchToScheduler(State::kDone);
}

inline void Resume(Launched& launched, Fiber& fiber) {
  launched.current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
  void* own_stack = nullptr;
  __sanitizer_start_switch_fiber(&own_stack, fiber.stack.get(), kStackBytes);
#endif
  swapcontext(&launched.scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own_stack, nullptr, nullptr);
#endif
}

// Opens the barrier `at` of a scope, the fibers [begin, end): when every one that is not done stands at it.
inline bool OpenBarrier(Launched& launched, size_t begin, size_t end, State at) {
  bool any = false;
  for (size_t i = begin; i < end; ++i) {
    const State state = launched.fibers[i]->state;
    if (state != at && state != State::kDone) return false;
    any |= state == at;
  }
  for (size_t i = begin; i < end; ++i) {
    if (launched.fibers[i]->state == at) launched.fibers[i]->state = State::kReady;
  }
  return any;
}

inline bool OpenBarriers(Launched& launched) {
  const size_t count = launched.fibers.size(), per_block = count / launched.blocks.size();
  bool opened = OpenBarrier(launched, 0, count, State::kAtGridBarrier);
  for (size_t block = 0; block < count; block += per_block) {
    opened |= OpenBarrier(launched, block, block + per_block, State::kAtBlockBarrier);
    for (size_t warp = block; warp < block + per_block; warp += kWarpSize) {
      opened |= OpenBarrier(launched, warp, std::min(warp + kWarpSize, block + per_block), State::kAtWarpBarrier);
    }
  }
  return opened;
}

inline void RunFibers(Launched& launched) {
  static std::mt19937 random(7);
  std::vector<Fiber*> order;
  for (auto& fiber : launched.fibers) {
    order.push_back(fiber.get());
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = kStackBytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, FiberMain, 0);
  }
  std::shuffle(order.begin(), order.end(), random);
  Active() = &launched;
  for (;;) {
    bool ran = false, live = false;
    for (Fiber* fiber : order) {
      if (fiber->state == State::kReady) {
        Resume(launched, *fiber);
        ran = true;
      }
      live |= fiber->state != State::kDone;
    }
    if (!live) break;
    if (!OpenBarriers(launched) && !ran) Fail("deadlock: not every thread of a block, warp or grid reached its barrier");
  }
  Active() = nullptr;
}

// `alive`: the blocks that run at the same time.
inline void Run(dim3 grid, dim3 block, size_t shared_bytes, const std::vector<dim3>& alive, std::function<void()> body) {
  Launched launched;
  launched.grid_dim = grid;
  launched.block_dim = block;
  launched.body = std::move(body);
  const int threads = static_cast<int>(block.x * block.y * block.z);
  for (const dim3 index : alive) {
    auto& state = *launched.blocks.emplace_back(new Block);
    state.index = index;
    state.warps.resize((threads + kWarpSize - 1) / kWarpSize);
    state.shared_bytes = shared_bytes;
    state.shared_memory.reset(new unsigned char[shared_bytes]);
    std::memset(state.shared_memory.get(), 0xff, shared_bytes);  // NaN in every float format
    for (int i = 0; i < threads; ++i) {
      auto& fiber = *launched.fibers.emplace_back(new Fiber);
      fiber.block = &state;
      fiber.linear = i;
      fiber.thread = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    }
  }
  RunFibers(launched);
}

inline std::vector<dim3> BlocksOf(dim3 grid) {
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
    }
  }
  return blocks;
}

inline int Lane() { return Current().linear % kWarpSize; }

// Every lane of the warp gives `mine` and sees those of all lanes. Two buffers in turn: a lane writes into one again only
// after the barrier of the exchange between, which all lanes reach after they have read.
template <class T>
struct Exchanged {
  T lanes[kWarpSize];
  const T& operator[](int lane) const { return lanes[lane]; }
};

template <class T>
Exchanged<T> Exchange(const T& mine) {
  static_assert(sizeof(T) <= kExchangeBytes && std::is_trivially_copyable_v<T>);
  Fiber& fiber = Current();
  auto& slots = fiber.block->warps[fiber.linear / kWarpSize].slots[fiber.exchanges++ % 2];
  std::memcpy(slots[Lane()], &mine, sizeof(T));
  SwitchToScheduler(State::kAtWarpBarrier);
  Exchanged<T> all;
  for (int i = 0; i < kWarpSize; ++i) std::memcpy(&all.lanes[i], slots[i], sizeof(T));
  return all;
}

}  // namespace prism::emulator
