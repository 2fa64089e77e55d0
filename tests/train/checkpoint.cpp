// Checkpoints that are damaged, hostile or of another run: one error each, and nothing is changed.

#include <cmath>
#include <cstring>
#include <limits>

#include "train/small_run.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

using Moments = std::vector<std::vector<float>>;

const train::Position somewhere{.epoch = 3,
                                .batch = 2,
                                .step = 17,
                                .best_metric = 0.1 + 0.2,
                                .best_epoch = 2,
                                .scores = {-1.0 / 7, 0.1 + 0.2},
                                .log_batches = 4,
                                .log_losses = {1.0 / 3, -2e-17}};

/// A model with moments, and a checkpoint of it.
struct Saved {
  TemporaryFolder folder;
  SmallModel model{small_config(), Seed{4}};
  Moments moments{std::vector<float>(model.trainable().size(), 0.25f)};

  Saved() { train::save_checkpoint(path(), model, moments, "Momentum", somewhere); }
  std::filesystem::path path() const { return folder / "latest.safetensors"; }
};

/// `file` with the first `from` of its header replaced.
std::string with_header(const std::string& file, const std::string& from, const std::string& to) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  std::string header = file.substr(8, length);
  const std::string rest = file.substr(8 + length);
  const auto at = header.find(from);
  REQUIRE(at != std::string::npos);
  header.replace(at, from.size(), to);
  length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return out + header + rest;
}

/// The error of loading `bytes` into another model; checks that model and moments are unchanged.
template <class Model>
std::string refusal(const std::filesystem::path& path, Model& model, Moments moments,
                    const std::string& optimizer = "Momentum") {
  const std::vector<float> parameters(model.trainable().begin(), model.trainable().end());
  const std::vector<float> statistics(model.statistics().begin(), model.statistics().end());
  const Moments before = moments;
  std::string message = "nothing was thrown";
  try {
    train::load_checkpoint(path, model, moments, optimizer);
  } catch (const FileError& e) {
    message = e.what();
  }
  CHECK(std::equal(parameters.begin(), parameters.end(), model.trainable().begin()));
  CHECK(std::equal(statistics.begin(), statistics.end(), model.statistics().begin()));
  CHECK(moments == before);
  return message;
}

}  // namespace

TEST_CASE("checkpoint: everything comes back to the bit") {
  Saved saved;
  SmallModel other(small_config(), Seed{4});
  for (float& p : other.trainable()) p += 1;
  for (float& s : other.statistics()) s += 1;
  Moments moments(1, std::vector<float>(other.trainable().size()));
  const train::Position at = train::load_checkpoint(saved.path(), other, moments, "Momentum");
  CHECK(at.epoch == somewhere.epoch);
  CHECK(at.batch == somewhere.batch);
  CHECK(at.step == somewhere.step);
  CHECK(at.best_metric == somewhere.best_metric);
  CHECK(at.best_epoch == somewhere.best_epoch);
  CHECK(at.scores == somewhere.scores);
  CHECK(at.log_batches == somewhere.log_batches);
  CHECK(at.log_losses == somewhere.log_losses);
  CHECK(moments == saved.moments);
  for (const ParameterInfo& p : other.parameters().entries()) {
    const auto a = other.parameter(p.name), b = saved.model.parameter(p.name);
    CHECK(std::equal(a.begin(), a.end(), b.begin()));
  }
}

TEST_CASE("checkpoint: of another run") {
  Saved saved;
  const Moments moments(1, std::vector<float>(saved.model.trainable().size(), 1.f));
  SECTION("another model") {
    SmallModel other(small_config(16), Seed{4});
    CHECK_THAT(
        refusal(saved.path(), other, Moments(1, std::vector<float>(other.trainable().size(), 1.f))),
        ContainsSubstring("latest.safetensors"));
  }
  SECTION("another optimizer") {
    SmallModel other(small_config(), Seed{4});
    CHECK_THAT(refusal(saved.path(), other, moments, "AdamW"),
               ContainsSubstring("its optimizer is Momentum, this run has AdamW; resume with the "
                                 "settings it was made with"));
  }
  SECTION("another seed") {
    SmallModel other(small_config(), Seed{5});
    CHECK_THAT(refusal(saved.path(), other, moments),
               ContainsSubstring("its seed is 4, this run has 5"));
  }
}

