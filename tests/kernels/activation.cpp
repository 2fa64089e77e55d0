#include <kindred/kernels/activation.hpp>
#include <kindred/kernels/cpu/simd.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

constexpr Activation all[] = {
    Activation::identity,       Activation::relu,        Activation::relu6,
    Activation::hardswish,      Activation::hardsigmoid, Activation::sigmoid,
    Activation::swish,          Activation::tanh,        Activation::hardsigmoid_0_2,
    Activation::leaky_relu_0_1,
};

template <class T>
void check_vectors_agree(Activation activation, double tolerance) {
  constexpr auto width = cpu::vector_size<T>;
  std::vector<T> x = random_values<T>(64 * width, 3, 4.0);
  const T edges[] = {0, -3, 3, 6, T(-2.5), T(2.5), -40, 40};
  std::copy(std::begin(edges), std::end(edges), x.begin());
  std::vector<T> y(x.size()), dy(x.size()), expected_y(x.size()), expected_dy(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    expected_y[i] = activate(activation, x[i]);
    expected_dy[i] = activate_derivative(activation, x[i]);
  }
  dispatch_activation(activation, [&](auto a) {
    for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(width)) {
      const auto v = cpu::Vector<T>::load_unaligned(&x[i]);
      cpu::activate<a()>(v).store_unaligned(&y[i]);
      cpu::activate_derivative<a()>(v).store_unaligned(&dy[i]);
    }
  });
  CHECK(difference(y, expected_y) < tolerance);
  CHECK(difference(dy, expected_dy) < tolerance);
}

}  // namespace

TEST_CASE("activation: known values") {
  CHECK(activate(Activation::hardswish, 1.0) == Approx(4.0 / 6));
  CHECK(activate(Activation::hardswish, -4.0) == 0);
  CHECK(activate(Activation::hardswish, 4.0) == 4);
  CHECK(activate(Activation::hardsigmoid, 1.5) == Approx(0.75));
  CHECK(activate(Activation::hardsigmoid_0_2, 1.0) == Approx(0.7));
  CHECK(activate(Activation::relu6, 7.0) == 6);
  CHECK(activate(Activation::sigmoid, 0.0) == 0.5);
  CHECK(activate(Activation::swish, 0.0) == 0);
  CHECK(activate(Activation::leaky_relu_0_1, -3.0) == Approx(-0.3));
  CHECK(activate(Activation::leaky_relu_0_1, 3.0) == 3);
}

TEST_CASE("activation: the derivative is the derivative") {
  std::vector<double> x = random_values<double>(200, 1, 3.0);
  for (Activation activation : all) {
    for (double v : x) {
      const double h = 1e-6;
      const double slope = (activate(activation, v + h) - activate(activation, v - h)) / (2 * h);
      CHECK(activate_derivative(activation, v) == Approx(slope).margin(1e-8).epsilon(1e-7));
    }
  }
}

TEST_CASE("activation: vectors agree with scalars") {
  for (Activation activation : all) {
    CAPTURE(static_cast<int>(activation));
    check_vectors_agree<float>(activation, 1e-6);
    check_vectors_agree<double>(activation, 1e-14);
  }
}

TEST_CASE("activation: an unknown value is refused") {
  CHECK_THROWS_AS(dispatch_activation(static_cast<Activation>(99), [](auto) {}), ConfigError);
}
