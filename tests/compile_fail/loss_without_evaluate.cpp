// expects: Loss lacks void evaluate(run, LossInput<T>, LossGradient<T>, View<T> report) const
#include "parts.hpp"

static_assert(parts::size<parts::Backbone, parts::Neck, parts::Head, parts::Described> > 0);
