#pragma once
// CrossBatchMemory by its name in YAML, for any device:
//   - CrossBatchMemory: {weight, memory_size, embedding_size, start_iter, loss: {name: CircleLoss,
//     ...}}
// around any loss on pairs that a miner could stand before. A file of the program that includes the
// kernels of a device calls register_memories of it; memories.hpp does so for the processor.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <kindred/config/loss_settings.hpp>
#include <kindred/loss/cross_batch_memory.hpp>

namespace kindred::config::detail {

/// A memory around each of the losses on pairs.
template <class Device>
struct Memories {
  using AnyLosses = AnyLossesOn<Device>;
  /// Adds the loss of the section `loss` within a memory; `memory` has the memory's own settings.
  using Add =
      std::function<void(typename AnyLosses::Config&, const Section& memory, const Section& loss)>;
  std::map<std::string, Add> known{};

  template <class Loss, class... Fields>
  void add(std::vector<const char*> ignored, Fields... fields) {
    known[Loss::name()] = [=](typename AnyLosses::Config& losses, const Section& memory,
                              const Section& loss) {
      using Memory = kindred::loss::CrossBatchMemory<Loss>;
      typename Memory::Config config;
      config.memory_size = memory.get("memory_size", config.memory_size);
      config.embedding_size = memory.get<std::int64_t>("embedding_size");
      config.start_iter = memory.get("start_iter", config.start_iter);
      config.loss = loss_config<Loss>(loss, ignored, fields...);
      config.loss.weight *= memory.get("weight", 1.);
      AnyLosses::template add<Memory>(losses, config);
    };
  }

  void operator()(typename AnyLosses::Config& losses, const Section& s) const {
    const Section loss = s.section("loss");
    const auto name = loss.get<std::string>("name");
    const auto found = known.find(name);
    if (found == known.end()) {
      std::set<std::string> names;
      for (const auto& [one, add] : known) names.insert(one);
      loss.unknown_name(name, names);
    }
    found->second(losses, s, loss);
    loss.finish();
  }
};

}  // namespace kindred::config::detail

namespace kindred::config {

/// Registers CrossBatchMemory on a device. Returns true, to initialise a variable.
template <class Device>
bool register_memories() {
  detail::Memories<Device> memories;
  detail::for_each_mineable(memories);
  register_loss<Device>("CrossBatchMemory", memories);
  return true;
}

}  // namespace kindred::config
