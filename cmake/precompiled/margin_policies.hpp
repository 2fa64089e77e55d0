#pragma once
// The policies of all margin heads, whose kernels are compiled once for each device.

#include <kindred/head/ada_margin.hpp>
#include <kindred/head/arc_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/combined_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/curricular_margin.hpp>
#include <kindred/head/dynamic_margin.hpp>
#include <kindred/head/elastic_margin.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/norm_face.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>

/// LIST(Q, T, Policy) for all of them; Q as in the lists of kernels.
#define KINDRED_MARGIN_POLICIES(LIST, Q, T) \
  LIST(Q, T, AdaMarginPolicy)               \
  LIST(Q, T, ArcMarginPolicy)               \
  LIST(Q, T, CircleMarginPolicy)            \
  LIST(Q, T, CombinedMarginPolicy)          \
  LIST(Q, T, CosMarginPolicy)               \
  LIST(Q, T, CurricularMarginPolicy)        \
  LIST(Q, T, DynamicMarginPolicy)           \
  LIST(Q, T, ElasticMarginPolicy)           \
  LIST(Q, T, MagMarginPolicy)               \
  LIST(Q, T, NormFacePolicy)                \
  LIST(Q, T, SubCenterArcMarginPolicy)
