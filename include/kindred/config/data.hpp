#pragma once
// Data sets, transforms and samplers described in YAML: the section DataLoader of PaddleClas.

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
    s.unknown_name(name, {"ImageNetDataset", "VeriWild", "StanfordOnlineProducts"});
  c.image_root = s.get<std::string>("image_root", "");
  c.cls_label_path = s.get<std::string>("cls_label_path");
  c.delimiter = s.get("delimiter", c.delimiter);
  c.relabel = s.get("relabel", c.relabel);
  return data::ImageList(c);
}

inline data::Sampler sampler(const Section& s) {
  const auto name = s.get<std::string>("name", "DistributedBatchSampler");
  const auto batch_size = s.get<std::size_t>("batch_size");
  if (name == "DistributedBatchSampler" || name == "BatchSampler")
    return data::BatchSampler{.batch_size = batch_size,
                              .shuffle = s.get("shuffle", false),
                              .drop_last = s.get("drop_last", false)};
  if (name == "PKSampler") {
    s.accept("shuffle");
    data::PKSampler pk{.batch_size = batch_size,
                       .sample_per_id = s.get<std::size_t>("sample_per_id"),
                       .drop_last = s.get("drop_last", true)};
    const auto method = s.get<std::string>("sample_method", "sample_avg_prob");
    if (method == "id_avg_prob")
      pk.sample_method = data::SampleMethod::id_avg_prob;
    else if (method != "sample_avg_prob")
      throw ConfigError(text(s.where("sample_method"), ": ", method,
                             " is neither sample_avg_prob nor id_avg_prob"));
    pk.id_list = s.get("id_list", pk.id_list);
    pk.ratio = s.get("ratio", pk.ratio);
    return pk;
  }
  if (name == "DistributedRandomIdentitySampler") {
    s.accept("shuffle");
    s.accept("drop_last");
    return data::DistributedRandomIdentitySampler{
        .batch_size = batch_size,
        .num_instances = s.get<std::size_t>("num_instances"),
        .max_iters = s.get<std::size_t>("max_iters", 0)};
  }
  s.unknown_name(name, {"BatchSampler", "DistributedBatchSampler", "PKSampler",
                        "DistributedRandomIdentitySampler"});
}

}  // namespace detail

/// Whether images that cannot be read are replaced (training) or left out (evaluation).
enum class Purpose { train, evaluate };

/// One part of DataLoader: dataset {name, image_root, cls_label_path, transform_ops}, sampler
/// {name, batch_size, ...}, loader {num_workers, prefetch, cache_bytes}. `image` is
/// Global.image_shape, `allocate` makes the memory of batches; `pixels` where the device normalises
/// images and the transforms leave it to it. Throws ConfigError that names the
/// key, FileError and DataError of the list.
inline std::unique_ptr<data::Loader> loader(const Section& s, data::ImageSize image, Seed seed,
                                            Purpose purpose,
                                            decltype(data::LoaderConfig::allocate) allocate,
                                            bool pixels) {
  const Section dataset = s.section("dataset");
  data::ImageList list = detail::image_list(dataset);
  std::vector<data::Transform> ops = detail::transforms(dataset);
  dataset.finish();
  const Section sampling = s.section("sampler");
  data::Sampler sampler = detail::sampler(sampling);
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
  return std::make_unique<data::Loader>(std::move(list), std::move(sampler), std::move(pipeline),
                                        seed, config);
}

}  // namespace kindred::config
