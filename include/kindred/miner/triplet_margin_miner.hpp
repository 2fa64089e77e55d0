#pragma once
// Triplets by their margin: the semi-hard ones among them.

#include <limits>

#include <kindred/miner/miner.hpp>

namespace kindred::miner {

/// Which triplets, by g = d_in - d_ip: all with g <= margin, of them the hard (g <= 0) or the
/// semi-hard (g > 0), or the easy ones that all leaves out.
enum class TripletType { all, hard, semihard, easy };

/// Triplets (i, p, n) of that type, d the Euclidean distance of normalised features.
/// Source: Schroff et al., "FaceNet", CVPR 2015 (semihard); pytorch-metric-learning
/// TripletMarginMiner.
class TripletMarginMiner {
 public:
  struct Config {
    double margin = 0.2;
    TripletType type_of_triplets = TripletType::all;
  };

  static constexpr const char* name() { return "TripletMarginMiner"; }
  static constexpr Matrix matrix = Matrix::distance;

  explicit TripletMarginMiner(const Config& config) : config_(config) {}

  template <class T>
  auto triplet(const Mining<T>& mining) const {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const T margin = T(config_.margin);
    switch (config_.type_of_triplets) {
      case TripletType::hard:
        return Between<T>{mining, -infinity, margin < T(0) ? margin : T(0)};
      case TripletType::semihard:
        return Between<T>{mining, T(0), margin};
      case TripletType::easy:
        return Between<T>{mining, margin, infinity};
      default:
        return Between<T>{mining, -infinity, margin};
    }
  }

  /// above < d_in - d_ip <= most
  template <class T>
  struct Between {
    Mining<T> mining;
    T above, most;
    KINDRED_HD bool operator()(std::int64_t i, std::int64_t p, std::int64_t n) const {
      const T* d = mining.row(i);
      const T gap = d[n] - d[p];
      return gap > above && gap <= most;
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::miner
