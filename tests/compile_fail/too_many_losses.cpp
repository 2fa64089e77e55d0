// expects: loss::Combined takes one to four losses
#include "parts.hpp"

using CE = kindred::loss::CELoss;
using Five = kindred::loss::Combined<CE, CE, CE, CE, CE>;

static_assert(parts::size<parts::Backbone, parts::Neck, parts::Head, Five> > 0);
