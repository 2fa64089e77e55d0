// Margin heads against the code that their papers published.

#include <kindred/head/ada_margin.hpp>
#include <kindred/head/curricular_margin.hpp>
#include <kindred/head/elastic_margin.hpp>
#include <kindred/head/mag_margin.hpp>

#include "support/paper_heads.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// ElasticMargin with margins given from outside.
template <class T>
struct GivenMarginsPolicy : ElasticMarginPolicy<T> {
  const std::vector<double>* margins;

  GivenMarginsPolicy(const std::vector<double>& of_rows, double s, MarginForm f)
      : ElasticMarginPolicy<T>(0, 0, s, f, {}), margins(&of_rows) {}
  void begin_row(const MarginSample<T>& sample, T* row) const {
    row[0] = static_cast<T>((*margins)[static_cast<std::size_t>(sample.row)]);
  }
};

class GivenMargins : public head::MarginHead<GivenMargins> {
 public:
  struct Config {
    std::int64_t embedding_size = 0, class_num = 0;
    std::vector<double> margins;
    double scale = 64;
    MarginForm form = MarginForm::angle;
  };
  static constexpr const char* name() { return "GivenMargins"; }

  GivenMargins(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num, scope), config_(config) {}

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return GivenMarginsPolicy<T>(config_.margins, config_.scale, config_.form);
  }

 private:
  Config config_;
};

}  // namespace

TEMPLATE_TEST_CASE("parity: CurricularFace", "", double, float) {
  for (const char* name : {"curricular", "curricular_soft"}) {
    const Fixture one = paper(name);
    check_case<head::CurricularMargin, TestType>(name, {.margin = one.attribute("margin"),
                                                        .scale = one.attribute("scale"),
                                                        .t_alpha = one.attribute("t_alpha")});
  }
}

TEMPLATE_TEST_CASE("parity: ElasticFace, with the margins that ElasticMargin draws", "", double,
                   float) {
  for (const auto& [name, form] : {std::pair{"elastic_arc", MarginForm::angle},
                                   std::pair{"elastic_cos", MarginForm::cosine}}) {
    const Fixture one = paper(name);
    check_case<head::ElasticMargin, TestType>(name, {.margin = one.attribute("margin"),
                                                     .sigma = one.attribute("sigma"),
                                                     .scale = one.attribute("scale"),
                                                     .form = form});
  }
}

TEST_CASE("parity: ElasticFace+ has the margins of ElasticFace in another order") {
  for (const std::string name : {"elastic_arc", "elastic_cos"}) {
    auto plain = paper(name.c_str()).stored<double>("in.margins");
    auto plus = paper((name + "_plus").c_str()).stored<double>("in.margins");
    CHECK(plain != plus);
    std::sort(plain.begin(), plain.end());
    std::sort(plus.begin(), plus.end());
    for (std::size_t i = 0; i < plus.size(); ++i) CHECK(plus[i] == Approx(plain[i]).epsilon(1e-9));
  }
}

TEST_CASE("parity: ElasticFace with any margins, those of its \"plus\" among them") {
  for (const auto& [name, form] :
       {std::pair{"elastic_arc", MarginForm::angle}, std::pair{"elastic_cos", MarginForm::cosine},
        std::pair{"elastic_arc_plus", MarginForm::angle},
        std::pair{"elastic_cos_plus", MarginForm::cosine}}) {
    const Fixture one = paper(name);
    check_case<GivenMargins, double>(name, {.margins = one.stored<double>("in.margins"),
                                            .scale = one.attribute("scale"),
                                            .form = form});
  }
}

TEMPLATE_TEST_CASE("parity: MagFace", "", double, float) {
  for (const char* name : {"mag", "mag_easy"}) {
    const Fixture one = paper(name);
    CHECK(one.number("out.loss") == Approx(one.number("out.magnitude_loss")).epsilon(1e-12));
    check_case<head::MagMargin, TestType>(name, {.l_a = one.attribute("l_a"),
                                                 .u_a = one.attribute("u_a"),
                                                 .l_margin = one.attribute("l_margin"),
                                                 .u_margin = one.attribute("u_margin"),
                                                 .scale = one.attribute("scale"),
                                                 .easy_margin = one.attribute("easy_margin") != 0});
  }
}

TEMPLATE_TEST_CASE("parity: AdaFace", "", double, float) {
  const Fixture one = paper("ada");
  check_case<head::AdaMargin, TestType>("ada", {.m = one.attribute("m"),
                                                .h = one.attribute("h"),
                                                .s = one.attribute("s"),
                                                .t_alpha = one.attribute("t_alpha")});
}
