// Shapes and views.

#include <kindred/core/shape.hpp>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"

using namespace kindred;

TEST_CASE("Shape: extents, sizes and rows") {
  const Shape images{2, 3, 4, 5};
  CHECK(images.rank() == 4);
  CHECK(images.size() == 120);
  CHECK(images.back() == 5);
  CHECK(images.rows() == 24);
  CHECK(images.with_batch(7) == Shape{7, 3, 4, 5});
  CHECK(images != Shape{2, 3, 20});
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{}.back() == 1);
  CHECK(Shape{0, 4}.size() == 0);
  CHECK(Shape{4, 0}.rows() == 0);
  CHECK(text(images) == "[2, 3, 4, 5]");
  CHECK(text(Shape{}) == "[]");
  static_assert(Shape{2, 3}.size() == 6);
}

TEST_CASE("Shape: impossible extents throw") {
  CHECK_THROWS_WITH((Shape{2, -1}), ContainsSubstring("negative extent -1"));
  CHECK_THROWS_WITH((Shape{1, 1, 1, 1, 1}), ContainsSubstring("at most 4 dimensions"));
  const std::int64_t large = std::int64_t{1} << 21;
  CHECK((Shape{large, large, large - 1}).size() > 0);
  CHECK_THROWS_AS((Shape{large, large, large}).size(), ShapeError);
  CHECK_THROWS_AS((Shape{large, large, large, 2}).rows(), ShapeError);
}

TEST_CASE("View: rows, reshaping and const") {
  std::vector<float> values{0, 1, 2, 3, 4, 5};
  const View<float> v{values.data(), {2, 3}};
  CHECK(v.row(1)[0] == 3);
  CHECK(v.end() - v.begin() == 6);
  CHECK(v.reshaped({3, 2}).row(2)[1] == 5);
  CHECK_THROWS_WITH(v.reshaped({4, 2}), ContainsSubstring("cannot view [2, 3] as [4, 2]"));
  const View<const float> c = v;
  CHECK(c[5] == 5);
  static_assert(!std::is_convertible_v<View<const float>, View<float>>);
  CHECK_NOTHROW(check_shape("conv2d: x", v.shape, {2, 3}));
  CHECK_THROWS_WITH(check_shape("conv2d: x", v.shape, {2, 4}),
                    ContainsSubstring("conv2d: x: expected [2, 4], got [2, 3]"));
}
