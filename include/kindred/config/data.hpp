#pragma once
// Data sets, transforms and samplers described in YAML: the section DataLoader of PaddleClas.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <kindred/config/section.hpp>
#include <kindred/data/image_list.hpp>
#include <kindred/data/loader.hpp>
#include <kindred/data/pipeline.hpp>
#include <kindred/data/samplers.hpp>
#include <kindred/data/transforms.hpp>

namespace kindred::config {

namespace detail {

/// A number, or a list of (width, height) as PaddleClas has it.
inline data::ImageSize image_size(const Section& s, const std::string& key) {
  if (!s.is_list(key)) return s.get<int>(key);
  const auto sides = s.get<std::vector<int>>(key);
  if (sides.size() != 2) throw ConfigError(text(s.where(key), ": expected [width, height]"));
  data::ImageSize size;
  size.width = sides[0];
  size.height = sides[1];
  return size;
}

inline data::Interpolation interpolation(const Section& s) {
  using data::Interpolation;
  static const std::map<std::string, Interpolation> known = {{"nearest", Interpolation::nearest},
                                                             {"bilinear", Interpolation::bilinear},
                                                             {"area", Interpolation::area},
                                                             {"bicubic", Interpolation::bicubic},
                                                             {"lanczos", Interpolation::lanczos}};
  s.accept("backend");
  const auto name = s.get<std::string>("interpolation", "bilinear");
  const auto found = known.find(name);
  if (found == known.end())
    throw ConfigError(text(s.where("interpolation"), ": there is no ", name,
                           "; known: area, bicubic, bilinear, lanczos, nearest"));
  return found->second;
}

inline data::NormalizeImage normalize_image(const Section& s) {
  data::NormalizeImage n;
  if (s.has("scale")) {
    const auto scale = s.get<std::string>("scale");  // PaddleClas evaluates "1.0/255.0"
    n.scale = scale == "1.0/255.0" || scale == "1/255" || scale == "1./255."
                  ? 1.0 / 255.0
                  : s.get<double>("scale");
  }
  n.mean = array(s, "mean", n.mean);
  n.std = array(s, "std", n.std);
  s.accept("order");  // images are [H, W, C] here whatever the order
  return n;
}

inline data::RandomErasing random_erasing(const Section& s) {
  data::RandomErasing e;
  e.EPSILON = s.get("EPSILON", e.EPSILON);
  e.sl = s.get("sl", e.sl);
  e.sh = s.get("sh", e.sh);
  e.r1 = s.get("r1", e.r1);
  e.attempt = s.get("attempt", e.attempt);
  e.use_log_aspect = s.get("use_log_aspect", e.use_log_aspect);
  e.mean = array(s, "mean", e.mean);
  const auto mode = s.get<std::string>("mode", "const");
  if (mode == "rand")
    e.mode = data::RandomErasing::Mode::rand;
  else if (mode == "pixel")
    e.mode = data::RandomErasing::Mode::pixel;
  else if (mode != "const")
    throw ConfigError(text(s.where("mode"), ": ", mode, " is none of const, rand, pixel"));
  return e;
}

inline void add_transform(std::vector<data::Transform>& ops, const std::string& name,
                          const Section& s) {
  if (name == "DecodeImage" || name == "ToCHWImage") {
    // Decoding is the loader's; layout is [H, W, C] throughout.
    for (const char* key : {"to_rgb", "to_np", "channel_first", "backend"}) s.accept(key);
  } else if (name == "ResizeImage") {
    data::ResizeImage r;
    if (s.has("size")) r.size = image_size(s, "size");
    r.resize_short = s.get("resize_short", r.resize_short);
    r.interpolation = interpolation(s);
    s.accept("return_numpy");
    ops.emplace_back(r);
  } else if (name == "CropImage" || name == "CenterCrop") {
    ops.emplace_back(data::CropImage{.size = image_size(s, "size")});
  } else if (name == "RandCropImage") {
    data::RandCropImage r{.size = image_size(s, "size")};
    r.scale = array(s, "scale", r.scale);
    r.ratio = array(s, "ratio", r.ratio);
    r.use_log_aspect = s.get("use_log_aspect", r.use_log_aspect);
    r.interpolation = interpolation(s);
    ops.emplace_back(r);
  } else if (name == "RandFlipImage") {
    ops.emplace_back(data::RandFlipImage{.flip_code = s.get("flip_code", 1)});
  } else if (name == "NormalizeImage") {
    ops.emplace_back(normalize_image(s));
  } else if (name == "RandomErasing") {
    ops.emplace_back(random_erasing(s));
  } else {
    s.unknown_name(name, {"DecodeImage", "ResizeImage", "CropImage", "CenterCrop", "RandCropImage",
                          "RandFlipImage", "NormalizeImage", "RandomErasing", "ToCHWImage"});
  }
}

inline std::vector<data::Transform> transforms(const Section& dataset) {
  std::vector<data::Transform> ops;
  dataset.for_each("transform_ops", [&](const std::string& name, const Section& op) {
    add_transform(ops, name, op);
  });
  return ops;
}

inline data::ImageList image_list(const Section& s) {
  const auto name = s.get<std::string>("name");
  data::ImageList::Config c;
  if (name == "VeriWild")
    c.columns = data::Columns::path_label_camera;
  else if (name == "StanfordOnlineProducts")
    c.columns = data::Columns::stanford_online_products;
  else if (name != "ImageNetDataset")
    s.unknown_name(name, {"ImageNetDataset", "MixDataset", "VeriWild", "StanfordOnlineProducts"});
  c.image_root = s.get<std::string>("image_root", "");
  c.cls_label_path = s.get<std::string>("cls_label_path");
  c.delimiter = s.get("delimiter", c.delimiter);
  c.relabel = s.get("relabel", c.relabel);
  return data::ImageList(c);
}

/// A list, and of how many images its parts are: one, or those of PaddleClas' MixDataset.
struct DataSet {
  data::ImageList list;
  std::vector<std::size_t> parts;
};

/// MixDataset: {datasets_config: [{name, image_root, cls_label_path}, ...], transform_ops}: the
/// transforms are those of all, where PaddleClas has them in each; labels are not moved, as there.
inline DataSet data_set(const Section& s) {
  if (s.get<std::string>("name") != "MixDataset") {
    data::ImageList list = image_list(s);
    const std::size_t size = list.size();
    return {std::move(list), {size}};
  }
  std::vector<data::ImageList> lists;
  std::vector<std::size_t> parts;
  s.for_each_mapping("datasets_config", [&](const Section& one) {
    if (one.has("transform_ops"))
      throw ConfigError(text(one.where("transform_ops"),
                             ": the transforms of a MixDataset stand beside datasets_config"));
    lists.push_back(image_list(one));
    parts.push_back(lists.back().size());
  });
  return {data::ImageList::joined(lists), std::move(parts)};
}

inline data::PKSampler pk_sampler(const Section& s, std::size_t batch_size, bool part) {
  s.accept("shuffle");
  data::PKSampler pk{.batch_size = batch_size,
                     .sample_per_id = s.get<std::size_t>("sample_per_id"),
                     .drop_last = s.get("drop_last", true)};
  pk.sample_method = word(s, "sample_method",
                          {{"sample_avg_prob", data::SampleMethod::sample_avg_prob},
                           {"id_avg_prob", data::SampleMethod::id_avg_prob}},
                          pk.sample_method);
  if (part) return pk;  // there `ratio` is the share of the batch
  pk.id_list = s.get("id_list", pk.id_list);
  pk.ratio = s.get("ratio", pk.ratio);
  return pk;
}

/// super_label_path: a list of the same images whose labels are those of the super-classes; without
/// it they are in the data set's own list.
inline data::HierarchicalSampler hierarchical_sampler(const Section& s, std::size_t batch_size,
                                                      const data::ImageList& list) {
  s.accept("shuffle");
  data::HierarchicalSampler h;
  h.batch_size = batch_size;
  h.samples_per_class = s.get("samples_per_class", h.samples_per_class);
  h.batches_per_super_tuple = s.get("batches_per_super_tuple", h.batches_per_super_tuple);
  h.super_classes_per_batch = s.get("super_classes_per_batch", h.super_classes_per_batch);
  if (s.has("super_label_path")) {
    const data::ImageList supers(std::filesystem::path(s.get<std::string>("super_label_path")));
    for (std::size_t i = 0; i < std::min(supers.size(), list.size()); ++i)
      if (supers[i].path != list[i].path)
        throw DataError(text(s.where("super_label_path"), ": image ", i, " is ", supers[i].path,
                             ", in the data set it is ", list[i].path));
    h.super_labels = supers.labels();
    return h;
  }
  for (const data::Sample& sample : list.samples()) h.super_labels.push_back(sample.super_label);
  if (h.super_labels[0] < 0)
    throw ConfigError(text(s.where("super_label_path"), " is missing: the data set's list has no ",
                           "super-classes"));
  return h;
}

/// A sampler of one list; `part`: within a MixSampler.
inline data::Sampler sampler_of(const Section& s, const std::string& name, std::size_t batch_size,
                                const data::ImageList& list, bool part) {
  if (name == "DistributedBatchSampler" || name == "BatchSampler")
    return data::BatchSampler{.batch_size = batch_size,
                              .shuffle = s.get("shuffle", false),
                              .drop_last = s.get("drop_last", false)};
  if (name == "PKSampler") return pk_sampler(s, batch_size, part);
  if (name == "HierarchicalSampler") return hierarchical_sampler(s, batch_size, list);
  if (name == "DistributedRandomIdentitySampler") {
    s.accept("shuffle");
    s.accept("drop_last");
    return data::DistributedRandomIdentitySampler{
        .batch_size = batch_size,
        .num_instances = s.get<std::size_t>("num_instances"),
        .max_iters = s.get<std::size_t>("max_iters", 0)};
  }
  s.unknown_name(name, {"BatchSampler", "DistributedBatchSampler", "PKSampler", "MixSampler",
                        "HierarchicalSampler", "DistributedRandomIdentitySampler"});
}

/// MixSampler: {batch_size, sample_configs: [{name, ratio, ...}, ...], iter_per_epoch}: one for
/// each part of a MixDataset; the last one takes what the ratios leave of the batch.
inline data::Sampler mix_sampler(const Section& s, std::size_t batch_size, const DataSet& set) {
  data::MixSampler mix;
  mix.iter_per_epoch = s.get<std::size_t>("iter_per_epoch");
  std::size_t left = batch_size, first = 0;
  s.for_each_mapping("sample_configs", [&](const Section& one) {
    const std::size_t i = mix.parts.size();
    if (i == set.parts.size())
      throw ConfigError(text(s.where("sample_configs"), ": the data set has ", set.parts.size(),
                             " parts; name a MixDataset with one for each sampler"));
    const auto ratio = one.get<double>("ratio");
    if (!(ratio > 0 && ratio <= 1))
      throw ConfigError(text(one.where("ratio"), ": ", ratio, " is not in (0, 1]"));
    const auto share = static_cast<std::size_t>(static_cast<double>(batch_size) * ratio);
    const std::size_t own = i + 1 == set.parts.size() ? left : std::min(left, share);
    const auto& all = set.list.samples();
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
    const data::ImageList list(
        {}, std::vector<data::Sample>(begin, begin + static_cast<std::ptrdiff_t>(set.parts[i])));
    mix.parts.push_back(
        {sampler_of(one, one.get<std::string>("name"), own, list, true), set.parts[i]});
    left -= own;
    first += set.parts[i];
  });
  if (mix.parts.size() != set.parts.size())
    throw ConfigError(text(s.where("sample_configs"), ": ", mix.parts.size(), " samplers for ",
                           set.parts.size(), " parts of the data set"));
  return mix;
}

inline data::Sampler sampler(const Section& s, const DataSet& set) {
  const auto name = s.get<std::string>("name", "DistributedBatchSampler");
  const auto batch_size = s.get<std::size_t>("batch_size");
  if (name == "MixSampler") return mix_sampler(s, batch_size, set);
  return sampler_of(s, name, batch_size, set.list, false);
}

}  // namespace detail

/// Whether images that cannot be read are replaced (training) or left out (evaluation).
enum class Purpose { train, evaluate };

/// One part of DataLoader: dataset {name, image_root, cls_label_path, transform_ops} (or
/// MixDataset), sampler {name, batch_size, ...}, loader {num_workers, prefetch, cache_bytes}.
/// `image` is Global.image_shape, `allocate` makes the memory of batches; `pixels` where the device
/// normalises images and the transforms leave it to it. Throws ConfigError that names the key,
/// FileError and DataError of the list.
inline std::unique_ptr<data::Loader> loader(const Section& s, data::ImageSize image, Seed seed,
                                            Purpose purpose,
                                            decltype(data::LoaderConfig::allocate) allocate,
                                            bool pixels) {
  const Section dataset = s.section("dataset");
  detail::DataSet set = detail::data_set(dataset);
  std::vector<data::Transform> ops = detail::transforms(dataset);
  dataset.finish();
  const Section sampling = s.section("sampler");
  data::Sampler sampler = detail::sampler(sampling, set);
  sampling.finish();
  data::LoaderConfig config;
  config.allocate = allocate;
  config.on_unreadable =
      purpose == Purpose::train ? data::OnUnreadable::replace : data::OnUnreadable::drop;
  if (s.has("loader")) {
    const Section how = s.section("loader");
    config.num_workers = how.get("num_workers", config.num_workers);
    config.prefetch = how.get("prefetch", config.prefetch);
    config.cache_bytes = how.get("cache_bytes", config.cache_bytes);
    config.max_unreadable = how.get("max_unreadable", config.max_unreadable);
    how.accept("use_shared_memory");
    how.finish();
  }
  s.finish();
  data::Pipeline pipeline(image, std::move(ops));
  config.pixels = pixels && pipeline.ends_in_normalization();
  return std::make_unique<data::Loader>(std::move(set.list), std::move(sampler),
                                        std::move(pipeline), seed, config);
}

}  // namespace kindred::config
