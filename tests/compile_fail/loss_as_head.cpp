// expects: a loss stands in the slot of a Backbone, a Neck or a Head
#include <kindred/loss/triplet_loss.hpp>

#include "parts.hpp"

static_assert(parts::size<parts::Backbone, parts::Neck, kindred::loss::TripletLoss, parts::Loss> >
              0);
