// The index of components, include/kindred/README.md, names every component and no file that is
// not there.

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace fs = std::filesystem;
const fs::path root = KINDRED_SOURCE;
const fs::path headers = root / "include" / "kindred";

std::string read(const fs::path& path) {
  std::ifstream in(path);
  REQUIRE(in.good());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// What stands between backquotes.
std::set<std::string> in_backquotes(const std::string& text) {
  static const std::regex quotes("`([^`\n]+)`");
  std::set<std::string> names;
  for (std::sregex_iterator i(text.begin(), text.end(), quotes), end; i != end; ++i)
    names.insert((*i)[1]);
  return names;
}

}  // namespace

TEST_CASE("the index of components has every header of theirs") {
  const auto named = in_backquotes(read(headers / "README.md"));
  std::size_t count = 0;
  for (const char* folder : {"backbone", "neck", "head", "loss", "miner", "optim", "lr"})
    for (const auto& entry : fs::directory_iterator(headers / folder)) {
      if (entry.path().extension() != ".hpp") continue;
      const std::string name = folder + ("/" + entry.path().filename().string());
      INFO(name << " is missing in include/kindred/README.md");
      CHECK(named.count(name) == 1);
      ++count;
    }
  CHECK(count > 70);
}

TEST_CASE("the index of components names files that exist") {
  std::istringstream lines(read(headers / "README.md"));
  std::size_t rows = 0;
  for (std::string line; std::getline(lines, line);) {
    for (const std::string& name : in_backquotes(line)) {
      if (!name.ends_with(".hpp") && !name.ends_with(".cpp")) continue;
      INFO(name);
      CHECK(fs::exists((name.starts_with("tests/") ? root : headers) / name));
    }
    // | name | header | source | checked against | differences |
    std::vector<std::string> cells;
    static const std::regex bar(R"(\\\||\|)");
    std::size_t begin = 0;
    for (std::sregex_iterator i(line.begin(), line.end(), bar), end; i != end; ++i) {
      if ((*i).str() != "|") continue;
      const auto at = static_cast<std::size_t>((*i).position());
      cells.push_back(line.substr(begin, at - begin));
      begin = at + 1;
    }
    if (cells.size() != 6 || in_backquotes(cells[2]).empty()) continue;
    ++rows;
    INFO(line);
    CHECK(in_backquotes(cells[2]).size() == 1);
    const auto proofs = in_backquotes(cells[4]);
    CHECK_FALSE(proofs.empty());
    for (const std::string& name : proofs)
      if (!name.ends_with(".cpp") && !name.ends_with(".cu"))
        CHECK(fs::exists(root / "tests" / "fixtures" / (name + ".safetensors")));
  }
  CHECK(rows > 90);
}

TEST_CASE("the README of the fixtures names every fixture") {
  const fs::path fixtures = root / "tests" / "fixtures";
  const auto named = in_backquotes(read(fixtures / "README.md"));
  for (const auto& entry : fs::directory_iterator(fixtures)) {
    const fs::path& path = entry.path();
    if (path.extension() != ".safetensors") continue;
    INFO(path.filename().string());
    CHECK(named.count(path.stem().string()) == 1);
  }
}
