// expects: this Neck cannot follow this Backbone: one works on feature vectors [B,D], the other
#include "parts.hpp"

struct MapNeck : parts::Neck {
  using Neck::Neck;
  static constexpr int input_rank = 4;
};

static_assert(parts::size<parts::Backbone, MapNeck, parts::Head, parts::Loss> > 0);