TEST_CASE("checkpoint: damaged or hostile") {
  Saved saved;
  const std::string bytes = read_bytes(saved.path());
  SmallModel model(small_config(), Seed{4});
  for (float& p : model.trainable()) p += 1;
  const Moments moments(1, std::vector<float>(model.trainable().size(), 1.f));
  const auto path = saved.folder / "damaged.safetensors";
  const auto refused = [&](const std::string& content) {
    write_bytes(path, content);
    return refusal(path, model, moments);
  };
  CHECK_THAT(refused(with_header(bytes, "kindred.checkpoint.2", "kindred.checkpoint.1")),
             ContainsSubstring("its format is kindred.checkpoint.1, this run has"));
  CHECK_THAT(refused(with_header(bytes, "\"step\":\"17\"", "\"stop\":\"17\"")),
             ContainsSubstring("no \"step\" in its metadata"));
  for (const char* step : {"", "-1", "1e300", "nan", "17x", "99999999999999999999", "0x11", "1 2"})
    CHECK_THAT(refused(with_header(bytes, "\"step\":\"17\"", text("\"step\":\"", step, "\""))),
               ContainsSubstring("\"step\" in its metadata is"));
  CHECK_THAT(refused(with_header(bytes, "\"best_metric\":\"0.3", "\"best_metric\":\"x0.3")),
             ContainsSubstring("\"best_metric\" in its metadata is"));
  CHECK_THAT(refused(with_header(bytes, "\"log_losses\":\"", "\"log_losses\":\"7 ")),
             ContainsSubstring("\"log_losses\" in its metadata is"));
  CHECK_THAT(refused(with_header(bytes, "\"scores\":\"", "\"scores\":\"nan ")),
             ContainsSubstring("\"scores\" in its metadata is"));
  for (std::size_t length :
       {std::size_t{0}, std::size_t{5}, std::size_t{200}, bytes.size() / 2, bytes.size() - 1})
    CHECK_THAT(refused(bytes.substr(0, length)), ContainsSubstring("damaged.safetensors"));
  std::string terabytes = bytes;
  const std::uint64_t claim = std::uint64_t{5} << 40;
  std::memcpy(terabytes.data(), &claim, sizeof claim);
  CHECK_THAT(refused(terabytes), ContainsSubstring("its header claims 5497558138880 bytes"));
  CHECK_THAT(refused("label: 3\n"), ContainsSubstring("damaged.safetensors"));
  CHECK_THAT(refusal(saved.folder / "absent.safetensors", model, moments),
             ContainsSubstring("absent.safetensors"));

  std::string infinite = bytes;  // the moments are the last tensor
  const float value = std::numeric_limits<float>::infinity();
  std::memcpy(infinite.data() + infinite.size() - sizeof value, &value, sizeof value);
  CHECK_THAT(refused(infinite), ContainsSubstring("the state of the optimizer is not finite"));
}

TEST_CASE("checkpoint: a weight that is not finite is named") {
  Saved saved;
  saved.model.parameter("neck.fc.weight")[5] = NAN;
  train::save_checkpoint(saved.path(), saved.model, saved.moments, "Momentum", somewhere);
  SmallModel model(small_config(), Seed{4});
  Moments moments(1, std::vector<float>(model.trainable().size(), 1.f));
  CHECK_THROWS_WITH(train::load_checkpoint(saved.path(), model, moments, "Momentum"),
                    ContainsSubstring("neck.fc.weight"));
  CHECK(moments[0][0] == 1.f);
}

TEST_CASE("checkpoint: random damage is an error or a readable file, never a crash") {
  Saved saved;
  SmallModel model(small_config(), Seed{4});
  Moments moments(1, std::vector<float>(model.trainable().size()));
  // Mutations hit the header: the weights behind it would take them all otherwise.
  const std::string bytes = read_bytes(saved.path());
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  const std::string head = bytes.substr(0, 8 + length), weights = bytes.substr(8 + length);
  RandomSequence random({11, 31, 0});
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    write_bytes(saved.path(), mutated(head, random) + weights);
    try {
      train::load_checkpoint(saved.path(), model, moments, "Momentum");
    } catch (const FileError&) {
      ++refused;
    } catch (const NumericError&) {
      ++refused;
    }
  }
  CHECK(refused > 300);
  write_bytes(saved.path(), bytes);
  CHECK(train::load_checkpoint(saved.path(), model, moments, "Momentum").step == 17);
}
