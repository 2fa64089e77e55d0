#pragma once
// The features of a whole data set.

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/core/shape.hpp>
#include <kindred/data/loader.hpp>
#include <kindred/eval/similarity.hpp>

namespace kindred::data {

/// Features with what is known of their images, in the order of the image list. Images that could
/// not be read are not in it.
struct FeatureTable {
  std::vector<float> values;  ///< [N, D]
  std::int64_t width = 0;     ///< D
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> cameras;  ///< empty if the list has none
  std::vector<std::int64_t> ids;      ///< positions in the image list

  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
  View<const float> features() const { return {values.data(), {size(), width}}; }
  /// For eval::evaluate_retrieval of one list against itself: the own image is excluded.
  eval::FeatureSet with_ids() const { return {features(), labels, cameras, ids}; }
  /// For a query list and another gallery list.
  eval::FeatureSet without_ids() const { return {features(), labels, cameras, {}}; }
};

/// Called after every batch with the number of images done and their total.
using FeatureProgress = std::function<void(std::size_t done, std::size_t total)>;

namespace detail {

/// features(images); of a batch of pixels, too, if it takes nothing but numbers.
template <class F>
View<const float> call_on_images(F& features, const Batch& batch, std::vector<float>& numbers) {
  if (batch.pixels.table == nullptr) return features(batch.images);
  if constexpr (std::is_invocable_v<F&, const PixelImages&>) {
    return features(batch.pixels);
  } else {
    const View<const std::uint8_t>& pixels = batch.pixels.pixels;
    numbers.resize(static_cast<std::size_t>(pixels.size()));
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = batch.pixels.table->at(pixels.data[i], i % 3);
    return features(View<const float>{numbers.data(), pixels.shape});
  }
}

}  // namespace detail

/// Runs `features(images)`, say of a Session, on every image of the loader's first epoch. It takes
/// a View<const float>, and may take PixelImages, too, if the loader has pixels.
/// Throws DataError if no image can be read.
template <class F>
FeatureTable extract_features(Loader& loader, F&& features, const FeatureProgress& progress = {}) {
  FeatureTable table;
  loader.start(0);
  Batch batch;
  std::vector<float> numbers;
  bool cameras = false;
  while (loader.next(batch)) {
    const View<const float> f = detail::call_on_images(features, batch, numbers);
    table.width = f.dim(1);
    table.values.insert(table.values.end(), f.begin(), f.end());
    table.labels.insert(table.labels.end(), batch.labels.begin(), batch.labels.end());
    table.cameras.insert(table.cameras.end(), batch.cameras.begin(), batch.cameras.end());
    for (std::size_t i : batch.indices) table.ids.push_back(static_cast<std::int64_t>(i));
    for (std::int64_t c : batch.cameras) cameras = cameras || c >= 0;
    if (progress) progress(table.labels.size(), loader.list().size());
  }
  if (table.labels.empty()) throw DataError("none of the images could be read");
  if (!cameras) table.cameras.clear();
  return table;
}

}  // namespace kindred::data
