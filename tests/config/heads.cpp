// Every margin head by its name in YAML, with each of its settings.

#include <kindred/config/heads.hpp>

#include "io/files.hpp"
#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::config;
using namespace kindred::test;

namespace {

constexpr std::int64_t batch = 24, dim = 4, classes = 5;

/// A head from YAML; throws ConfigError.
AnyHead::Config read(const std::string& name, const std::string& settings) {
  const Section s(YAML::Load("{" + settings + "}"), "Arch.Head");
  auto config = registered_head(name, s);
  s.finish();
  return config;
}

std::string refused(const std::string& name, const std::string& settings) {
  try {
    ParameterTable table;
    const AnyHead head(read(name, settings), Scope(table, "head"));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// Loss, gradients and statistics of one step.
std::vector<float> step(const AnyHead::Config& config) {
  ParameterTable table;
  const AnyHead head(config, Scope(table, "head"));
  const auto size = static_cast<std::int64_t>(table.trainable_size());
  const auto parameters = random_values<float>(size, 1);
  std::vector<float> statistics(static_cast<std::size_t>(table.buffer_size()));
  for (const ParameterInfo& p : table.entries())
    if (p.kind == ParameterKind::buffer)
      p.initializer.fill(View<float>{statistics.data() + p.offset, p.shape}, RandomKey{});
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < batch; ++i) labels.push_back(i % classes);
  const auto x = random_values<float>(batch * dim, 2, 20.0);
  std::vector<float> out(1), dx(x.size()), gradients(parameters.size());
  cpu::Context ctx(1);
  const Run<cpu::Context, float> run{.ctx = ctx,
                                     .parameters = parameters.data(),
                                     .statistics = statistics.data(),
                                     .new_statistics = statistics.data(),
                                     .gradients = gradients.data(),
                                     .training = true,
                                     .random = {7, 0, 1}};
  run_planned(ctx, [&] {
    head.margin_cross_entropy(run, view(x, {batch, dim}), view(labels, {batch}), 0.f, 1.f,
                              view(out, {1}), view(dx, {batch, dim}));
  });
  out.insert(out.end(), dx.begin(), dx.end());
  out.insert(out.end(), gradients.begin(), gradients.end());
  out.insert(out.end(), statistics.begin(), statistics.end());
  return out;
}

template <class Head>
std::vector<float> composed(typename Head::Config c) {
  c.embedding_size = dim;
  c.class_num = classes;
  return step(AnyHead::component<Head>(c));
}

const std::string sizes = "embedding_size: 4, class_num: 5";

/// The head from YAML has the bits of the one made in C++, with its defaults and with `settings`,
/// and each single setting moves them.
template <class Head>
void check(const typename Head::Config& other, const std::vector<std::string>& settings,
           const typename Head::Config& start = {}, const std::string& always = "") {
  INFO(Head::name());
  const std::string base = sizes + always;
  const auto defaults = step(read(Head::name(), base));
  std::string all = base;
  for (const std::string& setting : settings) {
    INFO(setting);
    const bool moved = step(read(Head::name(), base + ", " + setting)) != defaults;
    CHECK(moved);
    all += ", " + setting;
  }
  const bool same_defaults = defaults == composed<Head>(start);
  const bool same = step(read(Head::name(), all)) == composed<Head>(other);
  CHECK(same_defaults);
  CHECK(same);
  CHECK_THAT(refused(Head::name(), base + ", margn: 1"),
             ContainsSubstring("Arch.Head.margn: unknown key"));
}

}  // namespace

TEST_CASE("YAML: every margin head has the bits of the composed one, each setting is read") {
  CHECK(config::detail::head_registry().size() == 11);
  check<head::AdaMargin>({.m = 0.3, .h = 0.5, .s = 20, .t_alpha = 0.5},
                         {"m: 0.3", "h: 0.5", "s: 20", "t_alpha: 0.5"});
  check<head::CircleMargin>({.margin = 0.25, .scale = 30}, {}, {.margin = 0.25, .scale = 30},
                            ", margin: 0.25, scale: 30");
  check<head::CombinedMargin>(
      {.m1 = 1.2, .m2 = 0.1, .m3 = 0.05, .scale = 20, .gradient = GradientMode::straight_through},
      {"m1: 1.2", "m2: 0.1", "m3: 0.05", "scale: 20", "gradient: straight_through"});
  check<head::CosMargin>({.margin = 0.2, .scale = 20}, {"margin: 0.2", "scale: 20"});
  check<head::CurricularMargin>({.margin = 0.2, .scale = 20, .t_alpha = 0.5},
                                {"margin: 0.2", "scale: 20", "t_alpha: 0.5"});
  check<head::ElasticMargin>(
      {.margin = 0.2, .sigma = 0.1, .scale = 20, .form = MarginForm::cosine, .plus = true},
      {"margin: 0.2", "sigma: 0.1", "scale: 20", "form: cosine", "plus: true"});
  check<head::MagMargin>(
      {.l_a = 2, .u_a = 90, .l_margin = 0.1, .u_margin = 0.6, .scale = 20, .easy_margin = true},
      {"l_a: 2", "u_a: 90", "l_margin: 0.1", "u_margin: 0.6", "scale: 20", "easy_margin: true"});
  check<head::NormFace>({.scale = 30}, {"scale: 30"});
  check<head::SphereFace>({.margin = 2, .scale = 20, .gradient = GradientMode::straight_through},
                          {"margin: 2", "scale: 20", "gradient: straight_through"});
  check<head::SubCenterArcMargin>(
      {.sub_centers = 2, .margin = 0.2, .scale = 20, .easy_margin = true},
      {"sub_centers: 2", "margin: 0.2", "scale: 20", "easy_margin: true"});
}

TEST_CASE("YAML: DynamicMargin takes its class counts as a list") {
  head::DynamicMargin::Config start, other;
  start.class_counts = other.class_counts = {1, 10, 100, 1000, 3};
  other.a = 0.7;
  other.lambda = 0.5;
  other.b = 0.1;
  other.sub_centers = 2;
  other.scale = 20;
  check<head::DynamicMargin>(other,
                             {"a: 0.7", "lambda: 0.5", "b: 0.1", "sub_centers: 2", "scale: 20"},
                             start, ", class_counts: [1, 10, 100, 1000, 3]");
  CHECK(refused("DynamicMargin", sizes) == "Arch.Head.class_counts is missing");
  CHECK(refused("DynamicMargin", sizes + ", class_counts: [1, 2]") ==
        "head.DynamicMargin: class_counts must have one count for each class, got 2");
  CHECK(refused("DynamicMargin", sizes + ", class_counts: many") ==
        "Arch.Head.class_counts: \"many\" is not a list of the right kind");
}

TEST_CASE("YAML: DynamicMargin counts the classes of an image list") {
  TemporaryFolder folder;
  write_bytes(folder / "train.txt", "a.png 0\nb.png 2\nc.png 2\nd.png 4\ne.png 2\n");
  write_bytes(folder / "tabs.txt", "a.png\t7\nb.png\t9\nc.png\t9\n");
  const std::string file = (folder / "train.txt").string(), tabs = (folder / "tabs.txt").string();
  head::DynamicMargin::Config config;
  config.class_counts = {1, 1, 3, 1, 1};
  bool same = step(read("DynamicMargin", sizes + ", cls_label_path: " + file)) ==
              composed<head::DynamicMargin>(config);
  CHECK(same);
  config.class_counts = {1, 2, 1, 1, 1};
  same = step(read("DynamicMargin",
                   sizes + ", relabel: True, delimiter: \"\\t\", cls_label_path: " + tabs)) ==
         composed<head::DynamicMargin>(config);
  CHECK(same);
  CHECK_THROWS_WITH(
      read("DynamicMargin", "embedding_size: 4, class_num: 3, cls_label_path: " + file),
      ContainsSubstring("head.DynamicMargin: label 4 is not below class_num 3"));
}

TEST_CASE("YAML: a head without its sizes, with a wrong name or a wrong word is refused") {
  CHECK(refused("CosMargin", "class_num: 5") == "Arch.Head.embedding_size is missing");
  CHECK(refused("NormFace", "embedding_size: 4") == "Arch.Head.class_num is missing");
  CHECK(refused("CircleMargin", sizes) == "Arch.Head.margin is missing");
  CHECK(refused("ElasticMargin", sizes + ", form: arc") ==
        "Arch.Head.form: \"arc\" is none of angle, cosine");
  CHECK_THAT(refused("SphereFaces", sizes),
             ContainsSubstring("Arch.Head: there is no SphereFaces (did you mean SphereFace?)"));
}

TEST_CASE("YAML: a program's own head is registered under its name") {
  register_head("Mine", [](const Section& s) {
    return AnyHead::component<head::NormFace>(
        {s.get<std::int64_t>("in"), s.get<std::int64_t>("out"), 12});
  });
  const bool same = step(read("Mine", "in: 4, out: 5")) == composed<head::NormFace>({.scale = 12});
  CHECK(same);
  config::detail::head_registry().erase("Mine");
}
