// Matrix products of the sizes networks have, against Eigen, oneDNN and the FMA rate of the cores.
//   build/benchmarks/gemm [--threads 2] [--rounds 5] [--only 1568]
// Prints a Markdown table of GFLOP/s: medians of interleaved rounds in one process.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include <kindred/kernels/cpu/gemm.hpp>

#include "limits.hpp"
#include "support.hpp"

#ifdef KINDRED_WITH_DNNL
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace {

using namespace kindred;
using benchmarks::number;

struct Settings {
  int threads = cpu::available_processors(), rounds = 5;
  std::string only;
};

/// C [M,N] = op(A) [M,K] op(B) [K,N].
struct Problem {
  std::int64_t m, n, k;
  Transpose ta = Transpose::no, tb = Transpose::no;

  std::int64_t lda() const { return ta == Transpose::no ? k : m; }
  std::int64_t ldb() const { return tb == Transpose::no ? n : k; }
  double flops() const { return 2.0 * static_cast<double>(m * n * k); }
  std::string name() const {
    return text(m, " x ", n, " x ", k, ta == Transpose::yes ? ", A transposed" : "",
                tb == Transpose::yes ? ", B transposed" : "");
  }
};

constexpr auto no = Transpose::no, yes = Transpose::yes;
const Problem problems[] = {
    {1152, 1152, 1152},
    {49, 512, 512},    // batch 1, 7 x 7
    {196, 256, 256},   // batch 1, 14 x 14
    {784, 128, 128},   // batch 1, 28 x 28
    {1568, 512, 512},  // batch 32, 7 x 7
    {1568, 1280, 1280},
    {6272, 256, 256},  // batch 32, 14 x 14
    {6272, 640, 320},
    {25088, 128, 128},          // batch 32, 28 x 28
    {100352, 64, 64},           // batch 32, 56 x 56
    {401408, 32, 16},           // batch 32, 112 x 112
    {6272, 256, 256, no, yes},  // their gradients
    {256, 256, 6272, yes, no},
    {1280, 1280, 1568, yes, no},
    {64, 64, 100352, yes, no},
    {64, 4096, 512, no, yes},  // a tile of classes of a margin head, and its gradients
    {64, 512, 4096},
    {4096, 512, 64, yes, no},
};

struct Arrays {
  std::vector<float> a, b, c;
  explicit Arrays(const Problem& p)
      : a(static_cast<std::size_t>(p.m * p.k), 0.5f),
        b(static_cast<std::size_t>(p.k * p.n), 0.25f),
        c(static_cast<std::size_t>(p.m * p.n)) {}
};

void eigen_gemm(const Problem& p, Arrays& x) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<Matrix> a(x.a.data(), p.ta == no ? p.m : p.k, p.lda());
  const Eigen::Map<Matrix> b(x.b.data(), p.tb == no ? p.k : p.n, p.ldb());
  Eigen::Map<Matrix> c(x.c.data(), p.m, p.n);
  if (p.ta == no && p.tb == no)
    c.noalias() = a * b;
  else if (p.ta == no)
    c.noalias() = a * b.transpose();
  else
    c.noalias() = a.transpose() * b;
}

#ifdef KINDRED_WITH_DNNL
void dnnl_gemm(const Problem& p, Arrays& x) {
  dnnl_sgemm(p.ta == no ? 'N' : 'T', p.tb == no ? 'N' : 'T', p.m, p.n, p.k, 1.0f, x.a.data(),
             p.lda(), x.b.data(), p.ldb(), 0.0f, x.c.data(), p.n);
}
#endif

/// Prints the row of one product; returns its share of the peak and its ratios to the peers.
std::vector<double> compare(const Problem& p, const Settings& s) {
  Arrays x(p);
  cpu::Context ctx(s.threads);
  double peak_flops = 0;
  std::vector<std::function<void()>> contestants{
      [&] { peak_flops = benchmarks::multiply_adds(ctx); },
      benchmarks::planned(ctx,
                          [&] {
                            cpu::gemm(ctx, p.ta, p.tb, p.m, p.n, p.k, x.a.data(), p.lda(),
                                      x.b.data(), p.ldb(), x.c.data(), p.n, false);
                          }),
      [&] { eigen_gemm(p, x); }};
#ifdef KINDRED_WITH_DNNL
  contestants.push_back([&] { dnnl_gemm(p, x); });
#endif
  const std::vector<double> seconds = benchmarks::interleaved(contestants, 1, s.rounds);
  const double peak = peak_flops / seconds[0], own = p.flops() / seconds[1];
  std::vector<std::string> cells{p.name(), number(1e-9 * peak, 0), number(1e-9 * own, 0),
                                 number(100 * own / peak, 0)};
  std::vector<double> ratios{own / peak};
  for (std::size_t i = 2; i < seconds.size(); ++i) {
    ratios.push_back(seconds[i] / seconds[1]);
    cells.push_back(number(1e-9 * p.flops() / seconds[i], 0));
    cells.push_back(number(ratios.back(), 2));
  }
  benchmarks::print_row(cells);
  return ratios;
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  CLI::App app("Matrix products against Eigen, oneDNN and the FMA peak: a Markdown table");
  app.add_option("--threads", s.threads)->check(CLI::Range(1, 1024));
  app.add_option("--rounds", s.rounds)->check(CLI::Range(1, 1000));
  app.add_option("--only", s.only, "products whose name has this text");
  CLI11_PARSE(app, argc, argv);
  benchmarks::set_peer_threads(s.threads);

  std::vector<std::string> header{"M x N x K", "FMA peak, GFLOP/s", "kindred", "% of peak",
                                  "Eigen",     "times Eigen"};
#ifdef KINDRED_WITH_DNNL
  header.insert(header.end(), {"oneDNN", "times oneDNN"});
#endif
  benchmarks::print_header(header);
  std::vector<std::vector<double>> columns(header.size() / 2 - 1);
  for (const Problem& p : problems) {
    if (p.name().find(s.only) == std::string::npos) continue;
    const std::vector<double> ratios = compare(p, s);
    for (std::size_t i = 0; i < ratios.size(); ++i) columns[i].push_back(ratios[i]);
  }
  if (columns[0].empty()) {
    std::fprintf(stderr, "no product has \"%s\" in its name\n", s.only.c_str());
    return 1;
  }
  std::vector<std::string> mean{"geometric mean", "", ""};
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (i > 0) mean.push_back("");
    mean.push_back(
        number((i == 0 ? 100 : 1) * benchmarks::geometric_mean(columns[i]), i == 0 ? 0 : 2));
  }
  benchmarks::print_row(mean);
  std::printf("\n%d threads, medians of %d interleaved rounds, the best one of the peak.\n",
              s.threads, s.rounds);
}
